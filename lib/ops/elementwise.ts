// Elementwise ops: a line or two each over their rows in native/kernels/elementwise.def. What the lines share is in
// define.ts. `derivative` and `vjp` are written in differentiable ops, so that gradients have gradients.
import { checkOptions } from '../arguments.ts';
import type { Rule } from '../autograd/tape.ts';
import { BOOL } from '../dtype.ts';
import { ArgumentError, DTypeError } from '../errors.ts';
import { opcode } from '../native.ts';
import { map } from '../program/commands.ts';
import { broadcastShapes, checkInteger, describe, type Shape } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { overBatch } from './align.ts';
import { castLike } from './cast.ts';
import { binary, checkFits, checkNumber, compare, type Input2, unaryWith, withInPlace } from './define.ts';
import { checkSameDtype, finish, recordOp } from './op.ts';
import { beforeInPlace, finishInPlace, overlaps } from './overwrite.ts';

// ---- two inputs: gradients are at the result's shape, the traversal sums them down to each input's --------------------
export const add = binary('add', { reads: ['', ''], vjp: [(g) => g, (g) => g] });
export const sub = binary('sub', { reads: ['', ''], vjp: [(g) => g, (g) => neg(g)] });
export const mul = binary('mul', { reads: ['b', 'a'], vjp: [(g, _, b) => mul(g, b), (g, a) => mul(g, a)] });
export const div = binary('div', {
  reads: ['b', 'by'],
  vjp: [(g, _, b) => div(g, b), (g, _, b, y) => neg(div(mul(g, y), b))],
});

// The larger input takes the gradient; equal ones share it, as in PyTorch.
const half = (g: Tensor, tie: Tensor, loses: Tensor): Tensor => where(loses, 0, where(tie, mul(g, 0.5), g));
export const maximum = binary('maximum', {
  reads: ['ab', 'ab'],
  vjp: [(g, a, b) => half(g, eq(a, b), lt(a, b)), (g, a, b) => half(g, eq(a, b), gt(a, b))],
});
export const minimum = binary('minimum', {
  reads: ['ab', 'ab'],
  vjp: [(g, a, b) => half(g, eq(a, b), gt(a, b)), (g, a, b) => half(g, eq(a, b), lt(a, b))],
});

const power = binary('pow', {
  reads: ['ab', 'aby'],
  vjp: [
    (g, a, b) => where(eq(b, 0), 0, mul(g, mul(b, power(a, sub(b, 1))))),
    (g, a, b, y) => mul(g, logTimes(a, b, y)),
  ],
});
/** d/db a^b = a^b log a, which is 0 where a is 0 and b is not negative: there the logarithm would make it NaN. */
function logTimes(a: Input2, b: Input2, y: Tensor): Tensor {
  if (typeof a === 'number')
    return a === 0 ? where(ge(b, 0), 0, mul(y, Number.NEGATIVE_INFINITY)) : mul(y, Math.log(a));
  return where(mul(eq(a, 0), ge(b, 0)), 0, mul(y, log(a)));
}
/** a^b elementwise; either may be a number. */
export const pow = withInPlace(
  (a: Input2, b: Input2): Tensor => (typeof b === 'number' && typeof a !== 'number' ? powNumber(a, b) : power(a, b)),
  (a: Tensor, b: Input2): Tensor => (typeof b === 'number' ? powNumber.inPlace(a, b) : power.inPlace(a, b)),
);

export const eq = compare('eq');
export const ne = compare('ne');
export const gt = compare('gt');
export const ge = compare('ge');
export const lt = compare('lt');
export const le = compare('le');

// ---- one input --------------------------------------------------------------------------------------------------------
const { unary, parametric } = unaryWith((a, b) => mul(a, b));
const { PI, SQRT1_2, LN2, sqrt: root } = Math;
const flatRule: Rule = { name: 'StepBackward', elementwise: true, vjp: [(g) => mul(g, 0)] };
/** A function of x that is flat wherever it can be differentiated: its gradient is zero, but it has one, as in PyTorch. */
function flat(value: Tensor, x: Tensor): Tensor {
  recordOp(value, flatRule, [x], [], null);
  return value;
}
const step = (condition: Tensor, x: Tensor): Tensor => flat(castLike(condition, x), x);
// At NaN no comparison holds; which way the gradient goes there depends on which is asked.
const not = (condition: Tensor): Tensor => eq(condition, 0);

