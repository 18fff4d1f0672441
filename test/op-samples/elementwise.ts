// Rows of the elementwise ops. Bounds in ulp are those that native/kernels states, and one more in float64, where the
// reference, computed in float64 itself, is as far from the truth.
import { at, broadcast, build, erf, type Nd, normalCdf, roundToEven, sigmoid, softplus, zip } from '../reference.ts';
import { ALL, binary, constant, EXACT, FLOATS, float, mask, row, unary } from './row.ts';

const { NEGATIVE_INFINITY: LOW, POSITIVE_INFINITY: HIGH, NaN: NAN } = Number;
const { PI } = Math;
const INTEGERS = [...FLOATS, 'int32', 'uint8', 'bool'] as const;

// Of zeros of both signs the second: they are equal.
const pick = (a: number, b: number, first: boolean): number =>
  Number.isNaN(a) || Number.isNaN(b) ? NAN : first ? a : b;

// ---- two inputs -----------------------------------------------------------------------------------------------------------
export const arithmetic = {
  add: binary({
    reference: (a, b) => a + b,
    dtypes: INTEGERS,
    special: { 'Infinity,-Infinity': NAN, '-0,-0': -0, '-0,0': 0 },
  }),
  sub: binary({
    reference: (a, b) => a - b,
    dtypes: INTEGERS,
    special: { 'Infinity,Infinity': NAN, '-0,0': -0, '0,0': 0 },
  }),
  mul: binary({
    reference: (a, b) => a * b,
    dtypes: INTEGERS,
    special: { 'Infinity,0': NAN, '-1,0': -0, '-Infinity,-1': HIGH },
  }),
  div: binary({
    reference: (a, b) => a / b,
    second: [0.5, 3],
    special: { '1,-0': LOW, '0,0': NAN, 'Infinity,-Infinity': NAN },
  }),
  maximum: binary({
    reference: (a, b) => pick(a, b, a > b),
    dtypes: INTEGERS,
    special: { 'NaN,1': NAN, '1,NaN': NAN, '-Infinity,Infinity': HIGH },
    slopes: { '2,2': 0.5, '3,2': 1, '1,2': 0 },
  }),
  minimum: binary({
    reference: (a, b) => pick(a, b, a < b),
    dtypes: INTEGERS,
    special: { 'NaN,1': NAN, '1,NaN': NAN, '-Infinity,Infinity': LOW },
    slopes: { '2,2': 0.5, '3,2': 0, '1,2': 1 },
  }),
  pow: binary({
    // IEEE 754, unlike JavaScript: 1 to any power is 1.
    reference: (a, b) => (a === 1 || (a === -1 && Math.abs(b) === HIGH) ? 1 : a ** b),
    domain: [0.1, 3],
    second: [-2, 3],
    ulp: 3,
    special: {
      'NaN,0': 1,
      '1,NaN': 1,
      '-2,3': -8,
      '-2,0.5': NAN,
      '-0,-1': LOW,
      '-0,-3': LOW,
      '-Infinity,3': LOW,
      '-1,Infinity': 1,
    },
    slopes: { '0,0': 0, '0,2': 0, '0,1': 1, '-2,3': 12 },
  }),
};

const comparison = (reference: (a: number, b: number) => boolean) =>
  binary({
    reference: (a, b) => Number(reference(a, b)),
    domain: [-3, 3],
    dtypes: INTEGERS,
    result: () => 'bool',
    gradient: 'none',
  });

export const comparisons = {
  eq: comparison((a, b) => a === b),
  ne: comparison((a, b) => a !== b),
  gt: comparison((a, b) => a > b),
  ge: comparison((a, b) => a >= b),
  lt: comparison((a, b) => a < b),
  le: comparison((a, b) => a <= b),
};

