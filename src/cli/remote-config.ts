/** The `config.json` of a hub model alone: enough to say what the model is, without its gigabytes. */

import { stat } from 'node:fs/promises';
import { type JsonObject, isJsonObject, isModelId, parsePythonJsonBytes } from '../checkpoint/index.ts';
import { MatMambaError, messageOf, throwIfAborted } from '../errors.ts';

/**
 * Undefined when `id` is a folder or file, no hub id, or the hub cannot be asked: then the cache may still know it.
 * @throws NETWORK when the hub has no such model; FORMAT
 */
export async function remoteConfig(
  id: string,
  revision: string | undefined,
  signal: AbortSignal,
): Promise<JsonObject | undefined> {
  if (!isModelId(id) || (await stat(id).catch(() => undefined))) return undefined;
  const { HF_ENDPOINT: endpoint, HF_TOKEN: token, HF_HUB_OFFLINE: offline } = process.env;
  if (/^(?:1|on|yes|true)$/i.test(offline ?? '')) return undefined;
  const { downloadFile } = await import('@huggingface/hub');
  let file: Blob | null;
  try {
    file = await downloadFile({
      repo: { type: 'model', name: id },
      path: 'config.json',
      revision: revision ?? 'main',
      ...(endpoint ? { hubUrl: endpoint.replace(/\/+$/, '') } : {}),
      ...(token ? { accessToken: token } : {}),
      fetch: (input, init) => fetch(input, { ...init, signal }),
    });
  } catch (cause) {
    throwIfAborted(signal);
    const status = (cause as { statusCode?: number }).statusCode;
    if (status === undefined) return undefined;
    throw new MatMambaError('NETWORK', `the hub has no ${id} for you: ${messageOf(cause)}`, {
      hint: 'check the id; a private model needs HF_TOKEN',
      cause,
    });
  }
  if (!file) throw new MatMambaError('FILE', `${id} holds no config.json`);
  const name = `${id}/config.json`;
  const json = parsePythonJsonBytes(new Uint8Array(await file.arrayBuffer()), { name });
  if (!isJsonObject(json)) throw new MatMambaError('FORMAT', `${name} holds no object`);
  return json;
}
