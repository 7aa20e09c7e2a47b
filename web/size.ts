/** Sizes as the page counts them: heads of every layer, what they cost, what they are called. */

import type { LanguageInfo } from 'matmamba/browser';
import measured from './losses.json' with { type: 'json' };

/** Heads of every layer. */
export type Heads = readonly number[];

export interface Measured {
  readonly heads: Heads;
  readonly loss: number;
}

export const FULL_HEADS = 64;
export const LEVELS: readonly number[] = measured.levels;
export const MEASURED: readonly Measured[] = measured.points;
/** Held-out tokens by which other mixes are measured here. */
export const EXCERPT: readonly number[] = measured.excerpt;
export const FULL_LOSS = MEASURED.find(({ heads }) => heads.every((n) => n === FULL_HEADS))!.loss;

export function uniform(layers: number, heads: number): number[] {
  return Array.from({ length: layers }, () => heads);
}

export function isUniform(heads: Heads): boolean {
  return heads.every((n) => n === heads[0]);
}

export function meanHeads(heads: Heads): number {
  return heads.reduce((sum, n) => sum + n, 0) / heads.length;
}

/** `level 4`, `24 heads`, `mix of 8–64 heads`. */
export function nameOf(heads: Heads): string {
  if (!isUniform(heads)) return `mix of ${Math.min(...heads)}–${Math.max(...heads)} heads`;
  const level = FULL_HEADS / heads[0]!;
  return LEVELS.includes(level) ? `level ${level}` : `${heads[0]} heads`;
}

/** dims of every layer, as the library takes them. */
export function dimsOf(heads: Heads, { dModel }: LanguageInfo): number[] {
  return heads.map((n) => (n * dModel) / FULL_HEADS);
}

export interface SizeCost {
  readonly parameters: number;
  readonly bytes: number;
}

/** Parameters that run, and the bytes of them as they are stored. */
export function costOf(heads: Heads, info: LanguageInfo): SizeCost {
  const steps = dimsOf(heads, info).reduce((sum, dims) => sum + dims / info.widthStep, 0);
  const at = ({ fixed, perStep }: { fixed: number; perStep: number }): number => fixed + perStep * steps;
  return { parameters: at(info.parameters), bytes: at(info.bytes) };
}

/** The loss where it was measured for exactly this mix. */
export function measuredLoss(heads: Heads): number | undefined {
  return MEASURED.find((point) => point.heads.join() === heads.join())?.loss;
}

/** Until a mix is measured: the loss of a uniform model of its size. */
export function guessLoss(heads: Heads): number {
  const uniformPoints = MEASURED.filter((point) => isUniform(point.heads)).sort((a, b) => a.heads[0]! - b.heads[0]!);
  const mean = meanHeads(heads);
  const above = uniformPoints.findIndex((point) => point.heads[0]! >= mean);
  if (above <= 0) return uniformPoints[Math.max(0, above)]!.loss;
  const [left, right] = [uniformPoints[above - 1]!, uniformPoints[above]!];
  const share = (mean - left.heads[0]!) / (right.heads[0]! - left.heads[0]!);
  return left.loss + share * (right.loss - left.loss);
}
