/** The `config.json` of a hub model alone: enough to say what the model is, without its gigabytes. */

import { stat } from 'node:fs/promises';
import { type JsonObject, isJsonObject, isModelId, parsePythonJsonBytes } from '../checkpoint/index.ts';
import { MatMambaError, throwIfAborted } from '../errors.ts';

const TIMEOUT_MS = 15_000;

/**
 * Undefined when `id` is a folder or file, no hub id, or the hub does not give the file: the cache may still have it, and
 * `resolveModel` says what is wrong.
 * @throws FORMAT, ABORTED
 */
export async function remoteConfig(
  id: string,
  revision: string | undefined,
  signal: AbortSignal,
): Promise<JsonObject | undefined> {
  if (!isModelId(id) || (await stat(id).catch(() => undefined))) return undefined;
  const { HF_ENDPOINT: endpoint, HF_TOKEN: token, HF_HUB_OFFLINE: offline } = process.env;
  if (/^(?:1|on|yes|true)$/i.test(offline ?? '')) return undefined;
  const hub = (endpoint || 'https://huggingface.co').replace(/\/+$/, '');
  const url = `${hub}/${id}/resolve/${encodeURIComponent(revision ?? 'main')}/config.json`;
  let bytes: Uint8Array;
  try {
    const response = await fetch(url, {
      headers: token ? { authorization: `Bearer ${token.trim()}` } : {},
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    });
    // What the hub refuses, the full look-up explains better.
    if (!response.ok) return undefined;
    bytes = new Uint8Array(await response.arrayBuffer());
  } catch {
    throwIfAborted(signal);
    return undefined;
  }
  const name = `${id}/config.json`;
  const json = parsePythonJsonBytes(bytes, { name });
  if (!isJsonObject(json)) throw new MatMambaError('FORMAT', `${name} holds no object`);
  return json;
}
