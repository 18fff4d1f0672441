// Inside vmap: random numbers, what a tensor refuses because it stands for many, memory, and wrong calls of vmap.
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  bernoulli,
  Generator,
  grad,
  IndexError,
  isGradEnabled,
  keep,
  manualSeed,
  nn,
  rand,
  randint,
  randn,
  ShapeError,
  scope,
  type Tensor,
  vmap,
  zeros,
} from '../lib/index.ts';
import { expectClose, f64, leaf, leftBehind, thrownBy, values } from './support.ts';

describe('random numbers', () => {
  it('differ between examples, and are the same by seed', () => {
    const draws: ((a: Tensor) => Tensor)[] = [
      (a) => a.add(randn([50])),
      (a) => a.add(rand([50], { generator: new Generator(3) })),
      () => randint(0, 1000, [50]),
      (a) => bernoulli(0.5, [50]).add(a),
      (a) =>
        a
          .add(zeros([50]))
          .add(1)
          .dropout(0.5, { training: true }),
      (a) => bernoulli(a.add(0.5).reshape([1]).expand([50])),
    ];
    for (const draw of draws) {
      const run = (): number[][] => {
        manualSeed(7);
        return vmap(draw)(zeros([2])).toArray() as number[][];
      };
      const [first, second] = run();
      expect(first).not.toEqual(second);
      expect(run()).toEqual([first, second]);
    }
    const nested = vmap((_: Tensor) => vmap((_: Tensor) => randn([4]))(zeros([3])))(zeros([2]))
      .reshape([6, 4])
      .toArray() as number[][];
    expect(new Set(nested.map(String)).size).toBe(6);
  });

  it('are drawn plainly again after vmap, and after an error in it', () => {
    thrownBy(() =>
      vmap((_: Tensor) => {
        throw new Error('stop');
      })(zeros([2])),
    );
    expect(randn([4]).shape).toEqual([4]);
  });
});

describe('inside', () => {
  const x = f64([
    [1, 2],
    [3, 4],
  ]);
  const inside = (f: (a: Tensor) => unknown): unknown =>
    vmap((a: Tensor) => {
      f(a);
      return a;
    })(x);

  it('a tensor has one example’s shape, and prints as such', () => {
    const seen: unknown[] = [];
    inside((a) => {
      seen.push(a.shape, a.ndim, a.numel, a.size(0), a.dtype, a.nbytes);
      for (const text of [String(a), inspect(a), inspect({ a }), `${vmap((b: Tensor) => b)(a)}`]) {
        expect(text).toMatch(/vmap/);
      }
    });
    expect(seen).toEqual([[2], 1, 2, 2, 'float64', 16]);
  });

  it.each<[string, RegExp, (a: Tensor) => unknown]>([
    ['item', /^item: /, (a) => a.sum().item()],
    ['toArray', /inside vmap/, (a) => a.toArray()],
    ['toTypedArray', /inside vmap/, (a) => a.toTypedArray()],
    ['add_', /^add_: .*inside vmap/, (a) => a.add_(1)],
    ['exp_', /^exp_: .*inside vmap/, (a) => a.mul(2).exp_()],
    ['copy_ into a plain tensor', /^copy_: .*vmap/, (a) => zeros([2], { dtype: 'float64' }).copy_(a)],
    ['normal_', /^normal_: .*vmap/, (a) => a.normal_()],
    ['normal_ of a plain tensor', /^normal_: .*vmap/, () => zeros([2]).normal_()],
    ['uniform_ of a plain tensor', /^uniform_: .*vmap/, () => zeros([2]).uniform_()],
  ])('%s is refused by name', (_, message, f) => {
    const error = thrownBy(() => inside(f)) as Error;
    expect(error).toBeInstanceOf(AutogradError);
    expect(error.message).toMatch(message);
    expect([x.toArray(), isGradEnabled(), randn([2]).shape]).toEqual([
      [
        [1, 2],
        [3, 4],
      ],
      true,
      [2],
    ]);
  });

  it('scope and keep work, and a tensor that got out says what it is', () => {
    let out: Tensor | null = null;
    const got = vmap((a: Tensor) => scope(() => (out = keep(a.exp())).mul(scope(() => a.mul(2).sum()))))(x);
    expectClose(values(got), values(x.exp().mul(x.mul(2).sum(1, { keepdim: true }))), 1e-12);
    expect(thrownBy(() => out!.sum().item())).toBeInstanceOf(AutogradError);
  });

  it('what a scope ends is not what a graph has saved', () => {
    const gradient = (f: (b: Tensor) => Tensor): unknown =>
      vmap((a: Tensor) => {
        const b = a.detach().requiresGrad_();
        return grad(
          scope(() => f(b)),
          b,
        )[0]!;
      })(x).toArray();
    expect(gradient((b) => b.detach().mul(b).sum())).toEqual(x.toArray());
    expect(gradient((b) => b.mul(2).narrow(0, 0, 1).mul(b).sum())).toEqual([
      [8, 2],
      [20, 6],
    ]);
  });

  it('layers that keep statistics say so, others work', () => {
    const norm = new nn.BatchNorm1d(2).to('float64');
    const batch = randn([3, 4, 2], { dtype: 'float64' });
    const error = thrownBy(() => vmap((a: Tensor) => norm.call(a))(batch)) as Error;
    expect(error).toBeInstanceOf(AutogradError);
    expect(error.message).toMatch(/^(batchNorm|BatchNorm1d): .*vmap/);
    norm.eval();
    expect(vmap((a: Tensor) => norm.call(a))(batch).shape).toEqual([3, 4, 2]);
  });

  it('memory is as before', () => {
    const w = leaf([0.5, -1]);
    const round = (): void => {
      scope(() => void vmap((a: Tensor) => grad(a.mul(w).exp().sum(), w)[0]!)(x));
      scope(() => void grad(vmap((a: Tensor) => a.mul(w).exp().sum())(x).sum(), w));
      vmap((a: Tensor) => a.mul(w).softmax(0))(x)
        .square()
        .sum()
        .backward();
      w.grad = null;
    };
    expect(leftBehind(round, 40)).toBe(0);
  });
});

