// Trains a learner in the background, one step after another, until told to stop.
import type { Learner } from './learner.ts';

export class Trainer {
  readonly #learner: Learner;
  #run: { abort: AbortController; ended: Promise<void> } | null = null;
  /** Why training ended by itself, if it did. */
  failure: Error | null = null;

  constructor(learner: Learner) {
    this.#learner = learner;
  }

  get running(): boolean {
    return this.#run !== null;
  }

  start(): void {
    if (this.#run !== null) return;
    const abort = new AbortController();
    this.failure = null;
    this.#run = { abort, ended: this.#train(abort.signal) };
  }

  /** Aborts the step under way between two of its commands. All weights change in one of them, so all do or none. */
  async stop(): Promise<void> {
    this.#run?.abort.abort();
    await this.#run?.ended;
  }

  async #train(signal: AbortSignal): Promise<void> {
    try {
      // Each await lets the event loop turn: requests come in between, and their predictions before the next step.
      while (!signal.aborted) await this.#learner.train(signal);
    } catch (error) {
      if (error !== signal.reason) this.failure = error as Error;
    } finally {
      this.#run = null;
    }
  }
}
