// The lesson, A: differentiation basics. R1 to R12 of the requirements, a test each.
import { describe, expect, it } from 'vitest';
import { grad, jacobian, jvp, numericalDerivative, ones, stack, type Tensor, tensor, vjp } from '../../lib/index.ts';
import { expectClose, f64, gradOf, leaf, thrownBy, values } from '../support.ts';
import { golden, nodeOf, peakOf, TIGHT } from './lesson.ts';

const MEGA = 2 ** 20;
/** df/dx at one number. */
function derivative(f: (x: Tensor) => Tensor, at: number): number {
  const x = leaf(at);
  f(x).backward();
  return x.grad!.item();
}
const sinOfSquare = (x: Tensor): Tensor => x.square().sin();

/** ℝ³ → ℝ⁵ and its Jacobian (5, 3), written out. */
const threeToFive = {
  at: [0.4, -1.2, 2.5],
  outputs: 5,
  fn: (x: Tensor): Tensor => {
    const [a, b, c] = [0, 1, 2].map((i) => x.select(0, i)) as [Tensor, Tensor, Tensor];
    return stack([a.mul(b), b.sin(), c.exp().mul(a), a.add(b).add(c).square(), c.div(b)]);
  },
  jacobian: ([a, b, c]: number[]) => [
    [b!, a!, 0],
    [0, Math.cos(b!), 0],
    [Math.exp(c!), 0, a! * Math.exp(c!)],
    [0, 0, 0].fill(2 * (a! + b! + c!)),
    [0, -c! / b! ** 2, 1 / b!],
  ],
};
/** ℝ⁵ → ℝ¹ and its Jacobian (1, 5). */
const fiveToOne = {
  at: [0.3, -0.8, 1.1, 2, -0.5],
  outputs: 1,
  fn: (x: Tensor): Tensor => x.tanh().mul(x).sum().unsqueeze(0),
  jacobian: (x: number[]) => [x.map((v) => Math.tanh(v) + v * (1 - Math.tanh(v) ** 2))],
};
const basis = (n: number, i: number): Tensor => f64(Array.from({ length: n }, (_, k) => Number(k === i)));
const columns = (m: number[][], j: number): number[] => m.map((row) => row[j]!);

/** A function that counts its calls. */
function counted(fn: (x: Tensor) => Tensor): { fn: (x: Tensor) => Tensor; calls: () => number } {
  let calls = 0;
  return {
    fn: (x) => {
      calls++;
      return fn(x);
    },
    calls: () => calls,
  };
}

/** The Jacobian by forward mode, a sweep for each column, and how often the function ran for it. */
function byJvps({ fn, at }: typeof threeToFive): { rows: number[][]; sweeps: number } {
  const { fn: f, calls } = counted(fn);
  const sweeps = at.map((_, j) => values(jvp(f, f64(at), basis(at.length, j))[1]));
  return { rows: sweeps[0]!.map((_, i) => columns(sweeps, i)), sweeps: calls() };
}

/** The Jacobian by reverse mode, a sweep for each row, and how often a backward pass entered the function's result. */
function byVjps({ fn, at, outputs }: typeof threeToFive): { rows: number[][]; sweeps: number; calls: number } {
  const { fn: f, calls } = counted(fn);
  const x = leaf(at);
  const y = f(x);
  let sweeps = 0;
  nodeOf(y).registerHook(() => void sweeps++);
  const rows = Array.from({ length: outputs }, (_, i) =>
    values(grad(y, x, { gradOutputs: basis(outputs, i), retainGraph: true })[0]!),
  );
  return { rows, sweeps, calls: calls() };
}

