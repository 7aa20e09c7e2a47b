/**
 * Lets scripts of a checkout without node_modules and dist import the package as if both were there: 'matmamba', its
 * dependencies, and files under the checkout's dist are found beside this file. Loaded with `node --import`.
 */
import { existsSync } from 'node:fs';
import { register } from 'node:module';
import { isMainThread } from 'node:worker_threads';
import { fileURLToPath, pathToFileURL } from 'node:url';

if (isMainThread) register(import.meta.url);

const home = new URL('./', import.meta.url);
const checkoutDist = pathToFileURL(`${process.env['MATMAMBA_CHECKOUT'] ?? '.'}/dist/`).href;

/** A module hook. */
export async function resolve(specifier, context, next) {
  const bare = /^(matmamba)(\/.*)?$/.exec(specifier);
  if (bare) return next(new URL(`dist${bare[2] ?? ''}/index.js`, home).href, context);
  try {
    return await next(specifier, context);
  } catch (error) {
    if (/^[./]|^\w+:/.test(specifier)) {
      const wanted = new URL(specifier, context.parentURL).href;
      const ours = wanted.startsWith(checkoutDist) && new URL(`dist/${wanted.slice(checkoutDist.length)}`, home).href;
      if (ours && existsSync(fileURLToPath(ours))) return next(ours, context);
    } else return next(specifier, { ...context, parentURL: new URL('index.js', home).href });
    throw error;
  }
}
