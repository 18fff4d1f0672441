// Bench layer: resident memory of the plainest training loop: no scope, no dispose, no await, so that the event loop
// never turns. What matters is that it stays flat. Run: `npm run bench memory [steps]`.
import { memoryStats, nn, optim, randint, randn } from '../lib/index.ts';
import type { Options } from './options.ts';
import { mlp } from './training.ts';

const EARLY = 10_000;

const megabytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

export function run({ count: steps = 100_000 }: Options): void {
  const model = mlp([64, 256, 10], () => new nn.ReLU());
  const optimizer = new optim.SGD(model.parameters(), { lr: 0.01 });
  const loss = new nn.CrossEntropyLoss();
  const [x, y] = [randn([128, 64]), randint(0, 10, [128])];
  const start = performance.now();
  let most = 0;
  for (let step = 1; step <= steps; step++) {
    optimizer.zeroGrad();
    loss.call(model.call(x), y).backward();
    optimizer.step();
    if (step % 100 === 0) most = Math.max(most, process.memoryUsage.rss());
    if (step !== EARLY && step !== steps) continue;
    const { liveBytes, cachedBytes, liveTensors } = memoryStats();
    console.log(
      `after ${step} steps: ${megabytes(process.memoryUsage.rss())} resident, ${liveTensors} tensors of ` +
        `${megabytes(liveBytes)}, ${megabytes(cachedBytes)} cached`,
    );
  }
  const seconds = (performance.now() - start) / 1000;
  console.log(`most: ${megabytes(most)}; ${seconds.toFixed(1)} s, ${(steps / seconds).toFixed(0)} steps/s\n`);
}
