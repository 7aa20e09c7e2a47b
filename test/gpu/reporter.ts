/** Prints a line per test, then a table of the largest error by group and dtype, then `N passed, N failed`. */

import type { TestEvent } from 'node:test/reporters';

/** First word of the diagnostic line that says a test's largest error: group, dtype and error follow, with tabs between. */
export const ERROR_LINE = 'largest error';

/** What the runner says of tests that `--name` leaves out. */
const NOT_CHOSEN = /does not match pattern/;
const FIRST_COLUMN = 32;
const COLUMN = 12;

/** The message of a failure, without the runner's own wrapping. */
function failureText(error: unknown): string {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  if (cause instanceof Error) return cause.stack ?? cause.message;
  return typeof cause === 'string' ? cause : JSON.stringify(cause);
}

function indented(text: string): string {
  return text.replaceAll(/^/gm, '    ');
}

class ErrorTable {
  readonly #dtypes: string[] = [];
  readonly #groups = new Map<string, Map<string, number>>();

  add(group: string, dtype: string, error: number): void {
    if (!this.#dtypes.includes(dtype)) this.#dtypes.push(dtype);
    const row = this.#groups.get(group) ?? new Map<string, number>();
    this.#groups.set(group, row.set(dtype, Math.max(row.get(dtype) ?? 0, error)));
  }

  toString(): string {
    if (this.#groups.size === 0) return '';
    const line = (first: string, cells: readonly string[]): string =>
      `${first.padEnd(FIRST_COLUMN)}${cells.map((cell) => cell.padStart(COLUMN)).join('')}\n`;
    const rows = [...this.#groups].map(([group, row]) =>
      line(
        group,
        this.#dtypes.map((dtype) => row.get(dtype)?.toExponential(1) ?? ''),
      ),
    );
    return `\n${line('largest error', this.#dtypes)}${rows.join('')}`;
  }
}

export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const table = new ErrorTable();
  for await (const event of source) {
    if (event.type === 'test:pass') {
      const { name, skip, details } = event.data;
      if (NOT_CHOSEN.test(String(skip))) continue;
      const isSkipped = skip !== undefined && skip !== false;
      counts[isSkipped ? 'skipped' : 'passed']++;
      yield isSkipped ? `skipped ${name}: ${String(skip)}\n` : `passed  ${name} (${Math.round(details.duration_ms)} ms)\n`;
    } else if (event.type === 'test:fail') {
      counts.failed++;
      yield `FAILED  ${event.data.name}\n${indented(failureText(event.data.details.error))}\n`;
    } else if (event.type === 'test:diagnostic') {
      const [mark, group, dtype, error] = event.data.message.split('\t');
      if (mark === ERROR_LINE && group !== undefined && dtype !== undefined) table.add(group, dtype, Number(error));
    } else if (event.type === 'test:stdout' || event.type === 'test:stderr') {
      yield event.data.message;
    }
  }
  yield String(table);
  const { passed, failed, skipped } = counts;
  yield `\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}\n`;
}
