// The chain rule and the graph that carries it: values as PyTorch gives them in float64, names, what is saved.
import { describe, expect, it } from 'vitest';
import { add, cat, grad, linear, type Node, ones, type Tensor, tensor } from '../lib/index.ts';
import { expectClose, f64, gradOf, leaf, values } from './support.ts';

const TIGHT = 1e-10;

/** df/dx at one number. */
function derivative(f: (x: Tensor) => Tensor, at: number): number {
  const x = leaf(at);
  f(x).backward();
  return x.grad!.item();
}

describe('the chain rule', () => {
  it('differentiates sin(x²) as central differences do', () => {
    const slope = derivative((x) => x.mul(x).sin(), 1.5);
    expect(slope).toBeCloseTo(-1.88452087, 8);
    const [h, f] = [1e-6, (x: number) => Math.sin(x * x)];
    expect(slope).toBeCloseTo((f(1.5 + h) - f(1.5 - h)) / (2 * h), 8);
  });

  it('sums over paths, and ignores what the result does not use', () => {
    expect(derivative((x) => x.square().add(x.square().square()), 3)).toBe(114);
    const shared = (x: Tensor): Tensor => {
      const y = x.square();
      return y.add(y.mul(y));
    };
    expect(derivative(shared, 3)).toBe(114);
    const unused = (x: Tensor): Tensor => {
      const y = x.square();
      y.mul(2);
      return y.add(1);
    };
    expect(derivative(unused, 3)).toBe(6);
  });

  it('gives (xw + b)² its local and its whole derivatives', () => {
    const [x, w, b] = [leaf(2), leaf(3), leaf(1)];
    const z1 = x.mul(w);
    const z2 = z1.add(b);
    const y = z2.square();
    expect([z1.item(), z2.item(), y.item()]).toEqual([6, 7, 49]);
    const local = (out: Tensor, ...inputs: Tensor[]): number[] =>
      grad(out, inputs, { retainGraph: true }).map((g) => g.item());
    expect(local(y, z2)).toEqual([14]);
    expect(local(z2, z1, b)).toEqual([1, 1]);
    expect(local(z1, x, w)).toEqual([3, 2]);
    y.backward();
    expect([b.grad!.item(), w.grad!.item(), x.grad!.item()]).toEqual([14, 28, 42]);
  });

  it('exposes every stage of a chain as the product of the later Jacobians', () => {
    const x = leaf([0.3, -0.7]);
    const h1 = x.mul(2);
    const h2 = h1.sin();
    const h3 = h2.exp();
    const loss = h3.sum();
    for (const h of [h1, h2, h3]) h.retainGrad();
    loss.backward();
    const d3 = [1, 1];
    const d2 = values(h3);
    const d1 = d2.map((d, i) => d * Math.cos(values(h1)[i]!));
    expectClose(gradOf(h3), d3, TIGHT);
    expectClose(gradOf(h2), d2, TIGHT);
    expectClose(gradOf(h1), d1, TIGHT);
    expectClose(
      gradOf(x),
      d1.map((d) => 2 * d),
      TIGHT,
    );
  });

  it('starts a vector output from the gradient given', () => {
    const x = leaf([1, -2, 3]);
    x.square().backward(ones([3], { dtype: 'float64' }));
    expect(gradOf(x)).toEqual([2, -4, 6]);
    const [g] = grad(x.square(), x, { gradOutputs: f64([1, 5, 10]) });
    expect(values(g!)).toEqual([2, -20, 60]);
  });

  it('follows the data: another branch, another graph', () => {
    const f = (x: Tensor): Tensor => (x.item() > 0 ? x.mul(3) : f(x.add(2)).square());
    expect(derivative(f, 1)).toBe(3);
    expect(derivative(f, -1)).toBe(2 * 3 * 3);
  });

  it.each([
    ['tanh', (y: number) => -2 * (1 - y * y) * (1 - 3 * y * y), (x: Tensor) => x.tanh(), Math.tanh],
    ['exp', (y: number) => y, (x: Tensor) => x.exp(), Math.exp],
    ['sin', (_: number, x: number) => -Math.cos(x), (x: Tensor) => x.sin(), Math.sin],
    ['pow', (_: number, x: number) => 3.7 * 2.7 * 1.7 * x ** 0.7, (x: Tensor) => x.pow(3.7), (x: number) => x ** 3.7],
    ['log', (_: number, x: number) => 2 / x ** 3, (x: Tensor) => x.log(), Math.log],
    ['reciprocal', (_: number, x: number) => -6 / x ** 4, (x: Tensor) => x.reciprocal(), (x: number) => 1 / x],
  ])('has the third derivative of %s', (_, third, op, plain) => {
    const points = [0.2, 0.9, 1.7];
    const x = leaf(points);
    let y = op(x);
    for (let order = 0; order < 3; order++) [y] = grad(y.sum(), x, { createGraph: true }) as [Tensor];
    expectClose(
      values(y),
      points.map((p) => third(plain(p), p)),
      TIGHT,
    );
  });

  it('has the mixed second derivatives of tanh(xW)', () => {
    const [x, w] = [
      leaf([[1, 2]]),
      leaf([
        [0.1, 0.2],
        [0.3, 0.4],
      ]),
    ];
    const [dx] = grad(x.matmul(w).tanh().sum(), x, { createGraph: true });
    const [dw] = grad(dx!.square().sum(), w);
    expectClose(values(dw!), [-0.000410946011, -0.0972888065264, 0.0797569773952, -0.141262744778], TIGHT);
  });

  it('differentiates by the gradient that a backward pass started from', () => {
    const [x, v] = [leaf([1, 2]), leaf([3, 4])];
    const [g] = grad(x.square(), x, { gradOutputs: v, createGraph: true });
    expect(values(grad(g!.sum(), v)[0]!)).toEqual([2, 4]);
    const u = v.mul(2);
    const [h] = grad(x.square(), x, { gradOutputs: u, createGraph: true });
    expect(values(grad(h!.sum(), v)[0]!)).toEqual([4, 8]);
  });
});

