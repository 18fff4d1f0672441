// vmap beside what every op is walked for: nesting, dimensions, per-example gradients of models, and how it meets grad,
// jvp, Functions and checkpoints.
import { describe, expect, it } from 'vitest';
import {
  AutogradError,
  autograd,
  checkpoint,
  crossEntropy,
  einsum,
  enableGrad,
  grad,
  hvp,
  jvp,
  manualSeed,
  nn,
  noGrad,
  randn,
  stack,
  type Tensor,
  tensor,
  vmap,
  where,
  zeros,
} from '../lib/index.ts';
import { expectClose, f64, leaf, thrownBy, values } from './support.ts';

const normal = (shape: number[]): Tensor => randn(shape, { dtype: 'float64' });
const rowsOf = (t: Tensor, dim = 0): Tensor[] => Array.from({ length: t.shape[dim]! }, (_, i) => t.select(dim, i));

/** The same values and shapes as a loop over dimension `dim` of x. */
function expectLoop(f: (x: Tensor) => Tensor, x: Tensor, dim = 0): void {
  const [got, expected] = [vmap(f, dim)(x), stack(rowsOf(x, dim).map(f))];
  expect([got.shape, got.dtype]).toEqual([expected.shape, expected.dtype]);
  expectClose(values(got), values(expected), 1e-12);
}

/** [2x, x²], with a gradient of its own. */
class Pair extends autograd.Function {
  static forward(ctx: autograd.FunctionContext, x: Tensor): [Tensor, Tensor] {
    ctx.saveForBackward(x);
    return [x.mul(2), x.square()];
  }
  static backward(ctx: autograd.FunctionContext, a: Tensor, b: Tensor): Tensor {
    return a.mul(2).add(b.mul(ctx.savedTensors[0]!).mul(2));
  }
}
/** The identity, with ten times the gradient. */
class TenTimes extends autograd.Function {
  static forward(_: autograd.FunctionContext, x: Tensor): Tensor {
    return x.clone();
  }
  static backward(_: autograd.FunctionContext, g: Tensor): Tensor {
    return g.mul(10);
  }
}

describe('dimensions', () => {
  const x = normal([2, 3, 4]);
  it('runs over any dimension, counted from either end', () => {
    for (const dim of [0, 1, 2, -1, -2, -3]) expectLoop((a) => a.softmax(0).matmul(a.T), x, (dim + 3) % 3);
    expect(vmap((a: Tensor) => a, -1)(x).shape).toEqual([4, 2, 3]);
  });

  it('differ between arguments; null is the same for all', () => {
    const [w, b] = [normal([4, 5]), normal([5, 3])];
    const f = (a: Tensor, m: Tensor, c: Tensor): Tensor => a.matmul(m).add(c);
    const got = vmap(f, [1, null, -1])(x, w, b);
    expectClose(values(got), values(stack([0, 1, 2].map((i) => f(x.select(1, i), w, b.select(1, i))))), 1e-12);
    // What is no tensor is passed on.
    expect(
      vmap((a: Tensor, n: number, o: { k: number }) => a.mul(n + o.k))(f64([1, 2]), 3, { k: 1 }).toArray(),
    ).toEqual([4, 8]);
    expect(vmap((_: Tensor, c: Tensor) => c, [0, null])(x, f64(7)).toArray()).toEqual([7, 7]);
  });

  it('of size 0 and 1 give that many results', () => {
    expect(vmap((a: Tensor) => a.mul(2).sum())(zeros([0, 3])).shape).toEqual([0]);
    expect(vmap((a: Tensor) => a.matmul(a.T).softmax(1))(zeros([0, 3, 2])).shape).toEqual([0, 3, 3]);
    expectLoop((a) => a.cumsum(0).exp(), normal([1, 3]));
    const w = leaf([1, 2]);
    expect(
      grad(vmap((a: Tensor) => a.mul(w).sum())(zeros([0, 2], { dtype: 'float64' })).sum(), w)[0]!.toArray(),
    ).toEqual([0, 0]);
  });

  it('nests, and inner levels see the outer', () => {
    const [a, b] = [normal([3]), normal([4, 2])];
    const table = vmap((s: Tensor) => vmap((row: Tensor) => row.mul(s).sum().exp())(b))(a);
    expectClose(values(table), values(stack(rowsOf(a).map((s) => b.mul(s).sum(1).exp()))), 1e-12);
    expectLoop((m) => vmap((r: Tensor) => r.outer(m.select(0, 0)), 1)(m), normal([2, 3, 4]));
    const deep = vmap((p: Tensor) => vmap((q: Tensor) => vmap((r: Tensor) => r.add(q.sum()).mul(p.sum()))(q))(p))(x);
    const sums = x.sum(2, { keepdim: true });
    expectClose(values(deep), values(x.add(sums).mul(sums.sum(1, { keepdim: true }))), 1e-12);
  });

  it('gives trees of results', () => {
    const tree = vmap((a: Tensor) => ({ sum: a.sum(), parts: [a, a.gt(0)], n: 3, none: null, nested: { c: f64(1) } }))(
      f64([[1, -2]]),
    );
    expect([tree.sum.toArray(), tree.parts[0]!.toArray(), tree.parts[1]!.toArray(), tree.n, tree.none]).toEqual([
      [-1],
      [[1, -2]],
      [[true, false]],
      3,
      null,
    ]);
    expect(tree.nested.c.toArray()).toEqual([1]);
  });
});