// ---- one input --------------------------------------------------------------------------------------------------------------
export const simple = {
  neg: unary({ reference: (x) => -x, dtypes: INTEGERS, special: { 0: -0, '-0': 0 } }),
  abs: unary({ reference: Math.abs, dtypes: INTEGERS, kinks: [0], special: { '-0': 0 }, slopes: { 0: 0 } }),
  sign: unary({
    reference: (x) => (x > 0 ? 1 : x < 0 ? -1 : 0),
    dtypes: INTEGERS,
    kinks: [0],
    special: { NaN: 0 },
    gradient: 'zero',
  }),
  floor: unary({ reference: Math.floor, domain: [-9, 9], kinks: [-1, 0, 1, 2.5], gradient: 'zero' }),
  ceil: unary({
    reference: Math.ceil,
    domain: [-9, 9],
    kinks: [-1, 0, 1, 2.5],
    special: { '-0.5': -0 },
    gradient: 'zero',
  }),
  round: unary({
    reference: roundToEven,
    domain: [-9, 9],
    kinks: [-1.5, -0.5, 0.5, 1.5, 2.5],
    special: { '2.5': 2, '-0.4': -0 },
    gradient: 'zero',
  }),
  square: unary({ reference: (x) => x * x, dtypes: INTEGERS }),
  sqrt: unary({ reference: Math.sqrt, domain: [0.1, 9], special: { '-0': -0, '-1': NAN }, slopes: { 0: HIGH } }),
  rsqrt: unary({ reference: (x) => 1 / Math.sqrt(x), domain: [0.1, 9], ulp: 2, special: { 0: HIGH, Infinity: 0 } }),
  reciprocal: unary({ reference: (x) => 1 / x, domain: [0.2, 9], special: { '-0': LOW, '-Infinity': -0 } }),
};

export const transcendental = {
  exp: unary({ reference: Math.exp, domain: [-20, 20], ulp: 2, special: { '-Infinity': 0, Infinity: HIGH } }),
  expm1: unary({ reference: Math.expm1, domain: [-10, 10], ulp: 3, special: { '-Infinity': -1, '-0': -0 } }),
  log: unary({
    reference: Math.log,
    domain: [0.01, 99],
    ulp: 2,
    special: { '-0': LOW, Infinity: HIGH, '-1': NAN, 1: 0 },
  }),
  log1p: unary({ reference: Math.log1p, domain: [-0.9, 9], ulp: 3, special: { '-1': LOW, '-2': NAN, '-0': -0 } }),
  log2: unary({ reference: Math.log2, domain: [0.01, 99], ulp: 3, special: { 8: 3, '0.25': -2, 0: LOW } }),
  sin: unary({
    reference: Math.sin,
    domain: [-20, 20],
    ulp: 2,
    special: { Infinity: NAN, '-0': -0, '1e22': -0.8522008497671888 },
  }),
  cos: unary({ reference: Math.cos, domain: [-20, 20], ulp: 2, special: { '-Infinity': NAN, '-0': 1 } }),
  tan: unary({ reference: Math.tan, domain: [-1.5, 1.5], ulp: 4, special: { Infinity: NAN, '-0': -0 } }),
  asin: unary({ reference: Math.asin, domain: [-0.95, 0.95], ulp: 4, special: { 1: PI / 2, '1.01': NAN, '-0': -0 } }),
  acos: unary({ reference: Math.acos, domain: [-0.95, 0.95], ulp: 3, special: { 1: 0, '-1': PI, '1.01': NAN } }),
  atan: unary({ reference: Math.atan, domain: [-9, 9], ulp: 3, special: { Infinity: PI / 2, '-0': -0 } }),
  sinh: unary({ reference: Math.sinh, domain: [-9, 9], ulp: 4, special: { '-Infinity': LOW, '-0': -0 } }),
  cosh: unary({ reference: Math.cosh, domain: [-9, 9], ulp: 3, special: { '-Infinity': HIGH, '-0': 1 } }),
  tanh: unary({ reference: Math.tanh, domain: [-5, 5], ulp: 4, special: { '-Infinity': -1, '-0': -0 } }),
  erf: unary({
    reference: erf,
    domain: [-3, 3],
    ulp: { float32: 3, float64: 6 },
    special: { '-Infinity': -1, Infinity: 1, '-0': -0 },
  }),
};

