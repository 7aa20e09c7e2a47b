/**
 * Block, language model and vision model once more, in plain float64 loops, one token at a time: section 2 of the
 * design with every option. Shares no code with `src` but the config types.
 */

import type { MambaConfig, MatMamba2Config, MatMamba2VisionConfig, SsmConfig, Tensor } from '../../src/index.ts';
import { Random } from '../../src/tensor/index.ts';
import { tensor } from '../../src/index.ts';

type Rows = Float64Array[];
type StateDict = Readonly<Record<string, Tensor>>;

/** What one layer carries from token to token: all channels of the window, all heads of S. */
export interface ReferenceState {
  /** (taps - 1) rows of E + 2N channels, oldest first. */
  readonly window: Rows;
  /** H * P rows of N. */
  readonly S: Rows;
}

/** The same tensors with every value moved, so that no weight is a plain 0 or 1. */
export function perturbed(tensors: StateDict, seed: number, size = 0.1): Record<string, Tensor> {
  const moved = new Map<Tensor, Tensor>();
  for (const [name, value] of Object.entries(tensors)) {
    if (moved.has(value)) continue;
    const random = new Random(seed, name);
    const floats = value.toFloat32();
    moved.set(
      value,
      tensor(
        floats.map((x) => x + size * random.normal()),
        value.shape,
      ),
    );
  }
  return Object.fromEntries(Object.entries(tensors).map(([name, value]) => [name, moved.get(value)!]));
}

/** Normal numbers that repeat. */
export function randomFloats(size: number, seed: number, scale = 1): Float32Array {
  const random = new Random(seed, 'input');
  return Float32Array.from({ length: size }, () => scale * random.normal());
}

/** Token ids that repeat. */
export function randomIds(size: number, vocabulary: number, seed: number): Int32Array {
  const random = new Random(seed, 'ids');
  return Int32Array.from({ length: size }, () => random.uint32() % vocabulary);
}

const silu = (x: number): number => x / (1 + Math.exp(-x));
const softplus = (x: number): number => (x > 20 ? x : Math.log1p(Math.exp(x)));

class Weights {
  readonly #tensors: StateDict;
  readonly #prefix: string;

  constructor(tensors: StateDict, prefix = '') {
    this.#tensors = tensors;
    this.#prefix = prefix;
  }

  has(name: string): boolean {
    return this.#prefix + name in this.#tensors;
  }

  get(name: string): Float64Array {
    const found = this.#tensors[this.#prefix + name];
    if (!found) throw new Error(`no weight ${this.#prefix}${name}`);
    return Float64Array.from(found.toFloat32());
  }