export const neg = unary('neg', { saves: 'none', derivative: () => -1 });
export const abs = unary('abs', { saves: 'x', derivative: (x) => sign(x) });
export const sign = unary('sign', { saves: 'none', derivative: () => 0 });
export const floor = unary('floor', { saves: 'none', derivative: () => 0 });
export const ceil = unary('ceil', { saves: 'none', derivative: () => 0 });
const toWhole = unary('round', { saves: 'none', derivative: () => 0 });
/** To the nearest number of so many decimals, ties to even. */
export function round(x: Tensor, decimals = 0): Tensor {
  if (decimals === 0) return toWhole(x);
  const scale = 10 ** Math.abs(checkInteger('round', 'decimals', decimals, -300));
  return decimals > 0 ? div(toWhole(mul(x, scale)), scale) : mul(toWhole(div(x, scale)), scale);
}

export const exp = unary('exp', { saves: 'y', derivative: (y) => y });
export const expm1 = unary('expm1', { saves: 'y', derivative: (y) => add(y, 1) });
export const log = unary('log', { saves: 'x', derivative: (x) => reciprocal(x) });
export const log1p = unary('log1p', { saves: 'x', derivative: (x) => reciprocal(add(x, 1)) });
export const log2 = unary('log2', { saves: 'x', derivative: (x) => reciprocal(mul(x, LN2)) });
export const sqrt = unary('sqrt', { saves: 'y', derivative: (y) => div(0.5, y) });
export const rsqrt = unary('rsqrt', { saves: 'y', derivative: (y) => mul(mul(y, square(y)), -0.5) });
export const square = unary('square', { saves: 'x', derivative: (x) => mul(x, 2) });
export const reciprocal = unary('reciprocal', { saves: 'y', derivative: (y) => neg(square(y)) });

export const sin = unary('sin', { saves: 'x', derivative: (x) => cos(x) });
export const cos = unary('cos', { saves: 'x', derivative: (x) => neg(sin(x)) });
export const tan = unary('tan', { saves: 'y', derivative: (y) => add(square(y), 1) });
export const asin = unary('asin', { saves: 'x', derivative: (x) => rsqrt(sub(1, square(x))) });
export const acos = unary('acos', { saves: 'x', derivative: (x) => neg(rsqrt(sub(1, square(x)))) });
export const atan = unary('atan', { saves: 'x', derivative: (x) => reciprocal(add(square(x), 1)) });
export const sinh = unary('sinh', { saves: 'x', derivative: (x) => cosh(x) });
export const cosh = unary('cosh', { saves: 'x', derivative: (x) => sinh(x) });
export const tanh = unary('tanh', { saves: 'y', derivative: (y) => sub(1, square(y)) });

/** 1 / (1 + exp(-x)). */
export const sigmoid = unary('sigmoid', { saves: 'y', derivative: (y) => mul(y, sub(1, y)) });
/** max(x, 0); NaN stays NaN, the gradient at 0 is 0. */
export const relu = unary('relu', { saves: 'y', derivative: (y) => step(not(le(y, 0)), y) });
/** min(max(x, 0), 6). */
export const relu6 = unary('relu6', { saves: 'x', derivative: (x) => step(not(maximum(le(x, 0), ge(x, 6))), x) });
export const selu = unary('selu', {
  saves: 'x',
  derivative: (x) => where(gt(x, 0), SELU_SCALE, mul(exp(x), SELU_SCALE * SELU_ALPHA)),
});
const SELU_ALPHA = 1.6732632423543772;
const SELU_SCALE = 1.0507009873554805;
/** x * sigmoid(x). */
export const silu = unary('silu', {
  saves: 'x',
  derivative: (x) => {
    const s = sigmoid(x);
    return mul(s, add(mul(x, sub(1, s)), 1));
  },
});
/** x * tanh(softplus(x)). */
export const mish = unary('mish', {
  saves: 'x',
  derivative: (x) => {
    const t = tanh(softplus(x));
    return add(t, mul(mul(x, sigmoid(x)), sub(1, square(t))));
  },
});
/** log(1 + exp(x)). */
export const softplus = unary('softplus', { saves: 'x', derivative: (x) => sigmoid(x) });
/** x / (1 + |x|). */
export const softsign = unary('softsign', { saves: 'x', derivative: (x) => square(reciprocal(add(abs(x), 1))) });
/** log(sigmoid(x)). */
export const logSigmoid = unary('logSigmoid', { saves: 'x', derivative: (x) => sigmoid(neg(x)) });
export const erf = unary('erf', { saves: 'x', derivative: (x) => mul(exp(neg(square(x))), 2 / root(PI)) });

