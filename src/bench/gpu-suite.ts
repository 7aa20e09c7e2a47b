/**
 * The `gpu` suite: whole passes, training steps and single tokens of the published shapes on a GPU, each with the time
 * that the device's own rates would allow at least (the floor).
 *
 * `device` is what the replay takes on the GPU, with inputs and results there; `timing` is the wall-clock time of the whole
 * public call: inputs to the device, the replay, results back. The floor takes the
 * operations of the matrix products at the rate of one large product, or the bytes that the ops touch at the rate of a
 * large copy, whichever is more; both rates are measured first.
 */

import type { DeviceName, ModelDType, OpProfile } from '../backends/backend.ts';
import { openCuda } from '../backends/cuda/cuda-backend.ts';
import { MatMambaError } from '../errors.ts';
import { dimsOfLevel } from '../elastic/granularity.ts';
import { MatMambaLMHeadModel } from '../models/language-model.ts';
import type { CallOptions } from '../models/runtime.ts';
import { PRESETS } from '../models/presets.ts';
import type { TrainableModel } from '../models/training.ts';
import { MatMamba2Vision } from '../models/vision-model.ts';
import { Random } from '../tensor/random.ts';
import { Tensor } from '../tensor/tensor.ts';
import { TrainingEngine } from '../train/engine.ts';
import { TRAIN_PRESETS } from '../train/presets.ts';
import { SCAN_SHAPES, type ScanShape, scanProgram } from './gpu-scan.ts';
import type { Repetition } from './measure.ts';
import { type Row, type RowFigures, type Work, decodeRow, forwardWork, randomIds, timeRow } from './model-rows.ts';

export interface GpuRates {
  readonly device: string;
  /** bf16 products of 8192 x 8192 x 8192, TFLOP/s. */
  readonly productTflops: number;
  /** Bytes read and written by a large copy, GB/s. */
  readonly copyGigabytes: number;
}

export interface GpuResult extends RowFigures {
  readonly row: string;
  readonly dtype: ModelDType;
  /** Tokens, or images, of one repetition. */
  readonly items: number;
  readonly floorMs: number;
}

interface Shape {
  readonly lm: (typeof PRESETS)['lm-130m'];
  readonly batch: number;
  readonly length: number;
}

export interface GpuSuiteOptions {
  /** Parts of row names; all rows unless given. */
  readonly rows?: readonly string[] | undefined;
  readonly repetition: Repetition;
  readonly signal: AbortSignal;
}

const CUDA = { device: 'cuda' as DeviceName };
const LM: Shape = { lm: PRESETS['lm-130m'], batch: 16, length: 1024 };
const LEVELS = [1, 2, 4, 8] as const;
const ENDS = [1, 8] as const;
const IMAGES = 128;
/** Tokens drawn on the device after a short prompt, with all that a caller gets. */
const GENERATED = 128;
const PROMPT = [464, 1862, 582, 3114, 379];
const PRODUCT_OPS = /^linear|_product$|_layer$/;

/** Groups of rows that share a model, each built when a row of it is asked for. */
const GROUPS: readonly {
  readonly rows: readonly string[];
  readonly build: () => Promise<{ rows: Row[]; dispose(): Promise<void> }>;
  /** Measured only when asked for by name. */
  readonly byName?: boolean;
}[] = [
  {
    rows: SCAN_SHAPES.map(scanName),
    build: scanRows,
    byName: true,
  },
  {
    rows: ['lm-130m forward', 'lm-130m prefill', 'lm-130m decode', 'lm-130m generate'],
    build: languageRows,
  },
  { rows: ['lm-130m int8 decode'], build: int8Rows },
  { rows: ['lm-130m joint step'], build: () => trainingRows('lm-130m', LM.batch, LM.length) },
  { rows: ['books-10m joint step'], build: () => trainingRows('books-10m', 128, 512) },
  ...(['vision-135m', 'vision-35m'] as const).flatMap((name) => [
    { rows: [`${name} forward`], build: () => visionRows(name) },
    { rows: [`${name} joint step`], build: () => visionTraining(name) },
  ]),
];

/** Measures the device's rates, then every row. @throws DEVICE, MEMORY, ABORTED */
export async function* gpuSuite({ rows, repetition, signal }: GpuSuiteOptions): AsyncGenerator<GpuRates | GpuResult> {
  const rates = await measureRates();
  yield rates;
  const wanted = (name: string): boolean => !rows || rows.some((part) => name.includes(part) || part.includes(name));
  for (const group of GROUPS) {
    if (group.byName ? !rows?.some((part) => part.startsWith('scan')) : !group.rows.some(wanted)) continue;
    const { rows: built, dispose } = await group.build();
    try {
      for (const row of built) {
        if (rows && !rows.some((part) => row.name.includes(part))) continue;
        const { name, dtype, items } = row;
        const figures = await timeRow(row, repetition, signal);
        yield { row: name, dtype, items, floorMs: floorOf(figures.ops, rates), ...figures };
      }
    } finally {
      await dispose();
    }
  }
}

