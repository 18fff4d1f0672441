// Bench layer: the service example in a process of its own, as service.ts there loads it, with a look from inside: how
// late its event loop is, how long a cached file takes to read, how many steps it trains.
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { loadMnist } from '../examples/mnist/mnist.ts';
import { createService } from '../examples/service/service.ts';

export type Order = 'train' | 'stop' | 'watch' | 'report' | 'end';

/** All times in milliseconds. */
export interface Report {
  /** How late the event loop came to a timer, 99 of 100 times at most. */
  delay: number;
  reads: number[];
  steps: number;
}

const FILE = fileURLToPath(import.meta.url);
/** Of the looks at the event loop: a delay includes it. */
const RESOLUTION = 1;

const directory = mkdtempSync(path.join(tmpdir(), 'service-'));
const checkpoint = path.join(directory, 'service.safetensors');
const { app, learner, trainer } = createService(loadMnist('train'), { checkpoint, every: 30, seed: 42 });
const delays = monitorEventLoopDelay({ resolution: RESOLUTION });
delays.enable();
let reads: number[] = [];
let steps = 0;
let ending = false;

async function readAgainAndAgain(): Promise<void> {
  while (!ending) {
    const start = performance.now();
    await readFile(FILE);
    reads.push(performance.now() - start);
    await setTimeout(10);
  }
}

/** What is answered to each order. */
const OBEY: Record<Order, () => unknown> = {
  train: () => trainer.start(),
  stop: async () => {
    const start = performance.now();
    await trainer.stop();
    return performance.now() - start;
  },
  watch: () => {
    delays.reset();
    reads = [];
    steps = learner.steps;
  },
  report: (): Report => ({ delay: delays.percentile(99) / 1e6 - RESOLUTION, reads, steps: learner.steps - steps }),
  end: async () => {
    ending = true;
    await app.close();
    rmSync(directory, { recursive: true });
  },
};

process.on('message', async (order: Order) => {
  process.send!({ answer: await OBEY[order]() });
  if (order === 'end') process.disconnect();
});
// Whoever measures may fail: nothing stays behind.
process.once('disconnect', () => process.exit());
void readAgainAndAgain();
process.send!({ answer: await app.listen({ port: 0 }) });
