/** Tasks that take turns, in the order they were asked for. */
export class TurnQueue {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `task` when everything asked for before is done; nothing else runs meanwhile. */
  exclusive<R>(task: () => Promise<R> | R): Promise<R> {
    const result = this.#last.then(task);
    this.#last = result.catch(() => {});
    return result;
  }

  /** Resolves when everything asked for so far is done. */
  async settled(): Promise<void> {
    await this.#last;
  }
}
