/** Buffers that come and go beside a model's weights, as a trainer's do. */

import { expect, test } from 'vitest';
import { MatMamba2 } from '../index.ts';
import type { Graph, ParameterSpec } from '../graph/graph.ts';
import { embedding } from '../ops/index.ts';

const TABLE: ParameterSpec = { name: 'table#gradient', shape: [4, 16], layout: 'matrix', precise: true };

test('a buffer is freed behind the runs that use it, and its successor of the same name is another one', async () => {
  await using block = await MatMamba2.create({ dModel: 32, dState: 8 }, { threads: 2 });
  const { runtime } = block;
  const before = runtime.weightBytes;
  const trace = (graph: Graph): void =>
    graph.output('y', embedding({ ids: graph.input('ids', [3], 'i32'), weight: graph.parameter(TABLE) }).y);
  const rows = async (): Promise<number[]> => {
    const { y } = await runtime.run('rows', trace, { ids: Int32Array.of(0, 3, 1) }, {});
    return [0, 16, 32].map((at) => y![at]!);
  };
  const fill = (value: number): Promise<void> =>
    runtime.weight(TABLE.name).write({
      rows: (first, count) => Float32Array.from({ length: 16 * count }, (_, i) => value + first + Math.floor(i / 16)),
    });

  await runtime.allocate([TABLE]);
  expect(await rows()).toEqual([0, 0, 0]);
  await fill(10);
  const late = rows();
  runtime.release([TABLE]);
  // What takes the freed place must not be seen, nor what lay there.
  await using states = block.createState({ batch: 4 });
  expect(await late).toEqual([10, 13, 11]);
  await states.reset();
  expect(runtime.weightBytes).toBe(before);
  await using more = block.createState({ batch: 4 });
  await runtime.allocate([TABLE]);
  await fill(20);
  expect(await rows()).toEqual([20, 23, 21]);
  await more.reset();
  expect(await rows()).toEqual([20, 23, 21]);

  // Released and taken again at once.
  const last = rows();
  runtime.release([TABLE]);
  await runtime.allocate([TABLE]);
  await fill(30);
  expect(await last).toEqual([20, 23, 21]);
  expect(await rows()).toEqual([30, 33, 31]);
  runtime.release([TABLE]);
});
