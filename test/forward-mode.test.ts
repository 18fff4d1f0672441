// Forward mode beside what every op is walked for: nested levels, reverse mode inside and outside, changes in place,
// where tangents end, and that nothing of them is left behind.
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  allClose,
  DisposedError,
  DTypeError,
  grad,
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
  zeros,
} from '../lib/index.ts';
import { expectClose, f64, leaf, leftBehind, thrownBy, values } from './support.ts';

const one = (x: Tensor): Tensor => onesLike(x);
/** d/dx of a function of one number. */
const derivative =
  (f: (x: Tensor) => Tensor) =>
  (x: Tensor): Tensor =>
    jvp(f, x, one(x))[1];

function expectTensor(got: Tensor, expected: readonly number[], tolerance = 1e-12): void {
  expectClose(values(got), expected, tolerance);
}

describe('nested jvp', () => {
  it('does not confuse the perturbations of two levels', () => {
    // d/dx (x · d/dy (x + y)) = 1, and not 2.
    expect(derivative((x) => x.mul(derivative((y) => x.add(y))(f64(5))))(f64(3)).item()).toBe(1);
    // x · d/dy (x y²) at y = x is 2x³: 6x².
    expect(derivative((x) => x.mul(derivative((y) => x.mul(y).mul(y))(x)))(f64(2)).item()).toBe(24);
    // A constant of the inner level may vary at the outer: d/dx d/dy (x y²) = 2y.
    expect(derivative((x) => derivative((y) => x.mul(y.square()))(f64(7)))(f64(2)).item()).toBe(14);
    // And a value of the inner level is none of the outer's: d/dx (d/dy (y³) at 3) = 0.
    expect(derivative(() => derivative((y) => y.pow(3))(f64(3)))(f64(2)).item()).toBe(0);
  });

  it('has the closed forms of higher derivatives', () => {
    const x = f64([0.3, 0.9, 1.4]);
    const nth = (f: (x: Tensor) => Tensor, n: number): Tensor => (n === 0 ? f(x) : iterate(f, n)(x));
    const iterate = (f: (x: Tensor) => Tensor, n: number): ((x: Tensor) => Tensor) =>
      n === 0 ? f : iterate(derivative(f), n - 1);
    expectTensor(
      nth((t) => t.sin(), 4),
      values(x.sin()),
    );
    expectTensor(
      nth((t) => t.exp().mul(t), 3),
      values(x.exp().mul(x.add(3))),
    );
    expectTensor(
      nth((t) => t.log(), 3),
      values(x.pow(-3).mul(2)),
    );
    const y = x.tanh();
    expectTensor(
      nth((t) => t.tanh(), 2),
      values(y.mul(y.square().neg().add(1)).mul(-2)),
    );
  });

  it('takes tangents that differ between levels, and that depend on the outer primal', () => {
    const [x, u, v] = [f64([1, 2]), f64([3, -1]), f64([0.5, 4])];
    // Along u then v, f = Σ x³: 6 Σ x u v.
    const both = jvp((a) => jvp((b) => b.pow(3).sum(), a, u)[1], x, v)[1];
    expect(both.item()).toBe(6 * (1 * 3 * 0.5 + 2 * -1 * 4));
    // d/dx of the derivative of y² at x along x, which is 2x²: 4x.
    expectTensor(jvp((a) => jvp((b) => b.square(), a, a)[1], x, one(x))[1], [4, 8]);
  });

  it('leaves the levels of other primals alone', () => {
    const x = f64([2]);
    // The closure sees the user's x, which has no tangent.
    expect(jvp((a) => a.mul(x), x, f64([1]))[1].item()).toBe(2);
    expect(jvp((a, b) => a.mul(b), [x, x], [f64([1]), f64([10])])[1].item()).toBe(22);
    const [, [da, db]] = jvp((a, b) => [a.square(), b.exp()], [x, f64([0])], [f64([1]), f64([3])]);
    expect([da!.item(), db!.item()]).toEqual([4, 3]);
  });
});