// ---- activations ------------------------------------------------------------------------------------------------------------
const [SELU_ALPHA, SELU_SCALE] = [1.6732632423543772, 1.0507009873554805];
const eluOf = (x: number, alpha = 1): number => (x > 0 ? x : alpha * Math.expm1(x));
const cut = (x: number, min = LOW, max = HIGH): number => (x < min ? min : x > max ? max : x);
// x times a gate that vanishes faster than x grows; in the limit -0.
const gated = (gate: (x: number) => number) => (x: number) => (x === LOW ? -0 : x * gate(x));
const geluOf = (x: number, { approximate = 'none' } = {}): number =>
  gated(approximate === 'none' ? normalCdf : (v) => sigmoid(2 * Math.sqrt(2 / PI) * (v + 0.044715 * v ** 3)))(x);
const number = (argument: string): ['ArgumentError', RegExp] => ['ArgumentError', new RegExp(`${argument} is "1"`)];

export const activations = {
  sigmoid: unary({ reference: sigmoid, domain: [-9, 9], ulp: 4, special: { '-Infinity': 0, Infinity: 1 } }),
  logSigmoid: unary({
    reference: (x) => Math.min(x, 0) - softplus(-Math.abs(x)),
    domain: [-9, 9],
    ulp: 3,
    special: { '-Infinity': LOW, Infinity: 0 },
  }),
  // The identity above 20, as in PyTorch.
  softplus: unary({
    reference: (x) => (x > 20 ? x : softplus(x)),
    domain: [-9, 9],
    ulp: 3,
    special: { '-Infinity': 0, 30: 30 },
  }),
  softsign: unary({ reference: (x) => x / (1 + Math.abs(x)), domain: [-9, 9], ulp: 2 }),
  relu: unary({
    reference: (x) => cut(x, 0),
    dtypes: INTEGERS,
    kinks: [0],
    special: { NaN: NAN, '-0': 0 },
    slopes: { 0: 0, '-0': 0, NaN: 1 },
  }),
  relu6: unary({ reference: (x) => cut(x, 0, 6), domain: [-9, 9], kinks: [0, 6], slopes: { 0: 0, 6: 0, NaN: 1 } }),
  leakyRelu: unary<[slope?: number]>({
    reference: (x, slope = 0.01) => (x > 0 ? x : slope * x),
    rest: [[], [0.2]],
    ulp: { float32: 2, float64: 0 }, // the slope itself is rounded to float32
    kinks: [0],
    slopes: { 0: 0.01, NaN: 0.01 },
    refused: () => [[[float([2]), '1'], ...number('slope')]],
  }),
  elu: unary<[alpha?: number]>({
    reference: eluOf,
    rest: [[], [0.7]],
    kinks: [0],
    ulp: 4,
    slopes: { 0: 1 },
    refused: () => [[[float([2]), '1'], ...number('alpha')]],
  }),
  selu: unary({
    reference: (x) => SELU_SCALE * eluOf(x, SELU_ALPHA),
    kinks: [0],
    ulp: 5,
    slopes: { 0: SELU_SCALE * SELU_ALPHA },
  }),
  gelu: unary<[options?: { approximate: string }]>({
    reference: geluOf,
    rest: [[], [{ approximate: 'tanh' }]],
    domain: [-5, 5],
    ulp: { float32: 6, float64: 12 },
    special: { '-Infinity': -0, Infinity: HIGH },
    refused: () => [
      [[float([2]), { approximate: 'erf' }], 'ArgumentError', /approximate is "erf". Expected 'none' or 'tanh'/],
    ],
  }),
  silu: unary({ reference: gated(sigmoid), domain: [-9, 9], ulp: 5, special: { '-Infinity': -0, Infinity: HIGH } }),
  mish: unary({
    reference: gated((x) => Math.tanh(softplus(x))),
    domain: [-9, 9],
    ulp: 6,
    special: { '-Infinity': -0, Infinity: HIGH },
  }),
  hardtanh: unary<[min?: number, max?: number]>({
    reference: (x, min = -1, max = 1) => cut(x, min, max),
    rest: [[], [-0.5, 0.25]],
    kinks: [-1, -0.5, 0.25, 1],
    special: { NaN: NAN },
    slopes: { '-1': 0, 1: 0, NaN: 1 },
    refused: () => [
      [[float([2]), '1'], ...number('min')],
      [[float([2]), 0, '1'], ...number('max')],
    ],
  }),
  clamp: unary<[{ min?: number; max?: number }]>({
    reference: (x, { min, max }) => cut(x, min, max),
    rest: [[{ min: -1, max: 1 }], [{ min: 0 }], [{ max: 1 }]],
    dtypes: INTEGERS,
    kinks: [-1, 0, 1],
    special: { NaN: NAN },
    slopes: { '-1': 1, 1: 1, NaN: 0 },
    refused: () => [
      [[float([2]), {}], 'ArgumentError', /neither min nor max/],
      [[float([2])], 'ArgumentError', /the options are undefined/],
      [[float([2]), { min: '1' }], ...number('min')],
    ],
  }),
};

