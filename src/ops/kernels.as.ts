/** Every kernel by the name that the `cpu.ts` files call it: the index of its function in the module's table. */

import { embedding } from './embedding/kernel.as';

type Kernel = (args: usize, thread: i32, threads: i32) => void;
const index = (kernel: Kernel): u32 => kernel.index;

export const embedding_index = index(embedding);