describe('wrong calls', () => {
  const x = zeros([2, 3]);
  const same = (a: Tensor): Tensor => a;
  it.each<[string, () => unknown, new (...args: never[]) => Error, RegExp]>([
    ['no function', () => vmap(3 as never), ArgumentError, /^vmap: got 3/],
    ['no tensor', () => vmap(((n: number) => n) as never)(3 as never), ArgumentError, /^vmap: no argument/],
    ['only nulls', () => vmap(same, null)(x), ArgumentError, /^vmap: no argument/],
    ['a scalar', () => vmap(same)(f64(1)), ShapeError, /^vmap: argument 0 has no dimensions/],
    ['a dimension too many', () => vmap(same, 2)(x), IndexError, /^vmap/],
    ['a dimension that is none', () => vmap(same, 1.5)(x), ArgumentError, /^vmap/],
    [
      'other sizes',
      () => vmap((a: Tensor, b: Tensor) => a.add(b))(x, zeros([3])),
      ShapeError,
      /^vmap: argument 1.*3 .*2/,
    ],
    ['too few inDims', () => vmap((a: Tensor, _: Tensor) => a, [0])(x, x), ArgumentError, /^vmap: .*inDims/],
    ['too many inDims', () => vmap(same, [0, 0])(x), ArgumentError, /^vmap: .*inDims/],
    ['an async function', () => vmap(async (a: Tensor) => a)(x), ArgumentError, /^vmap: .*async/],
  ])('%s', (_, call, type, message) => {
    const error = thrownBy(call) as Error;
    expect(error, error.message).toBeInstanceOf(type);
    expect(error.message).toMatch(message);
  });

  it('an async function that fails later does not end the process', async () => {
    const late = async (_: Tensor): Promise<Tensor> => {
      await null;
      throw new Error('later');
    };
    expect(thrownBy(() => vmap(late)(x))).toBeInstanceOf(ArgumentError);
    // An unhandled rejection would fail this run.
    await new Promise((resolve) => setTimeout(resolve, 5));
  });
});
