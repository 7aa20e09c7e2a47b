/**
 * Loss curves as an SVG that reads well on light and dark pages: a line per level for the training loss, dots for the
 * held-out loss, and a legend that states the last values. No scripts, no outside fonts.
 */

import { type Point, type Scale, horizontalScale, thin, verticalScale } from './chart-scale.ts';

export interface LossSeries {
  /** `level 1`, ... */
  readonly label: string;
  /** (step, loss) of training, in the order of steps. */
  readonly train: readonly Point[];
  /** (step, loss) on held-out data. */
  readonly validation?: readonly Point[];
}

export interface LossCurvesOptions {
  readonly title?: string;
  /** Under the title, smaller: what was trained, on what. */
  readonly subtitle?: string;
  /** Pixels; 960 x 540 by default. */
  readonly width?: number;
  readonly height?: number;
  /** Steps on a logarithmic axis, which shows the start of a run better. */
  readonly logX?: boolean;
  readonly xLabel?: string;
  readonly yLabel?: string;
}

/** Points of a line, and dots of a series, at most. */
const LINE_CELLS = 320;
const DOTS = 60;
/** Share of a linear axis at the start whose high losses may run out of the picture, so that the rest is not squashed. */
const STEEP_SHARE = 0.05;
/** Shorter series are shown whole. */
const STEEP_POINTS = 40;

/** Colours of the series on light and on dark, told apart also by their lightness. */
const COLOURS: readonly (readonly [light: string, dark: string])[] = [
  ['#1d4ed8', '#7aa2ff'],
  ['#0f8a6d', '#3fd0a6'],
  ['#c2700a', '#f5b04c'],
  ['#b3247e', '#f27bc0'],
  ['#6d3fc9', '#b79cff'],
  ['#5b6b12', '#b5cc4a'],
  ['#8a3b2a', '#f09a82'],
  ['#37657f', '#8cc5e3'],
];

const STYLE = `
  .page { fill: #ffffff } .grid { stroke: #e6e8ec } .axis { stroke: #9aa1ac }
  text { font-family: system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #3d4450; font-size: 13px }
  .title { font-size: 17px; font-weight: 600; fill: #14181f } .soft { fill: #6b7280 }
  .number { font-variant-numeric: tabular-nums }
  .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round }
  .dot { stroke-width: 1.6; fill: #ffffff }`;
const DARK_STYLE = `
    .page { fill: #11151c } .grid { stroke: #242a35 } .axis { stroke: #5b6472 }
    text { fill: #c5ccd8 } .title { fill: #f1f4f9 } .soft { fill: #8c95a4 } .dot { fill: #11151c }`;

interface Frame {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

function escapeText(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);
}

/** A place in the picture, short. */
function px(value: number): string {
  return String(Number(value.toFixed(1)));
}

function finite(points: readonly Point[], logX: boolean): Point[] {
  return points.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y) && (!logX || x > 0));
}

/** Range of losses to show. */
function lossRange(lines: readonly Point[][], dots: readonly Point[][], steepEnd: number): [number, number] {
  const late = [...lines.flat(), ...dots.flat()].filter(([x]) => x >= steepEnd);
  const losses = (late.length > 0 ? late : lines.flat()).map(([, y]) => y);
  return losses.length > 0 ? [losses.reduce((a, b) => Math.min(a, b)), losses.reduce((a, b) => Math.max(a, b))] : [0, 1];
}

function axes(x: Scale, y: Scale, frame: Frame, xLabel: string, yLabel: string): string[] {
  const { left, right, top, bottom } = frame;
  const out: string[] = [];
  for (const { value, text } of y.ticks) {
    const at = px(y.at(value));
    out.push(`<line class="grid" x1="${left}" x2="${right}" y1="${at}" y2="${at}"/>`);
    out.push(`<text class="number" x="${left - 10}" y="${at}" dy="0.35em" text-anchor="end">${text}</text>`);
  }
  for (const { value, text } of x.ticks) {
    const at = px(x.at(value));
    out.push(`<line class="axis" x1="${at}" x2="${at}" y1="${bottom}" y2="${bottom + 5}"/>`);
    out.push(`<text class="number" x="${at}" y="${bottom + 21}" text-anchor="middle">${text}</text>`);
  }
  out.push(`<line class="axis" x1="${left}" x2="${right}" y1="${bottom}" y2="${bottom}"/>`);
  out.push(
    `<text class="soft" x="${px((left + right) / 2)}" y="${bottom + 44}" text-anchor="middle">${escapeText(xLabel)}</text>`,
  );
  out.push(
    `<text class="soft" transform="translate(20 ${px((top + bottom) / 2)}) rotate(-90)" text-anchor="middle">${escapeText(yLabel)}</text>`,
  );
  return out;
}