describe('views and broadcasting', () => {
  it('sums the gradient over broadcast dimensions', () => {
    const [a, b, c] = [leaf([[1], [2], [3]]), leaf([[10, 20, 30, 40]]), leaf(5)];
    a.mul(b).add(c).sum().backward();
    expect(gradOf(a)).toEqual([100, 100, 100]);
    expect(gradOf(b)).toEqual([6, 6, 6, 6]);
    expect(gradOf(c)).toEqual([12]);
    const bias = leaf([1, 2]);
    ones([3, 4, 2], { dtype: 'float64' }).add(bias).sum().backward();
    expect(gradOf(bias)).toEqual([12, 12]);
  });

  it('passes through views to the place they were taken from', () => {
    const x = leaf([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    x.T.slice(0, 1)
      .select(1, 1)
      .mul(f64([10, 100]))
      .sum()
      .backward();
    expect(gradOf(x)).toEqual([0, 0, 0, 0, 10, 100]);
    const y = leaf([1, 2, 3]);
    y.narrow(0, 0, 2)
      .mul(y.narrow(0, 1, 2))
      .sum()
      .backward();
    expect(gradOf(y)).toEqual([2, 4, 2]);
    const z = leaf([1, 2]);
    cat([z, z.mul(2), z.expand([2, 2]).flatten()])
      .sum()
      .backward();
    expect(gradOf(z)).toEqual([5, 5]);
    const w = leaf([1, 2, 3, 4]);
    w.reshape([2, 2])
      .T.flatten()
      .mul(f64([1, 2, 3, 4]))
      .sum()
      .backward();
    expect(gradOf(w)).toEqual([1, 3, 2, 4]);
  });

  it('carries gradients between floating dtypes, in the dtype of each', () => {
    const x = tensor([1, 2], { requiresGrad: true });
    x.double().mul(3).to('bfloat16').float().sum().backward();
    expect(x.grad!.dtype).toBe('float32');
    expect(gradOf(x)).toEqual([3, 3]);
  });
});

describe('the graph', () => {
  const namesOf = (node: Node): (string | undefined)[] => node.nextFunctions.map((next) => next?.name);

  it('has operations as nodes, named as in PyTorch', () => {
    const [x, w, b] = [
      leaf([2, 3]),
      leaf([
        [1, 2],
        [3, 4],
      ]),
      leaf([0.5, -0.5]),
    ];
    const z = w.matmul(x).add(b);
    const h = z.relu();
    const loss = h.sum();
    expect([values(z), loss.item()]).toEqual([[8.5, 17.5], 26]);
    expect([x.gradFn, x.isLeaf, z.isLeaf, z.requiresGrad]).toEqual([null, true, false, true]);
    expect([z, h, loss].map((t) => t.gradFn!.name)).toEqual(['AddBackward', 'ReluBackward', 'SumBackward']);
    expect(namesOf(z.gradFn!)).toEqual(['MvBackward', 'AccumulateGrad']);
    expect(loss.gradFn!.nextFunctions[0]).toBe(h.gradFn);
    loss.backward();
    expect([gradOf(x), gradOf(w), gradOf(b)]).toEqual([
      [4, 6],
      [2, 3, 2, 3],
      [1, 1],
    ]);
  });

  it.each([
    [[4], 'AddBackward'],
    [[3, 4], 'AddmmBackward'],
    [[2, 3, 4], 'ViewBackward'],
  ])('names linear of an input of shape %j %s', (shape, name) => {
    const [weight, bias] = [ones([2, 4], { requiresGrad: true }), ones([2], { requiresGrad: true })];
    expect(linear(ones(shape), weight, bias).gradFn!.name).toBe(name);
  });

  it('reaches every leaf from the loss', () => {
    const leaves = [leaf(1), leaf(2), leaf(3)];
    let root: Node | null = leaves.reduce((sum: Tensor, x) => sum.mul(x).sin(), f64(1)).gradFn;
    const accumulators = new Set<Node>();
    const stack = [root];
    while ((root = stack.pop() ?? null)) {
      if (root.name === 'AccumulateGrad') accumulators.add(root);
      stack.push(...root.nextFunctions.filter((next) => next !== null));
    }
    expect(accumulators.size).toBe(3);
  });

  it('saves what a needed gradient reads, and nothing else', () => {
    const x = leaf([1, 2]);
    const m = leaf([
      [1, 2],
      [3, 4],
    ]);
    const constant = f64([
      [1, 0],
      [0, 1],
    ]);
    const saved = (out: Tensor): Tensor[] => out.gradFn!.savedTensors;
    expect(saved(x.mul(2))).toEqual([]);
    expect(saved(x.add(x))).toEqual([]);
    expect(saved(x.sum())).toEqual([]);
    expect(saved(x.pow(2))).toEqual([x]);
    const [e, r] = [x.exp(), x.relu()];
    expect(saved(e)).toEqual([e]);
    expect(saved(r)).toEqual([r]);
    expect(saved(m.matmul(constant))).toEqual([constant]);
    expect(saved(constant.matmul(m))).toEqual([constant]);
    expect(saved(x.mul(f64([5, 6]))).map(values)).toEqual([[5, 6]]);
  });

  it('starts from a gradient of 1', () => {
    const loss = leaf([1, 2]).sum();
    const seen: number[][] = [];
    loss.registerHook((g) => void seen.push(values(g)));
    loss.backward();
    expect(seen).toEqual([[1]]);
  });

  it('visits each node of a diamond once, with the sum of what arrives', () => {
    const x = leaf(1);
    const visits: number[] = [];
    let y = x.mul(1);
    // 2^40 paths through 40 nodes.
    for (let i = 0; i < 40; i++) {
      y = add(y, y);
      y.gradFn!.registerHook((_, g) => void visits.push(g.item()));
    }
    y.backward();
    expect(visits).toEqual(Array.from({ length: 40 }, (_, i) => 2 ** i));
    expect(x.grad!.item()).toBe(2 ** 40);
  });

  it('goes back through a chain of 100,000 ops', () => {
    const x = leaf([1, 2]);
    let y = x;
    for (let i = 0; i < 100_000; i++) y = i % 2 === 0 ? y.add(1) : y.mul(1);
    y.sum().backward();
    expect(gradOf(x)).toEqual([1, 1]);
  });
});
