import type { ArgsDef } from 'citty';
import { describe, expect, test } from 'vitest';
import { UsageError, checkArguments } from './arguments.ts';
import { formatBytes, formatCount, formatSeconds, table, wrap } from './text-layout.ts';

const args: ArgsDef = {
  file: { type: 'positional', required: true, description: 'a file' },
  'max-tokens': { type: 'string', alias: 'n', description: 'how many' },
  stop: { type: 'string' },
  dtype: { type: 'enum', options: ['f32', 'int8'] },
  json: { type: 'boolean' },
};
const check = (...raw: string[]) => checkArguments(args, raw, false);

describe('arguments', () => {
  test('are taken as they come', () => {
    const given = check('a', '--stop', 'x', '--stop=--y', '-n', '-3', '--no-json', '--dtype=int8');
    expect(given.positionals).toEqual(['a']);
    expect(given.all('stop')).toEqual(['x', '--y']);
    expect(given.all('max-tokens')).toEqual(['-3']);
    expect(check('--', '--json').positionals).toEqual(['--json']);
    expect(check('-').positionals).toEqual(['-']);
  });

  test.each([
    [['a', '--max-token', '3'], '--max-tokens'],
    [['a', '--jsn'], '--json'],
    [['a', '--max'], '--max-tokens'],
    [['a', '--dtype', 'in8'], 'int8'],
    [['a', '--stop', '--json'], 'needs a value'],
    [['a', '--stop'], 'needs a value'],
    [['a', 'b'], "'b'"],
    [[], 'FILE is missing'],
    [['a', '--quux'], '--quux'],
  ])('%j is refused', (raw, says) => {
    let error: unknown;
    try {
      check(...raw);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(UsageError);
    const { message, hint } = error as UsageError;
    expect(`${message}\n${hint}`).toContain(says);
  });
});

describe('text layout', () => {
  test('wraps and aligns', () => {
    expect(wrap('one two three four five', 20, 2)).toBe('  one two three four\n  five');
    const columns = [{ title: 'name' }, { title: 'n', align: 'right' as const }];
    expect(
      table(
        columns,
        [
          ['a', '10'],
          ['bcdef', '7'],
        ],
        80,
      ),
    ).toBe('name    n\na      10\nbcdef   7');
    expect(table(columns, [['a', '10']], 5)).toBe('name  a\nn     10');
  });

  test('writes numbers with units', () => {
    expect([999, 1000, 12_345_678, 999_960].map(formatBytes)).toEqual(['999 B', '1.00 kB', '12.3 MB', '1.00 MB']);
    expect([7, 129_723_648].map(formatCount)).toEqual(['7', '129.7 M']);
    expect([0.123, 5, 59.6, 185, 3700].map(formatSeconds)).toEqual(['0.12 s', '5.0 s', '1 min 00 s', '3 min 05 s', '1 h 01 min']);
  });
});
