/** The vision model: a picture from a file, dropped, or from the camera, cut to a square and classified. */

import type { Engine, EngineVisionModel } from 'matmamba/browser';
import { IMAGENET_DEVIATION, IMAGENET_MEAN, normalisePixels } from '../src/vision/normalise.ts';
import { byId, el } from './dom.ts';
import type { DeviceChoice } from './settings.ts';

const CONFIG = { dModel: 128, nLayer: 6, imageSize: 64, patchSize: 8, nClasses: 10 };
const SEED = 7;
const LEVELS = [1, 2, 4, 8];
const SHOWN = 5;
/** Between two looks of the camera. */
const CAMERA_MS = 400;

export class VisionPanel {
  readonly #engine: Engine;
  readonly #choice: () => DeviceChoice;
  readonly #onProblem: (error: unknown) => void;
  readonly #canvas = el('canvas', {
    width: CONFIG.imageSize,
    height: CONFIG.imageSize,
    role: 'img',
    'aria-label': 'No picture yet',
  });
  readonly #video = el('video', { muted: true, playsinline: true, hidden: true });
  readonly #results = el('ol', { class: 'results', 'aria-label': 'Classes by probability' });
  readonly #status = el('p', { class: 'hint', role: 'status' }, 'Choose a picture, drop one here, or use the camera.');
  readonly #camera = el('button', { type: 'button' }, 'Use the camera');
  readonly #pixels = new Float32Array(3 * CONFIG.imageSize ** 2);
  #model: Promise<EngineVisionModel> | undefined;
  #level = 1;
  #hasPicture = false;
  #stream: MediaStream | undefined;

  constructor(engine: Engine, choice: () => DeviceChoice, onProblem: (error: unknown) => void) {
    this.#engine = engine;
    this.#choice = choice;
    this.#onProblem = onProblem;
    const file = el('input', { type: 'file', accept: 'image/*', id: 'picture', class: 'visually-hidden' });
    file.addEventListener('change', () => this.#take(file.files?.[0]));
    const drop = el(
      'div',
      { class: 'drop' },
      this.#canvas,
      el(
        'div',
        { class: 'drop-side' },
        this.#status,
        el('div', { class: 'buttons' }, file, el('label', { for: 'picture', class: 'button' }, 'Choose a picture'), this.#camera),
        this.#levels(),
      ),
    );
    drop.addEventListener('dragover', (event) => {
      event.preventDefault();
      drop.toggleAttribute('data-over', true);
    });
    drop.addEventListener('dragleave', () => drop.toggleAttribute('data-over', false));
    drop.addEventListener('drop', (event) => {
      event.preventDefault();
      drop.toggleAttribute('data-over', false);
      this.#take(event.dataTransfer?.files[0]);
    });
    this.#camera.addEventListener('click', () => void this.#toggleCamera());
    byId('vision').append(drop, this.#results, this.#video);
  }

  /** The device was changed: the next picture loads the model there. */
  reset(): void {
    void this.#model?.then((model) => model.dispose()).catch(() => {});
    this.#model = undefined;
    if (this.#hasPicture) this.#classify();
  }

  #levels(): HTMLElement {
    const group = el('fieldset', { class: 'segments' }, el('legend', {}, 'Level'));
    for (const level of LEVELS) {
      const input = el('input', { type: 'radio', name: 'vision-level', value: level, checked: level === this.#level });
      input.addEventListener('change', () => {
        this.#level = level;
        if (this.#hasPicture) this.#classify();
      });
      group.append(el('label', {}, input, el('span', {}, String(level))));
    }
    return group;
  }

  #take(file: File | undefined): void {
    if (!file) return;
    this.#stopCamera();
    createImageBitmap(file).then(
      (picture) => {
        this.#draw(picture, picture.width, picture.height);
        this.#canvas.setAttribute('aria-label', `The picture ${file.name}`);
        this.#classify();
      },
      () => {
        this.#status.textContent = `${file.name} is no picture that this browser reads.`;
      },
    );
  }

  /** The middle square, scaled down. */
  #draw(source: CanvasImageSource, width: number, height: number): void {
    const { imageSize: S } = CONFIG;
    const context = this.#canvas.getContext('2d', { willReadFrequently: true })!;
    const side = Math.min(width, height);
    context.imageSmoothingQuality = 'high';
    context.drawImage(source, (width - side) / 2, (height - side) / 2, side, side, 0, 0, S, S);
    const { data } = context.getImageData(0, 0, S, S);
    const rgb = new Uint8Array(3 * S * S);
    for (let i = 0; i < S * S; i++) for (let c = 0; c < 3; c++) rgb[3 * i + c] = data[4 * i + c]!;
    normalisePixels(rgb, { size: S, resize: S, mean: IMAGENET_MEAN, deviation: IMAGENET_DEVIATION }, this.#pixels);
    this.#hasPicture = true;
  }

  #classify(): void {
    this.#look().catch(this.#onProblem);
  }

  async #look(): Promise<void> {
    const level = this.#level;
    const { device, threads } = this.#choice();
    this.#model ??= this.#engine.visionModel({ config: CONFIG, seed: SEED }, { device, ...threads });
    this.#model.catch(() => (this.#model = undefined));
    const model = await this.#model;
    const { scores, ms } = await model.classify(this.#pixels.slice(), { mrlLevel: level });
    const top = Math.max(...scores);
    const weights = Array.from(scores, (score) => Math.exp(score - top));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const ranked = weights
      .map((weight, i) => ({ name: `class ${i + 1}`, share: weight / sum }))
      .sort((a, b) => b.share - a.share)
      .slice(0, SHOWN);
    this.#results.replaceChildren(
      ...ranked.map(({ name, share }) => {
        const row = el('li', {}, el('span', {}, name), el('span', { class: 'share' }, `${(100 * share).toFixed(1)} %`));
        row.style.setProperty('--share', String(share));
        return row;
      }),
    );
    if (!this.#stream) this.#status.textContent = `Level ${level}: ${ranked[0]!.name} in ${ms.toFixed(1)} ms.`;
  }

  async #toggleCamera(): Promise<void> {
    if (this.#stream) {
      this.#stopCamera();
      return;
    }
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
    } catch (error) {
      this.#status.textContent = `The camera cannot be used: ${error instanceof Error ? error.message : String(error)}.`;
      return;
    }
    const stream = this.#stream;
    this.#video.srcObject = stream;
    await this.#video.play();
    this.#camera.textContent = 'Stop the camera';
    this.#status.textContent = 'The camera is on; its pictures stay in this page.';
    this.#canvas.setAttribute('aria-label', 'What the camera sees');
    while (this.#stream === stream) {
      this.#draw(this.#video, this.#video.videoWidth, this.#video.videoHeight);
      try {
        await this.#look();
      } catch (error) {
        this.#stopCamera();
        this.#onProblem(error);
      }
      await new Promise((resolve) => setTimeout(resolve, CAMERA_MS));
    }
  }

  #stopCamera(): void {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = undefined;
    this.#camera.textContent = 'Use the camera';
  }
}
