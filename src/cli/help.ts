/** The help pages: from the same definitions that arguments are read with, wrapped to the terminal. */

import type { ArgsDef } from 'citty';
import type { CliCommand } from './command.ts';
import { wrap } from './text-layout.ts';

/** The widest column of option names; what is longer gets a line of its own. */
const MAX_NAMES = 28;

export function overviewHelp(
  commands: readonly { readonly name: string; readonly description: string }[],
  version: string,
  columns: number,
): string {
  const rows = commands.map(({ name, description }): Row => [name, description]);
  return [
    wrap(`matmamba ${version}: nested Mamba-2 models that run at any of their sizes`, columns),
    '',
    'USAGE',
    '  matmamba <command> [options]',
    '',
    'COMMANDS',
    twoColumns(rows, columns),
    '',
    'OPTIONS',
    twoColumns(
      [
        ['-h, --help', 'show this help; after a command, its help'],
        ['-v, --version', 'show the version'],
      ],
      columns,
    ),
    '',
    'ENVIRONMENT',
    twoColumns(
      [
        ['MATMAMBA_THREADS', 'worker threads where --threads is not given'],
        ['MATMAMBA_BLAS', "auto, off or a library's path where --blas is not given"],
        ['MATMAMBA_DEBUG', '1 shows the stacks of errors'],
        ['HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE', 'cache, access, address of the Hugging Face hub'],
      ],
      columns,
    ),
    '',
    'Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.',
    'Try it:  matmamba generate "Once upon a time"',
  ].join('\n');
}

export function commandHelp(command: CliCommand, columns: number): string {
  const { name, description, args, variadic, examples, notes } = command;
  const positionals = Object.entries(args).filter(([, { type }]) => type === 'positional');
  const usage = positionals.map(([positional, { required, default: value }], i) => {
    const shown = positional.toUpperCase() + (variadic && i === positionals.length - 1 ? '...' : '');
    return required === false || value !== undefined ? `[${shown}]` : `<${shown}>`;
  });
  const sections = [
    wrap(sentence(description), columns),
    `USAGE\n${wrap(`matmamba ${[name, ...usage, '[options]'].join(' ')}`, columns, 2)}`,
  ];
  if (positionals.length > 0) {
    const rows = positionals.map(([positional, definition]): Row => [positional.toUpperCase(), definition.description ?? '']);
    sections.push(`ARGUMENTS\n${twoColumns(rows, columns)}`);
  }
  sections.push(`OPTIONS\n${twoColumns(optionRows(args), columns)}`);
  for (const note of notes) sections.push(wrap(note, columns));
  const shown = examples.map((example) => `${wrap(`# ${example.says}`, columns, 2)}\n  ${example.command}`);
  if (shown.length > 0) sections.push(`EXAMPLES\n${shown.join('\n')}`);
  return sections.join('\n\n');
}

type Row = readonly [name: string, description: string];

function optionRows(args: ArgsDef): Row[] {
  return Object.entries(args).flatMap(([name, definition]) => {
    if (definition.type === 'positional') return [];
    const aliases = 'alias' in definition ? [definition.alias ?? []].flat() : [];
    const hint =
      definition.valueHint ?? ('options' in definition ? definition.options?.join('|') : undefined) ?? name.toUpperCase();
    const value = definition.type === 'boolean' ? '' : ` ${hint}`;
    const fallback =
      definition.default === undefined || definition.default === false ? '' : ` (default ${String(definition.default)})`;
    return [
      [
        `${aliases.map((alias) => `-${alias}, `).join('')}--${name}${value}`,
        `${definition.description ?? ''}${fallback}`,
      ] as const,
    ];
  });
}

function twoColumns(rows: readonly Row[], columns: number): string {
  const left = Math.min(MAX_NAMES, Math.floor(columns / 2), Math.max(...rows.map(([name]) => name.length)));
  return rows
    .map(([name, description]) => {
      const text = wrap(description, columns, left + 4);
      return name.length <= left ? `  ${name.padEnd(left)}${text.slice(left + 2)}` : `${wrap(name, columns, 2)}\n${text}`;
    })
    .join('\n');
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
