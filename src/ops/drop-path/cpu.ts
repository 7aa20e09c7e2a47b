import type { CpuKernel } from '../cpu-kernel.ts';
import { dropoutCall } from '../dropout/cpu.ts';

export const dropPathCpu: CpuKernel = { calls: (node) => [dropoutCall(node, node.buffer('x').shape[1]!, true)] };
