// vjp, jacobian, hessian and hvp: against closed forms, against loops, within each other and within jvp and vmap; what
// of their results requires grad, and wrong calls.
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  autograd,
  crossEntropy,
  DTypeError,
  enableGrad,
  eye,
  grad,
  hessian,
  hvp,
  isGradEnabled,
  jacobian,
  jvp,
  manualSeed,
  nn,
  noGrad,
  onesLike,
  randn,
  ShapeError,
  scope,
  stack,
  type Tensor,
  tensor,
  vjp,
  vmap,
  zeros,
} from '../lib/index.ts';
import { expectClose, f64, leaf, leftBehind, thrownBy, values } from './support.ts';

function expectTensor(got: Tensor, shape: readonly number[], expected: readonly number[], tolerance = 1e-12): void {
  expect(got.shape).toEqual(shape);
  expectClose(values(got), expected, tolerance);
}
const normal = (shape: number[]): Tensor => randn(shape, { dtype: 'float64' });

/** Row by row, a backward pass for each element of the output. */
function jacobianByLoop(f: (x: Tensor) => Tensor, x: Tensor): number[] {
  const input = x.clone().requiresGrad_();
  const out = f(input).flatten();
  return Array.from({ length: out.numel }, (_, i) => {
    if (!out.requiresGrad) return new Array<number>(x.numel).fill(0);
    return values(grad(out.select(0, i), input, { retainGraph: true })[0]!);
  }).flat();
}
function hessianByLoop(f: (x: Tensor) => Tensor, x: Tensor): number[] {
  return jacobianByLoop((input) => grad(f(input), input, { createGraph: true })[0]!, x);
}

/** Scalar functions of a vector of three, with all kinds of ops in them. */
const SCALARS: Record<string, (x: Tensor) => Tensor> = {
  cubes: (x) => x.pow(3).sum(),
  product: (x) => x.prod(),
  'power of the sum': (x) => x.sum().pow(4),
  logsumexp: (x) => x.logsumexp(0),
  'softmax entropy': (x) => x.softmax(0).mul(x.logSoftmax(0)).sum(),
  norm: (x) => x.norm(),
  'standard deviation': (x) => x.std(),
  largest: (x) => x.max().pow(4),
  cumsum: (x) => x.cumsum(0).pow(3).sum(),
  sort: (x) =>
    x
      .pow(3)
      .sort(0)[0]!
      .mul(f64([1, 2, 3]))
      .sum(),
  matmul: (x) =>
    x
      .reshape([1, 3])
      .matmul(x.pow(3).reshape([3, 1]))
      .sum(),
  gather: (x) =>
    x
      .pow(4)
      .gather(0, tensor([2, 0, 2], { dtype: 'int32' }))
      .sum(),
  'parts put together': (x) =>
    stack([x.narrow(0, 0, 2).prod(), x.select(0, 2).exp()])
      .square()
      .sum(),
  'layer norm': (x) => x.layerNorm([3]).pow(3).sum(),
};
const POINT = [1, 2, 0.5];

