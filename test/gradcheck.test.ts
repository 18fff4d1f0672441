// gradcheck, gradgradcheck and numericalDerivative: right gradients pass, wrong ones are named, and what shows nothing
// is counted. The ops themselves are checked in ops.gradcheck.test.ts.
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type Rule, record } from '../lib/autograd/tape.ts';
import {
  ArgumentError,
  AutogradError,
  DTypeError,
  dropout,
  gradcheck,
  gradgradcheck,
  nn,
  noGrad,
  numericalDerivative,
  ShapeError,
  type Tensor,
  tensor,
} from '../lib/index.ts';
import { bitsOf, expectClose, f64, leaf, leftBehind, thrownBy, values } from './support.ts';

/** A copy of x whose gradient is `vjp` of the right one. */
function copyWith(vjp: (g: Tensor) => Tensor, x: Tensor): Tensor {
  const out = noGrad(() => x.clone());
  record(out, { name: 'CustomBackward', vjp: [vjp] } satisfies Rule, [x], [], null);
  return out;
}

function refusal(fn: () => unknown, type: new (message: string) => Error, ...parts: (string | RegExp)[]): void {
  const error = thrownBy(fn);
  expect(error).toBeInstanceOf(type);
  for (const part of parts) expect((error as Error).message).toMatch(part);
}

const warnings = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
afterEach(() => void warnings.mockClear());

describe('numericalDerivative', () => {
  it('is the central difference of a function of a number', () => {
    expect(numericalDerivative((x) => Math.sin(x * x), 1.5).toFixed(8)).toBe('-1.88452087');
    // The third derivative of x³ is 6, so that a step of h leaves an error of h² exactly.
    expect(numericalDerivative((x) => x ** 3, 2, 0.5)).toBe(12.25);
  });

  it('divides by the step that was taken, not by the one that was asked for', () => {
    // Beside 1e8 a step of 1e-6 is rounded by more than 0.5 %.
    expect(numericalDerivative((x) => x, 1e8)).toBe(1);
    expect(values(numericalDerivative((x: Tensor) => x, f64([1e8])))).toEqual([1]);
  });

  it('is taken of each element of a float64 tensor', () => {
    const x = f64([
      [1.5, 0],
      [-2, 3],
    ]);
    const slopes = numericalDerivative((t: Tensor) => t.square().sin(), x);
    expect(slopes.shape).toEqual([2, 2]);
    expectClose(
      values(slopes),
      values(x).map((v) => 2 * v * Math.cos(v * v)),
      1e-8,
    );
    expect(slopes.requiresGrad).toBe(false);
    expect(numericalDerivative((t: Tensor) => t.sin(), leaf([1])).requiresGrad).toBe(false);
  });

  it('refuses float32, and shows why: at 1.5 it is off by 5 %', () => {
    refusal(
      () => numericalDerivative((t: Tensor) => t.square().sin(), tensor([1.5])),
      DTypeError,
      /float32, not float64.*rounding/,
    );
    const x = tensor([1.5 + 1e-6, 1.5 - 1e-6]);
    const [ahead, behind] = values(x.square().sin()) as [number, number];
    expect(((ahead - behind) / 2e-6).toFixed(3)).toBe('-1.788');
  });

  it('refuses what is no derivative', () => {
    const f = (t: Tensor): Tensor => t.sum();
    refusal(() => numericalDerivative(f, f64([1, 2])), ShapeError, /\[2\] to \[\].*elementwise/);
    refusal(() => numericalDerivative((x) => x, 1, 0), ArgumentError, /h is 0/);
    refusal(() => numericalDerivative((x) => x, 1, -1), ArgumentError, /h is -1/);
    refusal(() => numericalDerivative((x) => x, 1e20), ArgumentError, /vanishes beside x = 1/);
    refusal(() => numericalDerivative((t: Tensor) => t, f64([1, 1e20])), ArgumentError, /vanishes/);
    refusal(() => numericalDerivative((() => '1') as never, 1), ArgumentError, /f\(.*\) is "1"/);
    refusal(() => numericalDerivative(3 as never, 1), ArgumentError, /the function is 3/);
    refusal(() => numericalDerivative((t: Tensor) => t, '1' as never), ArgumentError, /the input is "1"/);
  });
});

