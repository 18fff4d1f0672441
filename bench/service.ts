// Bench layer: the service example under load: `npm run bench service`. 500 requests a second to /predict, spread at
// random as independent clients would send them, while the service trains and while it does not. No request waits for
// the answer to another. The phases take turns, and a figure is the median over the rounds: what else goes on in the
// machine comes in bursts, and meets all alike.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { PIXELS, readMnist } from '../examples/mnist/mnist.ts';
import { Generator, rand } from '../lib/index.ts';
import { printTable } from './measure.ts';
import type { Options } from './options.ts';
import { save } from './results.ts';
import type { Order, Report } from './service-server.ts';

const RATE = 500;
const ROUNDS = 5;
/** Seconds, until both sides are compiled and the heap has found its size. */
const WARM_UP = 8;
const ABORTS = 50;
const SERVER = fileURLToPath(new URL('./service-server.ts', import.meta.url));

/** What was seen in a round; times in milliseconds. */
interface Round {
  p50: number;
  p99: number;
  delay: number;
  read: number;
  stepsPerSecond: number;
}
type Phase = 'load' | 'training' | 'load and training';

export async function run({ seconds = 1.5 }: Options): Promise<void> {
  const child = fork(SERVER, { execArgv: ['--import', 'tsx'] });
  const address = (await answer(child)) as string;
  const order = (what: Order): Promise<unknown> => {
    child.send(what);
    return answer(child);
  };
  const load = new Load(address);
  await order('train');
  await load.run(WARM_UP, 0);
  await order('stop');

  const phases: Record<Phase, Round[]> = { load: [], training: [], 'load and training': [] };
  for (let round = 1; round <= ROUNDS; round++) {
    for (const [phase, rounds] of Object.entries(phases)) {
      if (phase !== 'load') await order('train');
      await order('watch');
      const latencies = phase === 'training' ? void (await setTimeout(1000 * seconds)) : await load.run(seconds, round);
      const { delay, reads, steps } = (await order('report')) as Report;
      if (phase !== 'load') await order('stop');
      const [p50, p99] = [0.5, 0.99].map((share) => at(share, latencies ?? [])) as [number, number];
      rounds.push({ p50, p99, delay, read: Math.max(...reads), stepsPerSecond: steps / seconds });
    }
  }
  const aborts: number[] = [];
  for (let i = 0; i < ABORTS; i++) {
    await order('train');
    await setTimeout(20 + Math.random() * 10);
    aborts.push((await order('stop')) as number);
  }
  await order('end');
  load.close();
  print(phases, aborts);
}

/** The value that this share of all does not exceed. */
const at = (share: number, values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(share * values.length))] ?? NaN;

function print(phases: Record<Phase, Round[]>, aborts: readonly number[]): void {
  const figure = (value: number): string => (Number.isNaN(value) ? '-' : value.toFixed(2));
  const cells = Object.entries(phases).map(([name, rounds]) => {
    const middle = (key: keyof Round): number =>
      at(
        0.5,
        rounds.map((round) => round[key]),
      );
    return {
      name,
      p50: middle('p50'),
      p99: middle('p99'),
      delay: middle('delay'),
      read: middle('read'),
      stepsPerSecond: middle('stepsPerSecond'),
    };
  });
  printTable(
    [`ms at ${RATE} requests/s`, 'p50', 'p99', 'loop delay p99', 'readFile, longest', 'steps/s'],
    cells.map(({ name, p50, p99, delay, read, stepsPerSecond }) => [
      name,
      ...[p50, p99, delay, read].map(figure),
      stepsPerSecond.toFixed(0),
    ]),
  );
  const [idle, training, both] = cells as [(typeof cells)[0], (typeof cells)[0], (typeof cells)[0]];
  console.log(
    `p99 while training: ${figure(both.p99)} ms; 1.25 x that of load alone + 1 ms is ${figure(1.25 * idle.p99 + 1)} ms`,
  );
  console.log(
    `training under load: ${((100 * both.stepsPerSecond) / training.stepsPerSecond).toFixed(0)} % of its speed alone`,
  );
  console.log(
    `an abort: median ${figure(at(0.5, aborts))} ms, longest of ${aborts.length} ${figure(at(1, aborts))} ms\n`,
  );
  save('service', { rate: RATE, cells, aborts: { median: at(0.5, aborts), longest: at(1, aborts) } });
}

async function answer(child: ChildProcess): Promise<unknown> {
  const done = new AbortController();
  const { signal } = done;
  const ended = once(child, 'exit', { signal }).then(([code]) => {
    throw new Error(`the service ended with ${code}`);
  });
  try {
    const [message] = await Promise.race([once(child, 'message', { signal }), ended]);
    return (message as { answer: unknown }).answer;
  } finally {
    ended.catch(() => {});
    done.abort();
  }
}

/** Requests with digits that the service does not learn from. */
class Load {
  readonly #url: URL;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #bodies: string[];

  constructor(address: string) {
    this.#url = new URL('/predict', address);
    const { values } = readMnist('t10k').images;
    this.#bodies = Array.from({ length: 256 }, (_, i) =>
      JSON.stringify({ pixels: [...values.subarray(PIXELS * i, PIXELS * (i + 1))] }),
    );
  }

  /** Milliseconds of each request. `seed` gives the times at which they are sent. */
  async run(seconds: number, seed: number): Promise<number[]> {
    const gaps = rand([Math.ceil(RATE * seconds)], { generator: new Generator(seed) }).toTypedArray();
    const answers: Promise<number>[] = [];
    let due = performance.now();
    for (const gap of gaps) {
      due += (-1000 * Math.log(1 - gap)) / RATE;
      while (performance.now() < due) await setTimeout(1);
      answers.push(this.#send(this.#bodies[answers.length % this.#bodies.length]!));
    }
    return Promise.all(answers);
  }

  close(): void {
    this.#agent.destroy();
  }

  #send(body: string): Promise<number> {
    const start = performance.now();
    const headers = { 'content-type': 'application/json', 'content-length': body.length };
    return new Promise((resolve, reject) => {
      const sent = request(this.#url, { method: 'POST', agent: this.#agent, headers }, (response) => {
        response.on('error', reject);
        response.on('end', () => {
          if (response.statusCode === 200) resolve(performance.now() - start);
          else reject(new Error(`/predict answered ${response.statusCode}`));
        });
        response.resume();
      });
      sent.on('error', reject);
      sent.end(body);
    });
  }
}