describe('vjp', () => {
  it('pulls back through several inputs and outputs, as often as asked', () => {
    const [x, y] = [f64([1, 2]), f64(3)];
    const [[product, sum], pull] = vjp((a: Tensor, b: Tensor) => [a.mul(b), a.sum()], x, y);
    expect([product!.toArray(), sum!.item()]).toEqual([[3, 6], 3]);
    for (const [gp, gs] of [
      [[1, 0], 0],
      [[1, 10], 7],
      [[0, 0], 0],
    ] as const) {
      const [dx, dy] = pull(f64([...gp]), f64(gs));
      expect(dx!.toArray()).toEqual(gp.map((g) => 3 * g + gs));
      expect(dy!.item()).toBe(gp[0] + 2 * gp[1]);
    }
    expect([x.requiresGrad, x.grad, y.grad]).toEqual([false, null, null]);
  });

  it('gives one tensor for one primal, zeros where nothing depends', () => {
    const [out, pull] = vjp((a: Tensor) => [a.detach(), f64([1, 2]), a.argmax()], f64([5]));
    expect(out.map((t) => t.requiresGrad)).toEqual([false, false, false]);
    expect(pull(f64([1]), f64([1, 1]), tensor(1, { dtype: 'int32' })).toArray()).toEqual([0]);
    const [, unused] = vjp((a: Tensor, _b: Tensor) => a.exp(), f64(0), f64([1, 2]));
    expect(unused(f64(3)).map((t) => t.toArray())).toEqual([3, [0, 0]]);
  });

  it('requires grad where something beyond the primals does', () => {
    const square = (a: Tensor): Tensor => a.square();
    const [plain, pullPlain] = vjp(square, f64([3]));
    expect([plain.requiresGrad, pullPlain(f64([1])).requiresGrad]).toEqual([false, false]);

    const x = leaf([3]);
    const [out, pull] = vjp((a: Tensor) => a.pow(3), x);
    const g = pull(f64([1]));
    expect([out.requiresGrad, g.requiresGrad]).toEqual([true, true]);
    expect([grad(g, x)[0]!.item(), grad(out, x)[0]!.item(), x.grad]).toEqual([18, 27, null]);

    const w = leaf([2]);
    const [, pullW] = vjp((a: Tensor) => a.pow(2).mul(w), f64([3]));
    expect(grad(pullW(f64([1])), w)[0]!.item()).toBe(6);
    // The closure's own use of a primal is another one.
    const [, pullX] = vjp((a: Tensor) => a.mul(x), x);
    expect(pullX(f64([1])).item()).toBe(3);
  });

  it('is differentiable in what is pulled back', () => {
    const v = leaf([1, 1]);
    const [, pull] = vjp((a: Tensor) => a.square(), f64([1, 2]));
    const pulled = pull(v);
    expect(pulled.requiresGrad).toBe(true);
    expect(grad(pulled.sum(), v)[0]!.toArray()).toEqual([2, 4]);
    expect(jvp((u) => pull(u), f64([1, 1]), f64([3, 5]))[1].toArray()).toEqual([6, 20]);
    expect((vmap(pull)(eye(2, { dtype: 'float64' })) as Tensor).toArray()).toEqual([
      [2, 0],
      [0, 4],
    ]);
  });

  it('works under noGrad, unrecorded, and respects noGrad inside', () => {
    const x = leaf([3]);
    noGrad(() => {
      const [out, pull] = vjp((a: Tensor) => a.pow(2), x);
      const g = pull(f64([1]));
      expect([out.requiresGrad, g.requiresGrad, g.item(), isGradEnabled()]).toEqual([false, false, 6, false]);
    });
    const [, pull] = vjp((a: Tensor) => a.pow(3).sub(noGrad(() => a.square())), f64([3]));
    expect(pull(f64([1])).item()).toBe(27);
    expect(isGradEnabled()).toBe(true);
  });

  it('leaves the graphs of others alone', () => {
    const x = leaf([2]);
    const y = x.square();
    const [, pull] = vjp((a: Tensor) => a.mul(y), y);
    pull(f64([1]));
    pull(f64([1]));
    y.backward();
    expect(x.grad!.item()).toBe(4);
  });
});

describe('jacobian', () => {
  it('has the shape of the output, then of the input', () => {
    manualSeed(2);
    const w = normal([4, 3]);
    const cases: [(x: Tensor) => Tensor, Tensor][] = [
      [(x) => x.matmul(w.T).tanh(), normal([2, 3])],
      [(x) => x.sum(), normal([2, 3])],
      [(x) => x.exp(), f64(0.3)],
      [(x) => x.softmax(1).mul(x), normal([2, 3])],
      [(x) => x.max(1)[0]!, normal([3, 3])],
      [(x) => x.detach(), normal([2])],
      [(x) => x.conv1d(w.reshape([4, 1, 3])), normal([1, 1, 5])],
    ];
    for (const [f, x] of cases) {
      const found = jacobian(f, x);
      expectTensor(found, [...f(x).shape, ...x.shape], jacobianByLoop(f, x));
      expect(found.requiresGrad).toBe(false);
    }
  });

  it('of nothing is empty', () => {
    expect(jacobian((x) => x.narrow(0, 0, 0), f64([1, 2])).shape).toEqual([0, 2]);
    expect(jacobian((x) => x.sum(), zeros([0])).shape).toEqual([0]);
    expect(hessian((x) => x.square().sum(), zeros([0])).shape).toEqual([0, 0]);
  });

  it('keeps the dtype', () => {
    expect(jacobian((x) => x.square(), tensor([3])).dtype).toBe('float32');
    expect(jacobian((x) => x.square(), tensor([3], { dtype: 'bfloat16' })).dtype).toBe('bfloat16');
  });

  it('draws random numbers once, not for each row', () => {
    manualSeed(4);
    const j = jacobian((x) => x.dropout(0.5, { training: true }), f64([1, 1, 1, 1, 1, 1, 1, 1]));
    manualSeed(4);
    expectTensor(j.sum(0), [8], values(f64([1, 1, 1, 1, 1, 1, 1, 1]).dropout(0.5, { training: true })));
  });

  it('goes through functions and layers of the user’s', () => {
    class Cube extends autograd.Function {
      static forward(ctx: autograd.FunctionContext, x: Tensor): Tensor {
        ctx.saveForBackward(x);
        return x.pow(3);
      }
      static backward(ctx: autograd.FunctionContext, g: Tensor): Tensor {
        return g.mul(ctx.savedTensors[0]!.square()).mul(3);
      }
    }
    expectTensor(
      jacobian((x) => Cube.apply(x), f64([1, 2])),
      [2, 2],
      [3, 0, 0, 12],
    );
    expectTensor(
      hessian((x) => Cube.apply(x).sum(), f64([1, 2])),
      [2, 2],
      [6, 0, 0, 12],
    );
    manualSeed(1);
    const model = new nn.Sequential(new nn.Linear(3, 4), new nn.GELU(), new nn.Linear(4, 2)).to('float64');
    const x = normal([3]);
    const f = (a: Tensor): Tensor => model.call(a.reshape([1, 3])).reshape([2]);
    const found = jacobian(f, x);
    expectTensor(found, [2, 3], jacobianByLoop(f, x));
    // The Jacobian of a model is a function of its parameters.
    expect(found.requiresGrad).toBe(true);
    expect(noGrad(() => jacobian(f, x)).requiresGrad).toBe(false);
  });
});

