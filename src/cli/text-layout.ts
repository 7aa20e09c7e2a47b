/** Plain text for terminals: wrapping, tables, and numbers with units. */

/** Wraps at spaces, every line indented by `indent`; a word longer than a line stays whole. */
export function wrap(text: string, columns: number, indent = 0): string {
  const margin = ' '.repeat(indent);
  const room = Math.max(16, columns - indent);
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > room) {
      lines.push(margin + line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, margin + line].join('\n');
}

export interface Column {
  readonly title: string;
  /** Numbers stand right, words (the default) left. */
  readonly align?: 'left' | 'right';
}

/**
 * A table with two spaces between columns. Where it does not fit the terminal, every row becomes a paragraph of
 * `title value` lines.
 */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[], width: number): string {
  const widths = columns.map(({ title }, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  if (widths.reduce((sum, n) => sum + n + 2, -2) > width) return paragraphs(columns, rows);
  const lay = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => (columns[i]!.align === 'right' ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [lay(columns.map(({ title }) => title)), ...rows.map(lay)].join('\n');
}

function paragraphs(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const widest = Math.max(...columns.map(({ title }) => title.length));
  return rows.map((row) => columns.map(({ title }, i) => `${title.padEnd(widest)}  ${row[i]}`.trimEnd()).join('\n')).join('\n\n');
}

/** Lines of `name  value`, values wrapped under each other. */
export function fields(rows: readonly (readonly [string, string])[], width: number): string {
  const widest = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => name.padEnd(widest + 2) + wrap(value, width, widest + 2).slice(widest + 2)).join('\n');
}

/** 1,234,567 */
export function grouped(n: number): string {
  return n.toLocaleString('en-US');
}

/** 12.3 MB (decimal units). */
export function formatBytes(bytes: number): string {
  return scaled(bytes, ['B', 'kB', 'MB', 'GB', 'TB']);
}

/** 129.7 M */
export function formatCount(n: number): string {
  return scaled(n, ['', 'k', 'M', 'G', 'T']).trimEnd();
}

function scaled(n: number, units: readonly string[]): string {
  let at = 0;
  let value = n;
  while (value >= 999.95 && at < units.length - 1) {
    value /= 1000;
    at++;
  }
  return `${at === 0 ? String(Math.round(value)) : value.toFixed(value < 10 ? 2 : 1)} ${units[at]}`;
}

/** 0.42 s, 12 s, 3 min 05 s */
export function formatSeconds(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(seconds < 1 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, '0')} min`;
}

/** Three significant digits without an exponent: 0.123, 12.3, 1230. */
export function formatNumber(n: number): string {
  if (!Number.isFinite(n)) return String(n);
  const magnitude = Math.abs(n);
  return n.toFixed(magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : magnitude >= 1 ? 2 : 3);
}