const leaky = parametric('leakyRelu', {
  saves: 'x',
  derivative: (x, slope) => flat(where(gt(x, 0), castLike(1, x), slope), x),
});
/** x where positive, else slope * x. */
export const leakyRelu = (x: Tensor, slope = 0.01): Tensor => leaky(x, checkNumber('leakyRelu', 'slope', slope));

const elus = parametric('elu', {
  saves: 'x',
  derivative: (x, alpha) => where(gt(x, 0), castLike(1, x), mul(exp(x), alpha)),
});
/** x where positive, else alpha * (exp(x) - 1). */
export const elu = (x: Tensor, alpha = 1): Tensor => elus(x, checkNumber('elu', 'alpha', alpha));

const hard = parametric('hardtanh', {
  saves: 'x',
  derivative: (x, low, high) => step(not(maximum(le(x, low), ge(x, high))), x),
});
/** x between min and max, which it is cut to. */
export const hardtanh = (x: Tensor, min = -1, max = 1): Tensor =>
  hard(x, checkNumber('hardtanh', 'min', min), checkNumber('hardtanh', 'max', max));

const clamped = parametric('clamp', {
  saves: 'x',
  derivative: (x, low, high) => step(mul(ge(x, low), le(x, high)), x),
});
export interface ClampOptions {
  min?: number;
  max?: number;
}
function bounds(op: string, options: ClampOptions): [number, number] {
  checkOptions(op, options, { min: 0, max: 0 });
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = options;
  if (options.min === undefined && options.max === undefined) {
    throw new ArgumentError(`${op}: neither min nor max is given. Pass { min }, { max } or both.`);
  }
  return [checkNumber(op, 'min', min), checkNumber(op, 'max', max)];
}
/** x cut to [min, max], each of which may be left out; NaN stays NaN. */
export const clamp = withInPlace(
  (x: Tensor, options: ClampOptions): Tensor => clamped(x, ...bounds('clamp', options)),
  (x: Tensor, options: ClampOptions): Tensor => clamped.inPlace(x, ...bounds('clamp_', options)),
);

const exactGelu = unary('gelu', {
  saves: 'x',
  derivative: (x) => {
    const cdf = mul(add(erf(mul(x, SQRT1_2)), 1), 0.5);
    return add(cdf, mul(x, mul(exp(mul(square(x), -0.5)), 1 / root(2 * PI))));
  },
});
const tanhGelu = unary(
  'gelu',
  {
    saves: 'x',
    derivative: (x) => {
      const squared = square(x);
      const t = tanh(mul(mul(x, add(mul(squared, 0.044715), 1)), root(2 / PI)));
      const inner = mul(add(mul(squared, 3 * 0.044715), 1), root(2 / PI));
      return mul(add(add(t, 1), mul(x, mul(sub(1, square(t)), inner))), 0.5);
    },
  },
  'geluTanh',
);
/** x * Φ(x), Φ the normal distribution; `tanh`: its usual approximation. Hendrycks & Gimpel 2016. */
export function gelu(x: Tensor, options: { approximate?: 'none' | 'tanh' } = {}): Tensor {
  checkOptions('gelu', options, { approximate: 'none' });
  const { approximate = 'none' } = options;
  if (approximate === 'none') return exactGelu(x);
  if (approximate === 'tanh') return tanhGelu(x);
  throw new ArgumentError(`gelu: approximate is ${describe(approximate)}. Expected 'none' or 'tanh'.`);
}

