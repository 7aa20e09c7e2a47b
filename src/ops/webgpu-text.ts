/** WGSL that repeats: loops over constants, written out when a kernel's text is made. */

/** 0, 1, ... `count` - 1. */
export const indices = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** The text of every index. */
export const unrolled = (count: number, text: (i: number) => string, between = ''): string =>
  indices(count).map(text).join(between);