describe('reverse mode and forward mode', () => {
  const cubes = (x: Tensor): Tensor => x.pow(3).sum();

  it.each([false, true])('grad inside jvp, createGraph %s', (createGraph) => {
    const gradient = (x: Tensor): Tensor => {
      const y = x.clone();
      y.requiresGrad_();
      return grad(cubes(y), y, { createGraph })[0]!;
    };
    const [g, hessianTimesV] = jvp(gradient, f64([1, 2]), f64([1, 10]));
    expectTensor(g, [3, 12]);
    expectTensor(hessianTimesV, [6, 120]);
  });

  it.each([false, true])('grad inside jvp where gradients meet, createGraph %s', (createGraph) => {
    const gradient = (x: Tensor): Tensor => {
      const y = x.clone();
      y.requiresGrad_();
      const a = y.add(1);
      const b = a.add(a).add(y);
      return grad(b.mul(b).sum(), y, { createGraph })[0]!;
    };
    expectTensor(jvp(gradient, f64([1, 2]), f64([1, -1]))[1], [18, -18]);
  });

  it('a backward pass inside jvp gives leaves gradients with tangents, also when it adds to them', () => {
    const w = leaf([3]);
    const [g, tangent] = jvp(
      (x) => {
        w.grad = null;
        w.mul(x).square().sum().backward();
        w.mul(x).sum().backward();
        return w.grad!;
      },
      f64([2]),
      f64([1]),
    );
    // w.grad = 2 w x² + x
    expect([g.item(), tangent.item()]).toEqual([26, 25]);
    w.grad = null;
  });

  it('jvp inside grad, with respect to primals, tangents and what the function closes over', () => {
    const [x, v, w] = [leaf([1, 2]), leaf([3, 5]), leaf([0.5, -1])];
    const [out, tangent] = jvp((a) => a.pow(3).mul(w), x, v);
    expectTensor(out, [0.5, -8]);
    const [dx, dv, dw] = grad(tangent.sum(), [x, v, w]);
    expectTensor(dx!, [6 * 1 * 3 * 0.5, 6 * 2 * 5 * -1]);
    expectTensor(dv!, [3 * 0.5, 12 * -1]);
    expectTensor(dw!, [3 * 3, 12 * 5]);
    expect([x.grad, v.grad, w.grad]).toEqual([null, null, null]);
  });

  it('a model: the derivative along the input is a function of the parameters', () => {
    manualSeed(3);
    const model = new nn.Sequential(new nn.Linear(3, 5), new nn.Tanh(), new nn.Linear(5, 2)).to('float64');
    const [x, v] = [randn([4, 3], { dtype: 'float64' }), randn([4, 3], { dtype: 'float64' })];
    const loss = (): Tensor =>
      jvp((a) => model.call(a), x, v)[1]
        .square()
        .sum();
    const parameters = [...model.parameters()];
    const found = grad(loss(), parameters, { allowUnused: true });
    // The bias of the last layer has no part in it.
    expect(found.map((g) => g === null || g.square().sum().item() === 0)).toEqual([false, false, false, true]);
    const weight = parameters[0]!;
    const at = (step: number): number =>
      noGrad(() => {
        weight.add_(weight.mul(0).add(step));
        const value = loss().item();
        weight.sub_(weight.mul(0).add(step));
        return value;
      });
    expectClose([found[0]!.sum().item()], [(at(1e-5) - at(-1e-5)) / 2e-5], 1e-7);
  });

  it('forward over reverse of a model is a product with the Jacobian of its gradient', () => {
    const w = f64([
      [1, 2],
      [3, 4],
    ]);
    const f = (x: Tensor): Tensor => w.mv(x.tanh()).sigmoid().sum();
    const [x, v] = [f64([0.2, -0.4]), f64([1, 3])];
    const gradient = (a: Tensor): Tensor => {
      const b = a.mul(1);
      if (!b.requiresGrad) b.requiresGrad_();
      return grad(f(b), b, { createGraph: true })[0]!;
    };
    expectTensor(jvp(gradient, x, v)[1], values(jacobian(gradient, x).mv(v)));
    expectTensor(hvp(f, x, v), values(jacobian(gradient, x).mv(v)));
  });
});

describe('values that a scope has ended', () => {
  it('have their tangents still, where a graph saved them', () => {
    const f = (x: Tensor): Tensor => x.exp().mul(x).sin().softmax(0).square().sum();
    const inScopes = (x: Tensor): Tensor =>
      scope(() =>
        scope(() => x.exp())
          .mul(x)
          .sin()
          .softmax(0)
          .square()
          .sum(),
      );
    const [x, v] = [f64([0.1, 0.7]), f64([1, -2])];
    expectTensor(hvp(inScopes, x, v), values(hvp(f, x, v)));
    expectTensor(derivative(derivative(inScopes))(x), values(derivative(derivative(f))(x)));
  });
});

