import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Point, horizontalScale, thin, verticalScale } from './chart-scale.ts';
import { lossCurvesSvg } from './loss-curves.ts';

function decay(label: string, steps: number, end: number): { label: string; train: Point[]; validation: Point[] } {
  const loss = (step: number): number => end + 5 * Math.exp(-step / (steps / 20));
  const train = Array.from({ length: steps }, (_, i): Point => [i + 1, loss(i + 1)]);
  return { label, train, validation: train.filter(([step]) => step % 100 === 0).map(([step, value]) => [step, value + 0.02]) };
}

/** Whether tags nest and close; enough to notice text that was not escaped. */
function wellFormed(svg: string): boolean {
  const open: string[] = [];
  for (const [, close, name, selfClosed] of svg.matchAll(/<(\/?)([a-zA-Z]+)(?:\s[^<>]*?)?(\/?)>/g)) {
    if (close) {
      if (open.pop() !== name) return false;
    } else if (!selfClosed) open.push(name ?? '');
  }
  return open.length === 0 && !/&(?!amp;|lt;|gt;|quot;)/.test(svg);
}

describe('lossCurvesSvg', () => {
  const series = [decay('level 1', 5000, 3.2), decay('level 8', 5000, 3.6)];

  it('draws a line and dots per series, thinned, with the last values in the legend', () => {
    const svg = lossCurvesSvg(series, { title: 'books-10m' });
    expect(wellFormed(svg)).toBe(true);
    expect(svg.length).toBeLessThan(30_000);
    expect(svg.match(/<path class="line s\d"/g)).toHaveLength(2);
    const dots = svg.match(/<circle class="dot s0"/g)!.length;
    expect(dots).toBeGreaterThan(20);
    expect(dots).toBeLessThanOrEqual(61);
    expect(svg).toContain('>3.200</text>');
    expect(svg).toContain('>3.620</text>');
    expect(svg).toContain('prefers-color-scheme: dark');
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });

  it('spends the axis on what comes after the steep start, or shows the start on a logarithmic one', () => {
    const place = (svg: string): number => Number(/d="M[\d.]+ (-?[\d.]+)L/.exec(svg)![1]);
    expect(place(lossCurvesSvg(series))).toBeLessThan(40);
    expect(place(lossCurvesSvg(series, { logX: true }))).toBeGreaterThan(60);
    expect(lossCurvesSvg(series, { logX: true })).toContain('step (logarithmic)');
  });

  it.each([
    ['nothing', []],
    ['a series without points', [{ label: 'level 1', train: [] }]],
    ['only values that are not finite', [{ label: 'level 1', train: [[1, NaN] as const, [2, Infinity] as const] }]],
  ])('says that there is %s', (_, empty) => {
    const svg = lossCurvesSvg(empty);
    expect(svg).toContain('no losses yet');
    expect(wellFormed(svg)).toBe(true);
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });

  it('survives single points, equal losses, holes, many series and any text', () => {
    const value = fc.oneof(fc.double({ min: 0, max: 20, noNaN: true }), fc.constant(NaN), fc.constant(3));
    const points = fc.array(value, { maxLength: 30 }).map((ys): Point[] => ys.map((y, i) => [i * 7, y]));
    const one = fc.record({ label: fc.string(), train: points, validation: points });
    fc.assert(
      fc.property(fc.array(one, { maxLength: 10 }), fc.boolean(), fc.string(), (many, logX, title) => {
        const svg = lossCurvesSvg(many, { logX, title });
        expect(wellFormed(svg.replace(/<(title|text)([^>]*)>[^<]*</g, '<$1$2><'))).toBe(true);
        expect(svg.replace(/>[^<]*</g, '><')).not.toMatch(/NaN|Infinity|undefined/);
      }),
    );
  });
});

describe('scales', () => {
  it('have round ticks', () => {
    const texts = (ticks: readonly { text: string }[]): string[] => ticks.map(({ text }) => text);
    expect(texts(horizontalScale(0, 1388, [0, 700], false).ticks)).toEqual(['0', '200', '400', '600', '800', '1,000', '1,200']);
    expect(texts(horizontalScale(1, 1388, [0, 700], true).ticks)).toEqual([
      '1',
      '2',
      '5',
      '10',
      '20',
      '50',
      '100',
      '200',
      '500',
      '1,000',
    ]);
    expect(texts(horizontalScale(0, 120_000, [0, 700], false).ticks)).toEqual(['0', '20k', '40k', '60k', '80k', '100k', '120k']);
    expect(texts(horizontalScale(0, 3, [0, 700], false).ticks)).toEqual(['0', '1', '2', '3']);
    expect(texts(verticalScale(3.2, 4.1, [400, 0]).ticks)).toEqual(['3.2', '3.4', '3.6', '3.8', '4.0']);
    expect(texts(verticalScale(3.201, 3.209, [400, 0]).ticks)[1]).toMatch(/^3\.20\d$/);
  });

  it('thin a series to means that keep its ends and its order', () => {
    const points = Array.from({ length: 10_000 }, (_, i): Point => [i, i % 2]);
    const thinned = thin(points, (x) => x / 10, 50);
    expect(thinned).toHaveLength(50);
    expect(thinned[0]?.[0]).toBe(0);
    expect(thinned.at(-1)?.[0]).toBe(9999);
    expect(thinned.every(([, y]) => Math.abs(y - 0.5) < 0.01)).toBe(true);
    expect(thinned.every(([x], i) => i === 0 || x > (thinned[i - 1]?.[0] ?? NaN))).toBe(true);
  });
});
