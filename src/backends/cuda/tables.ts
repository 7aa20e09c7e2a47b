/** Constant data of launches (`{ table }` arguments), placed in device memory together. */

import type { CudaArgument, CudaLaunch } from '../../ops/cuda-kernel.ts';
import type { CudaDriver } from './driver.ts';

const ALIGN_BYTES = 256;

/** The launches with their tables as pointers into one allocation, 0n when there are none. @throws MEMORY */
export function placeTables(
  driver: CudaDriver,
  launches: readonly CudaLaunch[],
): { readonly launches: readonly CudaLaunch[]; readonly tables: bigint } {
  const places = new Map<Uint8Array, number>();
  let bytes = 0;
  for (const launch of launches) {
    if (launch.kind !== 'kernel') continue;
    for (const argument of launch.args) {
      const table = tableOf(argument);
      if (!table || places.has(table)) continue;
      places.set(table, bytes);
      bytes += Math.ceil(table.length / ALIGN_BYTES) * ALIGN_BYTES;
    }
  }
  if (bytes === 0) return { launches, tables: 0n };
  const tables = driver.allocate(bytes, 'constant tables');
  const all = new Uint8Array(bytes);
  for (const [table, at] of places) all.set(table, at);
  driver.copyToDevice(tables, all);
  const placed = launches.map((launch) => {
    if (launch.kind !== 'kernel') return launch;
    const args = launch.args.map((argument) => {
      const table = tableOf(argument);
      return table ? tables + BigInt(places.get(table)!) : argument;
    });
    return { ...launch, args };
  });
  return { launches: placed, tables };
}

function tableOf(argument: CudaArgument): Uint8Array | undefined {
  return typeof argument === 'object' && 'table' in argument ? argument.table : undefined;
}