describe('where tangents end', () => {
  it('not at noGrad, which is about recording', () => {
    const [, tangent] = jvp((x) => noGrad(() => x.square()), f64([3]), f64([1]));
    expect(tangent.item()).toBe(6);
    expect(jvp((x) => x.pow(3).sub(noGrad(() => x.square())), f64([2]), f64([1]))[1].item()).toBe(8);
    // Under noGrad all around, derivatives are the same, and not recorded.
    const x = leaf([2]);
    const [out, along] = noGrad(() => jvp((a) => a.pow(3), x, f64([1])));
    expect([out.requiresGrad, along.requiresGrad, along.item()]).toEqual([false, false, 12]);
  });

  it('at detach, at whole numbers, and where nothing depends', () => {
    expect(jvp((x) => x.detach().square(), f64([3]), f64([1]))[1].item()).toBe(0);
    expect(jvp((x) => x.mul(x.detach()), f64([3]), f64([1]))[1].item()).toBe(3);
    // Of all levels.
    expect(derivative((x) => derivative((y) => y.mul(x).detach().mul(x))(x))(f64(3)).item()).toBe(0);
    const [out, tangents] = jvp((x) => [x.argmax(), x.gt(0), f64([1, 2, 3])], f64([1, 2]), f64([1, 2]));
    expect(out.map((t) => t.dtype)).toEqual(['int32', 'bool', 'float64']);
    expect(tangents.map((t) => [t.dtype, t.toArray()])).toEqual([
      ['int32', 0],
      ['bool', [false, false]],
      ['float64', [0, 0, 0]],
    ]);
  });

  it('goes with the value through conversions', () => {
    const [y, t] = jvp((x) => x.to('float64').square(), tensor([3]), tensor([0.5]));
    expect([y.dtype, t.dtype, t.item()]).toEqual(['float64', 'float64', 3]);
  });
});

describe('changes in place', () => {
  it('carry tangents, of what they save of their output too', () => {
    const [x, v] = [f64([0.5, 0.8]), f64([1, -2])];
    const cases: [(x: Tensor) => Tensor, (x: Tensor) => Tensor][] = [
      [(a) => a.mul(1).exp_(), (a) => a.exp()],
      [(a) => a.mul(1).exp_().mul_(2).add_(a), (a) => a.exp().mul(2).add(a)],
      [(a) => a.mul(1).tanh_().sigmoid_().sqrt_(), (a) => a.tanh().sigmoid().sqrt()],
      [(a) => a.mul(1).mul_(a).div_(a.add(1)), (a) => a.mul(a).div(a.add(1))],
      [(a) => zeros([2], { dtype: 'float64' }).copy_(a.square()), (a) => a.square()],
      [(a) => a.mul(3).zero_().add(a), (a) => a],
      [(a) => noGrad(() => a.mul(1).log_().relu_()), (a) => a.log().relu()],
      [(a) => a.mul(2).clamp_({ min: 1.2 }), (a) => a.mul(2).clamp({ min: 1.2 })],
    ];
    for (const [inPlace, plain] of cases) {
      const [got, expected] = [jvp(inPlace, x, v), jvp(plain, x, v)];
      got.forEach((t, i) => void expectTensor(t, values(expected[i]!)));
      // The second derivative: levels see the value before and after as the op does.
      expectTensor(derivative(derivative(inPlace))(x), values(derivative(derivative(plain))(x)));
    }
  });

  it('are refused on a primal, which is the user’s, and leave it as it was', () => {
    const x = f64([1, 2]);
    expect(thrownBy(() => jvp((a) => a.exp_(), x, one(x)))).toBeInstanceOf(AutogradError);
    expect(x.toArray()).toEqual([1, 2]);
  });

  it('take views along, whether or not they had tangents before', () => {
    const x = f64([1, 2]);
    const becomes = (a: Tensor): Tensor => {
      const base = zeros([2], { dtype: 'float64' });
      const view = base.narrow(0, 0, 1);
      base.add_(a);
      return view.mul(2);
    };
    const changes = (a: Tensor): Tensor => {
      const base = a.mul(2);
      const view = base.select(0, 0);
      base.mul_(3);
      return view.add(0);
    };
    expect(jvp(becomes, x, one(x))[1].toArray()).toEqual([2]);
    for (const f of [changes, (a: Tensor) => noGrad(() => changes(a))]) {
      expect(jvp(f, x, one(x)).map((t) => t.toArray())).toEqual([6, 6]);
    }
  });
});