describe.each(Object.entries(SCALARS))('second and third derivatives: %s', (_, f) => {
  const x = f64(POINT);

  it('hessian is that of a loop, and symmetric', () => {
    const found = hessian(f, x);
    expectTensor(found, [3, 3], hessianByLoop(f, x), 1e-10);
    expectTensor(found.T, [3, 3], values(found), 1e-10);
  });

  it('hvp is the hessian times the vector', () => {
    const v = f64([0.3, -2, 1]);
    expectTensor(hvp(f, x, v), [3], values(hessian(f, x).mv(v)), 1e-10);
  });

  it('hessians over a batch are those of a loop', () => {
    const batch = stack([x, x.add(0.1), x.mul(2)]);
    const loop = [0, 1, 2].map((i) => hessian(f, batch.select(0, i)));
    expectTensor(vmap((one: Tensor) => hessian(f, one))(batch), [3, 3, 3], loop.flatMap(values), 1e-9);
  });

  it('third derivatives are the same taken three ways', () => {
    const rows = [0, 1, 2].map((k) => jvp((a) => hessian(f, a), x, eye(3, { dtype: 'float64' }).select(0, k))[1]);
    const forward = values(stack(rows, 2));
    expectTensor(
      jacobian((a) => hessian(f, a), x),
      [3, 3, 3],
      forward,
      1e-9,
    );
    const third = (a: Tensor): Tensor => jacobian((b) => jacobian((c) => jacobian(f, c), b), a);
    expectTensor(third(x), [3, 3, 3], forward, 1e-9);
  });
});

describe('hessian and hvp', () => {
  it('are functions of parameters', () => {
    const w = leaf([2, 3]);
    const f = (x: Tensor): Tensor => x.pow(2).mul(w).sum();
    const [h, product] = [hessian(f, f64([1, 1])), hvp(f, f64([1, 1]), f64([1, 10]))];
    expectTensor(h, [2, 2], [4, 0, 0, 6]);
    expectTensor(product, [2], [4, 60]);
    expectTensor(grad(h.sum(), w)[0]!, [2], [2, 2]);
    expectTensor(grad(product.sum(), w)[0]!, [2], [2, 20]);
    expect(
      noGrad(() => [hessian(f, f64([1, 1])), hvp(f, f64([1, 1]), f64([1, 1]))].map((t) => t.requiresGrad)),
    ).toEqual([false, false]);
    const x = leaf([1, 2]);
    const cubes = (a: Tensor): Tensor => a.pow(3).sum();
    expectTensor(grad(hvp(cubes, x, f64([1, 1])).sum(), x)[0]!, [2], [6, 6]);
    expect([w.grad, x.grad]).toEqual([null, null]);
  });

  it('of a loss of a model are what a loop over gradients gives', () => {
    manualSeed(5);
    const [x, y] = [normal([6, 4]), tensor([0, 1, 2, 0, 1, 2], { dtype: 'int32' })];
    const loss = (w: Tensor): Tensor => crossEntropy(x.matmul(w.reshape([4, 3])).tanh(), y);
    const w = normal([12]);
    const h = hessian(loss, w);
    expectTensor(h, [12, 12], hessianByLoop(loss, w), 1e-10);
    const v = normal([12]);
    expectTensor(hvp(loss, w, v), [12], values(h.mv(v)), 1e-10);
  });

  it('of a constant and of a linear function are zero', () => {
    for (const f of [() => f64(3), (x: Tensor) => x.sum(), (x: Tensor) => x.detach().square().sum()]) {
      expectTensor(hessian(f, f64([1, 2])), [2, 2], [0, 0, 0, 0]);
      expectTensor(hvp(f, f64([1, 2]), f64([1, 1])), [2], [0, 0]);
    }
  });

  it('take the derivative of a scalar of one element, whatever its shape', () => {
    expectTensor(
      hessian((x) => x.square().sum().reshape([1, 1]), f64([1, 2])),
      [2, 2],
      [2, 0, 0, 2],
    );
  });
});