/** Labels with their last losses, as a table right of the picture. */
function legend(series: readonly LossSeries[], lines: readonly Point[][], dots: readonly Point[][], frame: Frame): string[] {
  const left = frame.right + 22;
  const [trainColumn, dotColumn] = [left + 136, left + 206];
  const hasDots = dots.some((points) => points.length > 0);
  const row = (i: number): number => frame.top + 22 + i * 23;
  const out = [`<text class="soft" x="${trainColumn}" y="${frame.top}" text-anchor="end">train</text>`];
  if (hasDots) out.push(`<text class="soft" x="${dotColumn}" y="${frame.top}" text-anchor="end">held out</text>`);
  for (const [i, { label }] of series.entries()) {
    const y = row(i);
    out.push(`<line class="line s${i}" x1="${left}" x2="${left + 20}" y1="${y - 4}" y2="${y - 4}"/>`);
    if (dots[i]!.length > 0) out.push(`<circle class="dot s${i}" cx="${left + 10}" cy="${y - 4}" r="3.2"/>`);
    const name = label.length > 9 ? `${label.slice(0, 8)}…` : label;
    out.push(`<text x="${left + 28}" y="${y}">${escapeText(name)}</text>`);
    const [train, held] = [lines[i]!.at(-1)?.[1], dots[i]!.at(-1)?.[1]];
    if (train !== undefined)
      out.push(`<text class="number" x="${trainColumn}" y="${y}" text-anchor="end">${train.toFixed(3)}</text>`);
    if (held !== undefined)
      out.push(`<text class="number" x="${dotColumn}" y="${y}" text-anchor="end">${held.toFixed(3)}</text>`);
  }
  return out;
}

/** Dots of a series, the last one always among them. */
function someDots(points: readonly Point[]): Point[] {
  const every = Math.ceil(points.length / DOTS);
  return points.filter((_, i) => (points.length - 1 - i) % every === 0);
}

/**
 * Draws the curves. Losses that are not finite are left out; without any point there is a frame that says so.
 * @returns a whole SVG document
 */
export function lossCurvesSvg(series: readonly LossSeries[], options: LossCurvesOptions = {}): string {
  const {
    title = 'Training loss',
    subtitle = '',
    width = 960,
    height = 540,
    logX = false,
    xLabel = 'step',
    yLabel = 'loss (nats)',
  } = options;
  const frame: Frame = { left: 74, right: width - 240, top: subtitle ? 84 : 62, bottom: height - 62 };
  const trains = series.map(({ train }) => finite(train, logX));
  const helds = series.map(({ validation = [] }) => finite(validation, logX));
  const steps = [...trains, ...helds].flatMap((points) => (points.length > 0 ? [points[0]![0], points.at(-1)![0]] : []));
  const [low, high] = steps.length > 0 ? [Math.min(...steps), Math.max(...steps)] : [1, 2];
  const x = horizontalScale(logX ? Math.max(1, low) : Math.min(low, 0), high, [frame.left, frame.right], logX);
  const lines = trains.map((points) => thin(points, x.at, LINE_CELLS));
  const isLong = lines.some((points) => points.length >= STEEP_POINTS);
  const steepEnd = logX || !isLong ? low : low + (high - low) * STEEP_SHARE;
  const y = verticalScale(...lossRange(lines, helds, steepEnd), [frame.bottom, frame.top]);

  const colour = (index: 0 | 1): string =>
    series.map((_, i) => `.s${i} { stroke: ${COLOURS[i % COLOURS.length]![index]} }`).join(' ');
  const path = (points: readonly Point[]): string => points.map(([px1, py]) => `${px(x.at(px1))} ${px(y.at(py))}`).join('L');
  const drawn = series.flatMap((_, i) => (lines[i]!.length > 1 ? [`<path class="line s${i}" d="M${path(lines[i]!)}"/>`] : []));
  const dotted = series.flatMap((_, i) =>
    someDots(helds[i]!).map(
      (point) => `<circle class="dot s${i}" cx="${px(x.at(point[0]))}" cy="${px(y.at(point[1]))}" r="3.2"/>`,
    ),
  );
  const { left, right, top, bottom } = frame;
  const empty = `<text class="soft" x="${px((left + right) / 2)}" y="${px((top + bottom) / 2)}" text-anchor="middle">no losses yet</text>`;

  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    `<title>${escapeText(title)}</title>`,
    `<style>${STYLE}\n  ${colour(0)}\n  @media (prefers-color-scheme: dark) {${DARK_STYLE}\n    ${colour(1)}\n  }\n</style>`,
    `<clipPath id="frame"><rect x="${left - 5}" y="${top - 4}" width="${right - left + 10}" height="${bottom - top + 4}"/></clipPath>`,
    `<rect class="page" width="${width}" height="${height}"/>`,
    `<text class="title" x="${left}" y="34">${escapeText(title)}</text>`,
    ...(subtitle ? [`<text class="soft" x="${left}" y="56">${escapeText(subtitle)}</text>`] : []),
    ...axes(x, y, frame, logX ? `${xLabel} (logarithmic)` : xLabel, yLabel),
    `<g clip-path="url(#frame)">`,
    ...drawn,
    ...dotted,
    '</g>',
    ...(steps.length > 0 ? legend(series, lines, helds, frame) : [empty]),
    '</svg>',
    '',
  ].join('\n');
}
