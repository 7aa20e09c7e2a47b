import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const source = (path: string): string => fileURLToPath(new URL(`./src/${path}`, import.meta.url));

export default defineConfig({
  resolve: {
    alias: [{ find: /^matmamba$/, replacement: source('index.ts') }],
  },
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    // These run on Node's own test runner: npm run test:gpu.
    exclude: ['test/gpu/**'],
    testTimeout: 120_000,
    // Hooks build the page and start browsers: seconds on an idle machine, many more beside another test file.
    hookTimeout: 120_000,
    pool: 'forks',
    maxWorkers: 2,
    reporters: ['default', './test/support/summary-reporter.ts'],
  },
});