describe('gradients', () => {
  const model = (): nn.Sequential =>
    new nn.Sequential(new nn.Linear(4, 5), new nn.LayerNorm([5]), new nn.GELU(), new nn.Linear(5, 3)).to('float64');

  it('per example, of a model that is closed over: by grad inside', () => {
    manualSeed(1);
    const net = model();
    const parameters = [...net.parameters()];
    const [x, y] = [normal([6, 4]), tensor([0, 1, 2, 2, 1, 0], { dtype: 'int32' })];
    const loss = (a: Tensor, t: Tensor): Tensor => crossEntropy(net.call(a.unsqueeze(0)), t.reshape([1]));
    const all = vmap((a: Tensor, t: Tensor) => grad(loss(a, t), parameters))(x, y);
    const loop = rowsOf(x).map((a, i) => grad(loss(a, y.select(0, i)), parameters));
    all.forEach((g, p) => {
      expect(g.shape).toEqual([6, ...parameters[p]!.shape]);
      expect(g.requiresGrad).toBe(false);
      expectClose(values(g), values(stack(loop.map((gradients) => gradients[p]!))), 1e-11);
    });
    expect(parameters.every((p) => p.grad === null)).toBe(true);
    // Their mean is the gradient of the batch.
    const batch = grad(crossEntropy(net.call(x), y), parameters);
    all.forEach((g, p) => void expectClose(values(g.mean(0)), values(batch[p]!), 1e-11));
  });

  it('go through vmap to leaves outside, those that vary and those that do not', () => {
    const [x, w, b] = [leaf([1, 2, 3]), leaf([2, -1]), leaf([[1], [2], [3]])];
    const out = vmap((a: Tensor, c: Tensor) => w.mul(a).exp().mul(c).sum(), [0, 0])(x, b);
    const by = stack(rowsOf(x).map((a, i) => w.mul(a).exp().mul(b.select(0, i)).sum()));
    const [got, expected] = [out, by].map((t) => grad(t.square().sum(), [x, w, b], { retainGraph: true }));
    got!.forEach((g, i) => void expectClose(values(g), values(expected![i]!), 1e-10));
    out.sum().backward();
    expect([x.grad!.shape, w.grad!.shape, b.grad!.shape]).toEqual([[3], [2], [3, 1]]);
  });

  it('of gradients: a penalty on gradients per example reaches the weights', () => {
    const w = leaf([0.5, -1]);
    const norms = (a: Tensor): Tensor => {
      const v = a.mul(1);
      if (!v.requiresGrad) v.requiresGrad_();
      return grad(v.mul(w).sin().sum(), v, { createGraph: true })[0]!.square().sum();
    };
    const x = f64([
      [1, 2],
      [3, 4],
    ]);
    const got = grad(vmap(norms)(x).sum(), w)[0]!;
    const expected = grad(norms(x.select(0, 0)).add(norms(x.select(0, 1))), w)[0]!;
    expectClose(values(got), values(expected), 1e-12);
  });

  it('respect noGrad inside and outside', () => {
    const w = leaf([1, 2]);
    const x = f64([3, 4]);
    expect(vmap((a: Tensor) => noGrad(() => w.mul(a)).add(w.mul(2)))(x).requiresGrad).toBe(true);
    expect(grad(vmap((a: Tensor) => noGrad(() => w.mul(a)).add(w.mul(2)))(x).sum(), w)[0]!.toArray()).toEqual([4, 4]);
    expect(vmap((a: Tensor) => noGrad(() => w.mul(a)))(x).requiresGrad).toBe(false);
    expect(noGrad(() => vmap((a: Tensor) => w.mul(a))(x)).requiresGrad).toBe(false);
    expect(noGrad(() => vmap((a: Tensor) => enableGrad(() => grad(w.mul(a).sum(), w)[0]!))(x)).toArray()).toEqual([
      [3, 3],
      [4, 4],
    ]);
  });

  it('backward() inside is refused and leaves no gradient behind', () => {
    const w = leaf([1, 2]);
    const error = thrownBy(() => vmap((a: Tensor) => void a.mul(w).sum().backward())(f64([[1, 2]]))) as Error;
    expect(error).toBeInstanceOf(AutogradError);
    expect(error.message).toMatch(/^backward: .*vmap.*grad\(/s);
    expect(w.grad).toBeNull();
    w.sum().backward();
    expect(w.grad!.toArray()).toEqual([1, 1]);
  });
});

describe('with jvp, Functions and checkpoints', () => {
  const x = f64([
    [1, 2],
    [3, 4],
  ]);
  const v = f64([
    [1, 0],
    [2, -1],
  ]);

  it('vmap inside jvp and jvp inside vmap are the same', () => {
    const f = (a: Tensor): Tensor => a.softmax(0).mul(a).exp();
    const inside = vmap((a: Tensor, t: Tensor) => jvp(f, a, t)[1])(x, v);
    expectClose(values(jvp((all) => vmap(f)(all), x, v)[1]), values(inside), 1e-12);
    expectClose(
      values(inside),
      rowsOf(x).flatMap((a, i) => values(jvp(f, a, v.select(0, i))[1])),
      1e-12,
    );
    // One primal, many tangents: the Jacobian, column by column.
    const columns = vmap((t: Tensor) => jvp(f, x.select(0, 0), t)[1])(v);
    expectClose(
      values(columns),
      rowsOf(v).flatMap((t) => values(jvp(f, x.select(0, 0), t)[1])),
      1e-12,
    );
    const products = vmap((a: Tensor, t: Tensor) => hvp((b) => f(b).sum(), a, t))(x, v);
    expectClose(
      values(products),
      rowsOf(x).flatMap((a, i) => values(hvp((b) => f(b).sum(), a, v.select(0, i)))),
      1e-12,
    );
  });

  it('a Function’s own backward is used, inside and through', () => {
    const inner = vmap((a: Tensor) => {
      const b = a.detach().requiresGrad_();
      return grad(TenTimes.apply(b).square().sum(), b)[0]!;
    })(x);
    expect(inner.toArray()).toEqual([
      [20, 40],
      [60, 80],
    ]);
    const leaves = x.clone().requiresGrad_();
    expect(grad(vmap((a: Tensor) => TenTimes.apply(a))(leaves).sum(), leaves)[0]!.toArray()).toEqual([
      [10, 10],
      [10, 10],
    ]);
    expect(jvp((all) => vmap((a: Tensor) => TenTimes.apply(a))(all), x, v)[1].toArray()).toEqual(v.mul(10).toArray());
  });

  it('a Function of what varies and what does not sums the gradients of the latter', () => {
    class Product extends autograd.Function {
      static forward(ctx: autograd.FunctionContext, a: Tensor, b: Tensor): Tensor {
        ctx.saveForBackward(a, b);
        return a.mul(b);
      }
      static backward(ctx: autograd.FunctionContext, g: Tensor): [Tensor, Tensor] {
        const [a, b] = ctx.savedTensors;
        return [g.mul(b!), g.mul(a!)];
      }
    }
    const [leaves, w] = [x.clone().requiresGrad_(), leaf([5, 7])];
    const weights = f64([1, 10]);
    const total = vmap((a: Tensor, k: Tensor) => Product.apply(a, w).mul(k))(leaves, weights).sum();
    const [gx, gw] = grad(total, [leaves, w]);
    expect(gx!.toArray()).toEqual([
      [5, 7],
      [50, 70],
    ]);
    expect(gw!.toArray()).toEqual([31, 42]);
    const inside = vmap((a: Tensor) => grad(Product.apply(a, w).sum(), w)[0]!)(x);
    expect(inside.toArray()).toEqual(x.toArray());
  });

  it('so is that of a Function with several outputs', () => {
    const expected = x.mul(2).add(2).toArray();
    const both = (a: Tensor): Tensor => {
      const [twice, square] = Pair.apply(a);
      return twice.add(square);
    };
    const inner = vmap((a: Tensor) => {
      const b = a.detach().requiresGrad_();
      return grad(both(b).sum(), b)[0]!;
    })(x);
    expect(inner.toArray()).toEqual(expected);
    const leaves = x.clone().requiresGrad_();
    const out = vmap(both)(leaves);
    expect(out.requiresGrad).toBe(true);
    expect(grad(out.sum(), leaves)[0]!.toArray()).toEqual(expected);
    expect(jvp((all) => vmap(both)(all), x, v)[1].toArray()).toEqual(x.mul(2).add(2).mul(v).toArray());
    expect(vmap((a: Tensor, t: Tensor) => jvp(both, a, t)[1])(x, v).toArray()).toEqual(
      x.mul(2).add(2).mul(v).toArray(),
    );
  });

  it('a checkpoint inside has the same gradients, inside and through', () => {
    const w = leaf([0.5, -1]);
    const part = (a: Tensor): Tensor => a.mul(w).tanh().exp().mul(a);
    const inside = (run: (a: Tensor) => Tensor): number[] => values(vmap((a: Tensor) => grad(run(a).sum(), w)[0]!)(x));
    expect(inside((a) => checkpoint(part, a))).toEqual(inside(part));
    const leaves = x.clone().requiresGrad_();
    const through = (run: (a: Tensor) => Tensor): number[][] =>
      grad(vmap(run)(leaves).square().sum(), [leaves, w]).map(values);
    expect(through((a) => checkpoint(part, a))).toEqual(through(part));
    expect(
      grad(
        checkpoint((all: Tensor) => vmap(part)(all), leaves)
          .square()
          .sum(),
        [leaves, w],
      ).map(values),
    ).toEqual(through(part));
  });

  it('einsum, convolution, sorting and choosing are those of a loop', () => {
    manualSeed(3);
    const [m, kernel] = [normal([3, 4]), normal([2, 1, 3])];
    expectLoop((a) => einsum('ij,kj->ki', a, m), normal([2, 5, 4]));
    expectLoop((a) => a.conv1d(kernel, null, { padding: 1 }), normal([3, 2, 1, 6]));
    expectLoop((a) => a.sort(0, { descending: true })[0]!, normal([3, 5]));
    expectLoop((a) => a.topk(2, 0)[1]!, normal([3, 5]));
    expectLoop((a) => where(a.gt(0), a, m.select(0, 0)), normal([3, 4]));
    expectLoop((a) => m.indexSelect(0, a.argmax().reshape([1])), normal([4, 3]));
    expectLoop((a) => a.select(0, -1).pow(2).add(a.norm()), normal([3, 4]));
  });
});
