/** The thread that turns tasks into ids: see `worker-pool.ts`. */

import { parentPort, workerData } from 'node:worker_threads';
import type { RunnerOptions } from './task-runner.ts';
import { serve } from './worker-pool.ts';

serve(parentPort!, workerData as RunnerOptions);
