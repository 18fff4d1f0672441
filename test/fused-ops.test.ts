// Ops that run as one command each way, where they meet the rest: memory of what they save, errors, and the two
// gradients that each of them has, fused and composed.
import { describe, expect, it } from 'vitest';
import {
  crossEntropy,
  grad,
  groupNorm,
  layerNorm,
  memoryStats,
  noGrad,
  randint,
  randn,
  scope,
  type Tensor,
  tensor,
} from '../lib/index.ts';

const classes = (...values: number[]): Tensor => tensor(values, { dtype: 'int32' });

const FUSED: Record<string, { loss: (x: Tensor) => Tensor; shape: number[] }> = {
  crossEntropy: { loss: (x) => crossEntropy(x, classes(1, -100, 0)), shape: [3, 5] },
  'crossEntropy without reduction': {
    loss: (x) =>
      crossEntropy(x, classes(3, 2, -100), { reduction: 'none' })
        .square()
        .sum(),
    shape: [3, 4],
  },
  layerNorm: { loss: (x) => layerNorm(x, [4], x.select(0, 1), x.select(0, 2)).square().sum(), shape: [5, 4] },
  'layerNorm of a matrix': { loss: (x) => layerNorm(x, [3, 4]).pow(3).sum(), shape: [2, 3, 4] },
  groupNorm: { loss: (x) => groupNorm(x, 2).pow(3).sum(), shape: [2, 4, 3] },
};

describe.each(Object.entries(FUSED))('%s', (_, { loss, shape }) => {
  it('has one gradient, fused or composed', () => {
    const x = randn(shape, { dtype: 'float64', requiresGrad: true });
    const [fused] = grad(loss(x), [x]);
    const [composed] = grad(loss(x), [x], { createGraph: true });
    expect(composed!.requiresGrad).toBe(true);
    const size = composed!.abs().max().item();
    expect(fused!.sub(composed!).abs().max().item()).toBeLessThan(1e-14 * (1 + size));
  });

  it('leaves what it saved to the graph', () => {
    const x = randn(shape, { requiresGrad: true });
    const live = (): number => memoryStats().liveTensors;
    const before = live();
    scope(() => void noGrad(() => loss(x)));
    expect(live()).toBe(before);
    scope(() => void grad(loss(x), [x]));
    expect(live()).toBe(before);
    const kept = scope(() => loss(x));
    scope(() => void grad(kept, [x]));
    kept.dispose();
    expect(live()).toBe(before);
  });
});

describe('crossEntropy', () => {
  it('names a target that is no class, and where it stands', () => {
    const x = randn([4, 3], { requiresGrad: true });
    const live = memoryStats().liveTensors;
    expect(() => crossEntropy(x, tensor([0, 1, 2, 3], { dtype: 'int32' }))).toThrow(
      'crossEntropy: index 3 at position 3 is outside [0, 2].',
    );
    expect(memoryStats().liveTensors).toBe(live + 1); // the target
  });

  it('lets NaN and infinities reach the loss and the gradient of their own row alone, and none where it is ignored', () => {
    const rows = [
      [NaN, 1, 2],
      [Infinity, 1, 2],
      [-Infinity, -Infinity, -Infinity],
      [-Infinity, 1, 1],
      [-Infinity, 1, 1],
      [NaN, Infinity, -Infinity],
    ];
    const x = tensor(rows, { requiresGrad: true });
    const losses = crossEntropy(x, classes(1, 1, 1, 1, 0, -100), { reduction: 'none' });
    expect(losses.toArray()).toEqual([NaN, NaN, NaN, Math.fround(Math.LN2), Infinity, 0]);
    losses.sum().backward();
    const all = [NaN, NaN, NaN];
    expect(x.grad!.toArray()).toEqual([all, all, all, [0, -0.5, 0.5], [-1, 0.5, 0.5], [0, 0, 0]]);
  });

  it.each(['sum', 'mean'] as const)('gives the %s of no rows that count as PyTorch does', (reduction) => {
    const x = randn([2, 3], { requiresGrad: true });
    const loss = crossEntropy(x, classes(-100, -100), { reduction });
    expect(loss.item()).toBe(reduction === 'sum' ? 0 : NaN);
    loss.backward();
    expect(x.grad!.toArray()).toEqual([
      [0, 0, 0],
      [0, 0, 0],
    ]);
  });

  it('is rounded once in bfloat16', () => {
    const x = randn([20, 30]).to('bfloat16');
    const target = randint(0, 30, [20]);
    const exact = crossEntropy(x.to('float32'), target, { reduction: 'none' });
    expect(crossEntropy(x, target, { reduction: 'none' }).toArray()).toEqual(exact.to('bfloat16').toArray());
  });

  it('refuses logits that were changed after the loss was taken', () => {
    const x = randn([3, 5], { requiresGrad: true });
    const logits = x.mul(2);
    const loss = crossEntropy(logits, classes(1, 2, 0));
    logits.add_(1);
    expect(() => loss.backward()).toThrow(/CrossEntropyBackward.*changed in place/);
  });
});
