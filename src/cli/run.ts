/**
 * From a command line to an exit code: finds the command, shows help, and turns whatever was thrown into a message.
 * 0: done; 1: failed; 2: the command line was wrong; 130: stopped by Ctrl-C.
 */

import { MatMambaError, messageOf, nearestWord } from '../errors.ts';
import { UsageError } from './arguments.ts';
import type { CliCommand } from './command.ts';
import { commandHelp, overviewHelp } from './help.ts';
import { Io, exitCodeOf } from './io.ts';
import { packageVersion } from './package-files.ts';

/** Loaded when they are run: `--version` should not wait for a model library. */
const COMMANDS: Readonly<Record<string, { readonly description: string; readonly load: () => Promise<CliCommand> }>> = {
  generate: { description: 'continue a text', load: async () => (await import('./commands/generate.ts')).generateCommand },
  eval: {
    description: 'the loss of a language model on a token file, at any widths',
    load: async () => (await import('./commands/eval.ts')).evalCommand,
  },
  classify: { description: 'name what is in images', load: async () => (await import('./commands/classify.ts')).classifyCommand },
  info: {
    description: 'what this machine can do, or what a model is',
    load: async () => (await import('./commands/info.ts')).infoCommand,
  },
  init: { description: 'a new model with random weights', load: async () => (await import('./commands/init.ts')).initCommand },
  convert: {
    description: 'a model in another file format or dtype',
    load: async () => (await import('./commands/convert.ts')).convertCommand,
  },
  data: { description: 'text into token files for training', load: async () => (await import('./commands/data.ts')).dataCommand },
  train: {
    description: 'train a model at several widths at once',
    load: async () => (await import('./commands/train.ts')).trainCommand,
  },
  bench: {
    description: 'how fast this machine runs a model',
    load: async () => (await import('./commands/bench.ts')).benchCommand,
  },
};

/** Runs a command line (without `node` and the script) and returns its exit code. */
export async function run(argv: readonly string[]): Promise<number> {
  const io = new Io();
  const [first, ...rest] = argv;
  let command: CliCommand | undefined;
  try {
    const listed = Object.entries(COMMANDS).map(([name, { description }]) => ({ name, description }));
    if (first === undefined || first === '--help' || first === '-h' || (first === 'help' && rest.length === 0)) {
      io.line(overviewHelp(listed, packageVersion(), io.columns));
      return 0;
    }
    if (first === '--version' || first === '-v') {
      io.line(packageVersion());
      return 0;
    }
    const name = first === 'help' ? rest[0]! : first;
    command = await findCommand(name);
    if (first === 'help' || asksForHelp(rest)) {
      io.line(commandHelp(command, io.columns));
      return 0;
    }
    await command.execute(rest, io);
    // A command may have come to its end in spite of a signal that fired late.
    return io.stopReason ? exitCodeOf(io.stopReason) : 0;
  } catch (error) {
    if (io.stopReason && (!(error instanceof MatMambaError) || error.code === 'ABORTED')) return exitCodeOf(io.stopReason);
    report(error, command, io);
    return error instanceof UsageError || (error instanceof Error && error.name === 'CLIError') ? 2 : 1;
  }
}

async function findCommand(name: string): Promise<CliCommand> {
  const names = Object.keys(COMMANDS);
  if (Object.hasOwn(COMMANDS, name)) return COMMANDS[name]!.load();
  const near = nearestWord(name, names);
  const what = name.startsWith('-') ? `there is no option ${name} before a command` : `there is no command '${name}'`;
  throw new UsageError(what, near ? `did you mean '${near}'?` : `commands: ${names.join(', ')}`);
}

function asksForHelp(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return args.slice(0, end < 0 ? undefined : end).some((arg) => arg === '--help' || arg === '-h');
}

function report(error: unknown, command: CliCommand | undefined, io: Io): void {
  const { debug } = io.environment;
  if (error instanceof MatMambaError) {
    // The message of the library ends in its hint, indented on a line of its own.
    io.note(`error ${error.code}: ${error.message}`);
  } else if (error instanceof UsageError || (error instanceof Error && error.name === 'CLIError')) {
    const hint = error instanceof UsageError ? error.hint : undefined;
    io.note(`error: ${error.message}${hint ? `\n  ${hint}` : ''}`);
    io.note(`  see: matmamba ${command ? `${command.name} ` : ''}--help`);
  } else {
    io.note(`error INTERNAL: ${messageOf(error)}\n  this should not happen: please report it, with what MATMAMBA_DEBUG=1 shows`);
  }
  if (!debug || !(error instanceof Error)) return;
  io.note(error.stack ?? '');
  for (let { cause } = error; cause !== undefined; cause = cause instanceof Error ? cause.cause : undefined) {
    io.note(`caused by: ${cause instanceof Error ? cause.stack : messageOf(cause)}`);
  }
}
