/**
 * A strict look at a command line before citty reads it: citty takes unknown options and missing values silently, and
 * of a repeated option it keeps the last. Both read with the same rules (`node:util` parseArgs).
 */

import { parseArgs } from 'node:util';
import type { ArgsDef } from 'citty';
import { nearestWord } from '../errors.ts';

/** A command line that cannot be meant as it stands; exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}

export interface CheckedArguments {
  readonly positionals: readonly string[];
  /** All values of an option, in order. */
  all(option: string): readonly string[];
}

const NUMBER = /^-?(\d|\.\d)/;

/** @throws UsageError naming the nearest option, or what an option lacks */
export function checkArguments(args: ArgsDef, rawArgs: readonly string[], variadic: boolean): CheckedArguments {
  const options = Object.entries(args).filter(([, { type }]) => type !== 'positional');
  const byName = new Map(options);
  const aliases = new Map(options.flatMap(([name, definition]) => aliasesOf(definition).map((alias) => [alias, name] as const)));
  const { tokens } = parseArgs({
    args: [...rawArgs],
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries(
      options.map(([name, definition]) => {
        const short = aliasesOf(definition).find((alias) => alias.length === 1);
        return [
          name,
          { type: definition.type === 'boolean' ? 'boolean' : 'string', multiple: true, ...(short ? { short } : {}) } as const,
        ];
      }),
    ),
  });
  const values = new Map<string, string[]>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value);
    if (token.kind !== 'option') continue;
    const negated = token.name.startsWith('no-') && byName.get(token.name.slice(3))?.type === 'boolean';
    const name = negated ? token.name.slice(3) : (aliases.get(token.name) ?? token.name);
    const definition = byName.get(name);
    if (!definition) throw unknownOption(token.rawName, [...byName.keys()]);
    if (definition.type === 'boolean') continue;
    const { value } = token;
    if (value === undefined || (!token.inlineValue && value.startsWith('-') && value !== '-' && !NUMBER.test(value))) {
      throw new UsageError(
        `--${name} needs a value`,
        definition.description ? `--${name}: ${definition.description}` : undefined,
      );
    }
    if (definition.type === 'enum' && definition.options && !definition.options.includes(value)) {
      const near = nearestWord(value, definition.options);
      throw new UsageError(
        `--${name} is '${value}'`,
        near ? `did you mean '${near}'?` : `one of ${definition.options.join(', ')}`,
      );
    }
    values.set(name, [...(values.get(name) ?? []), value]);
  }
  checkPositionals(args, positionals, variadic);
  return { positionals, all: (option) => values.get(option) ?? [] };
}

function checkPositionals(args: ArgsDef, given: readonly string[], variadic: boolean): void {
  const declared = Object.entries(args).filter(([, { type }]) => type === 'positional');
  const missing = declared.find(
    ([, { required, default: value }], i) => i >= given.length && required !== false && value === undefined,
  );
  if (missing) throw new UsageError(`${missing[0].toUpperCase()} is missing`, missing[1].description);
  if (!variadic && given.length > declared.length) {
    throw new UsageError(
      `there is one argument too many: '${given[declared.length]}'`,
      'put quotes around an argument that holds spaces',
    );
  }
}

function unknownOption(given: string, known: readonly string[]): UsageError {
  const word = given.replace(/^-+/, '');
  const near = nearestWord(word, known) ?? known.find((name) => word.length > 1 && name.startsWith(word));
  return new UsageError(`there is no option ${given}`, near ? `did you mean --${near}?` : undefined);
}

function aliasesOf(definition: ArgsDef[string]): readonly string[] {
  const alias = 'alias' in definition ? definition.alias : undefined;
  return alias === undefined ? [] : typeof alias === 'string' ? [alias] : alias;
}
