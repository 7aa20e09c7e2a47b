/** The scan and its gradient by themselves, at the shapes of the published models: where kernels are tuned. */

import type { OpProfile, Program } from '../backends/backend.ts';
import type { CudaBackend } from '../backends/cuda/cuda-backend.ts';
import { Graph, type Sym } from '../graph/graph.ts';
import { add, chunkScan, chunkScanBackward } from '../ops/index.ts';
import { Random } from '../tensor/random.ts';

/** B, T, H and P of one layer; N is 128. */
export interface ScanShape {
  readonly model: string;
  readonly batch: number;
  readonly length: number;
  readonly heads: number;
  readonly headdim: number;
}

const N = 128;

export const SCAN_SHAPES: readonly ScanShape[] = [
  ...[64, 32, 16, 8].map((heads) => ({ model: 'lm-130m', batch: 16, length: 1024, heads, headdim: 24 })),
  { model: 'lm-130m', batch: 1, length: 512, heads: 64, headdim: 24 },
  { model: 'lm-130m', batch: 1, length: 512, heads: 8, headdim: 24 },
  ...[64, 32, 16, 8].map((heads) => ({ model: 'books-10m', batch: 128, length: 512, heads, headdim: 12 })),
  ...[64, 32, 16, 8].map((heads) => ({ model: 'vision-135m', batch: 128, length: 197, heads, headdim: 32 })),
  ...[64, 32, 16, 8].map((heads) => ({ model: 'vision-35m', batch: 128, length: 197, heads, headdim: 16 })),
];

/** A program of the scan and its gradient in bf16 over random operands, and one run of it with its profile. */
export function scanProgram(backend: CudaBackend, shape: ScanShape): { run(): Promise<readonly OpProfile[]>; dispose(): void } {
  const { batch, length, heads, headdim } = shape;
  const graph = new Graph();
  const random = new Random(0, 'scan bench');
  const inputs: Record<string, Float32Array> = {};
  /** Program inputs are float32; sums of two are what activations are in bf16. */
  const activation = (name: string, width: number, scale: number): Sym => {
    const rows = [batch, length, width];
    const data = Float32Array.from({ length: batch * length * width }, () => scale * (random.uint32() / 2 ** 31 - 1));
    inputs[name] = data;
    inputs[`${name}0`] = new Float32Array(data.length);
    return add({ a: graph.input(name, rows, 'f32'), b: graph.input(`${name}0`, rows, 'f32') }).y;
  };
  const vector = (name: string, values: () => number): { sym: Sym; data: Float32Array } => ({
    sym: graph.parameter({ name, shape: [heads], layout: 'vector' }),
    data: Float32Array.from({ length: heads }, values),
  });
  const inner = heads * headdim;
  const operands = {
    x: activation('x', inner, 1),
    b: activation('b', N, 1),
    c: activation('c', N, 1),
    dt: activation('dt', heads, 1),
  };
  const dy = activation('dy', inner, 1);
  const uniform = (low: number, high: number) => () => low + ((high - low) * random.uint32()) / 2 ** 32;
  const parameters = {
    dtBias: vector('dtBias', uniform(-6, -2)),
    aLog: vector('aLog', uniform(0, Math.log(16))),
    d: vector('d', uniform(0, 1)),
    dDtBias: vector('dDtBias', () => 0),
    dALog: vector('dALog', () => 0),
    dD: vector('dD', () => 0),
  };
  const attributes = { batch, length, headdim };
  const { dtBias, aLog, d, dDtBias, dALog, dD } = parameters;
  const given = { ...operands, dtBias: dtBias.sym, aLog: aLog.sym, d: d.sym };
  const { y } = chunkScan(given, attributes);
  const gradients = chunkScanBackward({ ...given, dy, dDtBias: dDtBias.sym, dALog: dALog.sym, dD: dD.sym }, attributes);
  // Something has to be read of them.
  graph.output('dt', add({ a: gradients.ddt, b: operands.dt }).y);
  graph.output('y', add({ a: y, b: gradients.dx }).y.columns(0, 1));
  const arena = backend.createArena();
  let program: Program | undefined;
  const weights = new Map<string, Awaited<ReturnType<CudaBackend['upload']>>>();
  return {
    async run() {
      if (!program) {
        for (const { sym, data } of Object.values(parameters)) {
          const { value } = sym;
          if (value.kind !== 'parameter') continue;
          weights.set(value.name, await backend.upload(value.parameter, 'bf16', { rows: () => data }));
        }
        program = backend.compile(graph, weights, arena, 'bf16');
      }
      let ops: readonly OpProfile[] = [];
      await program.run(inputs, { profile: (part) => (ops = part) });
      return ops;
    },
    dispose() {
      program?.dispose();
      void backend.settled().then(() => {
        arena.dispose();
        for (const weight of weights.values()) weight.release();
      });
    },
  };
}
