/** Which names of models mean a folder behind a URL. */

import { isModelId } from '../model-id.ts';

const HUB = 'https://huggingface.co';

/**
 * The URL of a model's folder, or undefined where the name means files of this machine. In a browser every name is an
 * address: a URL, a path on the page's server, or a hub id.
 */
export function urlOfModel(
  name: string,
  { endpoint = HUB, revision = 'main' }: { readonly endpoint?: string | undefined; readonly revision?: string | undefined },
): string | undefined {
  if (/^https?:\/\//.test(name)) return name;
  const here = (globalThis as { location?: { href: string } }).location;
  if (!here) return undefined;
  if (isModelId(name)) return `${endpoint.replace(/\/+$/, '')}/${name}/resolve/${encodeURIComponent(revision)}/`;
  return new URL(name, here.href).href;
}
