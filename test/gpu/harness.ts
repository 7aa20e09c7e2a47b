/**
 * What the GPU tests share. They run on Node's own test runner, because a host with a GPU may have nothing but Node;
 * the checks themselves lie in test/support, shared with the tests of the CPU.
 *
 * `MATMAMBA_GPU_TEST_DEVICE` names another device than CUDA: `webgpu`, or `cpu` to try the tests themselves.
 */

import { after, test } from 'node:test';
import type { Backend, DeviceName, ModelDType } from '../../src/backends/backend.ts';
import { acquireBackend } from '../../src/backends/open.ts';
import type { Measured } from '../support/close.ts';
import { ERROR_LINE } from './reporter.ts';

export const DEVICE = (process.env['MATMAMBA_GPU_TEST_DEVICE'] ?? 'cuda') as DeviceName;

const { backend, release } = await acquireBackend({ device: DEVICE });
after(release);

/** The device under test; models made with `optionsOf` run on the same. */
export const device: Backend = backend;

export const optionsOf = (dtype: ModelDType): { device: DeviceName; dtype: ModelDType } => ({ device: DEVICE, dtype });

/** Those of the dtypes that the device has. */
export function available(dtypes: readonly ModelDType[]): ModelDType[] {
  const has = new Set(backend.capabilities().dtypes);
  return dtypes.filter((dtype) => has.has(dtype));
}

/** A test whose largest error shows in the table at the end, under its group and dtype. */
export function measuredTest(name: string, group: string, dtype: ModelDType, body: (measured: Measured) => Promise<void>): void {
  void test(`${name}, ${dtype}`, async (context) => {
    let largest = 0;
    try {
      await body((error) => {
        largest = Math.max(largest, error);
      });
    } finally {
      context.diagnostic([ERROR_LINE, group, dtype, largest].join('\t'));
    }
  });
}
