// R52-R58, the lesson's custom function: a sigmoid whose gradient is written by hand. R58 also: f-custom-function.test-d.ts.
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import {
  AutogradError,
  allClose,
  autograd,
  ChainruleError,
  grad,
  gradcheck,
  gradgradcheck,
  sigmoid,
  type Tensor,
  tensor,
} from '../../lib/index.ts';
import { expectClose, f64, gradOf, leaf, thrownBy, values } from '../support.ts';

type Context = autograd.FunctionContext;

/** 1 / (1 + exp(-x)), and y (1 - y) times what arrives. */
class Sigmoid extends autograd.Function {
  static forward(ctx: Context, x: Tensor): Tensor {
    const y = x.neg().exp().add(1).reciprocal();
    ctx.saveForBackward(y);
    return y;
  }

  static backward(ctx: Context, gradOutput: Tensor): Tensor {
    const [y] = ctx.savedTensors as [Tensor];
    return gradOutput.mul(y).mul(y.neg().add(1));
  }
}
const POINTS = [-4, -0.5, 0, 0.7, 3];
const plain = (x: number): number => 1 / (1 + Math.exp(-x));

it('R52: a subclass with static forward and backward is used by apply', () => {
  const x = leaf(POINTS);
  const y = Sigmoid.apply(x);
  expectClose(values(y), POINTS.map(plain), 1e-15);
  expect([y.requiresGrad, y.isLeaf, y.shape, y.dtype]).toEqual([true, false, [5], 'float64']);
  expect(y.gradFn!.name).toBe('SigmoidBackward');
  expect(y.gradFn!.nextFunctions.map((node) => node!.name)).toEqual(['AccumulateGrad']);
  expect(Sigmoid.apply(f64(POINTS)).requiresGrad).toBe(false);
});

describe('R53: the context', () => {
  it('R53: returns the saved output in backward, and shows it at the node', () => {
    const seen: number[][] = [];
    class Watched extends Sigmoid {
      static override backward(ctx: Context, gradOutput: Tensor): Tensor {
        seen.push(...ctx.savedTensors.map(values));
        return Sigmoid.backward(ctx, gradOutput);
      }
    }
    const y = Watched.apply(leaf(POINTS));
    expect(y.gradFn!.savedTensors.map(values)).toEqual([values(y)]);
    y.sum().backward();
    expect(seen).toEqual([values(y)]);
  });

  it('R53: frees what was saved, and notices when it was changed', () => {
    const y = Sigmoid.apply(leaf(POINTS));
    const loss = y.sum();
    loss.backward();
    expect((thrownBy(() => loss.backward()) as Error).message).toMatch(/SigmoidBackward.*freed/);
    const changed = Sigmoid.apply(leaf(POINTS));
    const other = changed.sum();
    changed.detach().add_(1);
    expect((thrownBy(() => other.backward()) as Error).message).toMatch(/SigmoidBackward.*version 0.*at 1/);
  });

  it('R53: knows which inputs need a gradient', () => {
    const needed: (readonly boolean[])[] = [];
    class Product extends autograd.Function {
      static forward(ctx: Context, a: Tensor, b: Tensor): Tensor {
        ctx.saveForBackward(a, b);
        return a.mul(b);
      }

      static backward(ctx: Context, g: Tensor): [Tensor | null, Tensor | null] {
        needed.push([...ctx.needsInputGrad]);
        const [a, b] = ctx.savedTensors as [Tensor, Tensor];
        return [ctx.needsInputGrad[0] ? g.mul(b) : null, ctx.needsInputGrad[1] ? g.mul(a) : null];
      }
    }
    const [a, b] = [leaf([2, 3]), f64([5, 7])];
    Product.apply(a, b).sum().backward();
    Product.apply(b, a).sum().backward();
    expect([needed, gradOf(a), b.grad]).toEqual([
      [
        [true, false],
        [false, true],
      ],
      [10, 14],
      null,
    ]);
  });
});

it('R54: the gradient is what arrives times y (1 - y), as the built-in’s', () => {
  const upstream = f64([1, -2, 3, 0.5, 10]);
  const [custom, builtIn] = [leaf(POINTS), leaf(POINTS)];
  Sigmoid.apply(custom).backward(upstream);
  sigmoid(builtIn).backward(upstream);
  expect(allClose(custom.grad!, builtIn.grad!, { rtol: 1e-14, atol: 0 })).toBe(true);
  expectClose(
    gradOf(custom),
    POINTS.map((x, i) => values(upstream)[i]! * plain(x) * (1 - plain(x))),
    1e-14,
  );
});

describe('R55: extremes in float32', () => {
  const at = (f: (x: Tensor) => Tensor): number[] => {
    const x = tensor([-100, 100], { requiresGrad: true });
    f(x).sum().backward();
    return gradOf(x);
  };

  it('R55: the custom function and the built-in give 0', () => {
    expect(at((x) => Sigmoid.apply(x))).toEqual([0, 0]);
    expect(at(sigmoid).every((g) => g >= 0 && g < 1e-40)).toBe(true);
  });

  it('R55: the formula differentiated op by op does not', () => {
    const [low, high] = at((x) => x.neg().exp().add(1).reciprocal());
    expect(low).toBeNaN();
    expect(high).toBeLessThan(1e-40);
  });
});

