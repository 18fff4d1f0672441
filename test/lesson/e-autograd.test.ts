// R45-R51, the lesson's part 5: leaves and nodes, names, gradients that accumulate, and what reads them.
import { describe, expect, it } from 'vitest';
import {
  abs,
  allClose,
  cos,
  equal,
  exp,
  manualSeed,
  maximum,
  mean,
  type Node,
  nn,
  ones,
  outer,
  randn,
  relu,
  sin,
  sqrt,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.ts';
import { expectClose, f64, gradOf, leaf, values } from '../support.ts';

/** The lesson's layer: loss = Σ relu(Wx + b). */
function layer() {
  const x = leaf([2, 3]);
  const w = leaf([
    [1, 2],
    [3, 4],
  ]);
  const b = leaf([0.5, -0.5]);
  const z = w.matmul(x).add(b);
  const h = relu(z);
  return { x, w, b, z, h, loss: h.sum() };
}

const inputsOf = (t: Tensor | Node): (string | undefined)[] =>
  ('gradFn' in t ? t.gradFn! : t).nextFunctions.map((node) => node?.name);

it('R45: a leaf has no gradFn, a result has one, and what needs no gradient has none', () => {
  const x = leaf([1, 2]);
  const y = x.mul(2);
  const constant = f64([1, 2]).mul(2);
  expect([x.requiresGrad, x.isLeaf, x.gradFn]).toEqual([true, true, null]);
  expect([y.requiresGrad, y.isLeaf, y.gradFn!.name]).toEqual([true, false, 'MulBackward']);
  expect([constant.requiresGrad, constant.isLeaf, constant.gradFn]).toEqual([false, true, null]);
});

it('R46: forward of relu(Wx + b)', () => {
  const { z, h, loss } = layer();
  expect(values(z)).toEqual([8.5, 17.5]);
  expect(values(h)).toEqual([8.5, 17.5]);
  expect(loss.item()).toBe(26);
});

describe('R47: node names', () => {
  it('R47: of Wx + b with a vector x: an addition of a product of matrix and vector', () => {
    const { z, h, loss } = layer();
    expect([loss, h, z].map((t) => t.gradFn!.name)).toEqual(['SumBackward', 'ReluBackward', 'AddBackward']);
    expect([inputsOf(loss), inputsOf(h)]).toEqual([['ReluBackward'], ['AddBackward']]);
    expect(inputsOf(z)).toEqual(['MvBackward', 'AccumulateGrad']);
    expect(inputsOf(z.gradFn!.nextFunctions[0]!)).toEqual(['AccumulateGrad', 'AccumulateGrad']);
  });

  it('R47: of nn.Linear by the dimensions of its input', () => {
    const linear = new nn.Linear(2, 3);
    const name = (shape: number[]): string => linear.call(ones(shape)).gradFn!.name;
    expect([name([2]), name([5, 2]), name([4, 5, 2])]).toEqual(['AddBackward', 'AddmmBackward', 'ViewBackward']);
  });
});

it('R48: gradients of relu(Wx + b), each of its tensor’s shape', () => {
  const { x, w, b, loss } = layer();
  loss.backward();
  expect([x, w, b].map((t) => t.grad!.shape)).toEqual([[2], [2, 2], [2]]);
  expect([x, w, b].map((t) => t.grad!.toArray())).toEqual([
    [4, 6],
    [
      [2, 3],
      [2, 3],
    ],
    [1, 1],
  ]);
});

it('R49: backward adds to the gradient that is there', () => {
  const { x, w, b } = layer();
  for (let pass = 1; pass <= 2; pass++) {
    relu(w.matmul(x).add(b)).sum().backward();
    expect([gradOf(x), gradOf(w), gradOf(b)]).toEqual([
      [4 * pass, 6 * pass],
      [2 * pass, 3 * pass, 2 * pass, 3 * pass],
      [pass, pass],
    ]);
  }
});

describe('R50: what reads and cuts', () => {
  it('R50: detach ends the gradient and shares the memory', () => {
    const x = leaf([2, 3]);
    const cut = x.mul(x).detach();
    expect([cut.requiresGrad, cut.gradFn]).toEqual([false, null]);
    cut.mul(x).sum().backward();
    expect(gradOf(x)).toEqual([4, 9]);
    const base = f64([1, 2]);
    base.detach().fill_(7);
    expect(values(base)).toEqual([7, 7]);
  });

  it('R50: clone passes the gradient on and has memory of its own', () => {
    const x = leaf([2, 3]);
    const copy = x.clone();
    copy.mul_(10);
    expect([values(x), values(copy)]).toEqual([
      [2, 3],
      [20, 30],
    ]);
    copy.sum().backward();
    expect(gradOf(x)).toEqual([10, 10]);
  });

  it('R50: requiresGrad_ makes a detached copy a leaf of its own', () => {
    const x = leaf([2, 3]);
    const fresh = x.detach().clone().requiresGrad_(true);
    fresh.mul(5).sum().backward();
    expect([fresh.isLeaf, gradOf(fresh), x.grad]).toEqual([true, [5, 5], null]);
    expect(fresh.requiresGrad_(false).requiresGrad).toBe(false);
  });

  it('R50: item, toArray and toTypedArray', () => {
    const t = f64([
      [1.5, -2],
      [0.25, 8],
    ]);
    expect(t.sum().item()).toBe(7.75);
    expect(t.toArray()).toEqual([
      [1.5, -2],
      [0.25, 8],
    ]);
    const numbers = t.toTypedArray();
    expect(numbers).toEqual(new Float64Array([1.5, -2, 0.25, 8]));
    numbers[0] = 99;
    expect(t.select(0, 0).select(0, 0).item()).toBe(1.5);
    expect(t.float().toTypedArray()).toBeInstanceOf(Float32Array);
  });

  it('R50: round to decimals', () => {
    const t = f64([1.23456789, -0.0000004, 2]);
    expect(values(t.round(6))).toEqual([1.234568, -0, 2]);
    expect(values(t.round())).toEqual([1, -0, 2]);
  });

  it('R50: allClose', () => {
    const t = f64([1, 1000]);
    expect(allClose(t, f64([1 + 5e-6, 1000.009]))).toBe(true);
    expect(allClose(t, f64([1 + 5e-5, 1000]))).toBe(false);
    expect(t.allClose(f64([1.05, 1000]), { atol: 0.1 })).toBe(true);
  });
});

describe('R51: the functions that the lesson uses', () => {
  it('R51: makers', () => {
    manualSeed(42);
    const first = randn([3, 2]);
    manualSeed(42);
    const again = randn([3, 2]);
    expect([first.shape, first.dtype, equal(first, again)]).toEqual([[3, 2], 'float32', true]);
    expect(equal(randn([3, 2]), again)).toBe(false);
    expect(randn([2], { requiresGrad: true }).requiresGrad).toBe(true);
    expect(tensor([[1, 2]]).toArray()).toEqual([[1, 2]]);
    expect([zeros([2]).toArray(), ones([2]).toArray()]).toEqual([
      [0, 0],
      [1, 1],
    ]);
  });

  it('R51: the standard normal has its moments', () => {
    manualSeed(1);
    const z = randn([100_000], { dtype: 'float64' });
    // Three standard errors: 1/√n of the mean, √(2/n) of the variance.
    expect(Math.abs(z.mean().item())).toBeLessThan(3 / Math.sqrt(1e5));
    expect(Math.abs(z.square().mean().item() - 1)).toBeLessThan(3 * Math.sqrt(2 / 1e5));
  });

  const points = [0.3, 1.2, 2.5];
  it.each<[string, (x: Tensor) => Tensor, (x: number) => number, (x: number) => number]>([
    ['exp', exp, Math.exp, Math.exp],
    ['sin', sin, Math.sin, Math.cos],
    ['cos', cos, Math.cos, (x) => -Math.sin(x)],
    ['sqrt', sqrt, Math.sqrt, (x) => 0.5 / Math.sqrt(x)],
    ['abs', (x) => abs(x.neg()), Math.abs, () => 1],
    ['maximum', (x) => maximum(x, 1), (x) => Math.max(x, 1), (x) => (x > 1 ? 1 : 0)],
    ['mean', (x) => mean(x).mul(3), () => 4, () => 1],
  ])('R51: %s and its gradient', (_, op, value, slope) => {
    const x = leaf(points);
    const y = op(x);
    expectClose(values(y), y.ndim === 0 ? [value(0)] : points.map(value), 1e-12);
    y.sum().backward();
    expectClose(gradOf(x), points.map(slope), 1e-12);
  });

  it('R51: outer and its gradients', () => {
    const [a, b] = [leaf([1, 2]), leaf([3, 4, 5])];
    const y = outer(a, b);
    expect(y.toArray()).toEqual([
      [3, 4, 5],
      [6, 8, 10],
    ]);
    y.sum().backward();
    expect([gradOf(a), gradOf(b)]).toEqual([
      [12, 12],
      [3, 3, 3],
    ]);
  });

  it('R51: comparison gives truth values without a gradient', () => {
    const x = leaf([-1, 0, 2]);
    const positive = x.gt(0);
    expect([positive.dtype, positive.toArray(), positive.requiresGrad]).toEqual(['bool', [false, false, true], false]);
    expect([x.le(0).toArray(), x.eq(0).toArray()]).toEqual([
      [true, true, false],
      [false, true, false],
    ]);
  });

  it('R51: a cast hands the gradient back in the dtype that came in', () => {
    const x = tensor([1.5, -2], { requiresGrad: true });
    const wide = x.to('float64');
    wide
      .mul(f64([3, 4]))
      .sum()
      .backward();
    expect([wide.dtype, x.grad!.dtype, gradOf(x)]).toEqual(['float64', 'float32', [3, 4]]);
    expect(x.detach().to('int32').toArray()).toEqual([1, -2]);
  });
});