describe('the derivative of a composition', () => {
  it('R1: sin(x²) at 1.5 has the derivative -1.88452087', () => {
    const slope = derivative(sinOfSquare, golden.sin_x2.x);
    expect(slope.toFixed(8)).toBe('-1.88452087');
    expectClose([slope], [golden.sin_x2.dydx], TIGHT);
  });

  it('R2: numericalDerivative in float64 agrees to 8 decimals', () => {
    const slope = numericalDerivative((x) => Math.sin(x * x), 1.5);
    expect(slope.toFixed(8)).toBe('-1.88452087');
    // The default step is 1e-6: the same as given, and another step is another number.
    expect(slope).toBe(numericalDerivative((x) => Math.sin(x * x), 1.5, 1e-6));
    expect(slope).not.toBe(numericalDerivative((x) => Math.sin(x * x), 1.5, 1e-3));
    // Central: exact for a parabola, where a one-sided difference is off by the step.
    expect(numericalDerivative((x) => x * x, 3, 0.5)).toBe(6);
    // Of tensors in float64 only: in float32 a step of 1e-6 is lost in the rounding, and -1.788 would come out.
    expectClose(values(numericalDerivative(sinOfSquare, f64([1.5, 0]))), [golden.sin_x2.dydx, 0], 1e-8);
    expect(thrownBy(() => numericalDerivative(sinOfSquare, tensor([1.5])))).toMatchObject({ name: 'DTypeError' });
    const single = (x: number): number => sinOfSquare(tensor(x)).item();
    expect(numericalDerivative(single, 1.5).toFixed(3)).toBe('-1.788');
  });

  it('R3: gradients over several paths are summed', () => {
    expect(
      derivative((x) => {
        const y = x.square();
        return y.add(y.square());
      }, 3),
    ).toBe(114);
    // z = f(x, y), x = g(t), y = h(t): dz/dt = ∂z/∂x dx/dt + ∂z/∂y dy/dt.
    const f = (x: Tensor, y: Tensor): Tensor => x.mul(y).add(y.sin());
    const t = 0.7;
    const [x, y] = [leaf(t * t), leaf(Math.exp(t))];
    const [byX, byY] = grad(f(x, y), [x, y]).map((g) => g.item()) as [number, number];
    const total = derivative((s) => f(s.square(), s.exp()), t);
    expectClose([total], [byX * 2 * t + byY * Math.exp(t)], TIGHT);
    expectClose([total], [2 * t * Math.exp(t) + (t * t + Math.cos(Math.exp(t))) * Math.exp(t)], TIGHT);
  });

  it('R4: a branch that the loss does not use adds nothing: 6', () => {
    const x = leaf(3);
    const y = x.square();
    const unused = y.mul(2);
    y.add(1).backward(null, { retainGraph: true });
    expect(x.grad!.item()).toBe(6);
    // It was recorded, and could have been used.
    unused.backward(undefined, { inputs: [y] });
    expect(y.grad!.item()).toBe(2);
  });

  it('R5: every δ of a chain is exposed, and is the product of the later Jacobians', () => {
    const [w, v] = [
      [
        [0.5, -1, 2],
        [1.5, 0.25, -0.75],
      ],
      [
        [2, -1],
        [0.5, 3],
      ],
    ] as const;
    const x = leaf([0.2, -0.4, 0.1]);
    const h1 = f64(w.map((row) => [...row])).matmul(x);
    const h2 = h1.tanh();
    const h3 = f64(v.map((row) => [...row])).matmul(h2);
    const h4 = h3.square().sum();
    const hooked: Record<string, number[]> = {};
    Object.entries({ h1, h2, h3, h4 }).forEach(([name, h]) => {
      h.retainGrad();
      h.registerHook((g) => void (hooked[name] = values(g)));
    });
    h4.backward();
    const through = (m: readonly (readonly number[])[], d: number[]): number[] =>
      m[0]!.map((_, j) => d.reduce((sum, value, i) => sum + value * m[i]![j]!, 0));
    const d3 = values(h3).map((value) => 2 * value);
    const d2 = through(v, d3);
    const d1 = d2.map((d, i) => d * (1 - Math.tanh(values(h1)[i]!) ** 2));
    expect(gradOf(h4)).toEqual([1]);
    [d3, d2, d1].forEach((expected, i) => void expectClose(gradOf([h3, h2, h1][i]!), expected, TIGHT, `δ${3 - i}`));
    expectClose(gradOf(x), through(w, d1), TIGHT);
    expect(hooked).toEqual({ h1: gradOf(h1), h2: gradOf(h2), h3: gradOf(h3), h4: [1] });
  });
});

