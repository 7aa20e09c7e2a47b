import { type CpuKernel, call } from '../cpu-kernel.ts';

export const clipFactorCpu: CpuKernel = {
  calls: (node) => [
    call(
      'clip_factor',
      Object.fromEntries(['squares', 'settings', 'factor', 'norm'].map((name) => [name, node.buffer(name).pointer])),
    ),
  ],
};