function floorOf(ops: readonly OpProfile[], { productTflops, copyGigabytes }: GpuRates): number {
  const flops = ops.filter(({ op }) => PRODUCT_OPS.test(op)).reduce((sum, { flops }) => sum + flops, 0);
  const bytes = ops.reduce((sum, { bytes }) => sum + bytes, 0);
  return Math.max(flops / productTflops / 1e9, bytes / copyGigabytes / 1e6);
}

async function measureRates(): Promise<GpuRates> {
  const backend = await openCuda();
  const { driver } = backend;
  const n = 8192;
  const elements = n * n;
  const pointers = ['a', 'b', 'd'].map((name) => driver.allocate(2 * elements, name)) as [bigint, bigint, bigint];
  try {
    // Zeros multiply faster than numbers do.
    const random = new Random(0, 'rates');
    const bits = Uint16Array.from({ length: elements }, () => (random.uint32() & 0x807f) | 0x3f00);
    for (const pointer of pointers) driver.copyToDevice(pointer, new Uint8Array(bits.buffer));
    const operand = (pointer: bigint) => ({ pointer, element: 'bf16' as const, stride: n });
    const [a, b, d] = pointers;
    const product = {
      kind: 'gemm' as const,
      m: n,
      n,
      k: n,
      a: operand(a),
      b: { ...operand(b), transposed: true },
      d: operand(d),
    };
    const copy = {
      kind: 'kernel' as const,
      source: COPY_SOURCE,
      entry: 'copy',
      grid: [8 * driver.facts.multiprocessors] as const,
      block: 512,
      args: [a, d, BigInt(elements / 8)],
    };
    const timed = async (launch: typeof product | typeof copy): Promise<number> => {
      const recording = await driver.record(Array.from({ length: 12 }, () => launch));
      const times = (await recording.time()).slice(2).toSorted((x, y) => x - y);
      recording.free();
      return times[Math.floor(times.length / 2)]!;
    };
    const productMs = await timed(product);
    const copyMs = await timed(copy);
    return {
      device: `${driver.facts.name} (${driver.facts.versions})`,
      productTflops: (2 * n ** 3) / productMs / 1e9,
      copyGigabytes: (4 * elements) / copyMs / 1e6,
    };
  } finally {
    for (const pointer of pointers) driver.free(pointer);
    await backend.dispose();
  }
}

const COPY_SOURCE = String.raw`
/* to = from, 16 bytes a step. */
extern "C" __global__ void copy(const uint4 *from, uint4 *to, i64 count) {
  i64 step = (i64)gridDim.x * blockDim.x;
  i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x;
  for (; i + 3 * step < count; i += 4 * step) {
    uint4 a = from[i], b = from[i + step], c = from[i + 2 * step], d = from[i + 3 * step];
    to[i] = a; to[i + step] = b; to[i + 2 * step] = c; to[i + 3 * step] = d;
  }
  for (; i < count; i += step) to[i] = from[i];
}
`;

function scanName({ model, batch, length, heads }: ScanShape): string {
  return `scan of ${model}, B ${batch}, T ${length}, H ${heads}`;
}

/** The scan and its gradient; a repetition's device time is that of these two alone. */
async function scanRows(): Promise<{ rows: Row[]; dispose(): Promise<void> }> {
  const backend = await openCuda();
  const programs: { dispose(): void }[] = [];
  const rows = SCAN_SHAPES.flatMap((shape) => {
    const program = scanProgram(backend, shape);
    programs.push(program);
    return (['chunk_scan', 'chunk_scan_backward'] as const).map((name) => ({
      name: `${scanName(shape)}: ${name}`,
      dtype: 'bf16' as const,
      items: shape.batch * shape.length,
      work: async ({ onProfile, onDeviceMs }: Parameters<Work>[0] = {}) => {
        const ops = (await program.run()).filter(({ op }) => op === name);
        onProfile?.(ops);
        onDeviceMs?.(ops.reduce((sum, { ms }) => sum + ms, 0));
      },
    }));
  });
  return {
    rows,
    dispose: async () => {
      for (const program of programs) program.dispose();
      await backend.dispose();
    },
  };
}

async function languageRows(): Promise<{ rows: Row[]; dispose(): Promise<void> }> {
  const lm = await MatMambaLMHeadModel.create(LM.lm.config, { ...CUDA, dtype: 'bf16', seed: 0 });
  const forward = ENDS.map((level) => ({
    name: `lm-130m forward, B ${LM.batch}, T ${LM.length}, level ${level}`,
    dtype: 'bf16' as const,
    items: LM.batch * LM.length,
    work: forwardWork(lm, LM.batch, LM.length, level),
  }));
  const prefill = ENDS.map((level) => ({
    name: `lm-130m prefill, B 1, T 512, level ${level}`,
    dtype: 'bf16' as const,
    items: 512,
    work: forwardWork(lm, 1, 512, level),
  }));
  const decode = (
    [
      [1, 1],
      [1, 8],
      [64, 1],
      [64, 8],
    ] as const
  ).map(([batch, level]) => decodeRow(lm, 'lm-130m decode', batch, level));
  const generate = ENDS.map((mrlLevel) => ({
    name: `lm-130m generate ${GENERATED} tokens, level ${mrlLevel}`,
    dtype: 'bf16' as const,
    items: GENERATED,
    work: async () => {
      const settings = { maxNewTokens: GENERATED, ignoreEnd: true, temperature: 0.8, topK: 50, topP: 0.95, seed: 1, mrlLevel };
      let made = 0;
      for await (const piece of lm.generate(PROMPT, settings)) made += piece.ids.length;
      if (made !== GENERATED) throw new MatMambaError('INTERNAL', `${made} tokens came, not ${GENERATED}`);
    },
  }));
  return { rows: [...forward, ...prefill, ...decode, ...generate], dispose: () => lm.dispose() };
}

