/** Loss against size: the measured sizes, and where the current ones stand. */

import type { LanguageInfo } from 'matmamba/browser';
import { el, svg } from './dom.ts';
import { FULL_HEADS, type Heads, LEVELS, MEASURED, type Measured, costOf, isUniform, nameOf } from './size.ts';

export interface Mark {
  readonly side: 'A' | 'B';
  readonly heads: Heads;
  readonly loss: number;
  /** Measured, not guessed from its size. */
  readonly isMeasured: boolean;
}

const WIDTH = 420;
const HEIGHT = 262;
const LEFT = 40;
const RIGHT = 14;
const TOP = 24;
const BOTTOM = 34;
const LOSS_STEP = 0.2;
const LOSSES = [3.2, 4] as const;

export class Plot {
  readonly element = el('div');
  readonly #info: LanguageInfo;
  readonly #x: (parameters: number) => number;
  readonly #marks = svg('g');
  readonly #picture: SVGElement;

  constructor(info: LanguageInfo, onPick: (heads: Heads) => void) {
    this.#info = info;
    const sizes = MEASURED.map(({ heads }) => costOf(heads, info).parameters / 1e6);
    const [least, most] = [Math.floor(Math.min(...sizes)), Math.ceil(Math.max(...sizes))];
    this.#x = (parameters) => LEFT + ((parameters / 1e6 - least) / (most - least)) * (WIDTH - LEFT - RIGHT);
    this.#picture = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img' });
    this.#picture.append(this.#axes(least, most), this.#points(onPick), this.#marks);
    this.element.append(legend(), this.#picture, numbers(info, onPick));
  }

  show(marks: readonly Mark[]): void {
    const said = marks.map(({ side, heads, loss, isMeasured }) => {
      const where = marks.length > 1 ? `${side}, ${nameOf(heads)}` : `The current size, ${nameOf(heads)}`;
      return `${where}: ${(costOf(heads, this.#info).parameters / 1e6).toFixed(1)} million parameters, loss ${isMeasured ? '' : 'about '}${loss.toFixed(2)}`;
    });
    this.#picture.setAttribute('aria-label', `Held-out loss against parameters in use. ${said.join('. ')}.`);
    this.#marks.replaceChildren(
      ...marks.map(({ side, heads, loss, isMeasured }) => {
        const [x, y] = [this.#x(costOf(heads, this.#info).parameters), yOf(loss)];
        const mark = svg('g', { class: `mark side-${side}${isMeasured ? '' : ' guessed'}`, transform: `translate(${x} ${y})` });
        mark.append(svg('circle', { r: 7 }));
        const label = svg('text', { x: 0, y: y < TOP + 24 ? 22 : -13, 'text-anchor': x > WIDTH - 60 ? 'end' : 'middle' });
        label.textContent = marks.length > 1 ? side : 'now';
        mark.append(label);
        return mark;
      }),
    );
  }

  #axes(least: number, most: number): SVGElement {
    const axes = svg('g', { class: 'axes', 'aria-hidden': 'true' });
    for (let loss = LOSSES[0]; loss <= LOSSES[1] + 1e-6; loss += LOSS_STEP) {
      const y = yOf(loss);
      axes.append(svg('line', { x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }));
      axes.append(svg('text', { x: LEFT - 7, y: y + 4, 'text-anchor': 'end' }, loss.toFixed(1)));
    }
    for (let size = least; size <= most; size++) {
      const x = this.#x(size * 1e6);
      axes.append(svg('text', { x, y: HEIGHT - BOTTOM + 16, 'text-anchor': 'middle' }, String(size)));
    }
    axes.append(
      svg('text', { x: WIDTH - RIGHT, y: HEIGHT - 3, 'text-anchor': 'end' }, 'million parameters in use'),
      svg('text', { x: 4, y: 12 }, 'nats a token'),
    );
    return axes;
  }

  #points(onPick: (heads: Heads) => void): SVGElement {
    const group = svg('g');
    const place = ({ heads, loss }: Measured): [number, number] => [this.#x(costOf(heads, this.#info).parameters), yOf(loss)];
    const line = MEASURED.filter(({ heads }) => isUniform(heads))
      .map(place)
      .sort(([a], [b]) => a - b);
    group.append(svg('polyline', { class: 'uniform-line', points: line.map((at) => at.join()).join(' ') }));
    for (const point of MEASURED) {
      const [x, y] = place(point);
      const level = isUniform(point.heads) ? FULL_HEADS / point.heads[0]! : 0;
      const isLevel = LEVELS.includes(level);
      const kind = isLevel ? 'level' : level > 0 ? 'uniform' : 'mixed';
      const dot = svg('circle', { class: `point ${kind}`, cx: x, cy: y, r: isLevel ? 5 : 3.5 });
      dot.append(svg('title', {}, `${describe(point)}: ${point.loss.toFixed(2)}`));
      dot.addEventListener('click', () => onPick(point.heads));
      group.append(dot);
      if (isLevel) {
        const atEnd = level === 1;
        group.append(
          svg(
            'text',
            {
              class: 'level-name',
              x: x + (atEnd ? 4 : -4),
              y: y + 18,
              'text-anchor': atEnd ? 'end' : 'middle',
              'aria-hidden': 'true',
            },
            `level ${level}`,
          ),
        );
      }
    }
    return group;
  }
}

/** What filled and hollow points are. */
function legend(): HTMLElement {
  const dot = (kind: string): HTMLElement => el('span', { class: `dot ${kind}` });
  return el('p', { class: 'hint legend', 'aria-hidden': 'true' }, dot('filled'), 'all layers alike', dot('hollow'), 'mixed');
}

function describe({ heads }: Measured): string {
  return isUniform(heads) ? nameOf(heads) : heads.join(' · ');
}

function yOf(loss: number): number {
  const clipped = Math.min(LOSSES[1], Math.max(LOSSES[0], loss));
  return TOP + ((LOSSES[1] - clipped) / (LOSSES[1] - LOSSES[0])) * (HEIGHT - TOP - BOTTOM);
}

/** The plot as a table, whose rows can be taken over. */
function numbers(info: LanguageInfo, onPick: (heads: Heads) => void): HTMLElement {
  const rows = MEASURED.toSorted((a, b) => costOf(a.heads, info).parameters - costOf(b.heads, info).parameters).map((point) => {
    const use = el('button', { type: 'button', class: 'quiet', 'aria-label': `Use ${describe(point)}` }, 'Use');
    use.addEventListener('click', () => onPick(point.heads));
    return el(
      'tr',
      {},
      el('th', { scope: 'row' }, describe(point)),
      el('td', {}, `${(costOf(point.heads, info).parameters / 1e6).toFixed(2)} M`),
      el('td', {}, point.loss.toFixed(3)),
      el('td', {}, use),
    );
  });
  const head = ['Heads', 'Parameters', 'Loss', ''].map((text) => el('th', { scope: 'col' }, text));
  return el(
    'details',
    { class: 'numbers' },
    el('summary', {}, 'Measured numbers'),
    el(
      'div',
      { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Measured losses' },
      el('table', {}, el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows)),
    ),
  );
}
