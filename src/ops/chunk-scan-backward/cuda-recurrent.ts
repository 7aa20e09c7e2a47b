/** Launches of the scan's gradient step by step, with all arithmetic in float32; `cuda-recurrent-source.ts` explains. */

import { type CudaArgument, type CudaLaunch, type CudaNode, defines, f32, i32, rowOperand, typeOf } from '../cuda-kernel.ts';
import { RECURRENT_SOURCE } from './cuda-recurrent-source.ts';
import { type ScanShape, ScratchPlan, addParameters, parameterPartBytes, shapeOf, sumParts, sumSteps } from './cuda-units.ts';

/** As in the source. */
const KEPT_STEPS = 64;
const MOST_THREADS = 256;
/** Batches are cut so that what a group of launches leaves in scratch memory stays below this, one row at least. */
const SCRATCH_BYTES = 512 * 2 ** 20;

/** Where things lie in the scratch memory, in bytes, and the batch rows of one group of launches. */
function layoutOf(
  shape: ScanShape,
): Record<'parameters' | 'db' | 'dc' | 'states' | 'along' | 'steps' | 'bytes' | 'rows', number> {
  const { batch, length, heads, parts, partWidth, stateColumns } = shape;
  const units = heads * parts;
  const sumBytes = 4 * units * length * stateColumns;
  const stateBytes = 4 * units * Math.ceil(length / KEPT_STEPS) * partWidth * stateColumns;
  const stepBytes = 4 * units * length;
  const rows = Math.max(1, Math.min(batch, Math.floor(SCRATCH_BYTES / (2 * sumBytes + stateBytes + 2 * stepBytes))));
  const plan = new ScratchPlan();
  const parameters = plan.place(parameterPartBytes(shape));
  const db = plan.place(rows * sumBytes);
  const dc = plan.place(rows * sumBytes);
  const states = plan.place(rows * stateBytes);
  const along = plan.place(rows * stepBytes);
  const steps = plan.place(rows * stepBytes);
  return { parameters, db, dc, states, along, steps, bytes: plan.bytes, rows };
}

export function recurrentScratchBytes(node: Omit<CudaNode, 'scratch'>): number {
  return layoutOf(shapeOf(node)).bytes;
}

export function recurrentLaunches(node: CudaNode): readonly CudaLaunch[] {
  const shape = shapeOf(node);
  const layout = layoutOf(shape);
  const at = (name: keyof typeof layout): bigint => node.scratch + BigInt(layout[name]);
  const threads = Math.min(MOST_THREADS, 32 * Math.ceil(shape.dState / 32));
  const values = {
    TX: typeOf(node, 'x'),
    TB: typeOf(node, 'b'),
    TC: typeOf(node, 'c'),
    TDT: typeOf(node, 'dt'),
    TDY: typeOf(node, 'dy'),
    TDX: typeOf(node, 'dx'),
    P: shape.headdim,
    PARTS: shape.parts,
    PW: shape.partWidth,
    N: shape.dState,
    NS: shape.stateColumns,
    NC: Math.ceil(shape.dState / threads),
    THREADS: threads,
  };
  const source = defines(values) + RECURRENT_SOURCE;
  const operands = ['x', 'b', 'c', 'dt', 'dy'].flatMap((name) => rowOperand(node, name));
  const vector = (name: string): CudaArgument => node.weight(name).pointer;
  const launches: CudaLaunch[] = [];
  for (let batchStart = 0; batchStart < shape.batch; batchStart += layout.rows) {
    const batchCount = Math.min(layout.rows, shape.batch - batchStart);
    const place = { kind: 'kernel', source, grid: [shape.heads * shape.parts, batchCount], block: threads } as const;
    const last = [i32(batchStart), i32(shape.length), f32(node.number('dtMin')), f32(node.number('dtMax'))];
    launches.push(
      {
        ...place,
        entry: 'scan_states',
        args: [...operands, vector('dtBias'), vector('aLog'), at('dc'), at('states'), at('along'), ...last],
      },
      {
        ...place,
        entry: 'scan_adjoint',
        args: [
          ...operands,
          ...rowOperand(node, 'dx'),
          vector('dtBias'),
          vector('aLog'),
          vector('d'),
          i32(Number(node.flag('dHasHdim'))),
          at('db'),
          at('states'),
          at('along'),
          at('steps'),
          at('parameters'),
          ...last,
        ],
      },
      sumParts(node, shape, 'f32', {
        dbParts: at('db'),
        dcParts: at('dc'),
        batchStart,
        batchCount,
        count: shape.heads * shape.parts,
      }),
      sumSteps(node, shape, 'f32', { parts: at('steps'), batchStart, batchCount }),
    );
  }
  return [...launches, ...addParameters(node, shape, 'f32', at('parameters'))];
}