describe('vector-Jacobian products', () => {
  it('R6: a vector output takes an explicit upstream gradient: [2, -4, 6]', () => {
    const x = leaf(golden.vjp.x);
    x.square().backward(f64(golden.vjp.v));
    expect(gradOf(x)).toEqual([2, -4, 6]);
    expect(gradOf(x)).toEqual(golden.vjp.x_grad);
    const [y, pullback] = vjp((t: Tensor) => t.square(), f64([1, -2, 3]));
    expect(values(y)).toEqual([1, 4, 9]);
    expect(values(pullback(f64([1, 1, 1])) as Tensor)).toEqual([2, -4, 6]);
    expect(values(pullback(f64([1, 10, 100])) as Tensor)).toEqual([2, -40, 600]);
  });

  it('R7: backward() without argument refuses a vector, naming its shape and both fixes', () => {
    const x = leaf([
      [1, -2, 3],
      [4, 5, 6],
    ]);
    const y = x.square();
    const error = thrownBy(() => y.backward());
    expect(error).toMatchObject({ name: 'AutogradError' });
    const { message } = error as Error;
    for (const part of ['[2,3]', 'not a scalar', 'sum().backward()', 'backward(gradient)']) {
      expect(message).toContain(part);
    }
    // Nothing has happened yet: both fixes still work on the same graph.
    expect(x.grad).toBeNull();
    y.sum().backward(undefined, { retainGraph: true });
    y.backward(ones([2, 3], { dtype: 'float64' }));
    expect(gradOf(x)).toEqual([4, -8, 12, 16, 20, 24]);
  });

  it('R8: an upstream gradient of another shape is refused, with both shapes', () => {
    const x = leaf([1, -2, 3]);
    const y = x.square();
    const refused = [
      () => y.backward(f64([1, 1])),
      () => grad(y, x, { gradOutputs: f64([1, 1]) }),
      () => vjp((t: Tensor) => t.square(), f64([1, -2, 3]))[1](f64([1, 1])),
    ];
    for (const call of refused) {
      const error = thrownBy(call);
      expect(error).toMatchObject({ name: 'ShapeError' });
      expect((error as Error).message).toMatch(/\[2\].*\[3\]|\[3\].*\[2\]/);
    }
    // Not even one that would broadcast.
    expect(thrownBy(() => y.backward(f64([1])))).toMatchObject({ name: 'ShapeError' });
    expect(thrownBy(() => y.backward(f64(1)))).toMatchObject({ name: 'ShapeError' });
    expect(x.grad).toBeNull();
    y.backward(f64([1, 1, 1]));
    expect(gradOf(x)).toEqual([2, -4, 6]);
  });

  it('R9: a VJP of a million inputs takes memory for a few vectors, no Jacobian', () => {
    const peak = (n: number): number =>
      peakOf(() => {
        const [, pullback] = vjp((x: Tensor) => x.square().sin(), ones([n], { dtype: 'float64' }));
        const g = pullback(ones([n], { dtype: 'float64' })) as Tensor;
        expect(g.shape).toEqual([n]);
        expect(g.select(0, n - 1).item()).toBeCloseTo(2 * Math.cos(1), 12);
      });
    const [half, whole] = [peak(MEGA / 2), peak(MEGA)];
    expect(whole).toBeGreaterThanOrEqual(3 * 8 * MEGA);
    expect(whole).toBeLessThanOrEqual(8 * 8 * MEGA);
    // O(n): twice the inputs, twice the memory. A Jacobian would take four times.
    expect(whole / half).toBeGreaterThan(1.9);
    expect(whole / half).toBeLessThan(2.1);
    // Who wants the Jacobian asks for it.
    const full = jacobian((x: Tensor) => x.square().sin(), f64([1, 2]));
    expect(full.shape).toEqual([2, 2]);
    expectClose(values(full), [2 * Math.cos(1), 0, 0, 4 * Math.cos(4)], TIGHT);
  });
});

