// Gradients of leaves between steps: freed with zeroGrad() where nobody has them, and nowhere else; never copied.
import { describe, expect, it } from 'vitest';
import { memoryStats, nn, optim, randn, resetPeakMemory, scope, type Tensor } from '../lib/index.ts';

const N = 1024;
const BYTES = 4 * N;
const live = (): number => memoryStats().liveBytes;
const leaf = (): Tensor => randn([N], { requiresGrad: true });
const pass = (p: Tensor): void => scope(() => p.mul(3).sum().backward());
const threes = new Float32Array(N).fill(3);

describe('zeroGrad', () => {
  it.each<[string, (p: Tensor) => void]>([
    ['of an optimizer', (p) => new optim.SGD([p]).zeroGrad()],
    [
      'after a step',
      (p) => {
        const optimizer = new optim.SGD([p], { maxGradNorm: 1 });
        optimizer.step();
        optimizer.zeroGrad();
      },
    ],
    [
      'after clipping',
      (p) => {
        nn.utils.clipGradNorm_([p], 1);
        nn.utils.clipGradValue_([p], 1);
        p.grad = null;
      },
    ],
  ])('%s frees gradients at once', (_, zero) => {
    const p = leaf();
    const before = live();
    pass(p);
    pass(p);
    expect(live() - before).toBe(BYTES);
    zero(p);
    expect(p.grad).toBeNull();
    expect(live() - before).toBeLessThan(BYTES);
  });

  it.each<[string, (p: Tensor, see: (g: Tensor) => void) => void]>([
    [
      'read',
      (p, see) => {
        pass(p);
        see(p.grad!);
      },
    ],
    [
      'read between two passes',
      (p, see) => {
        p.mul(2).sum().backward();
        see(p.grad!);
        p.sum().backward();
      },
    ],
    [
      'seen by a hook',
      (p, see) => {
        p.registerHook((g) => {
          see(g);
          return undefined;
        });
        pass(p);
      },
    ],
    [
      'seen by a hook of the node',
      (p, see) => {
        const doubled = p.mul(3);
        doubled.gradFn!.nextFunctions[0]!.registerHook((_, g) => void see(g));
        doubled.sum().backward();
      },
    ],
    [
      'set',
      (p, see) => {
        p.grad = randn([N]).mul(0).add(3);
        see(p.grad);
      },
    ],
    [
      'shared with another',
      (p, see) => {
        const other = leaf();
        pass(p);
        other.grad = p.grad;
        p.grad = null;
        see(other.grad!);
        other.grad = null;
      },
    ],
  ])('leaves a gradient that was %s', (_, run) => {
    const p = leaf();
    const held: Tensor[] = [];
    run(p, (g) => void held.push(g));
    p.grad = null;
    // In memory that is free these would write over it.
    for (let i = 0; i < 3; i++) pass(leaf());
    expect(held).toHaveLength(1);
    expect(held[0]!.toTypedArray()).toEqual(threes);
  });
});

it('a leaf takes over the gradient of a matrix product, transposed or not, and of a bias', () => {
  const layer = new nn.Linear(512, 512);
  const weight = randn([512, 512], { requiresGrad: true });
  const x = randn([4, 512]);
  scope(() => {
    const loss = layer.call(x).matmul(weight).sum();
    const before = live();
    resetPeakMemory();
    loss.backward();
    // Two gradients of 1 MiB; a copy would be a third.
    expect(memoryStats().peakBytes - before).toBeLessThan(2.5 * 2 ** 20);
  });
  expect(layer.weight.grad!.isContiguous).toBe(true);
});
