/**
 * Batches of pictures from class folders.
 *
 * Every training batch is a pure function of (seed, step, micro-batch): pictures come in the order of a seeded
 * permutation, a new one for every epoch; cuts and mixing are drawn by the place in the run. So a run resumes from its
 * step number alone, and processes that share a micro-batch each make their rows of the same one.
 *
 * Where all pictures fit into some memory as they are before augmentation, each is decoded once.
 */

import { Permutation } from '../data/permutation.ts';
import { MatMambaError } from '../errors.ts';
import { Random } from '../tensor/random.ts';
import { type Augmentation, PADDING, below, moveAndMirror, randomPart } from './augment.ts';
import { type ImagePart, readPixels } from './decode.ts';
import type { ImageFolder } from './image-folder.ts';
import { type MixingOptions, mixBatch } from './mixing.ts';
import { type ImageTransform, normalisePixels } from './preprocess.ts';

/** Decoded pictures are kept when all of them take no more than this. */
const CACHE_BYTES = 2 ** 28;
/** Pictures that are read and decoded at once; more would only wait for a thread. */
const AT_ONCE = 8;
const MIRROR_ODDS = 0.5;

export interface DecodeOptions {
  readonly transform: ImageTransform;
  /** Leave out pictures that cannot be decoded. */
  readonly skipBad: boolean;
  /** Told once of each picture that is left out. */
  readonly onWarning?: ((message: string) => void) | undefined;
}

/** Normalised pictures (B, 3, S, S) and their classes. */
export interface ImageBatch {
  readonly images: Float32Array;
  readonly labels: Int32Array;
}

/** Decodes the pictures of a folder by their number. */
export class ImageReader {
  readonly folder: ImageFolder;
  readonly transform: ImageTransform;
  readonly #options: DecodeOptions;
  readonly #bad = new Set<number>();
  readonly #cache: Map<number, Uint8Array> | undefined;

  constructor(folder: ImageFolder, options: DecodeOptions) {
    this.folder = folder;
    this.transform = options.transform;
    this.#options = options;
    if (folder.paths.length * 3 * options.transform.size ** 2 <= CACHE_BYTES) this.#cache = new Map();
  }

  /** How many there are, bad ones too. */
  get count(): number {
    return this.folder.paths.length;
  }