async function int8Rows(): Promise<{ rows: Row[]; dispose(): Promise<void> }> {
  const lm = await MatMambaLMHeadModel.create(LM.lm.config, { ...CUDA, dtype: 'int8', seed: 0 });
  return { rows: ENDS.map((level) => decodeRow(lm, 'lm-130m int8 decode', 1, level)), dispose: () => lm.dispose() };
}

/** A joint step over all levels, as one program. */
function stepWork(engine: TrainingEngine, parts: Parameters<TrainingEngine['step']>[0]): Work {
  let steps = 0;
  return async (options) => {
    await engine.step(parts, ++steps, 1e-4, options);
  };
}

async function trainingRows(
  name: 'lm-130m' | 'books-10m',
  batch: number,
  length: number,
): Promise<{ rows: Row[]; dispose(): Promise<void> }> {
  const lm = await MatMambaLMHeadModel.create(TRAIN_PRESETS[name].model, { ...CUDA, dtype: 'bf16-mixed', seed: 0 });
  const count = batch * length;
  const inputs = {
    ids: randomIds(count, lm.vocabSize),
    targets: randomIds(count, lm.vocabSize),
    scale: new Float32Array(count).fill(1 / (count * LEVELS.length)),
    seed: new Int32Array(3),
  };
  const { dModel, nLayer } = lm.config;
  return trainingGroup(lm, `${name} joint step, B ${batch}, T ${length}`, batch, length, dModel, nLayer, inputs, count);
}

async function visionTraining(name: 'vision-135m' | 'vision-35m'): Promise<{ rows: Row[]; dispose(): Promise<void> }> {
  const model = await MatMamba2Vision.create(PRESETS[name].config, { ...CUDA, dtype: 'bf16-mixed', seed: 0 });
  const { dModel, nLayer, nClasses } = model.config;
  const targets = new Float32Array(IMAGES * nClasses);
  for (let i = 0; i < IMAGES; i++) targets[i * nClasses + ((7 * i) % nClasses)] = 1;
  const inputs = {
    images: randomImages(),
    targets,
    scale: new Float32Array(IMAGES).fill(1 / (IMAGES * LEVELS.length)),
    seed: new Int32Array(3),
  };
  return trainingGroup(model, `${name} joint step, B ${IMAGES}`, IMAGES, 0, dModel, nLayer, inputs, IMAGES);
}

async function trainingGroup(
  model: TrainableModel & { dispose(): Promise<void> },
  name: string,
  batch: number,
  length: number,
  dModel: number,
  nLayer: number,
  inputs: Parameters<TrainingEngine['accumulate']>[1],
  items: number,
): Promise<{ rows: Row[]; dispose(): Promise<void> }> {
  const engine = await TrainingEngine.attach(model);
  const parts = LEVELS.map((level) => {
    const dims = Array.from({ length: nLayer }, () => dimsOfLevel(level, dModel));
    return { shape: { batch, length, dims, recompute: false, projDropRate: 0, dropPathRate: 0, distill: 0 }, inputs };
  });
  return {
    rows: [{ name, dtype: 'bf16-mixed', items: items * LEVELS.length, work: stepWork(engine, parts) }],
    dispose: async () => {
      engine.dispose();
      await model.dispose();
    },
  };
}

async function visionRows(name: 'vision-135m' | 'vision-35m'): Promise<{ rows: Row[]; dispose(): Promise<void> }> {
  const model = await MatMamba2Vision.create(PRESETS[name].config, { ...CUDA, dtype: 'bf16', seed: 0 });
  const images = new Tensor(randomImages(), [IMAGES, 3, 224, 224], 'f32');
  const rows = ENDS.map((mrlLevel) => ({
    name: `${name} forward, B ${IMAGES}, level ${mrlLevel}`,
    dtype: 'bf16' as const,
    items: IMAGES,
    work: async (options?: CallOptions) => {
      await model.forward(images, { mrlLevel, ...options });
    },
  }));
  return { rows, dispose: () => model.dispose() };
}

function randomImages(): Float32Array {
  const random = new Random(0, 'gpu bench images');
  return Float32Array.from({ length: IMAGES * 3 * 224 * 224 }, () => random.uint32() / 2 ** 31 - 1);
}
