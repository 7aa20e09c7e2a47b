import { type CpuKernel, bufferFloats, call } from '../cpu-kernel.ts';

export const adamwCpu: CpuKernel = {
  calls(node) {
    const weight = node.weight('weight');
    return [
      call('adamw', {
        weight: weight.pointer,
        gradient: node.weight('gradient').pointer,
        m: node.weight('dM').pointer,
        v: node.weight('dV').pointer,
        factor: node.buffer('factor').pointer,
        settings: node.buffer('settings').pointer,
        count: bufferFloats(weight),
        decay: node.flag('decay') ? 1 : 0,
      }),
    ];
  },
};