describe('R56: second derivatives', () => {
  it('R56: gradcheck and gradgradcheck pass, on every element', () => {
    const f = (x: Tensor): Tensor => Sigmoid.apply(x);
    expect(gradcheck(f, [leaf(POINTS)])).toEqual({ checked: 5, vacuous: 0 });
    // Not at 0, where the second derivative is 0.
    expect(gradgradcheck(f, [leaf([-4, -0.5, 0.7, 3])])).toEqual({ checked: 8, vacuous: 0 });
  });

  it('R56: the second derivative is y (1 - y)(1 - 2y)', () => {
    const x = leaf(POINTS);
    const [first] = grad(Sigmoid.apply(x).sum(), x, { createGraph: true });
    const [second] = grad(first!.sum(), x);
    expectClose(
      values(second!),
      POINTS.map((at) => plain(at) * (1 - plain(at)) * (1 - 2 * plain(at))),
      1e-14,
    );
  });

  it('R56: a wrong gradient is found', () => {
    class Wrong extends Sigmoid {
      static override backward(ctx: Context, gradOutput: Tensor): Tensor {
        return Sigmoid.backward(ctx, gradOutput).mul(1.01);
      }
    }
    expect(thrownBy(() => gradcheck((x) => Wrong.apply(x), [leaf(POINTS)]))).toBeInstanceOf(AutogradError);
  });
});

describe('R57: what backward returns is checked', () => {
  const returning = (what: (g: Tensor) => unknown): string => {
    class Careless extends autograd.Function {
      static forward(_: Context, a: Tensor, b: Tensor): Tensor {
        return a.add(b);
      }

      static backward(_: Context, g: Tensor): [Tensor, Tensor] {
        return what(g) as [Tensor, Tensor];
      }
    }
    const [a, b] = [leaf([1, 2]), leaf([3, 4])];
    const error = thrownBy(() => Careless.apply(a, b).sum().backward());
    expect(error).toBeInstanceOf(ChainruleError);
    // The last input's gradient comes first, and may have reached its leaf when another turns out wrong.
    expect(a.grad).toBeNull();
    return (error as Error).message;
  };

  it.each<[string, (g: Tensor) => unknown, RegExp]>([
    ['too few', (g) => g, /Careless.*\b1\b.*\b2\b/],
    ['too many', (g) => [g, g, g], /Careless.*\b3\b.*\b2\b/],
    ['another shape', (g) => [g, g.sum()], /Careless.*input 1.*\[\].*\[2\]/],
    ['another dtype', (g) => [g.float(), g], /Careless.*input 0.*float32.*float64/],
    ['no tensor', (g) => [g, 5], /Careless.*5/],
  ])('R57: %s', (_, what, message) => {
    expect(returning(what)).toMatch(message);
  });
});

describe('R58: types', () => {
  const ROOT = fileURLToPath(new URL('../..', import.meta.url));

  /** What the compiler says of a subclass with this backward, used on a tensor and a number. */
  function compile(backward: string, use = 'Scale.apply(tensor([1]), 2)'): string[] {
    const directory = `${ROOT}out/types-r58`;
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory, { recursive: true });
    writeFileSync(
      `${directory}/use.ts`,
      `import { autograd, type Tensor, tensor } from '../../lib/index.ts';
type Context = autograd.FunctionContext;
class Scale extends autograd.Function {
  static forward(_: Context, x: Tensor, by: number): Tensor { return x.mul(by); }
  static backward(_: Context, g: Tensor)${backward}
}
export const y: Tensor = ${use};
`,
    );
    writeFileSync(`${directory}/tsconfig.json`, '{ "extends": "../../tsconfig.json", "include": ["use.ts"] }\n');
    const tsc = `${ROOT}node_modules/typescript/bin/tsc`;
    const { stdout } = spawnSync(process.execPath, [tsc, '-p', directory], { encoding: 'utf8' });
    return stdout.split('\n').filter((line) => line.includes('use.ts'));
  }

  it('R58: backward returns a gradient for each argument of forward, null for a number', () => {
    expect(compile(': [Tensor, null] { return [g, null]; }')).toEqual([]);
  });

  it.each([
    ['too few gradients', ': [Tensor] { return [g]; }'],
    ['a tensor where the argument is a number', ': [Tensor, Tensor] { return [g, g]; }'],
    ['a number for a tensor', ': [number, null] { return [1, null]; }'],
    ['too many gradients', ': [Tensor, null, Tensor] { return [g, null, g]; }'],
  ])('R58: %s do not compile', (_, backward) => {
    expect(compile(backward).join('\n')).toMatch(/error TS/);
  });

  it('R58: apply takes the arguments of forward', () => {
    const right = ': [Tensor, null] { return [g, null]; }';
    expect(compile(right, 'Scale.apply(tensor([1]))').join('\n')).toMatch(/error TS/);
    expect(compile(right, "Scale.apply(tensor([1]), 'two')").join('\n')).toMatch(/error TS/);
  });
});
