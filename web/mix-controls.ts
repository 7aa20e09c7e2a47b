/** The size of one model: a slider for all layers with the trained levels on it, and one bar for each layer. */

import { el } from './dom.ts';
import { FULL_HEADS, type Heads, LEVELS, isUniform, meanHeads, nameOf, uniform } from './size.ts';

const SHAPES: ReadonlyArray<{ readonly name: string; readonly of: (layer: number, layers: number) => number }> = [
  { name: 'Tapering', of: (layer, layers) => 64 - (48 * layer) / (layers - 1) },
  { name: 'Hourglass', of: (layer, layers) => 24 + (40 * Math.abs(2 * layer - layers + 1)) / (layers - 1) },
];

export class MixControls {
  readonly element = el('div', { class: 'mix' });
  readonly #layers: number;
  readonly #onChange: (heads: Heads) => void;
  #heads: number[];
  readonly #all: HTMLInputElement;
  readonly #allText = el('output', { class: 'all-text', for: 'all-layers' });
  readonly #bars: { readonly input: HTMLInputElement; readonly bar: HTMLElement; readonly text: HTMLElement }[] = [];
  readonly #levels: { readonly level: number; readonly button: HTMLButtonElement }[] = [];

  constructor(layers: number, onChange: (heads: Heads) => void) {
    this.#layers = layers;
    this.#heads = uniform(layers, FULL_HEADS);
    this.#onChange = onChange;
    this.#all = el('input', { type: 'range', id: 'all-layers', min: 1, max: FULL_HEADS, step: 1 });
    this.#all.addEventListener('input', () => this.#change(uniform(layers, this.#all.valueAsNumber)));
    this.element.append(
      el('div', { class: 'all-head' }, el('label', { for: 'all-layers' }, 'All layers'), this.#allText),
      this.#all,
      this.#levelButtons(),
      this.#layerBars(),
    );
    this.#show();
  }

  get heads(): Heads {
    return this.#heads;
  }

  /** Shows other heads without telling of it. */
  set heads(heads: Heads) {
    this.#heads = [...heads];
    this.#show();
  }

  #change(heads: readonly number[]): void {
    this.#heads = [...heads];
    this.#show();
    this.#onChange(this.#heads);
  }

  #levelButtons(): HTMLElement {
    const row = el('div', { class: 'levels', role: 'group', 'aria-label': 'Trained levels' });
    for (const level of [...LEVELS].sort((a, b) => b - a)) {
      const heads = FULL_HEADS / level;
      const button = el('button', { type: 'button', 'aria-label': `Level ${level}, ${heads} heads` });
      button.append(el('span', { class: 'word' }, 'level '), String(level));
      button.style.setProperty('--at', String((heads - 1) / (FULL_HEADS - 1)));
      button.addEventListener('click', () => this.#change(uniform(this.#layers, heads)));
      this.#levels.push({ level, button });
      row.append(button);
    }
    return row;
  }

  #layerBars(): HTMLElement {
    const bars = el('div', { class: 'bars' });
    for (let layer = 0; layer < this.#layers; layer++) {
      const input = el('input', {
        type: 'range',
        min: 1,
        max: FULL_HEADS,
        step: 1,
        'aria-label': `Heads of layer ${layer + 1}`,
        'aria-orientation': 'vertical',
      });
      const text = el('span', { class: 'bar-heads', 'aria-hidden': 'true' });
      const bar = el('div', { class: 'bar' }, el('div', { class: 'fill' }), input);
      input.addEventListener('input', () => {
        this.#change(this.#heads.map((heads, i) => (i === layer ? input.valueAsNumber : heads)));
      });
      this.#bars.push({ input, bar, text });
      bars.append(
        el('div', { class: 'layer' }, text, bar, el('span', { class: 'bar-layer', 'aria-hidden': 'true' }, `${layer + 1}`)),
      );
    }
    const shapes = el('div', { class: 'shapes' });
    for (const { name, of } of SHAPES) {
      const button = el('button', { type: 'button', class: 'quiet' }, name);
      button.addEventListener('click', () => {
        this.#change(Array.from({ length: this.#layers }, (_, i) => Math.round(of(i, this.#layers))));
      });
      shapes.append(button);
    }
    return el(
      'div',
      { role: 'group', 'aria-labelledby': 'layers-title' },
      el('div', { class: 'all-head' }, el('span', { id: 'layers-title' }, 'Heads by layer'), shapes),
      bars,
    );
  }

  #show(): void {
    const mean = Math.round(meanHeads(this.#heads));
    const name = nameOf(this.#heads);
    const same = isUniform(this.#heads);
    this.#all.value = String(mean);
    this.#all.style.setProperty('--share', String((mean - 1) / (FULL_HEADS - 1)));
    this.#all.setAttribute('aria-valuetext', same ? `${mean} of ${FULL_HEADS} heads, ${name}` : name);
    this.#allText.textContent = same ? `${mean} of ${FULL_HEADS} heads` : `mixed, ${mean} on average`;
    for (const { level, button } of this.#levels) {
      button.setAttribute('aria-pressed', String(same && this.#heads[0] === FULL_HEADS / level));
    }
    for (const [layer, { input, bar, text }] of this.#bars.entries()) {
      const heads = this.#heads[layer]!;
      input.value = String(heads);
      input.setAttribute('aria-valuetext', `${heads} of ${FULL_HEADS} heads`);
      bar.style.setProperty('--share', String(heads / FULL_HEADS));
      text.textContent = String(heads);
    }
  }
}
