/**
 * What a command may do to the outside: write, know the terminal, hear Ctrl-C. Commands get one of these instead of
 * touching `process`, so that output, closed pipes and signals are dealt with in one place.
 */

/** Why a command was told to stop. */
export type StopReason = 'SIGINT' | 'SIGTERM' | 'closed pipe';

/** Settings from the environment; options of a command win over them. */
export interface Environment {
  readonly threads: string | undefined;
  readonly blas: string | undefined;
  /** Show stacks of errors. */
  readonly debug: boolean;
}

export class Io {
  readonly environment: Environment;
  readonly #stop = new AbortController();

  constructor() {
    const { MATMAMBA_THREADS: threads, MATMAMBA_BLAS: blas, MATMAMBA_DEBUG: debug } = process.env;
    this.environment = {
      threads: threads || undefined,
      blas: blas || undefined,
      debug: debug !== undefined && debug !== '' && debug !== '0',
    };
    for (const stream of [process.stdout, process.stderr]) {
      // The reader left (`| head`): stop the work, say nothing.
      stream.on('error', (error: NodeJS.ErrnoException) => {
        if (error.code !== 'EPIPE' && error.code !== 'EOF') throw error;
        this.#stop.abort('closed pipe' satisfies StopReason);
      });
    }
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        // Whoever asks twice does not want to wait for a clean end.
        if (this.#stop.signal.aborted) process.exit(exitCodeOf(signal));
        this.#stop.abort(signal satisfies StopReason);
      });
    }
  }

  /** Fires at Ctrl-C, at SIGTERM, and when nobody reads the output any more. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  get stopReason(): StopReason | undefined {
    return this.#stop.signal.aborted ? (this.#stop.signal.reason as StopReason) : undefined;
  }

  /** Results: standard output, as it is. */
  write(text: string): void {
    if (this.stopReason !== 'closed pipe') process.stdout.write(text);
  }

  line(text = ''): void {
    this.write(`${text}\n`);
  }

  /** One JSON object on a line of its own. */
  json(value: unknown): void {
    this.line(JSON.stringify(value));
  }

  /** Remarks: standard error. */
  note(text: string): void {
    if (this.stopReason !== 'closed pipe') process.stderr.write(`${text}\n`);
  }

  readonly warn = (message: string): void => {
    this.note(`warning: ${message}`);
  };

  /** Columns that help and tables may take. */
  get columns(): number {
    return process.stdout.isTTY ? Math.max(40, process.stdout.columns || 80) : 100;
  }
}

export function exitCodeOf(reason: StopReason): number {
  return { SIGINT: 130, SIGTERM: 143, 'closed pipe': 0 }[reason];
}