describe('wrong calls', () => {
  it('are refused by name, before the function runs', () => {
    let ran = 0;
    const f = (x: Tensor): Tensor => {
      ran++;
      return x;
    };
    const whole = tensor([1, 2], { dtype: 'int32' });
    const calls: [() => unknown, unknown, RegExp][] = [
      [() => jvp(f, whole, whole), DTypeError, /jvp: primal 0 is int32/],
      [() => jvp(f, f64([1, 2]), f64([1])), ShapeError, /jvp: tangent 0 .*\[1\].*\[2\]/],
      [() => jvp(f, f64([1, 2]), tensor([1, 2])), DTypeError, /jvp: tangent 0 is float32.*float64/],
      [() => jvp(f, [f64(1), f64(2)], [f64(1)]), ArgumentError, /jvp: 2 primals and 1 tangents/],
      [() => jvp(f, f64(1), 1 as never), ArgumentError, /jvp: the tangent is 1/],
      [() => jvp(f, [f64(1), 'x' as never], [f64(1), f64(1)]), ArgumentError, /jvp: the primal is/],
      [() => jvp(5 as never, f64(1), f64(1)), ArgumentError, /jvp/],
    ];
    for (const [call, type, message] of calls) {
      expect(thrownBy(call)).toBeInstanceOf(type);
      expect(thrownBy(call)).toMatchObject({ message: expect.stringMatching(message) });
    }
    const gone = f64(1);
    gone.dispose();
    expect(thrownBy(() => jvp(f, f64(1), gone))).toBeInstanceOf(DisposedError);
    expect(ran).toBe(0);
    expect(thrownBy(() => jvp((() => 3) as never, f64(1), f64(1)))).toMatchObject({
      message: expect.stringMatching(/jvp: the result of the function is 3/),
    });
  });

  it('leave no level open', () => {
    const stop = new Error('stop');
    let kept: Tensor | null = null;
    const failing = (x: Tensor): Tensor => {
      kept = x.mul(2);
      throw stop;
    };
    expect(thrownBy(() => jvp((x) => jvp(failing, x, x)[1], f64([1]), f64([1])))).toBe(stop);
    expect(isGradEnabled()).toBe(true);
    expect(jvp((x) => x.mul(kept!), f64([3]), f64([1]))[1].item()).toBe(2);
    expect(derivative((x) => x.square())(f64([3])).item()).toBe(6);
  });
});

describe('afterwards', () => {
  it('a tensor kept from inside is a plain one', () => {
    let kept: Tensor | null = null;
    jvp((x) => (kept = x.mul(2)), f64([1, 2]), f64([1, 1]));
    expect(kept!.requiresGrad).toBe(false);
    const into = f64([[0, 0]]);
    into.select(0, 0).copy_(kept!);
    expect(into.toArray()).toEqual([[2, 4]]);
    kept!.select(0, 0).add_(1);
    expect(kept!.toArray()).toEqual([3, 4]);
    expectTensor(jvp((x) => x.mul(kept!), f64([1, 1]), f64([1, 1]))[1], [3, 4]);
    // A product with it saves nothing for a gradient that is not needed.
    expect(kept!.mul(leaf([1, 1])).gradFn!.savedTensors).toHaveLength(1);
  });

  it('results have no tangents, and those of outer levels only', () => {
    const [y, t] = jvp((x) => x.square(), f64([3]), f64([1]));
    expect(jvp((x) => x.mul(y).add(t), f64([2]), f64([1]))[1].item()).toBe(9);
    const outer = derivative((x) => {
      const [value, tangent] = jvp((z) => z.square(), x, one(x));
      return value.add(tangent);
    });
    expect(outer(f64(3)).item()).toBe(8);
  });

  it('buffers that a layer updates carry nothing on', () => {
    manualSeed(1);
    const norm = new nn.BatchNorm1d(2);
    const run = (): void => void jvp((x) => norm.call(x), randn([4, 2]), randn([4, 2]));
    run();
    expect(norm.runningMean!.requiresGrad).toBe(false);
    const [, t] = jvp((x) => x.mul(norm.runningMean!), tensor([1, 1]), tensor([1, 1]));
    expect(t.toArray()).toEqual(norm.runningMean!.toArray());
  });

  it('memory is as before, inside scope at once, else after collection', () => {
    const [x, v] = [randn([64, 64]), randn([64, 64])];
    const f = (a: Tensor): Tensor => a.matmul(a).tanh().softmax(1).square().sum();
    const rounds = (): void => {
      const inner = scope(() => jvp((a) => scope(() => f(a)), x, v)[1].item());
      expect(inner).toBeCloseTo(jvp(f, x, v)[1].item(), 4);
      for (let i = 0; i < 20; i++) scope(() => void jvp((a) => jvp(f, a, v)[1], x, v));
    };
    expect(leftBehind(rounds)).toBe(0);
  });

  it('results live as their scope says', () => {
    const [y, t] = scope(() => {
      const v = f64([7]);
      return jvp((a) => scope(() => a.mul(2).exp().log()), f64([1]), v);
    });
    expectTensor(y, [2]);
    expectTensor(t, [14]);
    expect(allClose(stack([y, t]), f64([[2], [14]]))).toBe(true);
  });
});
