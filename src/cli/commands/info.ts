/** `matmamba info`: what this machine can do, or what a model is. No weights are read. */

import type { ArgsDef } from 'citty';
import { z } from 'zod';
import { describeMachine } from '../../bench/machine.ts';
import type { Capabilities } from '../../backends/backend.ts';
import { acquireBackend } from '../../backends/open.ts';
import { TRAINED_LEVELS, dimsOfLevel } from '../../elastic/granularity.ts';
import {
  type ModelDescription,
  type SizeReport,
  describeModel,
  hasLevel,
  sizeAt,
  specFromJson,
} from '../../models/description.ts';
import { PRESETS, PRESET_NAMES, isPresetName } from '../../models/presets.ts';
import type { CheckedArguments } from '../arguments.ts';
import { defineCliCommand } from '../command.ts';
import { remoteConfig } from '../remote-config.ts';
import type { Io } from '../io.ts';
import { locateModel, specOf } from '../models.ts';
import {
  deviceArgs,
  deviceOptions,
  deviceSettings,
  dimsLists,
  flag,
  jsonArgs,
  levelOf,
  modelArgs,
  modelOptions,
  widthArgs,
  widthName,
} from '../options.ts';
import { packageVersion } from '../package-files.ts';
import { fields, formatBytes, grouped, table } from '../text-layout.ts';

const { device, threads, blas } = deviceArgs;
const args: ArgsDef = {
  model: { type: 'positional', required: false, description: `a folder, a hub id, or a preset: ${PRESET_NAMES.join(', ')}` },
  dims: { ...widthArgs.dims, description: 'also count these dims: one number, or one per layer; may be repeated' },
  revision: modelArgs.revision,
  offline: modelArgs.offline,
  device,
  threads,
  blas,
  ...jsonArgs,
};

const { revision, offline } = modelOptions;
const options = z.object({
  revision,
  offline,
  device: deviceOptions.device,
  threads: deviceOptions.threads,
  blas: deviceOptions.blas,
  json: flag,
});

export const infoCommand = defineCliCommand({
  name: 'info',
  description: 'what this machine can do; or, with a model, its config, its parameters and bytes at every level',
  args,
  options,
  examples: [
    { command: 'matmamba info', says: 'this machine' },
    { command: 'matmamba info lm-1.4b', says: 'a published size, without downloading it' },
    { command: 'matmamba info ./my-model --dims 384,384,192,192,192,192,384,384 --json', says: 'a mix, for programs' },
  ],
  notes: [
    'Parameters and bytes are counted from the shapes: no weights are read, and of a hub model only config.json is fetched.',
  ],
  run: async (given, checked, io) => {
    const [model] = checked.positionals;
    await (model === undefined ? machineInfo(given, io) : modelInfo(model, given, checked, io));
  },
});

type Options = z.output<typeof options>;

async function machineInfo(given: Options, io: Io): Promise<void> {
  const { backend, release } = await acquireBackend(deviceSettings(given, io));
  const capabilities = backend.capabilities();
  await release();
  const machine = { version: packageVersion(), ...describeMachine() };
  if (given.json) {
    io.json({ ...machine, ...capabilities });
    return;
  }
  const unsupported = Object.entries(capabilities.unsupported).map(([op, why]) => `${op} (${why})`);
  io.line(
    fields(
      [
        ['matmamba', machine.version],
        ['Node', `${machine.node}, ${machine.platform}`],
        ['processor', `${machine.cpu}, ${machine.cores} core${machine.cores === 1 ? '' : 's'} for this process`],
        ['memory', formatBytes(machine.memoryBytes)],
        ['device', `${capabilities.device}: ${capabilities.summary}`],
        ...Object.entries(capabilities.facts),
        ['memory limit', memoryLimit(capabilities)],
        ['dtypes', capabilities.dtypes.join(', ')],
        ...(unsupported.length > 0 ? [['not on this device', unsupported.join(', ')] as const] : []),
      ],
      io.columns,
    ),
  );
}

function memoryLimit({ memoryLimitBytes }: Capabilities): string {
  // WebGPU does not say what a device has.
  if (memoryLimitBytes === Number.MAX_SAFE_INTEGER) return 'not known before it is asked for';
  return `${formatBytes(memoryLimitBytes)} for weights, states and activations`;
}

/** A preset, the config on the hub, or the config of a folder. */
async function describe(
  model: string,
  { revision, offline }: Options,
  io: Io,
): Promise<{ description: ModelDescription; name: string }> {
  if (isPresetName(model)) return { description: describeModel(PRESETS[model]), name: model };
  const remote = offline ? undefined : await remoteConfig(model, revision, io.signal);
  if (remote) return { description: describeModel(specFromJson(remote, `${model}/config.json`, io.warn)), name: model };
  const located = await locateModel({ model, revision, offline }, io);
  return { description: describeModel(await specOf(located, {}, io)), name: located.folder };
}

async function modelInfo(model: string, given: Options, checked: CheckedArguments, io: Io): Promise<void> {
  const mixes = dimsLists(checked.all('dims'));
  const { description, name } = await describe(model, given, io);
  const { kind, json, dModel, nLayer, stateBytes } = description;
  const sizes = [
    ...TRAINED_LEVELS.filter((level) => hasLevel(level, dModel)).map((level) => dimsOfLevel(level, dModel)),
    ...mixes,
  ].map((dims) => sizeAt(description, dims));
  if (given.json) {
    io.json({
      model: name,
      kind,
      config: json,
      layers: nLayer,
      dModel,
      stateBytes,
      sizes: sizes.map((size) => Object.assign({ level: levelOf(size.dims, dModel) }, size)),
    });
    return;
  }
  const { headdim, heads } = { headdim: description.mixer.P, heads: description.mixer.H };
  const rows: [string, string][] = [
    ['model', name],
    ['kind', { language: 'language model', vision: 'vision model', block: 'block' }[kind]],
    [
      'shape',
      `${nLayer} layer${nLayer === 1 ? '' : 's'}, d_model ${dModel}, ${heads} heads of ${headdim}, d_state ${description.mixer.N}`,
    ],
  ];
  if (stateBytes > 0)
    rows.push(['state', `${formatBytes(stateBytes)} for each sequence, however long (${grouped(stateBytes)} bytes)`]);
  rows.push(['config', JSON.stringify(json).replaceAll(',"', ', "')]);
  io.line(fields(rows, io.columns));
  io.line();
  const body = kind === 'language';
  const right = 'right' as const;
  const columns = ['parameters', body ? 'without embeddings' : '', 'f32', 'bf16', 'int8', 'int4'];
  const rowOf = ({ dims, parameters, bodyParameters, bytes }: SizeReport): string[] => {
    const counts = [grouped(parameters), body ? grouped(bodyParameters) : ''];
    return [widthName(dims, dModel), ...counts, ...[bytes.f32, bytes.bf16, bytes.int8, bytes.int4].map(formatBytes)];
  };
  const shown = (_: unknown, i: number): boolean => body || i !== 2;
  const titles = [{ title: 'width' }, ...columns.map((title) => ({ title, align: right }))].filter(shown);
  const lines = sizes.map((size) => rowOf(size).filter(shown));
  io.line(table(titles, lines, io.columns));
}
