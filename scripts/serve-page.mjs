/**
 * Serves the built page: node scripts/serve-page.mjs [--port N] [--no-isolation] [FOLDER]. Without isolation it is as on
 * a host that sends no headers of its own: the CPU backend then has one thread.
 */
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { serveFolder } from './static-server.mjs';

const { values, positionals } = parseArgs({
  options: { port: { type: 'string', default: '5180' }, 'no-isolation': { type: 'boolean', default: false } },
  allowPositionals: true,
});
const folder = positionals[0] ?? fileURLToPath(new URL('../dist/page', import.meta.url));
const isolated = !values['no-isolation'];
const { url } = await serveFolder(folder, { port: Number(values.port), isolated });
console.log(`the page is at ${url} (${isolated ? 'cross-origin isolated' : 'not isolated'}); Ctrl+C ends it`);