describe('gradcheck', () => {
  it('passes right gradients, and counts elements', () => {
    const a = leaf([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    const b = leaf([[0.5], [-1], [2]]);
    // The second row is deep in the tail of tanh: what is in it matters to no output.
    expect(gradcheck((x, y) => x.matmul(y).tanh(), [a, b])).toEqual({ checked: 9, vacuous: 3 });
    expect(gradcheck((x, y) => x.matmul(y).div(10).tanh(), [a, b])).toEqual({ checked: 9, vacuous: 0 });
    expect(gradcheck((x) => x.exp().sum(), leaf(0.3))).toEqual({ checked: 1, vacuous: 0 });
    expect(warnings).not.toHaveBeenCalled();
  });

  it('checks every output, and of the inputs those that require grad', () => {
    const [x, constant, index] = [leaf([1, 2]), f64([3, 4]), tensor([1, 0], { dtype: 'int32' })];
    const fn = (a: Tensor, b: Tensor, i: Tensor): Tensor[] => [a.mul(b), a.indexSelect(0, i).square(), b.sum()];
    expect(gradcheck(fn, [x, constant, index])).toEqual({ checked: 2, vacuous: 0 });
    expect(constant.grad).toBeNull();
    expect(x.grad).toBeNull();
    const second = (a: Tensor): Tensor[] => [a.exp(), copyWith((g) => g.mul(2), a)];
    refusal(() => gradcheck(second, x), AutogradError, /output 1 at \[\d\]/);
  });

  it('names the worst element of a wrong gradient', () => {
    const wrong = (_: Tensor, x: Tensor): Tensor => {
      const factors = f64([
        [1, 1, 1.5],
        [1, 4, 2],
      ]);
      return copyWith((g) => g.mul(factors), x).mul(2);
    };
    const x = leaf([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    refusal(
      () => gradcheck(wrong, [f64([0]), x]),
      AutogradError,
      /^gradcheck: the derivative of output 0 at \[1,1\] with respect to input 1 at \[1,1\] is 8 by backward and (2|1\.99|2\.00)/,
      /they differ by (6|5\.99|6\.00)\d*, allowed is 0\.0020\d+/,
      /Wrong are 3 derivatives/,
    );
  });

  it('finds a gradient that a hook makes wrong, or that is missing', () => {
    const hooked = (x: Tensor): Tensor => {
      const y = x.square();
      y.registerHook((g) => g.neg());
      return y.sum();
    };
    refusal(() => gradcheck(hooked, leaf([1, 2])), AutogradError, /input 0 at \[1\] is -4 by backward/);
    // Half of x passes the gradient on, half is cut off.
    const cut = (x: Tensor): Tensor => x.mul(3).add(x.detach().mul(3)).sum();
    refusal(() => gradcheck(cut, leaf([1, 2])), AutogradError, /is 3 by backward and (6|5\.99|6\.00)/);
    refusal(() => gradcheck((x) => copyWith((g) => g.mul(Number.NaN), x), leaf([1])), AutogradError, /NaN by backward/);
  });

  it('judges by atol + rtol |numeric|', () => {
    const off = (by: number) => (x: Tensor) => copyWith((g) => g.add(by), x);
    const x = leaf([1]);
    expect(gradcheck(off(0.9e-3), x).checked).toBe(1);
    refusal(() => gradcheck(off(1.1e-3), x), AutogradError, /allowed is 0\.00101/);
    expect(gradcheck(off(1.1e-3), x, { rtol: 0, atol: 2e-3 }).checked).toBe(1);
    refusal(() => gradcheck(off(0.9e-3), x, { rtol: 1e-4 }), AutogradError, /allowed/);
  });

  it('uses the step it is given', () => {
    // Differences of |x| over ±0.5 around 0.25 give 0.5, not 1.
    refusal(() => gradcheck((x) => x.abs(), leaf([0.25]), { eps: 0.5 }), AutogradError, /1 by backward and 0\.5 by/);
  });

  it('moves one element at a time', () => {
    const seen: number[][] = [];
    const spying = (x: Tensor): Tensor => {
      seen.push(values(x));
      return x.exp();
    };
    gradcheck(spying, leaf([1, 2, 3]), { eps: 0.01, rtol: 0.1 });
    expect(seen.slice(-6)).toEqual([
      [1.01, 2, 3],
      [0.99, 2, 3],
      [1, 2.01, 3],
      [1, 1.99, 3],
      [1, 2, 3.01],
      [1, 2, 2.99],
    ]);
  });

  it('reads parameters where the function does', () => {
    const model = new nn.Sequential(
      new nn.Linear(3, 4, { dtype: 'float64' }),
      new nn.Tanh(),
      new nn.Linear(4, 1, { dtype: 'float64' }),
    );
    const x = f64([
      [1, 2, 3],
      [0, -1, 1],
    ]);
    expect(gradcheck(() => model.call(x), [...model.parameters()])).toEqual({ checked: 21, vacuous: 0 });
    const wrong = (): Tensor => copyWith((g) => g.mul(2), model.call(x));
    refusal(() => gradcheck(wrong, [...model.parameters()]), AutogradError, /with respect to input \d/);
  });
});

describe('what gradcheck leaves behind', () => {
  const ODD = [0.1, -0, 1 / 3, 5e-324, 123456.789, -1e-17];

  it('every bit, also of views, and the graphs from before', () => {
    const x = leaf(ODD);
    const column = leaf([ODD, ODD]).detach().T.requiresGrad_();
    const before = [bitsOf(x), bitsOf(column)];
    const loss = x.square().sum();
    gradcheck((a, b) => a.mul(2).add(b.sum(1)), [x, column]);
    expect([bitsOf(x), bitsOf(column)]).toEqual(before);
    loss.backward();
    expect(values(x.grad!)).toEqual(ODD.map((v) => 2 * v));
  });

  it('every bit, when it fails and when the function throws', () => {
    const x = leaf(ODD);
    const before = bitsOf(x);
    expect(() => gradcheck((a) => copyWith((g) => g.mul(2), a), x)).toThrow(AutogradError);
    expect(bitsOf(x)).toBe(before);
    let calls = 0;
    const failing = (a: Tensor): Tensor => {
      if (++calls > 5) throw new RangeError('enough');
      return a.exp();
    };
    expect(() => gradcheck(failing, x)).toThrow('enough');
    expect(bitsOf(x)).toBe(before);
  });

  it('no gradient, and no memory but what its graphs saved until the collector has them', () => {
    const x = leaf(ODD);
    x.grad = f64(ODD);
    const round = (): void => {
      gradcheck((a) => a.sin().mul(a), x);
      gradgradcheck((a) => a.sin().mul(a), x);
    };
    expect(leftBehind(round)).toBe(0);
    expect(values(x.grad!)).toEqual(ODD);
  });

  it('works inside noGrad', () => {
    expect(noGrad(() => gradcheck((x) => x.exp(), leaf([1])))).toEqual({ checked: 1, vacuous: 0 });
  });
});

describe('a vacuous check', () => {
  it('is counted by element: units that are off show nothing', () => {
    const z = leaf([-0.1346, 0.1553, 1.0358, -0.2567]);
    expect(gradcheck((x) => x.relu().square().sum(), z)).toEqual({ checked: 4, vacuous: 2 });
    expect(warnings).not.toHaveBeenCalled();
  });

  it('warns when nothing was shown', () => {
    const off = leaf([-0.1346]);
    expect(gradcheck((x) => x.relu().sum(), off)).toEqual({ checked: 1, vacuous: 1 });
    expect(warnings).toHaveBeenCalledExactlyOnceWith(
      expect.stringMatching(/^gradcheck: all 1 elements.*shows nothing/),
      {
        code: 'CHAINRULE_VACUOUS_GRADCHECK',
      },
    );
  });

  it('is one that a missing gradient would pass: what counts is atol', () => {
    const scaled = (x: Tensor): Tensor => x.mul(1e-7).sum();
    const missing = (x: Tensor): Tensor => copyWith((g) => g.mul(0), x.mul(1e-7)).sum();
    expect(gradcheck(missing, leaf([1, 2]))).toEqual({ checked: 2, vacuous: 2 });
    expect(gradcheck(scaled, leaf([1, 2]), { atol: 1e-9 })).toEqual({ checked: 2, vacuous: 0 });
    refusal(() => gradcheck(missing, leaf([1, 2]), { atol: 1e-9 }), AutogradError, /is 0 by backward/);
  });
});

describe('gradcheck refuses', () => {
  const id = (x: Tensor): Tensor => x.mul(1);

  it('anything but float64, and says why', () => {
    refusal(() => gradcheck(id, leaf([1], 'float32')), DTypeError, /input 0 of shape \[1\] is float32.*rounding/);
    refusal(() => gradcheck((x) => x.to('float32'), leaf([1])), DTypeError, /an output of shape \[1\] is float32/);
    refusal(() => gradgradcheck(id, leaf([1], 'bfloat16')), DTypeError, /bfloat16/);
  });

  it('inputs and outputs that require no grad', () => {
    refusal(() => gradcheck(id, f64([1])), AutogradError, /no input requires grad/);
    refusal(() => gradcheck((x) => x.detach(), leaf([1])), AutogradError, /no output requires grad.*detach/);
    refusal(() => gradcheck((x) => x.mul(x.item()).detach(), leaf([1])), AutogradError, /no output/);
  });

  it('a function that gives another answer the second time', () => {
    refusal(() => gradcheck((x) => dropout(x), leaf(new Array(50).fill(1))), AutogradError, /second call.*seed/);
    let calls = 0;
    const growing = (x: Tensor): Tensor => x.expand([++calls, 1]);
    refusal(() => gradcheck(growing, leaf([1])), AutogradError, /\[1,1\] became \[2,1\]/);
  });

  it('a backward pass that gives another gradient the second time', () => {
    let passes = 0;
    const fickle = (x: Tensor): Tensor => copyWith((g) => g.mul(1 + 1e-9 * ++passes), x);
    refusal(() => gradcheck(fickle, leaf([1, 2])), AutogradError, /second backward pass.*output 0 at \[0\]/);
  });

  it('elements that share memory, and those beside which eps vanishes', () => {
    const x = leaf([1]).detach().expand([3]).requiresGrad_();
    refusal(() => gradcheck(id, x), ArgumentError, /input 0 of shape \[3\] is expanded.*clone/);
    const large = leaf([1, 1e12]);
    refusal(() => gradcheck(id, large), ArgumentError, /eps = 0.000001 vanishes beside an element of 1000000000000/);
    expect(values(large)).toEqual([1, 1e12]);
  });

  it('arguments that are none', () => {
    refusal(() => gradcheck('f' as never, leaf([1])), ArgumentError, /the function is "f"/);
    refusal(() => gradcheck(id, [3] as never), ArgumentError, /input 0 is 3/);
    refusal(() => gradcheck((() => 3) as never, leaf([1])), ArgumentError, /output 0 of the function is 3/);
    refusal(() => gradcheck((async (x: Tensor) => x) as never, leaf([1])), ArgumentError, /output 0.*Promise/);
    refusal(() => gradcheck(id, leaf([1]), { epsilon: 1 } as never), ArgumentError, /unknown option "epsilon"/);
    refusal(() => gradcheck(id, leaf([1]), { eps: 0 }), ArgumentError, /eps is 0/);
    refusal(() => gradcheck(id, leaf([1]), { atol: -1 }), ArgumentError, /atol is -1/);
  });
});

describe('gradgradcheck', () => {
  it('passes right second derivatives', () => {
    const [x, w] = [
      leaf([[1, 2]]),
      leaf([
        [0.1, 0.2],
        [0.3, 0.4],
      ]),
    ];
    expect(gradgradcheck((a, b) => a.matmul(b).tanh(), [x, w])).toEqual({ checked: 8, vacuous: 0 });
  });

  it('takes what the gradient starts from', () => {
    const x = leaf([1, 2]);
    const gradOutputs = f64([0, 1]);
    // Of element 0 the second derivative is multiplied by 0; what its gradient starts from still counts.
    expect(gradgradcheck((a) => a.pow(3), x, { gradOutputs })).toEqual({ checked: 4, vacuous: 1 });
    expect(gradOutputs.requiresGrad).toBe(false);
    refusal(() => gradgradcheck((a) => a.exp(), x, { gradOutputs: [] }), ArgumentError, /0 gradOutputs for 1 outputs/);
    refusal(
      () => gradgradcheck((a) => a.exp(), x, { gradOutputs: f64([1]) }),
      ShapeError,
      /\[1\] for an output of \[2\]/,
    );
  });

  it('finds a gradient that is right and has the wrong gradient', () => {
    // The vjp of the square, from a value that is cut off from the graph.
    const square = (x: Tensor): Tensor => {
      const out = noGrad(() => x.square());
      const rule: Rule = { name: 'SquareBackward', vjp: [(g) => g.mul(x.detach()).mul(2)] };
      record(out, rule, [x], [], null);
      return out;
    };
    expect(gradcheck(square, leaf([1, 2]))).toEqual({ checked: 2, vacuous: 0 });
    refusal(() => gradgradcheck(square, leaf([1, 2])), AutogradError, /^gradgradcheck: .* with respect to input 0 at/);
  });

  it('finds a gradient that is not linear in what it starts from as backward says', () => {
    const fn = (x: Tensor): Tensor => copyWith((g) => g.detach(), x.mul(1));
    refusal(() => gradgradcheck(fn, leaf([1])), AutogradError, /no output requires grad/);
    const half = (x: Tensor): Tensor => copyWith((g) => g.mul(0.5).add(g.detach().mul(0.5)), x.mul(1));
    refusal(() => gradgradcheck(half, leaf([1])), AutogradError, /input 1 at \[0\] is 0.5 by backward/);
  });

  it('draws the same numbers in every run', () => {
    const drawn: number[][] = [];
    const fn = (x: Tensor): Tensor => {
      const y = x.exp();
      y.registerHook((g) => void drawn.push(values(g)));
      return y;
    };
    for (let i = 0; i < 2; i++) gradgradcheck(fn, leaf([1, 2]));
    expect(drawn[0]).toEqual(drawn[drawn.length / 2]);
    expect(new Set(drawn[0]).size).toBe(2);
  });
});
