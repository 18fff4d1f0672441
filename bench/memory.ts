// Bench layer: memory. Of the plainest training loops, eager and compiled (no scope, no dispose, no await, so that the
// event loop never turns): that it stays flat. Of one step: the most it needs above what rests between steps.
// Run: `npm run bench memory [steps] [--only compiled]`.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  compile,
  type Explanation,
  memoryStats,
  nn,
  optim,
  randint,
  randn,
  resetPeakMemory,
  trimMemory,
} from '../lib/index.ts';
import { printTable } from './measure.ts';
import type { Options } from './options.ts';
import { type Job, mlp, trainingJob } from './training.ts';

const STEPS = 100_000;
/** A compiled step is that much shorter. */
const COMPILED_STEPS = 1_000_000;

const megabytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** Live bytes once everything unreachable is gone. */
function resting(): number {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  // The youngest are held until they are registered, which the first does.
  trimMemory();
  gc();
  trimMemory();
  return memoryStats().liveBytes;
}

/** Resident memory and tensors after 1 %, 10 % and all of the steps. */
function watch(title: string, steps: number, step: () => void): void {
  resting();
  const marks = [0.01, 0.1, 1].map((part) => Math.ceil(part * steps));
  const start = performance.now();
  let most = 0;
  console.log(title);
  for (let done = 1; done <= steps; done++) {
    step();
    if (done % 1000 === 0) most = Math.max(most, process.memoryUsage.rss());
    if (!marks.includes(done)) continue;
    const { liveBytes, cachedBytes, liveTensors } = memoryStats();
    console.log(
      `after ${done} steps: ${megabytes(process.memoryUsage.rss())} resident, ${liveTensors} tensors of ` +
        `${megabytes(liveBytes)}, ${megabytes(cachedBytes)} cached`,
    );
  }
  const seconds = (performance.now() - start) / 1000;
  console.log(`most: ${megabytes(most)}; ${seconds.toFixed(1)} s, ${(steps / seconds).toFixed(0)} steps/s\n`);
}

function watchEager(steps: number): void {
  const model = mlp([64, 256, 10], () => new nn.ReLU());
  const optimizer = new optim.SGD(model.parameters(), { lr: 0.01 });
  const loss = new nn.CrossEntropyLoss();
  const [x, y] = [randn([128, 64]), randint(0, 10, [128])];
  watch('64-256-10 128 relu ce sgd, eager', steps, () => {
    optimizer.zeroGrad();
    loss.call(model.call(x), y).backward();
    optimizer.step();
  });
}

function watchCompiled(steps: number): void {
  const name = '4-16-1 32 relu mse sgd';
  const { x, y, step } = trainingJob(name);
  const compiled = compile(step);
  watch(`${name}, compiled`, steps, () => compiled(x, y));
}

interface Peak {
  /** The most that is alive during a step, and what stays after it, above what was there before the first one. */
  peak: number;
  stays: number;
}

/** Of the second step: the first one also records. Gradients count, for the step makes them, and so does an arena. */
function peakOf({ x, y, optimizer }: Job, step: Job['step']): Peak {
  const rest = resting();
  step(x, y);
  optimizer.zeroGrad();
  resting();
  resetPeakMemory();
  step(x, y);
  const { peakBytes } = memoryStats();
  return { peak: peakBytes - rest, stays: resting() - rest };
}

function eagerPeak(name: string): Peak {
  const job = trainingJob(name);
  return peakOf(job, job.step);
}

function compiledPeak(name: string): Peak & Explanation {
  const job = trainingJob(name);
  const compiled = compile(job.step);
  const peak = peakOf(job, compiled);
  return { ...peak, ...compiled.explain().programs[0]! };
}

function comparePeaks(): void {
  const name = '784-512-256-10 128 relu ce sgd';
  const eager = eagerPeak(name);
  const compiled = compiledPeak(name);
  const { plannedBytes, eagerPeakBytes, lowerBoundBytes } = compiled;
  const row = (what: string, ours: number, other: number): string[] => [
    what,
    megabytes(ours),
    megabytes(other),
    (other / ours).toFixed(3),
  ];
  printTable(
    [name, 'eager', 'compiled', 'compiled / eager'],
    [
      row('most during a step', eager.peak, compiled.peak),
      row('stays after it', eager.stays, compiled.stays),
      row('most of what is planned', eagerPeakBytes, plannedBytes),
    ],
  );
  console.log(`arena: ${(plannedBytes / lowerBoundBytes).toFixed(3)} of the least that liveness allows\n`);
}

export function run({ count, matches }: Options): void {
  if (matches('peak')) comparePeaks();
  if (matches('eager')) watchEager(count ?? STEPS);
  if (matches('compiled')) watchCompiled(count ?? COMPILED_STEPS);
}