describe('forward mode', () => {
  it('R10: a JVP is one sweep beside the primal; n sweeps are the columns of the Jacobian', () => {
    const { at } = threeToFive;
    const { fn, calls } = counted((x) => {
      // Nothing is recorded to be walked later: the tangent is there as soon as the value is.
      expect([x.exp().requiresGrad, x.exp().gradFn]).toEqual([false, null]);
      return threeToFive.fn(x);
    });
    const v = f64([1, -2, 0.5]);
    const [out, tangent] = jvp(fn, f64(at), v);
    expect(calls()).toBe(1);
    expect(values(out)).toEqual(values(threeToFive.fn(f64(at))));
    expect([tangent.shape, tangent.dtype, out.requiresGrad]).toEqual([[5], 'float64', false]);
    // <u, J v> is <Jᵀ u, v>.
    const u = f64([3, -1, 0.25, 2, 1]);
    const pulled = vjp(threeToFive.fn, f64(at))[1](u) as Tensor;
    expectClose([u.dot(tangent).item()], [pulled.dot(v).item()], TIGHT);
    const full = threeToFive.jacobian(at);
    at.forEach((_, j) => {
      const [, column] = jvp(threeToFive.fn, f64(at), basis(3, j));
      expectClose(values(column), columns(full, j), TIGHT, `column ${j}`);
    });
    // Of several inputs the tangents are added.
    const [product, change] = jvp((a: Tensor, b: Tensor) => a.mul(b), [f64(3), f64(5)], [f64(1), f64(10)]);
    expect([product.item(), change.item()]).toEqual([15, 5 + 30]);
  });

  it('R11: a full Jacobian takes as many JVPs as inputs, or as many VJPs as outputs', () => {
    for (const [example, inputs, outputs] of [
      [threeToFive, 3, 5],
      [fiveToOne, 5, 1],
    ] as const) {
      const [forward, reverse] = [byJvps(example as typeof threeToFive), byVjps(example as typeof threeToFive)];
      expect([forward.sweeps, reverse.sweeps]).toEqual([inputs, outputs]);
      expect(reverse.calls).toBe(1);
      const expected = (example.jacobian as (x: number[]) => number[][])(example.at);
      for (const { rows } of [forward, reverse]) expectClose(rows.flat(), expected.flat(), TIGHT);
    }
  });

  it('R12: both modes are exact, as finite differences are not', () => {
    for (const example of [threeToFive, fiveToOne] as (typeof threeToFive)[]) {
      const expected = example.jacobian(example.at).flat();
      const [forward, reverse] = [byJvps(example).rows.flat(), byVjps(example).rows.flat()];
      expectClose(forward, expected, 1e-12);
      expectClose(reverse, expected, 1e-12);
      expectClose(forward, reverse, 1e-12);
    }
    const [exact, x] = [Math.cos(2.25) * 3, 1.5];
    const [, forward] = jvp(sinOfSquare, f64(x), f64(1));
    const byDifferences = numericalDerivative((t) => Math.sin(t * t), x);
    for (const slope of [forward.item(), derivative(sinOfSquare, x)])
      expect(Math.abs(slope - exact)).toBeLessThan(1e-15);
    expect(Math.abs(byDifferences - exact)).toBeGreaterThan(1e-12);
    // Where the function's values round away what a difference would show.
    const steep = (t: Tensor): Tensor => t.mul(1e-9).add(1e9);
    expect(jvp(steep, f64(2), f64(1))[1].item()).toBe(1e-9);
    expect(derivative(steep, 2)).toBe(1e-9);
    expect(tensor(1e9 + 1e-9, { dtype: 'float64' }).item()).toBe(1e9);
  });
});