describe('memory', () => {
  it('is as before, under scope and for the collector', () => {
    const [x, v] = [normal([16]), normal([16])];
    const f = (a: Tensor): Tensor => a.softmax(0).pow(3).sum();
    const round = (): void => {
      scope(() => void [hessian(f, x), hvp(f, x, v), jacobian((a) => a.exp(), x), vjp(f, x)[1](f64(1))]);
      const [, pull] = vjp(f, x);
      pull(f64(1));
    };
    expect(leftBehind(round, 20)).toBe(0);
  });
});

describe('wrong calls', () => {
  const x = f64([1, 2]);
  const whole = tensor([1, 2], { dtype: 'int32' });
  const pull = (): ((...g: Tensor[]) => unknown) => vjp((a: Tensor) => a.square(), x)[1];
  it.each<[string, () => unknown, new (...args: never[]) => Error, RegExp]>([
    ['vjp of no function', () => vjp(5 as never, x), ArgumentError, /^vjp/],
    ['jacobian of no function', () => jacobian(5 as never, x), ArgumentError, /^jacobian/],
    ['hessian of no function', () => hessian(5 as never, x), ArgumentError, /^hessian/],
    ['hvp of no function', () => hvp(5 as never, x, x), ArgumentError, /^hvp/],
    ['vjp of no tensor', () => vjp((a: Tensor) => a, 3 as never), ArgumentError, /^vjp: the primal is 3/],
    ['jacobian at no tensor', () => jacobian((a) => a, [1] as never), ArgumentError, /^jacobian/],
    ['a result that is none', () => vjp((() => 'x') as never, x), ArgumentError, /^vjp: the result of the function/],
    ['jacobian of several results', () => jacobian(((a: Tensor) => [a, a]) as never, x), ArgumentError, /^jacobian/],
    ['hessian of a vector', () => hessian((a) => a, x), AutogradError, /^hessian: .*\[2\]/],
    ['hvp of a vector', () => hvp((a) => a, x, x), AutogradError, /^hvp: .*\[2\]/],
    ['hvp along another shape', () => hvp((a) => a.sum(), x, f64([1])), ShapeError, /^hvp: .*\[1\].*\[2\]/],
    ['hvp along another dtype', () => hvp((a) => a.sum(), x, tensor([1, 2])), DTypeError, /^hvp/],
    ['too few gradients', () => pull()(), ShapeError, /^vjp: 0 gradients for 1 output/],
    ['too many gradients', () => pull()(x, x), ShapeError, /^vjp: 2 gradients/],
    ['a gradient of another shape', () => pull()(f64(1)), ShapeError, /^vjp: gradient 0 .*\[\].*\[2\]/],
    ['a gradient of another dtype', () => pull()(tensor([1, 2])), DTypeError, /^vjp/],
    ['whole numbers', () => vjp((a: Tensor) => a.mul(2), whole), DTypeError, /^vjp: .*int32/],
    ['jacobian at whole numbers', () => jacobian((a) => a.mul(2), whole), DTypeError, /^jacobian: .*int32/],
  ])('%s', (_, call, type, message) => {
    const error = thrownBy(call) as Error;
    expect(error, error.message).toBeInstanceOf(type);
    expect(error.message).toMatch(message);
    expect([isGradEnabled(), enableGrad(() => onesLike(x).requiresGrad)]).toEqual([true, false]);
  });

  it('an error of the function comes through, and nothing stays switched', () => {
    const stop = new Error('stop');
    const failing = (): Tensor => {
      throw stop;
    };
    for (const call of [() => vjp(failing, x), () => jacobian(failing, x), () => hessian(failing, x)]) {
      expect(noGrad(() => [thrownBy(call), isGradEnabled()])).toEqual([stop, false]);
    }
    // A primal is the user's: the function may not change it.
    expect(thrownBy(() => vjp((a: Tensor) => a.exp_(), x))).toBeInstanceOf(AutogradError);
    expect(x.toArray()).toEqual([1, 2]);
  });
});
