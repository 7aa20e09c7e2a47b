/** Ends a test run with one plain line of counts. */

import type { Reporter, TestModule } from 'vitest/node';

export default class SummaryReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const counts = { passed: 0, failed: 0, skipped: 0, pending: 0 };
    for (const module of modules) {
      const states = [...module.children.allTests()].map((test) => test.result().state);
      // A file that fails outside its tests, as in a hook, counts as one.
      if (module.state() === 'failed' && !states.includes('failed')) counts.failed++;
      for (const state of states) counts[state]++;
    }
    const { passed, failed, skipped, pending } = counts;
    process.once('exit', () => process.stdout.write(`${passed} passed, ${failed + pending} failed, ${skipped} skipped\n`));
  }
}
