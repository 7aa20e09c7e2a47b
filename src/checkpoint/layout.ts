/** The names under which a folder holds weights, and in which order they are looked for. */

import type { CheckpointFormat } from './types.ts';

export interface WeightsLayout {
  readonly format: CheckpointFormat;
  /** The file when the weights are in one piece. */
  readonly single: string;
  /** The list of shards when they are not. */
  readonly index: string;
}

/** In order of preference. */
export const LAYOUTS: readonly WeightsLayout[] = [
  { format: 'safetensors', single: 'model.safetensors', index: 'model.safetensors.index.json' },
  { format: 'pytorch', single: 'pytorch_model.bin', index: 'pytorch_model.bin.index.json' },
];

/** `model-00002-of-00005.safetensors`: shard `number` (from 1) of `count`. */
export function shardName({ single }: WeightsLayout, number: number, count: number): string {
  const dot = single.lastIndexOf('.');
  const digits = (n: number): string => String(n).padStart(5, '0');
  return `${single.slice(0, dot)}-${digits(number)}-of-${digits(count)}${single.slice(dot)}`;
}

/** Whether a file is a shard by its name. */
export function isShardName({ single }: WeightsLayout, name: string): boolean {
  const dot = single.lastIndexOf('.');
  return (
    name.startsWith(`${single.slice(0, dot)}-`) &&
    /^-[0-9]{5}-of-[0-9]{5}$/.test(name.slice(dot, -(single.length - dot))) &&
    name.endsWith(single.slice(dot))
  );
}

/** Whether a name from an index is a plain file name, which can not lead out of its folder. */
export function isPlainFileName(name: unknown): name is string {
  return typeof name === 'string' && /^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,200}$/.test(name);
}