// ---- selection ----------------------------------------------------------------------------------------------------------------
const choose = (cond: Nd, a: Nd | number, b: Nd | number): Nd =>
  build(broadcast(cond.shape, ...[a, b].map((x) => (typeof x === 'number' ? [] : x.shape))), (i) =>
    at(at(cond, i) ? a : b, i),
  );

export const selection = {
  where: row<[cond: Nd, a: Nd | number, b: Nd | number]>({
    reference: choose,
    tolerance: EXACT,
    dtypes: ALL,
    samples: () => [
      ...[0, 1, 16, 17, 33, 1000].map((n): [Nd, Nd, Nd] => [mask([n]), float([n]), float([n])]),
      [mask([3, 4]), float([4]), float([3, 1])],
      [mask([4]), float([3, 1]), 2],
      [mask([3, 4]), 1, float([])],
      [mask([]), float([3]), float([3])],
      [mask([0, 2]), float([1, 2]), float([2])],
    ],
    large: () => [[mask([LARGE]), float([LARGE]), float([LARGE])]],
    refused: () => [
      [[float([2]), 1, 2], 'DTypeError', /condition is float.*Expected bool/],
      [[mask([2]), float([3]), 1], 'ShapeError', /\[2\] and \[3\] do not broadcast/],
    ],
  }),
  maskedFill: row<[x: Nd, mask: Nd, value: number]>({
    reference: (x, hidden, value) => zip(hidden, x, (m, v) => (m ? value : v)),
    tolerance: EXACT,
    dtypes: ALL,
    samples: () => [
      [float([17]), mask([17]), -1],
      [float([3, 4]), mask([4]), 2],
      [float([]), mask([]), 3],
      [float([2, 0]), mask([1, 1]), 3],
      [float([2, 3]), mask([2, 1]), 0],
    ],
    large: () => [[float([LARGE]), mask([LARGE]), 2]],
    refused: () => [
      [[float([2]), constant(float([2])), 1], 'DTypeError', /mask is float.*Expected bool/],
      [[float([2]), mask([3]), 1], 'ShapeError', /do not broadcast/],
      [[float([2]), mask([2]), '1'], 'ArgumentError', /value is "1". Expected a number/],
    ],
  }),
};
const LARGE = 100_003;

export const elementwise = {
  ...arithmetic,
  ...comparisons,
  ...simple,
  ...transcendental,
  ...activations,
  ...selection,
};
