// autograd.Function: what is saved and what is kept alive, and derivatives of other kinds.
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  autograd,
  grad,
  gradcheck,
  gradgradcheck,
  isGradEnabled,
  jvp,
  memoryStats,
  noGrad,
  randn,
  scope,
  type Tensor,
  trimMemory,
} from '../lib/index.ts';
import { expectClose, f64, gradOf, leaf, thrownBy, values } from './support.ts';

type Context = autograd.FunctionContext;

class Cube extends autograd.Function {
  static forward(ctx: Context, x: Tensor): Tensor {
    ctx.saveForBackward(x);
    return x.pow(3);
  }
  static backward(ctx: Context, g: Tensor): Tensor {
    return g.mul(ctx.savedTensors[0]!.square()).mul(3);
  }
}
/** Saves its output. */
class Sigmoid extends autograd.Function {
  static forward(ctx: Context, x: Tensor): Tensor {
    const y = x.neg().exp().add(1).reciprocal();
    ctx.saveForBackward(y);
    return y;
  }
  static backward(ctx: Context, g: Tensor): Tensor {
    const [y] = ctx.savedTensors;
    return g.mul(y!).mul(y!.neg().add(1));
  }
}
/** [2x, x²]. */
class Pair extends autograd.Function {
  static forward(ctx: Context, x: Tensor): [Tensor, Tensor] {
    ctx.saveForBackward(x);
    return [x.mul(2), x.square()];
  }
  static backward(ctx: Context, a: Tensor, b: Tensor): Tensor {
    return a.mul(2).add(b.mul(ctx.savedTensors[0]!).mul(2));
  }
}
describe('what is saved', () => {
  it('is at hand in backward only', () => {
    class Early extends Cube {
      static override forward(ctx: Context, x: Tensor): Tensor {
        ctx.saveForBackward(x);
        return x.mul(ctx.savedTensors.length);
      }
    }
    expect(thrownBy(() => Early.apply(leaf(1)))).toBeInstanceOf(AutogradError);
    class Wrong extends Cube {
      static override forward(ctx: Context, x: Tensor): Tensor {
        ctx.saveForBackward(3 as never);
        return x;
      }
    }
    expect(thrownBy(() => Wrong.apply(leaf(1)))).toBeInstanceOf(ArgumentError);
  });

  it('is listed by the node, and freed by the backward pass', () => {
    const x = leaf([2]);
    const y = Sigmoid.apply(x);
    expect(y.gradFn!.savedTensors.map((t) => t.toArray())).toEqual([y.toArray()]);
    y.sum().backward();
    const error = thrownBy(() => y.sum().backward()) as Error;
    expect(error).toBeInstanceOf(AutogradError);
    expect(error.message).toMatch(/SigmoidBackward: its saved values are freed/);
  });

  it('is proven unchanged: inputs, outputs and others', () => {
    const x = leaf([2]).mul(1);
    const cube = Cube.apply(x);
    x.add_(1);
    expect((thrownBy(() => cube.sum().backward()) as Error).message).toMatch(/CubeBackward: .*changed in place/s);
    const y = Sigmoid.apply(leaf([2]));
    const z = y.mul(1);
    noGrad(() => y.add_(1));
    expect(thrownBy(() => z.sum().backward())).toBeInstanceOf(AutogradError);
    const mask = f64([1]);
    class Masked extends autograd.Function {
      static forward(ctx: Context, a: Tensor): Tensor {
        ctx.saveForBackward(mask);
        return a.mul(mask);
      }
      static backward(ctx: Context, g: Tensor): Tensor {
        return g.mul(ctx.savedTensors[0]!);
      }
    }
    const masked = Masked.apply(leaf([2]));
    mask.add_(1);
    expect(thrownBy(() => masked.sum().backward())).toBeInstanceOf(AutogradError);
  });

  it('is all that is kept: no temporaries, no inputs, no marked outputs', () => {
    const N = 1 << 16;
    class Frugal extends autograd.Function {
      static forward(ctx: Context, x: Tensor): [Tensor, Tensor] {
        const places = x.exp().add(x.square()).gt(1);
        ctx.markNonDifferentiable(places);
        return [x.mul(2), places];
      }
      static backward(_: Context, g: Tensor): Tensor {
        return g.mul(2);
      }
    }
    const live = (): number => {
      for (let i = 0; i < 4; i++) {
        globalThis.gc!();
        trimMemory();
      }
      return memoryStats().liveBytes;
    };
    const x = leaf(0);
    const make = (): Tensor => scope(() => Frugal.apply(x.expand([N]).mul(1))[0].sum());
    const before = live();
    const sum = make();
    expect(live() - before).toBeLessThan(1000);
    sum.backward();
    expect(gradOf(x)).toEqual([2 * N]);
    const rounds = (): void => {
      for (let i = 0; i < 20; i++) {
        const [a, b] = Pair.apply(randn([64], { requiresGrad: true }));
        a.mul(b).sum().backward();
        const w = randn([64], { requiresGrad: true });
        grad(grad(Cube.apply(w).sum(), w, { createGraph: true })[0]!.sum(), w);
        Pair.apply(w);
      }
    };
    rounds();
    const settled = live();
    rounds();
    expect(live()).toBe(settled);
  });
});