  /**
   * Pixels (S, S, 3), not to be changed: the centre, or the part that `choose` picks.
   * @returns undefined for a bad picture that is left out
   * @throws FILE; FORMAT for a damaged picture unless bad ones are left out; DEVICE without sharp
   */
  async read(index: number, choose?: (width: number, height: number) => ImagePart): Promise<Uint8Array | undefined> {
    const kept = choose ? undefined : this.#cache?.get(index);
    if (kept) return kept;
    if (this.#bad.has(index)) return undefined;
    try {
      const pixels = await readPixels(this.folder.paths[index]!, this.transform, choose);
      if (!choose) this.#cache?.set(index, pixels);
      return pixels;
    } catch (error) {
      if (!(error instanceof MatMambaError) || error.code !== 'FORMAT' || !this.#options.skipBad) throw error;
      if (!this.#bad.has(index)) this.#options.onWarning?.(`left out: ${error.message.split('\n')[0]}`);
      this.#bad.add(index);
      return undefined;
    }
  }

  /** Like `read`, and the number of the picture: a bad one gives its place to the next of the folder. @throws FORMAT when all are bad */
  async readOrNext(
    index: number,
    choose?: (width: number, height: number) => ImagePart,
  ): Promise<{ pixels: Uint8Array; index: number }> {
    for (let i = 0; i < this.count; i++) {
      const at = (index + i) % this.count;
      const pixels = await this.read(at, choose);
      if (pixels) return { pixels, index: at };
    }
    throw new MatMambaError('FORMAT', 'none of the pictures can be decoded');
  }

  /** Pictures `indices` for measuring, bad ones left out. */
  async batch(indices: readonly number[]): Promise<ImageBatch> {
    const read: (Uint8Array | undefined)[] = Array.from({ length: indices.length });
    await forEach(indices.length, async (i) => {
      read[i] = await this.read(indices[i]!);
    });
    const good = indices.filter((_, i) => read[i]);
    const size = 3 * this.transform.size ** 2;
    const images = new Float32Array(good.length * size);
    for (const [i, pixels] of read.filter((one) => one !== undefined).entries()) {
      normalisePixels(pixels, this.transform, images.subarray(i * size, (i + 1) * size));
    }
    return { images, labels: Int32Array.from(good, (index) => this.folder.labels[index]!) };
  }
}

export interface TrainingImagesOptions {
  readonly seed: number;
  readonly augmentation: Augmentation;
  readonly mixing: MixingOptions;
  /** Rows of a global micro-batch. */
  readonly batch: number;
  /** Micro-batches of a step. */
  readonly microBatches: number;
}

/** Augmented, mixed micro-batches with soft targets. */
export class TrainingImages {
  readonly #reader: ImageReader;
  readonly #options: TrainingImagesOptions;
  #permutation: { readonly epoch: number; readonly of: Permutation } | undefined;

  constructor(reader: ImageReader, options: TrainingImagesOptions) {
    this.#reader = reader;
    this.#options = options;
  }

  /**
   * Rows `start` to `end` of a global micro-batch: images (rows, 3, S, S), targets (rows, classes).
   * @throws FILE, FORMAT, DEVICE
   */
  async inputs(
    step: number,
    index: number,
    rows: { start: number; end: number },
  ): Promise<{ images: Float32Array; targets: Float32Array }> {
    const { batch, microBatches, mixing, seed } = this.#options;
    const { size } = this.#reader.transform;
    const classes = this.#reader.folder.classes.length;
    const own = Array.from({ length: rows.end - rows.start }, (_, i) => rows.start + i);
    // Partners in mixing are mirrored rows of the whole micro-batch. A process that makes a part of it puts theirs
    // behind its own rows, where they are mirrored too.
    const alone = own.length === batch || (mixing.mixup <= 0 && mixing.cutmix <= 0);
    const needed = alone ? own : [...own, ...own.toReversed().map((row) => batch - 1 - row)];
    const images = new Float32Array(needed.length * 3 * size * size);
    const labels = new Int32Array(needed.length);
    const first = (step * microBatches + index) * batch;
    await forEach(needed.length, async (i) => {
      labels[i] = await this.#load(first + needed[i]!, images.subarray(i * 3 * size * size, (i + 1) * 3 * size * size));
    });
    const targets = mixBatch(images, labels, classes, size, mixing, new Random(seed, `mixing ${step}/${index}`));
    return { images: images.subarray(0, own.length * 3 * size * size), targets: targets.subarray(0, own.length * classes) };
  }

  /** The picture at a place of the run, cut, mirrored and normalised; returns its class. */
  async #load(place: number, target: Float32Array): Promise<number> {
    const { seed, augmentation } = this.#options;
    const { size, resize } = this.#reader.transform;
    const random = new Random(seed, `augmentation ${place}`);
    const mirrored = augmentation === 'full' && random.uniform() < MIRROR_ODDS;
    const cuts = augmentation !== 'none';
    const small = resize === size;
    // Drawn anew for the picture that takes a bad one's place, so that what was tried before leaves no trace.
    const choose = (width: number, height: number): ImagePart => randomPart(width, height, new Random(seed, `part ${place}`));
    const { pixels, index } = await this.#reader.readOrNext(this.#pictureAt(place), cuts && !small ? choose : undefined);
    const [right, down] =
      cuts && small ? [below(2 * PADDING + 1, random) - PADDING, below(2 * PADDING + 1, random) - PADDING] : [0, 0];
    const moves = mirrored || right !== 0 || down !== 0;
    normalisePixels(moves ? moveAndMirror(pixels, size, right, down, mirrored) : pixels, this.#reader.transform, target);
    return this.#reader.folder.labels[index]!;
  }

  /** Which picture comes at a place of the run: each once in an epoch. */
  #pictureAt(place: number): number {
    const { count } = this.#reader;
    const epoch = Math.floor(place / count);
    if (this.#permutation?.epoch !== epoch) this.#permutation = { epoch, of: new Permutation(count, this.#options.seed, epoch) };
    return this.#permutation.of.at(place % count);
  }
}

/** Calls `work` for 0 ... count - 1, some at once; after a failure no new ones begin. */
async function forEach(count: number, work: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const take = async (): Promise<void> => {
    while (next < count) {
      try {
        await work(next++);
      } catch (error) {
        next = count;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, take));
}
