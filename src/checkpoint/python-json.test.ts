import { describe, expect, test } from 'vitest';
import { formatPythonJson, parsePythonJson, parsePythonJsonBytes } from './python-json.ts';

describe('JSON as Python writes it', () => {
  test('numbers Python adds, and everything JSON has', () => {
    expect(parsePythonJson('{"dt_limit": [0.0, Infinity], "a": -Infinity, "b": NaN}')).toEqual({
      dt_limit: [0, Infinity],
      a: -Infinity,
      b: NaN,
    });
    const text = '\n[1, -0.5e+3, "\\u00e9\\n\\"\\/\\ud83d\\ude00", true, false, null, {"": []}, {}]\t';
    expect(parsePythonJson(text)).toEqual(JSON.parse(text));
    expect(Object.is(parsePythonJson('-0'), -0)).toBe(true);
  });

  test('round trip through formatPythonJson', () => {
    const value = { limit: [0, Infinity, -Infinity], nan: NaN, text: '"#Infinity"', marker: '#NaN' };
    const text = formatPythonJson(value);
    expect(text).toContain('Infinity,');
    expect(parsePythonJson(text)).toEqual(value);
    expect(formatPythonJson([1, 'a'], 0)).toBe('[1,"a"]');
  });

  test('objects inherit nothing', () => {
    const value = parsePythonJson('{"__proto__": {"polluted": 1}, "constructor": 2}') as Record<string, unknown>;
    expect(Object.keys(value)).toEqual(['__proto__', 'constructor']);
    expect(value['toString']).toBeUndefined();
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  test.each([
    ['{"a": 1,\n  "b": }', /expected a value, found "}" \(line 2, column 8\)/],
    ['[1, 2', /',' or ']', found the end of the text \(line 1, column 6\)/],
    ['{a: 1}', /a name in double quotes/],
    ['"abc', /closing quote/],
    ['"a\nb"', /escaped control character/],
    ['"\\x"', /an escape such as/],
    ['[01]', /',' or ']'/],
    ['[1] 2', /nothing more/],
    ['', /a value/],
    ['[+1]', /a value/],
    ['infinity', /a value/],
    ['['.repeat(100_000), /levels of nesting/],
  ])('refuses %.20s', (text, message) => {
    expect(() => parsePythonJson(text, { name: 'config.json' })).toThrow(message);
    expect(() => parsePythonJson(text)).toThrow(expect.objectContaining({ code: 'FORMAT' }));
  });

  test('repeated keys: the last wins, or are refused', () => {
    expect(parsePythonJson('{"a": 1, "a": 2}')).toEqual({ a: 2 });
    expect(() => parsePythonJson('{"a": 1, "a": 2}', { uniqueKeys: true })).toThrow(/"a" appears twice/);
  });

  test('bytes must be UTF-8', () => {
    expect(parsePythonJsonBytes(new TextEncoder().encode('\ufeff[1]'))).toEqual([1]);
    expect(() => parsePythonJsonBytes(Uint8Array.of(0x22, 0xff, 0x22))).toThrow(/UTF-8/);
  });
});
