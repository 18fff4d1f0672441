// What Prometheus may know of the service. Read at each scrape; only requests are counted as they happen.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Gauge, Histogram, Registry } from 'prom-client';
import type { Learner } from './learner.ts';
import type { Trainer } from './trainer.ts';

/** Milliseconds between two looks at the event loop. What is measured includes them. */
const RESOLUTION = 10;
const BUCKETS = [0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5];

export class Metrics {
  readonly registry = new Registry();
  readonly requests = new Histogram({
    name: 'http_request_duration_seconds',
    help: 'From the arrival of a request to the end of its response.',
    labelNames: ['method', 'route', 'status'],
    buckets: BUCKETS,
    registers: [this.registry],
  });
  readonly #delay = monitorEventLoopDelay({ resolution: RESOLUTION });

  constructor(learner: Learner, trainer: Trainer) {
    this.#delay.enable();
    this.#delays();
    this.#gauge('training_steps', 'Steps since the first start.', () => learner.steps);
    this.#gauge('training_loss', 'Average over the last steps.', () => learner.average.loss);
    this.#gauge(
      'training_accuracy',
      'Share of digits read right before learning from them, average over the last steps.',
      () => learner.average.accuracy,
    );
    this.#gauge('training_running', 'Whether the service trains in the background.', () => Number(trainer.running));
    this.#gauge('queue_length', 'Predictions and steps under way or waiting.', () => learner.inFlight);
  }

  close(): void {
    this.#delay.disable();
  }

  #gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers: [this.registry],
      collect() {
        this.set(read());
      },
    });
  }

  /** Delays since the last scrape. */
  #delays(): void {
    const histogram = this.#delay;
    new Gauge({
      name: 'event_loop_delay_seconds',
      help: 'How late the event loop came to a timer, since the last scrape.',
      labelNames: ['quantile'],
      registers: [this.registry],
      collect() {
        for (const quantile of [0.5, 0.99, 1]) {
          const late = histogram.percentile(100 * quantile) / 1e6 - RESOLUTION;
          this.set({ quantile }, Math.max(0, late) / 1e3);
        }
        histogram.reset();
      },
    });
  }
}
