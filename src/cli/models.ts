/** From `--model` to a model: finds it, sees what kind it is, and loads it with a progress bar. */

import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type JsonObject, isJsonObject, parsePythonJsonBytes, resolveModel } from '../checkpoint/index.ts';
import { MatMambaError } from '../errors.ts';
import { type ModelKind, type ModelSpec, kindOfConfig, specFromJson } from '../models/description.ts';
import { MatMambaLMHeadModel } from '../models/language-model.ts';
import type { PretrainedOptions } from '../models/load.ts';
import { PRESETS, PRESET_NAMES, isPresetName } from '../models/presets.ts';
import { MatMamba2Vision } from '../models/vision-model.ts';
import { UsageError } from './arguments.ts';
import type { Io } from './io.ts';
import type { DeviceSettings } from './options.ts';
import { EMBEDDED_MODEL, embeddedModelFolder } from './package-files.ts';
import { Progress, withProgress } from './progress.ts';
import { formatBytes, formatCount } from './text-layout.ts';

export interface ModelChoice {
  readonly model?: string | undefined;
  readonly revision?: string | undefined;
  readonly offline?: boolean | undefined;
}

export interface LocatedModel {
  /** As it was named, for messages. */
  readonly name: string;
  /** What `fromPretrained` takes: a folder or a weights file. */
  readonly path: string;
  /** Where config and tokenizer lie. */
  readonly folder: string;
  readonly json: JsonObject | undefined;
}

/**
 * Finds a model on the disk, or downloads it. Without a name it is the one in the package.
 * @throws FILE, NETWORK, FORMAT, ABORTED
 */
export async function locateModel({ model, revision, offline }: ModelChoice, io: Io): Promise<LocatedModel> {
  const embedded = embeddedModelFolder();
  if (model === undefined && !embedded) {
    throw new MatMambaError('FILE', 'this installation carries no model', {
      hint: 'name one: --model FOLDER or --model owner/name',
    });
  }
  const name = model ?? EMBEDDED_MODEL;
  const found = await stat(name).catch(() => undefined);
  let path = name;
  if (!found) path = name === EMBEDDED_MODEL && embedded ? embedded : await download(name, { revision, offline }, io);
  else if (!found.isFile() && !found.isDirectory()) throw new MatMambaError('FILE', `${name} is neither a folder nor a file`);
  const folder = found?.isFile() ? dirname(path) : path;
  return { name, path, folder, json: await readConfigFile(`${folder}/config.json`) };
}

async function download(id: string, { revision, offline }: ModelChoice, io: Io): Promise<string> {
  let bar: { file: string; progress: Progress } | undefined;
  try {
    const { folder } = await resolveModel(id, {
      revision,
      ...(offline ? { localFilesOnly: true } : {}),
      signal: io.signal,
      progressCallback: ({ file, loadedBytes, totalBytes }) => {
        if (bar?.file !== file) {
          bar?.progress.end();
          bar = { file, progress: new Progress({ label: file, format: formatBytes }) };
        }
        bar.progress.update(loadedBytes, totalBytes);
      },
    });
    return folder;
  } finally {
    bar?.progress.end();
  }
}

/** A `config.json`, or undefined where there is none. @throws FILE, FORMAT */
export async function readConfigFile(path: string): Promise<JsonObject | undefined> {
  const { readFile } = await import('node:fs/promises');
  const bytes = await readFile(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT' || cause.code === 'ENOTDIR') return undefined;
    throw new MatMambaError('FILE', `cannot read ${path}: ${cause.message}`, { cause });
  });
  if (!bytes) return undefined;
  const json = parsePythonJsonBytes(bytes, { name: path });
  if (!isJsonObject(json)) throw new MatMambaError('FORMAT', `${path} holds no object`);
  return json;
}

/** The model's config: `--preset`, `--config`, or the file beside the weights. @throws CONFIG, FILE, FORMAT */
export async function specOf(
  located: LocatedModel | undefined,
  { preset, config }: { readonly preset?: string | undefined; readonly config?: string | undefined },
  io: Io,
): Promise<ModelSpec> {
  if (preset !== undefined && config !== undefined)
    throw new UsageError('--preset and --config were both given', 'give one of them');
  if (preset !== undefined) {
    if (isPresetName(preset)) return PRESETS[preset];
    throw new UsageError(`there is no preset '${preset}'`, `presets: ${PRESET_NAMES.join(', ')}`);
  }
  const json = config === undefined ? located?.json : await readConfigFile(config);
  if (json) return specFromJson(json, config ?? `${located!.folder}/config.json`, io.warn);
  if (config !== undefined) throw new MatMambaError('FILE', `there is no file ${config}`);
  throw new MatMambaError('CONFIG', `${located?.folder} has no config.json`, {
    hint: `give --config FILE, or --preset NAME (${PRESET_NAMES.join(', ')})`,
  });
}

const KIND_NAMES: Readonly<Record<ModelKind, string>> = {
  language: 'a language model',
  vision: 'a vision model',
  block: 'a single block',
};

/** @throws CONFIG when the config is that of another kind of model */
function requireKind(kind: ModelKind, { name, folder, json }: LocatedModel): void {
  if (!json) return; // The library says what to do about a missing config.
  const found = kindOfConfig(json, `${folder}/config.json`);
  if (found === kind) return;
  const command = { language: 'generate and eval', vision: 'classify', block: 'info and convert' }[found];
  throw new MatMambaError('CONFIG', `${name} is ${KIND_NAMES[found]}, not ${KIND_NAMES[kind]}`, {
    hint: `commands for it: ${command}`,
  });
}

async function load<M>(
  located: LocatedModel,
  settings: DeviceSettings,
  io: Io,
  open: (path: string, options: PretrainedOptions<never>) => Promise<M>,
): Promise<M> {
  return withProgress({ label: 'loading', format: (bytes) => `${formatCount(bytes / 4)} parameters` }, (progress) =>
    open(located.path, {
      ...settings,
      signal: io.signal,
      onWarning: io.warn,
      progressCallback: ({ loadedBytes, totalBytes }) => progress.update(loadedBytes, totalBytes),
    }),
  );
}

/** @throws what `fromPretrained` throws, and CONFIG for another kind of model */
export async function loadLanguageModel(
  choice: ModelChoice,
  settings: DeviceSettings,
  io: Io,
): Promise<{ lm: MatMambaLMHeadModel; name: string }> {
  const located = await locateModel(choice, io);
  requireKind('language', located);
  return {
    lm: await load(located, settings, io, (path, options) => MatMambaLMHeadModel.fromPretrained(path, options)),
    name: located.name,
  };
}

/** @throws what `fromPretrained` throws, and CONFIG for another kind of model */
export async function loadVisionModel(
  choice: ModelChoice,
  settings: DeviceSettings,
  io: Io,
): Promise<{ vision: MatMamba2Vision; folder: string }> {
  const located = await locateModel(choice, io);
  requireKind('vision', located);
  return {
    vision: await load(located, settings, io, (path, options) => MatMamba2Vision.fromPretrained(path, options)),
    folder: located.folder,
  };
}
