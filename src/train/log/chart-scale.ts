/** Axes of a chart: from values to places, round tick values, and the thinning of long series. */

export type Point = readonly [x: number, y: number];

export interface Scale {
  /** Place of a value, pixels. */
  readonly at: (value: number) => number;
  /** Values to mark, each with its text. */
  readonly ticks: readonly { readonly value: number; readonly text: string }[];
}

/** Steps of 1, 2 or 5 times a power of ten, about `count` of them from `low` to `high`. */
function roundTicks(low: number, high: number, count: number): number[] {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * (rough / power > 7 ? 10 : rough / power > 3 ? 5 : rough / power > 1.5 ? 2 : 1);
  const ticks: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i * step);
  return ticks;
}

/** 1, 2 and 5 in every decade; only powers of ten when there are many decades. */
function logTicks(low: number, high: number): number[] {
  const factors = Math.log10(high / low) > 3.5 ? [1] : [1, 2, 5];
  const ticks: number[] = [];
  for (let exponent = Math.floor(Math.log10(low)); 10 ** exponent <= high; exponent++) {
    for (const factor of factors) {
      const value = factor * 10 ** exponent;
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push(value);
    }
  }
  return ticks;
}

/** `1,500`, `20k`, `1.5M`. */
function amountText(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (value >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  return Number(value.toPrecision(6)).toLocaleString('en-US');
}

/** From `low` to `high`, both whole and positive if `logarithmic`, onto pixels. */
export function horizontalScale(low: number, high: number, pixels: readonly [number, number], logarithmic: boolean): Scale {
  const top = high > low ? high : low + 1;
  const map = logarithmic ? Math.log : (value: number): number => value;
  const at = (value: number): number => pixels[0] + ((map(value) - map(low)) / (map(top) - map(low))) * (pixels[1] - pixels[0]);
  const values = logarithmic ? logTicks(low, top) : roundTicks(low, top, 7);
  return { at, ticks: values.filter((value) => Number.isInteger(value)).map((value) => ({ value, text: amountText(value) })) };
}

/** Values from `low` to `high` onto pixels, with as many decimals as the ticks need. */
export function verticalScale(low: number, high: number, pixels: readonly [number, number]): Scale {
  const padding = high > low ? (high - low) * 0.04 : Math.max(Math.abs(low) * 0.1, 0.1);
  const [bottom, top] = [low - padding, high + padding];
  const at = (value: number): number => pixels[0] + ((value - bottom) / (top - bottom)) * (pixels[1] - pixels[0]);
  const values = roundTicks(bottom, top, 6);
  const gap = values.length > 1 ? values[1]! - values[0]! : 1;
  const decimals = Math.min(6, Math.max(0, Math.ceil(-Math.log10(gap) - 1e-9)));
  return { at, ticks: values.map((value) => ({ value, text: value.toFixed(decimals) })) };
}

/**
 * At most `cells` points: means over cells of equal width on the axis. The first and the last point keep their own x,
 * so that curves begin and end where the run does.
 * @param place pixel of an x
 */
export function thin(points: readonly Point[], place: (x: number) => number, cells: number): Point[] {
  if (points.length <= cells) return [...points];
  const [first, last] = [points[0]!, points.at(-1)!];
  const [from, to] = [place(first[0]), place(last[0])];
  const thinned: Point[] = [];
  let cell: Point[] = [];
  let number = 0;
  const close = (): void => {
    if (cell.length === 0) return;
    const mean = (axis: 0 | 1): number => cell.reduce((sum, point) => sum + point[axis], 0) / cell.length;
    thinned.push([thinned.length === 0 ? first[0] : cell.at(-1) === last ? last[0] : mean(0), mean(1)]);
    cell = [];
  };
  for (const point of points) {
    const mine = Math.min(cells - 1, Math.floor(((place(point[0]) - from) / (to - from)) * cells));
    if (mine !== number) close();
    number = mine;
    cell.push(point);
  }
  close();
  return thinned;
}
