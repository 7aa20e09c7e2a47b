/**
 * Chromium for tests that drive the page: Debian's, or the one that CHROMIUM names. Without it they are skipped visibly;
 * `MATMAMBA_REQUIRE=browser` turns the skip into a failure.
 */

import { existsSync } from 'node:fs';
import { type Browser, chromium } from 'playwright-core';
import { describe } from 'vitest';

const CANDIDATES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const given = process.env['CHROMIUM'];
const executablePath = given ?? CANDIDATES.find((path) => existsSync(path));

if (!executablePath) {
  const why = `no Chromium (looked for ${CANDIDATES.join(', ')}; CHROMIUM names another)`;
  if ((process.env['MATMAMBA_REQUIRE'] ?? '').split(',').includes('browser')) throw new Error(why);
  console.warn(`tests in the browser are skipped: ${why}`);
}

/** WebGPU on Chromium's own software adapter, which is right and slow; on the GPU with `MATMAMBA_WEBGPU=hardware`. */
export const WEBGPU_FLAGS: readonly string[] = [
  '--enable-unsafe-webgpu',
  ...(process.env['MATMAMBA_WEBGPU'] === 'hardware'
    ? ['--enable-features=Vulkan', '--ignore-gpu-blocklist']
    : ['--use-webgpu-adapter=swiftshader']),
];

export const describeBrowser = describe.skipIf(!executablePath);

/** Only for tests inside `describeBrowser`. */
export function launchChromium(...more: readonly string[]): Promise<Browser> {
  return chromium.launch({
    executablePath: executablePath!,
    // In containers Chromium's own sandbox cannot be set up; only this project's pages are opened.
    args: ['--no-sandbox', ...more],
  });
}