  under(prefix: string): Weights {
    return new Weights(this.#tensors, this.#prefix + prefix);
  }
}

function rowsOf(values: ArrayLike<number>, width: number): Rows {
  const all = Float64Array.from(values);
  return Array.from({ length: all.length / width }, (_, i) => all.subarray(i * width, (i + 1) * width));
}

/** x . weight[row] over the first columns, plus bias[row]. */
function project(x: Float64Array, weight: Rows, bias: Float64Array | undefined, row: number): number {
  let sum = bias?.[row] ?? 0;
  for (let k = 0; k < x.length; k++) sum += x[k]! * weight[row]![k]!;
  return sum;
}

function norm(x: Float64Array, weight: Float64Array, bias: Float64Array | undefined, eps: number): Float64Array {
  const mean = bias ? x.reduce((a, b) => a + b, 0) / x.length : 0;
  const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length;
  return x.map((value, i) => ((value - mean) / Math.sqrt(variance + eps)) * weight[i]! + (bias?.[i] ?? 0));
}

export function emptyState(D: number, { dState: N, dConv }: Pick<SsmConfig, 'dState' | 'dConv'>): ReferenceState {
  return {
    window: Array.from({ length: dConv - 1 }, () => new Float64Array(2 * D + 2 * N)),
    S: Array.from({ length: 2 * D }, () => new Float64Array(N)),
  };
}

/** One sequence through one mixer; `state` is updated in place. */
function mixer(w: Weights, config: SsmConfig, u: Rows, dims: number, state: ReferenceState): Rows {
  const D = u[0]!.length;
  const [E, P, N] = [2 * D, D / 32, config.dState];
  const e = 2 * dims;
  const heads = e / P;
  const inProj = rowsOf(w.get('in_proj.weight'), D);
  const inBias = w.has('in_proj.bias') ? w.get('in_proj.bias') : undefined;
  const outProj = rowsOf(w.get('out_proj.weight'), E);
  const outBias = w.has('out_proj.bias') ? w.get('out_proj.bias') : undefined;
  const taps = rowsOf(w.get('conv1d.weight'), config.dConv);
  const convBias = w.has('conv1d.bias') ? w.get('conv1d.bias') : new Float64Array(E + 2 * N);
  const [dtBias, aLog, skip] = [w.get('dt_bias'), w.get('A_log'), w.get('D')];
  const channels = [...Array.from({ length: e }, (_, i) => i), ...Array.from({ length: 2 * N }, (_, i) => E + i)];
  return u.map((x) => {
    const z = Float64Array.from({ length: e }, (_, i) => project(x, inProj, inBias, i));
    const mixed = new Float64Array(E + 2 * N);
    for (const c of channels) {
      const now = project(x, inProj, inBias, E + c);
      const history = [...state.window.map((row) => row[c]!), now];
      mixed[c] = silu(history.reduce((sum, value, k) => sum + value * taps[c]![k]!, convBias[c]!));
      for (const [k, row] of state.window.entries()) row[c] = history[k + 1]!;
    }
    const [B, C] = [mixed.subarray(E, E + N), mixed.subarray(E + N)];
    let y: Float64Array = new Float64Array(e);
    for (let head = 0; head < heads; head++) {
      const raw = softplus(project(x, inProj, inBias, 2 * E + 2 * N + head) + dtBias[head]!);
      const dt = Math.min(Math.max(raw, config.dtLimit[0]), config.dtLimit[1]);
      const decay = Math.exp(-Math.exp(aLog[head]!) * dt);
      for (let p = 0; p < P; p++) {
        const i = head * P + p;
        const S = state.S[i]!;
        let sum = 0;
        for (let n = 0; n < N; n++) {
          S[n] = S[n]! * decay + dt * mixed[i]! * B[n]!;
          sum += S[n]! * C[n]!;
        }
        y[i] = sum + skip[config.DHasHdim ? i : head]! * mixed[i]!;
      }
    }
    if (!config.rmsnorm) y = y.map((value, i) => value * silu(z[i]!));
    else if (config.normBeforeGate) y = norm(y, w.get('norm.weight'), undefined, 1e-5).map((value, i) => value * silu(z[i]!));
    else
      y = norm(
        y.map((value, i) => value * silu(z[i]!)),
        w.get('norm.weight'),
        undefined,
        1e-5,
      );
    return Float64Array.from({ length: D }, (_, i) => project(y, outProj, outBias, i));
  });
}

function mlp(w: Weights, x: Float64Array): Float64Array {
  const fc1 = rowsOf(w.get('fc1.weight'), x.length);
  const hidden = fc1.length / 2;
  const fc2 = rowsOf(w.get('fc2.weight'), hidden);
  const inner = Float64Array.from(
    { length: hidden },
    (_, i) => project(x, fc1, undefined, i) * silu(project(x, fc1, undefined, hidden + i)),
  );
  return Float64Array.from({ length: x.length }, (_, i) => project(inner, fc2, undefined, i));
}

interface StackConfig {
  readonly ssm: SsmConfig;
  readonly eps: number;
  readonly dims: readonly number[];
  readonly states: readonly ReferenceState[];
}

/** One sequence through the residual stack and the final norm. */
function stack(w: Weights, h: Rows, { ssm, eps, dims, states }: StackConfig): Rows {
  const normed = (name: string, rows: Rows): Rows => {
    const [weight, bias] = [w.get(`${name}.weight`), w.has(`${name}.bias`) ? w.get(`${name}.bias`) : undefined];
    return rows.map((row) => norm(row, weight, bias, eps));
  };
  const add = (a: Rows, b: Rows): Rows => a.map((row, t) => row.map((value, i) => value + b[t]![i]!));
  let residual = h;
  for (const [i, width] of dims.entries()) {
    residual = add(residual, mixer(w.under(`layers.${i}.mixer.`), ssm, normed(`layers.${i}.norm`, residual), width, states[i]!));
    if (w.has(`layers.${i}.mlp.fc1.weight`)) {
      const inputs = normed(`layers.${i}.norm2`, residual);
      residual = add(
        residual,
        inputs.map((row) => mlp(w.under(`layers.${i}.mlp.`), row)),
      );
    }
  }
  return normed('norm_f', residual);
}

function flat(rows: Rows): Float64Array {
  return Float64Array.from(rows.flatMap((row) => [...row]));
}

/** x: (B, T, D) -> (B, T, D). `states`: one per sequence, updated. */
export function referenceBlock(
  weights: StateDict,
  config: MatMamba2Config,
  x: Tensor,
  dims: number,
  states?: readonly ReferenceState[],
): Float64Array {
  const [B, T] = x.shape as [number, number, number];
  const rows = rowsOf(x.toFloat32(), config.dModel);
  const sequences = Array.from({ length: B }, (_, b) =>
    mixer(new Weights(weights), config, rows.slice(b * T, (b + 1) * T), dims, states?.[b] ?? emptyState(config.dModel, config)),
  );
  return flat(sequences.flat());
}

/** ids: (B, T) -> logits (B, T, V). `states[b][layer]` are updated. */
export function referenceLogits(
  weights: StateDict,
  config: MambaConfig,
  ssm: SsmConfig,
  ids: Tensor,
  dims: readonly number[],
  states?: readonly (readonly ReferenceState[])[],
): Float64Array {
  const [B, T] = ids.shape as [number, number];
  const table = rowsOf(weights['backbone.embedding.weight']!.toFloat32(), config.dModel);
  const head = rowsOf(weights['lm_head.weight']!.toFloat32(), config.dModel);
  const sequences = Array.from({ length: B }, (_, b) => {
    const h = Array.from({ length: T }, (_, t) => table[ids.array[b * T + t] as number]!);
    const own = states?.[b] ?? dims.map(() => emptyState(config.dModel, ssm));
    return stack(new Weights(weights, 'backbone.'), h, { ssm, eps: 1e-5, dims, states: own });
  });
  return flat(sequences.flat().map((row) => Float64Array.from(head, (_, v) => project(row, head, undefined, v))));
}

/** images: (B, 3, S, S) -> scores (B, nClasses) and features (B, D). */
export function referenceVision(
  weights: StateDict,
  config: MatMamba2VisionConfig,
  ssm: SsmConfig,
  images: Tensor,
  dims: readonly number[],
): { logits: Float64Array; features: Float64Array } {
  const { dModel: D, patchSize: p, imageSize: S, nClasses } = config;
  const w = new Weights(weights);
  const grid = S / p;
  const pixels = images.toFloat32();
  const proj = rowsOf(w.get('patch_embed.proj.weight'), 3 * p * p);
  const bias = w.get('patch_embed.proj.bias');
  const position = rowsOf(w.get('pos_embed'), D);
  const head = rowsOf(w.get('head.weight'), D);
  const headBias = w.get('head.bias');
  const features: Rows = [];
  for (let b = 0; b < images.shape[0]!; b++) {
    const tokens: Rows = [];
    for (let row = 0; row < grid; row++) {
      for (let column = 0; column < grid; column++) {
        const patch: number[] = [];
        for (let c = 0; c < 3; c++) {
          for (let i = 0; i < p; i++) {
            for (let j = 0; j < p; j++) patch.push(pixels[((b * 3 + c) * S + row * p + i) * S + column * p + j]!);
          }
        }
        tokens.push(Float64Array.from({ length: D }, (_, i) => project(Float64Array.from(patch), proj, bias, i)));
      }
    }
    tokens.push(w.get('cls_token'));
    const h = tokens.map((row, t) => row.map((value, i) => value + position[t]![i]!));
    const y = stack(w, h, { ssm, eps: config.normEpsilon, dims, states: dims.map(() => emptyState(D, ssm)) });
    const patches = y.slice(0, -1);
    const mean = Float64Array.from({ length: D }, (_, i) => patches.reduce((sum, row) => sum + row[i]!, 0) / patches.length);
    features.push(config.pool === 'cls' ? y.at(-1)! : mean);
  }
  const logits = features.map((row) => Float64Array.from({ length: nClasses }, (_, k) => project(row, head, headBias, k)));
  return { logits: flat(logits), features: flat(features) };
}
