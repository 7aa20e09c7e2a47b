/** Files that come with the package: its version, the model it carries. Found from where this module lies. */

import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** src/cli and dist/cli both lie two folders below the package. */
const ROOT = new URL('../../', import.meta.url);

export function packageVersion(): string {
  return (JSON.parse(readFileSync(new URL('package.json', ROOT), 'utf8')) as { version: string }).version;
}

/** Name of the model that the package carries. */
export const EMBEDDED_MODEL = 'books-10m';

/** Its folder, when it is there: a checkout may lack it. */
export function embeddedModelFolder(): string | undefined {
  const folder = fileURLToPath(new URL(`models/${EMBEDDED_MODEL}`, ROOT));
  return existsSync(folder) ? folder : undefined;
}
