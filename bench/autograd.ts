// Bench layer: what checkpoints cost and save on a deep chain of blocks, and whether the time of a backward pass grows
// in line with the length of a graph. Run: `npm run bench autograd`.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  checkpoint,
  checkpointSequential,
  memoryStats,
  nn,
  randn,
  resetPeakMemory,
  type Tensor,
  trimMemory,
} from '../lib/index.ts';

const BLOCKS = 12;
const WIDTH = 512;
const BATCH = 256;
const ROUNDS = 5;
const CHAINS = [10_000, 100_000, 1_000_000];

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1]!;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

interface Cost {
  seconds: number[];
  /** Above what was live before: parameters and their gradients are there already. */
  peak: number;
}

function step(model: nn.Sequential, forward: () => Tensor, cost: Cost): void {
  for (const p of model.parameters()) p.grad?.zero_();
  // Garbage of the round before is not this one's.
  collect();
  trimMemory();
  resetPeakMemory();
  const before = memoryStats().liveBytes;
  const start = performance.now();
  forward().mean().backward();
  cost.seconds.push((performance.now() - start) / 1000);
  cost.peak = memoryStats().peakBytes - before;
}

function checkpoints(): void {
  const block = (): nn.AnyModule =>
    new nn.Sequential(
      new nn.Linear(WIDTH, 4 * WIDTH),
      new nn.GELU(),
      new nn.Linear(4 * WIDTH, WIDTH),
    ) as unknown as nn.AnyModule;
  const model = new nn.Sequential(...(Array.from({ length: BLOCKS }, block) as never[]));
  const blocks = [...model.children()] as unknown as nn.Sequential[];
  const x = randn([BATCH, WIDTH]);
  const ways: Record<string, () => Tensor> = {
    plain: () => model.call(x),
    'each block checkpointed': () => blocks.reduce((y: Tensor, b) => checkpoint((z: Tensor) => b.call(z), y), x),
    '4 segments': () => checkpointSequential(blocks, { segments: 4 }, x),
    'within 30 MiB': () => checkpointSequential(blocks, { maxBytes: 30 << 20 }, x),
  };
  const costs = Object.fromEntries(Object.keys(ways).map((name) => [name, { seconds: [], peak: 0 } as Cost]));
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [name, forward] of Object.entries(ways)) step(model, forward, costs[name]!);
    // The first round allocates gradients.
    if (round === 0) for (const cost of Object.values(costs)) cost.seconds.length = 0;
  }
  const { peak, seconds } = costs.plain!;
  const plain = median(seconds);
  console.log(
    `${BLOCKS} x Linear(${WIDTH}, ${4 * WIDTH})-GELU-Linear(${4 * WIDTH}, ${WIDTH}), batch ${BATCH}, forward and backward`,
  );
  for (const [name, cost] of Object.entries(costs)) {
    console.log(
      `${name.padEnd(24)} peak ${mebibytes(cost.peak).padStart(9)} (${((100 * cost.peak) / peak).toFixed(1)} %), ` +
        `${(median(cost.seconds) * 1000).toFixed(0)} ms (${(median(cost.seconds) / plain).toFixed(2)}x)`,
    );
  }
}

function chains(): void {
  console.log('\nchain of elementwise ops, forward and backward');
  for (const length of CHAINS) {
    const x = randn([4], { requiresGrad: true });
    const start = performance.now();
    let y: Tensor = x;
    for (let i = 0; i < length; i++) y = i % 2 === 0 ? y.mul(1.000001) : y.tanh();
    const middle = performance.now();
    y.sum().backward();
    const end = performance.now();
    const each = (ms: number): string => `${((ms / length) * 1000).toFixed(2)} us`;
    console.log(
      `${String(length).padStart(8)}: forward ${(middle - start).toFixed(0)} ms (${each(middle - start)} an op), ` +
        `backward ${(end - middle).toFixed(0)} ms (${each(end - middle)})`,
    );
  }
  console.log();
}

export function run(): void {
  checkpoints();
  chains();
}
