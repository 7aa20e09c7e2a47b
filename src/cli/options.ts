/** Options that several commands share: their definitions for the help, and the schemas that check their values. */

import type { ArgsDef } from 'citty';
import { z } from 'zod';
import { type DeviceName, DEVICE_NAMES, MODEL_DTYPES, type ModelDType } from '../backends/backend.ts';
import type { WidthOptions } from '../elastic/granularity.ts';
import { UsageError } from './arguments.ts';
import type { Io } from './io.ts';

/** A whole number in a range, from text. */
export function whole(least: number, most = Number.MAX_SAFE_INTEGER): z.ZodType<number> {
  const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
  return number(`expected a whole number ${range}`, (n) => Number.isSafeInteger(n) && n >= least && n <= most);
}

/** A number in a range, from text. */
export function real(least: number, most = Infinity): z.ZodType<number> {
  const range = most === Infinity ? `of at least ${least}` : `from ${least} to ${most}`;
  return number(`expected a number ${range}`, (n) => Number.isFinite(n) && n >= least && n <= most);
}

function number(message: string, fits: (n: number) => boolean): z.ZodType<number> {
  return z
    .string({ error: message })
    .transform((text) => (text.trim() === '' ? NaN : Number(text)))
    .refine(fits, message);
}

/** Whole numbers between commas. */
export function wholeList(least: number, what: string): z.ZodType<number[]> {
  const message = `expected ${what}`;
  return z
    .string({ error: message })
    .transform((text) => text.split(',').map((part) => (part.trim() === '' ? NaN : Number(part))))
    .refine((list) => list.every((n) => Number.isSafeInteger(n) && n >= least), message);
}

/** Words between commas, each one of `known`. */
export function wordList<W extends string>(known: readonly W[]): z.ZodType<W[]> {
  const message = `expected some of ${known.join(', ')} with commas between them`;
  return z
    .string({ error: message })
    .transform((text) => text.split(',').map((part) => part.trim()) as W[])
    .refine((list) => list.every((word) => known.includes(word)), message);
}

export const flag = z.boolean().optional();
export const text = z.string().optional();

export const jsonArgs = { json: { type: 'boolean', description: 'print JSON, one object a line' } } as const;

/** Which model. */
export const modelArgs = {
  model: {
    type: 'string',
    valueHint: 'DIR|ID',
    description: 'a folder, a weights file, or an id of the Hugging Face hub (default: the model in the package)',
  },
  revision: { type: 'string', valueHint: 'REV', description: 'branch, tag or commit of a hub model' },
  offline: { type: 'boolean', description: 'use what is downloaded and never the network' },
} as const;
export const modelOptions = { model: text, revision: text, offline: flag };

/** How it is held. */
export const deviceArgs = {
  dtype: {
    type: 'enum',
    options: [...MODEL_DTYPES],
    description: 'storage of the weights; on a GPU also the precision',
    default: 'f32',
  },
  device: { type: 'enum', options: [...DEVICE_NAMES], description: 'where to run', default: 'cpu' },
  threads: { type: 'string', valueHint: 'N', description: 'worker threads (default: one per core)' },
  blas: { type: 'string', valueHint: 'auto|off|PATH', description: 'a system BLAS for large float32 products (default auto)' },
} satisfies ArgsDef;
export const deviceOptions = {
  dtype: z.enum(MODEL_DTYPES).default('f32'),
  device: z.enum(DEVICE_NAMES).default('cpu'),
  threads: whole(1, 256).optional(),
  blas: text,
};

export interface DeviceSettings {
  readonly device: DeviceName;
  readonly dtype: ModelDType;
  readonly threads?: number;
  readonly blas: string;
}

/** Options, then the environment, then defaults. @throws UsageError for a bad MATMAMBA_THREADS */
export function deviceSettings(
  options: {
    readonly dtype?: ModelDType;
    readonly device?: DeviceName;
    readonly threads?: number | undefined;
    readonly blas?: string | undefined;
  },
  { environment }: Io,
): DeviceSettings {
  const fromEnvironment = environment.threads === undefined ? undefined : whole(1, 256).safeParse(environment.threads);
  if (fromEnvironment?.success === false)
    throw new UsageError(`MATMAMBA_THREADS is '${environment.threads}': ${fromEnvironment.error.issues[0]!.message}`);
  const threads = options.threads ?? fromEnvironment?.data;
  return {
    device: options.device ?? 'cpu',
    dtype: options.dtype ?? 'f32',
    blas: options.blas ?? environment.blas ?? 'auto',
    ...(threads === undefined ? {} : { threads }),
  };
}

/** How wide to run. */
export const widthArgs = {
  level: { type: 'string', valueHint: 'N', description: 'run at d_model / N dims in every layer: 1, 2, 4 or 8' },
  dims: {
    type: 'string',
    valueHint: 'N[,N...]',
    description: 'run at these dims: one number, or one per layer (Mix\u2019n\u2019Match)',
  },
} as const;
export const widthOptions = {
  level: whole(1).optional(),
  dims: wholeList(1, 'one whole number, or one per layer with commas between them').optional(),
};

/** @throws UsageError when both are given */
export function widthOf({
  level,
  dims,
}: {
  readonly level?: number | undefined;
  readonly dims?: readonly number[] | undefined;
}): WidthOptions {
  if (level !== undefined && dims !== undefined)
    throw new UsageError('--level and --dims were both given', 'a model runs at one width: give one of them');
  if (dims !== undefined) return { mixnmatchDims: dims.length === 1 ? dims[0]! : dims };
  return { mrlLevel: level ?? 1 };
}

/** The values of a repeated `--dims`. @throws UsageError */
export function dimsLists(values: readonly string[]): (number | readonly number[])[] {
  return values.map((value) => {
    const { success, data = [], error } = widthOptions.dims.safeParse(value);
    if (!success) throw new UsageError(`--dims is ${JSON.stringify(value)}: ${error.issues[0]!.message}`);
    return data.length === 1 ? data[0]! : data;
  });
}

/** The level of a granularity that is uniform and divides D. */
export function levelOf(dims: readonly number[], dModel: number): number | undefined {
  const [first = 0] = dims;
  return dims.every((n) => n === first) && dModel % first === 0 ? dModel / first : undefined;
}

/** A width in words: `level 2`, `192 dims`, `mix of 96 to 384 dims`. */
export function widthName(dims: readonly number[], dModel: number): string {
  const [least, most] = [Math.min(...dims), Math.max(...dims)];
  if (least !== most) return `mix of ${least} to ${most} dims`;
  const level = levelOf(dims, dModel);
  return level === undefined ? `${least} dims` : `level ${level} (${least} dims)`;
}
