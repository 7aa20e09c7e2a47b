/** What backends ask their tables of kernels. */

import { MatMambaError } from '../errors.ts';
import type { GraphNode } from '../graph/graph.ts';
import type { KernelTable, Unsupported } from '../ops/op.ts';

/** The kernel of a node's op; `place` is how messages call the device. @throws DEVICE for an op that the device lacks */
export function findKernel<Kernel extends object>(table: KernelTable<string, Kernel>, { op }: GraphNode, place: string): Kernel {
  const kernel = table[op.name]!;
  if (isUnsupported(kernel)) throw new MatMambaError('DEVICE', `${op.name} does not run on ${place}: ${kernel.unsupported}`);
  return kernel;
}

/** The ops that a device lacks, and why. */
export function unsupportedOps(table: KernelTable<string, object>): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(table).flatMap(([op, kernel]) => (isUnsupported(kernel) ? [[op, kernel.unsupported]] : [])),
  );
}

function isUnsupported(kernel: object): kernel is Unsupported {
  return 'unsupported' in kernel;
}
