// autograd.Function: what backward must return, what a class must have, and several outputs. What is saved is in
// function-saved.test.ts.
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  autograd,
  grad,
  isGradEnabled,
  noGrad,
  type Tensor,
  tensor,
} from '../lib/index.ts';
import { f64, gradOf, leaf, thrownBy, values } from './support.ts';

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
/** [2x, x²]; remembers what backward was given. */
class Pair extends autograd.Function {
  static given: number[][][] = [];
  static forward(ctx: Context, x: Tensor): [Tensor, Tensor] {
    ctx.saveForBackward(x);
    return [x.mul(2), x.square()];
  }
  static backward(ctx: Context, a: Tensor, b: Tensor): Tensor {
    Pair.given.push([a, b].map(values));
    return a.mul(2).add(b.mul(ctx.savedTensors[0]!).mul(2));
  }
}
/** As a class of the user's that returns anything from backward. */
function returning(value: unknown): { apply(...args: unknown[]): Tensor } {
  class Faulty extends autograd.Function {
    static forward(_: Context, x: Tensor): Tensor {
      return x.clone();
    }
    static backward(): unknown {
      return value;
    }
  }
  return Faulty as never;
}

describe('backward returns a gradient for each argument', () => {
  it.each<[string, unknown[], unknown, new (...args: never[]) => Error, RegExp]>([
    [
      'too few',
      [leaf([1, 2]), leaf([1])],
      f64([1, 2]),
      AutogradError,
      /^Faulty\.backward: returned 1 gradient\. Expected 2/,
    ],
    [
      'too many',
      [leaf([1, 2])],
      [f64([1, 2]), null],
      AutogradError,
      /^Faulty\.backward: returned 2 gradients\. Expected 1/,
    ],
    ['another shape', [leaf([1, 2])], f64([1]), AutogradError, /Faulty.*\[1\].*\[2\]/],
    ['another dtype', [leaf([1, 2])], tensor([1, 2]), AutogradError, /Faulty.*float32.*float64/],
    ['no tensor', [leaf([1, 2])], 5, ArgumentError, /^Faulty\.backward: the gradient 0 is 5/],
    [
      'a tensor for a number',
      [leaf([1, 2]), 3],
      [f64([1, 2]), f64(1)],
      AutogradError,
      /^Faulty\.backward: .*argument 1/,
    ],
  ])('%s', (_, args, value, type, message) => {
    const error = thrownBy(() =>
      returning(value)
        .apply(...args)
        .sum()
        .backward(),
    ) as Error;
    expect(error, error.message).toBeInstanceOf(type);
    expect(error.message).toMatch(message);
    expect([(args[0] as Tensor).grad, isGradEnabled()]).toEqual([null, true]);
  });

  it('null and undefined are no gradient', () => {
    for (const value of [null, undefined, [null], [undefined]]) {
      const x = leaf([1]);
      returning(value).apply(x).sum().backward();
      expect(x.grad).toBeNull();
    }
  });

  it('for numbers and other arguments null, which may be anything', () => {
    class Scale extends autograd.Function {
      static forward(ctx: Context, x: Tensor, k: number, options: { twice: boolean }, none: null): Tensor {
        ctx.k = options.twice && none === null ? 2 * k : k;
        return x.mul(ctx.k as number);
      }
      static backward(ctx: Context, g: Tensor): [Tensor, null, null, null] {
        return [g.mul(ctx.k as number), null, null, null];
      }
    }
    const x = leaf([1, 2]);
    Scale.apply(x, 3, { twice: true }, null).sum().backward();
    expect(gradOf(x)).toEqual([6, 6]);
  });
});

