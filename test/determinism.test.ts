// The promise of docs/numerics.md over a whole training run: the same bits for any number of threads, and run to run.
import { createHash } from 'node:crypto';
import { afterAll, describe, expect, test } from 'vitest';
import { data, Generator, getNumThreads, manualSeed, nn, optim, randint, randn, setNumThreads } from '../lib/index.ts';

const threads = getNumThreads();
afterAll(() => setNumThreads(threads));

/** SHA-256 of all weights after 200 steps of a network large enough for every kernel to be split over threads. */
function train(threadCount: number, steps = 200): { hash: string; losses: number[] } {
  setNumThreads(threadCount);
  manualSeed(7);
  const generator = new Generator(11);
  const set = new data.TensorDataset(randn([1000, 96], { generator }), randint(0, 10, [1000], { generator }));
  const loader = new data.DataLoader(set, { batchSize: 100, shuffle: true, generator });
  const model = new nn.Sequential(
    new nn.Linear(96, 384),
    new nn.GELU(),
    new nn.LayerNorm([384]),
    new nn.Dropout(0.1),
    new nn.Linear(384, 10),
  );
  const criterion = new nn.CrossEntropyLoss({ labelSmoothing: 0.1 });
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3 });
  const losses: number[] = [];
  while (losses.length < steps) {
    for (const [x, y] of loader) {
      const loss = criterion.call(model.call(x), y);
      optimizer.zeroGrad();
      loss.backward();
      nn.utils.clipGradNorm_(model.parameters(), 1);
      optimizer.step();
      losses.push(loss.item());
    }
  }
  const hash = createHash('sha256');
  for (const [name, weight] of model.stateDict()) hash.update(name).update(weight.toTypedArray());
  return { hash: hash.digest('hex'), losses };
}

describe('200 steps of training', () => {
  const alone = train(1);

  test('learn: the loss falls', () => {
    expect(alone.losses.at(-1)!).toBeLessThan(alone.losses[0]! * 0.8);
  });

  test.each([1, 2, 4])('on %i threads end in the same bits', (n) => {
    const run = train(n);
    expect(run.losses).toEqual(alone.losses);
    expect(run.hash).toBe(alone.hash);
  });

  test('of another seed end in other bits', () => {
    const { hash } = train(1, 10);
    expect(hash).not.toBe(alone.hash);
  });
});
