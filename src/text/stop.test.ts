import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StopMatcher } from './stop.ts';

/** Character by character: the stop string complete first, of several the longest. */
function naive(text: string, stops: readonly string[]): { text: string; stopped: boolean } {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    if (ending.length > 0) return { text: text.slice(0, end - Math.max(...ending.map((stop) => stop.length))), stopped: true };
  }
  return { text, stopped: false };
}

describe('StopMatcher', () => {
  it('does what a search over the whole text does, however it is cut', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(
        fc.array(letters, { maxLength: 4 }),
        fc.array(fc.oneof(letters, fc.constant('')), { maxLength: 12 }),
        (stops, pieces) => {
          const matcher = new StopMatcher(stops);
          let shown = '';
          let stopped = false;
          const whole = naive(pieces.join(''), stops);
          for (const piece of pieces) {
            const result = matcher.push(piece);
            shown += result.text;
            stopped ||= result.stopped;
            expect(whole.text.startsWith(shown)).toBe(true);
          }
          expect({ text: shown + matcher.flush(), stopped }).toEqual(whole);
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('holds back no more than could begin a stop string', () => {
    const matcher = new StopMatcher(['\n\n', 'END']);
    expect(matcher.push('one E')).toEqual({ text: 'one ', stopped: false });
    expect(matcher.push('N')).toEqual({ text: '', stopped: false });
    expect(matcher.push('x\n')).toEqual({ text: 'ENx', stopped: false });
    expect(matcher.push('two')).toEqual({ text: '\ntwo', stopped: false });
    expect(matcher.push('.\n\nmore')).toEqual({ text: '.', stopped: true });
    expect(matcher.push('after')).toEqual({ text: '', stopped: true });
    expect(matcher.flush()).toBe('');
  });

  it('refuses an empty stop string', () => {
    expect(() => new StopMatcher(['a', ''])).toThrow(expect.objectContaining({ code: 'OPTION' }));
    expect(() => new StopMatcher([3 as unknown as string])).toThrow(expect.objectContaining({ code: 'OPTION' }));
  });
});