/** x raised to a number; pow() for all cases. */
const powNumber = parametric(
  'pow',
  {
    saves: 'x',
    derivative: (x, p) => (p === 0 ? 0 : mul(powNumber(x, p - 1), p)),
  },
  'powScalar',
);

// ---- selection ------------------------------------------------------------------------------------------------------
const WHERE = opcode('where');
const whereRule: Rule = {
  name: 'WhereBackward',
  selects: true,
  broadcasts: true,
  elementwise: true,
  vjp: [() => null, (g, [cond]) => where(cond!, g, 0), (g, [cond]) => where(cond!, 0, g)],
};

function checkCondition(op: string, cond: Tensor, what: string): void {
  checkTensor(op, cond, what);
  if (cond.code !== BOOL) throw new DTypeError(`${op}: the ${what} is ${cond.dtype}. Expected bool, as gt() gives.`);
}

/** The shape and dtype of a selection between a and b. */
function selection(op: string, cond: Tensor, a: Input2, b: Input2): [Shape, number] {
  let shape: Shape = cond.shape;
  for (const value of [a, b]) {
    if (typeof value === 'number') continue;
    checkTensor(op, value);
    shape = broadcastShapes(op, shape, value.shape);
  }
  if (typeof a !== 'number' && typeof b !== 'number') checkSameDtype(op, a, b);
  const typed = typeof a !== 'number' ? a : typeof b !== 'number' ? b : null;
  if (typed !== null && typeof a === 'number') checkFits(op, a, typed);
  if (typed !== null && typeof b === 'number') checkFits(op, b, typed);
  return [shape, typed === null ? 0 : typed.code];
}

/**
 * a where cond (bool), else b, broadcast; either may be a number. A gradient that is NaN or infinite on the side not
 * taken stays there: the other side's is exactly 0, but 0 times infinity further up is NaN; guard the input instead.
 */
export function where(cond: Tensor, a: Input2, b: Input2): Tensor {
  checkCondition('where', cond, 'condition');
  const [shape, code] = selection('where', cond, a, b);
  const out = overBatch(where, cond, a, b) ?? fresh(shape, code);
  if (out.physical === null) map(WHERE, out, cond, a, b);
  return finish(out, whereRule, [cond, ...tensorsOf(a, b)], [cond], null);
}
const tensorsOf = (a: Input2, b: Input2): (Tensor | null)[] => [
  typeof a === 'number' ? null : a,
  typeof b === 'number' ? null : b,
];

const fillRule: Rule = {
  name: 'MaskedFillBackward',
  selects: true,
  broadcasts: true,
  elementwise: true,
  vjp: [(g, [mask]) => where(mask!, 0, g), () => null],
};

function fillWhere(x: Tensor, mask: Tensor, value: number): Tensor {
  const shape = fillShape('maskedFill', x, mask, value);
  const out = overBatch((x, mask) => fillWhere(x, mask, value), x, mask) ?? fresh(shape, x.code);
  if (out.physical === null) map(WHERE, out, mask, value, x);
  return finish(out, fillRule, [x, mask], [mask], null);
}

function fillWhereInPlace(x: Tensor, mask: Tensor, value: number): Tensor {
  beforeInPlace('maskedFill_', x, [], fillShape('maskedFill_', x, mask, value));
  const own = overlaps(x, mask) ? castLike(mask, mask) : mask;
  map(WHERE, x, own, value, x);
  return finishInPlace(x, fillRule, [x, own], () => [own], null);
}

function fillShape(op: string, x: Tensor, mask: Tensor, value: number): Shape {
  checkTensor(op, x);
  checkCondition(op, mask, 'mask');
  return selection(op, mask, x, checkNumber(op, 'value', value))[0];
}

/** x with value wherever mask (bool, broadcast) is true. */
export const maskedFill = withInPlace(fillWhere, fillWhereInPlace);
