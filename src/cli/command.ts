/**
 * How a command is declared: citty's argument definitions, plus what citty lacks: examples, repeatable options,
 * positionals of any number, and values checked by a zod schema before the command runs.
 */

import { type ArgsDef, type CommandContext, defineCommand, runCommand } from 'citty';
import type { z } from 'zod';
import { type CheckedArguments, UsageError, checkArguments } from './arguments.ts';
import type { Io } from './io.ts';

export interface Example {
  readonly command: string;
  readonly says: string;
}

interface Declaration<S extends z.ZodType> {
  readonly name: string;
  /** One sentence. */
  readonly description: string;
  readonly args: ArgsDef;
  /** The last positional takes all that follow. */
  readonly variadic?: boolean;
  readonly examples: readonly Example[];
  /** Further paragraphs of the help. */
  readonly notes?: readonly string[];
  /** Checks the option values, given as strings and booleans under their names; repeated options come as `given`. */
  readonly options: S;
  readonly run: (options: z.output<S>, given: CheckedArguments, io: Io) => Promise<void>;
}

export interface CliCommand {
  readonly name: string;
  readonly description: string;
  readonly args: ArgsDef;
  readonly variadic: boolean;
  readonly examples: readonly Example[];
  readonly notes: readonly string[];
  /** @throws UsageError, MatMambaError */
  execute(rawArgs: readonly string[], io: Io): Promise<void>;
}

/** Declares a command. */
export function defineCliCommand<S extends z.ZodType>(declaration: Declaration<S>): CliCommand {
  const { name, description, variadic = false, examples, notes = [], run, options: schema } = declaration;
  // Every command has --help, so that it is listed; it is dealt with before a command runs.
  const args: ArgsDef = { ...declaration.args, help: { type: 'boolean', alias: 'h', description: 'show this help' } };
  return {
    name,
    description,
    args,
    variadic,
    examples,
    notes,
    async execute(rawArgs, io) {
      const given = checkArguments(args, rawArgs, variadic);
      const definition = defineCommand({
        meta: { name, description },
        args,
        run: ({ args: values }: CommandContext) => run(checkValues(schema, values, args), given, io),
      });
      await runCommand(definition, { rawArgs: [...rawArgs] });
    },
  };
}

/** Option values through the schema; the first thing wrong with them becomes a usage error that names the option. */
function checkValues<S extends z.ZodType>(schema: S, values: Readonly<Record<string, unknown>>, args: ArgsDef): z.output<S> {
  const named = Object.fromEntries(Object.keys(args).map((name) => [name, values[name]]));
  const parsed = schema.safeParse(named);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  const name = String(path[0]);
  const where = args[name]?.type === 'positional' ? name.toUpperCase() : `--${name}`;
  throw new UsageError(`${where} is ${JSON.stringify(named[name])}: ${message}`);
}