describe('a class', () => {
  it('lacking a method is refused by name', () => {
    class Half extends autograd.Function {
      static forward(_: Context, x: Tensor): Tensor {
        return x;
      }
    }
    class Nothing extends autograd.Function {}
    expect(thrownBy(() => (Half as unknown as typeof Cube).apply(f64(1)))).toMatchObject({
      message: expect.stringMatching(/^Half: .*backward/),
    });
    expect(thrownBy(() => (Nothing as unknown as typeof Cube).apply(f64(1)))).toBeInstanceOf(ArgumentError);
  });

  it('whose forward returns no tensor, or throws, is refused', () => {
    class Number3 extends autograd.Function {
      static forward(_: Context, _x: Tensor): Tensor {
        return 3 as never;
      }
      static backward(_: Context, g: Tensor): Tensor {
        return g;
      }
    }
    expect(thrownBy(() => Number3.apply(leaf(1)))).toMatchObject({
      message: expect.stringMatching(/^Number3\.forward: the result is 3/),
    });
    const stop = new Error('stop');
    class Throws extends Cube {
      static override forward(_: Context, _x: Tensor): Tensor {
        throw stop;
      }
    }
    expect(thrownBy(() => Throws.apply(leaf(1)))).toBe(stop);
    expect(isGradEnabled()).toBe(true);
  });

  it('inherits, and names its node', () => {
    class Steeper extends Cube {
      static override backward(ctx: Context, g: Tensor): Tensor {
        return Cube.backward(ctx, g).mul(2);
      }
    }
    const x = leaf([2]);
    const y = Steeper.apply(x);
    expect(y.gradFn!.name).toBe('SteeperBackward');
    expect(y.gradFn!.nextFunctions.map((node) => node?.name)).toEqual(['AccumulateGrad']);
    y.sum().backward();
    expect(gradOf(x)).toEqual([24]);
  });

  it('knows which inputs need a gradient', () => {
    const seen: (readonly boolean[])[] = [];
    class Product extends autograd.Function {
      static forward(ctx: Context, a: Tensor, b: Tensor, _k: number): Tensor {
        seen.push(ctx.needsInputGrad);
        ctx.saveForBackward(a, b);
        return a.mul(b);
      }
      static backward(ctx: Context, g: Tensor): [Tensor | null, Tensor | null, null] {
        const [a, b] = ctx.savedTensors;
        return [ctx.needsInputGrad[0] ? g.mul(b!) : null, ctx.needsInputGrad[1] ? g.mul(a!) : null, null];
      }
    }
    const [x, w] = [f64([3]), leaf([2])];
    Product.apply(x, w, 1).backward(f64([1]));
    expect([seen[0], gradOf(w), x.grad]).toEqual([[false, true, false], [3], null]);
    expect(Product.apply(x, x, 1).requiresGrad).toBe(false);
    expect(seen[1]).toEqual([false, false, false]);
  });

  it('under noGrad computes and records nothing', () => {
    const x = leaf([2]);
    const y = noGrad(() => Cube.apply(x));
    expect([y.item(), y.requiresGrad, y.gradFn]).toEqual([8, false, null]);
    expect(noGrad(() => Pair.apply(x)).map((t) => t.requiresGrad)).toEqual([false, false]);
    let recorded = true;
    class Looks extends Cube {
      static override forward(ctx: Context, a: Tensor): Tensor {
        recorded = isGradEnabled() || a.requiresGrad || a.mul(2).requiresGrad;
        return Cube.forward(ctx, a);
      }
    }
    Looks.apply(x);
    expect(recorded).toBe(false);
  });
});

