// The promise of docs/numerics.md over whole models: the same bits for any number of threads, run to run, on every
// instruction set with fused multiply-adds, and in the forward pass for any split of a batch.
import { afterAll, describe, expect, test } from 'vitest';
import {
  buildInfo,
  cat,
  getNumThreads,
  manualSeed,
  narrow,
  nn,
  noGrad,
  randn,
  setNumThreads,
  type Tensor,
} from '../lib/index.ts';
import { train } from './fixtures/training-run.ts';
import { bits, expectSameBits } from './helpers.ts';
import { runFixture } from './support.ts';

const threads = getNumThreads();
afterAll(() => setNumThreads(threads));

describe('200 steps of training', () => {
  const alone = train(1);

  test('learn: the loss falls', () => {
    expect(alone.losses.at(-1)!).toBeLessThan(alone.losses[0]! * 0.8);
  });

  test.each([1, 2, 3, 4, 7])('on %i threads end in the same bits', (n) => {
    const run = train(n);
    expect(run.losses).toEqual(alone.losses);
    expect(run.hash).toBe(alone.hash);
  });

  test.skipIf(!buildInfo().isaAvailable.includes('avx512'))('end in the same bits on AVX2 and AVX-512', async () => {
    const run = (isa: string) =>
      runFixture<{ isa: string; hash: string }>('training-run.ts', { env: { CHAINRULE_ISA: isa } });
    const [avx2, avx512] = [await run('avx2'), await run('avx512')];
    expect([avx2.isa, avx512.isa]).toEqual(['avx2', 'avx512']);
    expect(avx2.hash).toBe(avx512.hash);
  });

  test('of another seed end in other bits', () => {
    const { hash } = train(1, 10);
    expect(hash).not.toBe(alone.hash);
  });
});

/** Models with a row of input for each example, wide enough that products, norms and softmax are cut into chunks. */
const models: Record<string, { input: number[]; make: () => { call(x: Tensor): Tensor } }> = {
  'an MLP': {
    input: [300],
    make: () =>
      new nn.Sequential(
        new nn.Linear(300, 515),
        new nn.ReLU(),
        new nn.LayerNorm([515]),
        new nn.Linear(515, 130),
        new nn.GELU(),
        new nn.Linear(130, 10),
        new nn.Softmax(-1),
      ),
  },
  'a convolutional network': {
    input: [3, 13, 13],
    make: () =>
      new nn.Sequential(
        new nn.Conv2d(3, 9, 3, { padding: 1 }),
        new nn.ReLU(),
        new nn.Conv2d(9, 5, 3, { stride: 2 }),
        new nn.GELU(),
        new nn.Flatten(),
        new nn.Linear(180, 10),
        new nn.LogSoftmax(-1),
      ),
  },
};

describe.each(Object.entries(models))('the forward pass of %s', (_, { input, make }) => {
  test.each([1, 4])('gives 128 examples on %i threads the bits of 2 x 64 and of 128 x 1', (n) => {
    setNumThreads(n);
    manualSeed(3);
    const model = make();
    const x = randn([128, ...input]);
    noGrad(() => {
      const whole = bits([model.call(x)]);
      for (const size of [64, 1]) {
        const parts = Array.from({ length: 128 / size }, (_, i) => model.call(narrow(x, 0, i * size, size)));
        expectSameBits(bits([cat(parts, 0)]), whole, `${128 / size} x ${size}`);
      }
    });
  });
});