describe('derivatives of other kinds', () => {
  it('second derivatives follow when backward is made of ops', () => {
    const x = leaf([0.3, -1.2, 2]);
    for (const fn of [Cube, Sigmoid]) {
      expect(gradcheck((a: Tensor) => fn.apply(a), [x])).toMatchObject({ vacuous: 0 });
      gradgradcheck((a: Tensor) => fn.apply(a), [x]);
    }
    const [first] = grad(Sigmoid.apply(x).sum(), x, { createGraph: true });
    const y = x.detach().sigmoid();
    const slope = y.mul(y.neg().add(1));
    expectClose(values(first!), values(slope), 1e-14);
    expectClose(values(grad(first!.sum(), x)[0]!), values(slope.mul(y.mul(-2).add(1))), 1e-14);
  });

  it('jvp follows, of one output and of several, also nested', () => {
    const [x, v] = [f64([1, 2]), f64([1, -1])];
    expect(jvp((a) => Cube.apply(a), x, v)[1].toArray()).toEqual([3, -12]);
    expect(jvp((a) => Pair.apply(a), x, v)[1].map((t) => t.toArray())).toEqual([
      [2, -2],
      [2, -4],
    ]);
    expect(jvp((a) => jvp((b) => Cube.apply(b), a, v)[1], x, v)[1].toArray()).toEqual([6, 12]);
    expect(jvp((a) => jvp((b) => Pair.apply(b)[1], a, v)[1], x, v)[1].toArray()).toEqual([2, 2]);
  });

  it('jvp is right where an input has no part in an output', () => {
    class Product extends autograd.Function {
      static forward(ctx: Context, a: Tensor, b: Tensor): [Tensor, Tensor] {
        ctx.saveForBackward(a, b);
        return [a.mul(b), a.mul(3)];
      }
      static backward(ctx: Context, g: Tensor, h: Tensor): [Tensor, Tensor] {
        const [a, b] = ctx.savedTensors;
        return [g.mul(b!).add(h.mul(3)), g.mul(a!)];
      }
    }
    const tangents = jvp((a, b) => Product.apply(a, b), [f64([2]), f64([5])], [f64([1]), f64([10])])[1];
    expect(tangents.map((t) => t.toArray())).toEqual([[25], [3]]);
    // Of b alone: the second output has none.
    const ofB = jvp((b) => Product.apply(f64([2]), b), f64([5]), f64([1]))[1];
    expect(ofB.map((t) => t.toArray())).toEqual([[2], [0]]);
  });

  it('where backward leaves ops, the gradient is right and what cannot be is refused', () => {
    class Outside extends autograd.Function {
      static forward(ctx: Context, x: Tensor): Tensor {
        ctx.saveForBackward(x);
        return x.square();
      }
      static backward(ctx: Context, g: Tensor): Tensor {
        const [gs, xs] = [values(g), values(ctx.savedTensors[0]!)];
        return f64(gs.map((v, i) => 2 * v * xs[i]!));
      }
    }
    const x = leaf([3, 4]);
    const [g] = grad(Outside.apply(x).sum(), x, { createGraph: true });
    expect([g!.toArray(), g!.requiresGrad]).toEqual([[6, 8], false]);
    expect(thrownBy(() => grad(g!.sum(), x))).toBeInstanceOf(AutogradError);
    const error = thrownBy(() => jvp((a) => Outside.apply(a), f64([3, 4]), f64([1, 1]))) as Error;
    expect(error).toBeInstanceOf(AutogradError);
    expect(error.message).toMatch(/Outside/);
  });

  it('a backward that throws leaves the graph as it was', () => {
    let broken = true;
    class Fragile extends Cube {
      static override backward(ctx: Context, g: Tensor): Tensor {
        if (broken) throw new Error('broken');
        return Cube.backward(ctx, g);
      }
    }
    const x = leaf([2]);
    const y = Fragile.apply(x).mul(2);
    expect(thrownBy(() => y.sum().backward(null, { retainGraph: true }))).toMatchObject({ message: 'broken' });
    expect([x.grad, isGradEnabled()]).toEqual([null, true]);
    broken = false;
    y.sum().backward();
    expect(gradOf(x)).toEqual([24]);
  });
});