describe('several outputs', () => {
  const x = (): Tensor => leaf([1, 2]);
  it('give backward a gradient each, once, with zeros for those that are not used', () => {
    const run = (loss: (a: Tensor, b: Tensor) => Tensor): [number[], number[][][]] => {
      const input = x();
      const [a, b] = Pair.apply(input);
      Pair.given = [];
      loss(a, b).backward();
      return [gradOf(input), Pair.given];
    };
    expect(run((a, b) => a.sum().add(b.mul(3).sum()))).toEqual([
      [8, 14],
      [
        [
          [1, 1],
          [3, 3],
        ],
      ],
    ]);
    expect(run((a) => a.sum())).toEqual([
      [2, 2],
      [
        [
          [1, 1],
          [0, 0],
        ],
      ],
    ]);
    expect(run((_, b) => b.sum())).toEqual([
      [2, 4],
      [
        [
          [0, 0],
          [1, 1],
        ],
      ],
    ]);
    expect(run((a) => a.mul(a).sum().add(a.sum()))[0]).toEqual([10, 18]);
    expect(run((a, b) => a.mul(b).sum())[1]).toEqual([
      [
        [1, 4],
        [2, 4],
      ],
    ]);
  });

  it('of which one is not differentiable', () => {
    class Sort extends autograd.Function {
      static forward(ctx: Context, a: Tensor): [Tensor, Tensor, Tensor] {
        const [sorted, places] = a.sort(0);
        ctx.saveForBackward(places!);
        const flat = a.mul(2);
        ctx.markNonDifferentiable(places!, flat);
        return [sorted!, places!, flat];
      }
      static backward(ctx: Context, g: Tensor, places: Tensor): Tensor {
        expect([places.dtype, places.toArray()]).toEqual(['int32', [0, 0, 0]]);
        return g.mul(0).scatterAdd(0, ctx.savedTensors[0]!, g);
      }
    }
    const input = leaf([3, 1, 2]);
    const [sorted, places, flat] = Sort.apply(input);
    expect([sorted.requiresGrad, places.requiresGrad, flat.requiresGrad]).toEqual([true, false, false]);
    sorted
      .mul(f64([10, 20, 30]))
      .sum()
      .backward();
    expect(gradOf(input)).toEqual([30, 10, 20]);
  });

  it('of which one is an input: another tensor, which may be marked', () => {
    class Through extends autograd.Function {
      static forward(ctx: Context, a: Tensor, marked: boolean): [Tensor, Tensor] {
        if (marked) ctx.markNonDifferentiable(a);
        return [a, a.mul(2)];
      }
      static backward(_: Context, a: Tensor, b: Tensor): [Tensor, null] {
        return [a.add(b.mul(2)), null];
      }
    }
    const input = x();
    const [same, twice] = Through.apply(input, false);
    expect(same).not.toBe(input);
    same.mul(5).add(twice).sum().backward();
    expect(gradOf(input)).toEqual([7, 7]);
    expect(Through.apply(input, true).map((t) => t.requiresGrad)).toEqual([false, true]);
    class Same extends autograd.Function {
      static forward(_: Context, a: Tensor): Tensor {
        return a;
      }
      static backward(_: Context, g: Tensor): Tensor {
        return g.mul(3);
      }
    }
    const plain = x();
    Same.apply(plain).sum().backward();
    expect([gradOf(plain), plain.isLeaf]).toEqual([[3, 3], true]);
  });

  it('walked again, recorded, and stopped half way', () => {
    const input = x();
    const [a, b] = Pair.apply(input);
    const loss = a.mul(b).sum();
    for (let i = 0; i < 2; i++) expect(values(grad(loss, input, { retainGraph: true })[0]!)).toEqual([6, 24]);
    const [g] = grad(loss, input, { createGraph: true });
    expect(values(grad(g!.sum(), input, { retainGraph: true })[0]!)).toEqual([12, 24]);
    const remove = a.registerHook(() => {
      throw new Error('stop');
    });
    thrownBy(() => a.sum().add(b.sum()).backward(null, { retainGraph: true }));
    remove();
    // What came to b in the pass that stopped is no part of this one.
    expect(values(grad(a.sum(), input)[0]!)).toEqual([2, 2]);
  });

  it('of no gradient path at all leave inputs without one', () => {
    const input = x();
    const [a] = Pair.apply(input);
    expect(thrownBy(() => grad(a.detach().requiresGrad_().sum(), input))).toBeInstanceOf(AutogradError);
  });
});
