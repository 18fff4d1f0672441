// Rows of reductions, running sums and softmax.
import * as nd from '../reference.ts';
import { type Dims, dimsOf, type Nd, reduce, sumOf } from '../reference.ts';
import {
  ALL,
  COMPOSED,
  constant,
  type DType,
  distinct,
  EXACT,
  FLOATS,
  float,
  given,
  type Refusal,
  type Row,
  row,
  type Tolerance,
  WHOLE,
  whole,
} from './row.ts';

interface Options {
  keepdim?: boolean;
  correction?: number;
}
type Reduction = [x: Nd, dim?: Dims, options?: Options];
type Make = (shape: number[]) => Nd;
type Fold = (values: readonly number[]) => number;

const inInt32 = (dtype: DType): DType => (WHOLE.includes(dtype) ? 'int32' : dtype);
/** How many elements go into one of the result. */
const count = (x: Nd, dim?: Dims): number => dimsOf(dim, x.ndim).reduce((n, d) => n * (x.shape[d] ?? 1), 1);

const refusedDims = (): Refusal[] => [
  [[float([2, 3]), 2], 'IndexError', /dim 2 is outside \[-2, 1\] for 2 dimensions/],
  [[float([2, 3]), 1.5], 'ArgumentError', /dim is 1.5. Expected a whole number/],
];
const refusedTwice = (): Refusal[] => [[[float([2, 3]), [0, -2]], 'ArgumentError', /dim 0 is named twice/]];
const refusedEmpty = (): Refusal[] => [
  [[float([0])], 'ShapeError', /\[0\] has no elements to choose from/],
  [[float([0, 3]), 0], 'ShapeError', /\[0,3\] has no elements to choose from along dims \[0\]/],
];

/** One dimension, or none, named in every way. */
const oneDim = (make: Make): [x: Nd, dim?: number, options?: Options][] => [
  [make([17])],
  [make([])],
  [make([]), -1],
  [make([3, 5])],
  [make([3, 5]), 0],
  [make([3, 5]), -1, { keepdim: true }],
  [make([2, 3, 4]), 1],
  [make([1, 65]), 1],
];
const manyDims = (make: Make): Reduction[] => [
  [make([2, 3, 4]), [0, 2]],
  [make([2, 3, 4]), [2, 0], { keepdim: true }],
  [make([2, 3, 2, 2]), [1, 2]],
  [make([2, 3]), [0, 1], { keepdim: true }],
];
const long = (make: Make): [x: Nd, dim?: number][] => [[make([1000])], [make([33, 70]), 0], [make([70, 33]), 1]];
const large = (make: Make, n = 150_001): [x: Nd, dim?: number][] => [
  [make([n])],
  [make([400, 201]), 0],
  [make([201, 400]), 1],
];
const empty = (): Reduction[] => [[float([0])], [float([2, 0]), 1], [float([0, 3]), 0], [float([2, 0]), 0]];
const withNaN = (): Nd => constant(given([2, 5], [1, Number.NaN, 3, Number.NaN, -1, 1, 3, -2, 3, 0]));

/** A reduction that has a value for nothing. */
function folded(f: Fold, tolerance: Tolerance<Reduction>, more: Partial<Row<Reduction>> = {}, make: Make = float): Row {
  return row<Reduction>({
    tolerance,
    result: inInt32,
    samples: () => [...oneDim(make), ...manyDims(make), ...long(make), ...empty(), [whole([17])], [whole([5, 70]), 1]],
    reference: (x, dim, options) => reduce(x, dim, options?.keepdim, f),
    large: () => large(make),
    refused: () => [...refusedDims(), ...refusedTwice()],
    ...more,
  });
}

/** One of the extremes, whose ties share the gradient. */
const extreme = (f: Fold, sign: 1 | -1): Row =>
  row<Reduction>({
    tolerance: EXACT,
    samples: () => [
      ...oneDim(distinct),
      ...manyDims(distinct),
      ...long(float),
      [float([0, 3]), 1],
      [withNaN()],
      [withNaN(), 0],
    ],
    reference: (x, dim, options) => reduce(x, dim, options?.keepdim, f),
    gradients: () => [[[given([4], [sign, 0, sign, sign])], given([4], [1 / 3, 0, 1 / 3, 1 / 3])]],
    large: () => large(float),
    refused: () => [...refusedDims(), ...refusedTwice(), ...refusedEmpty()],
  });

/** Where the chosen value stands first. */
const place =
  (f: Fold): Fold =>
  (values) => {
    const chosen = f(values);
    return values.findIndex((value) => Object.is(value, chosen) || value === chosen);
  };
const argExtreme = (f: Fold): Row =>
  row<[x: Nd, dim?: number, options?: Options]>({
    gradient: 'none',
    samples: () => [
      ...oneDim(distinct),
      ...oneDim(whole),
      ...long(float),
      [float([0, 3]), 1],
      [withNaN()],
      [withNaN(), 1],
    ],
    reference: (x, dim, options) => reduce(x, dim, options?.keepdim, place(f), 'int32'),
    large: () => large(float),
    refused: () => [...refusedDims(), ...refusedEmpty()],
  });
const withPlace = (f: Fold, sign: 1 | -1): Row =>
  row<[x: Nd, dim?: number, options?: Options]>({
    tolerance: EXACT,
    samples: () => [...oneDim(distinct), ...long(float), [float([0, 3]), 1], [withNaN(), 1]],
    reference: (x, dim, { keepdim } = {}) => {
      const values = reduce(x, dim, keepdim, f);
      return dim === undefined ? values : [values, reduce(x, dim, keepdim, place(f), 'int32')];
    },
    gradients: () => [[[given([4], [0, sign, sign, sign]), 0], given([4], [0, 1, 0, 0])]],
    large: () => [
      [float([700, 301]), 0],
      [float([301, 700]), 1],
    ],
    refused: () => [...refusedDims(), ...refusedEmpty()],
  });

const truth = (f: (values: readonly number[]) => boolean): Row =>
  row<Reduction>({
    gradient: 'none',
    samples: () => [
      ...oneDim((shape) => whole(shape, 0, 1)),
      ...manyDims((shape) => whole(shape, 0, 1)),
      ...empty(),
      [withNaN()],
    ],
    reference: (x, dim, options) => reduce(x, dim, options?.keepdim, (values) => Number(f(values)), 'bool'),
    large: () => large((shape) => whole(shape, 0, 1)),
    refused: () => [...refusedDims(), ...refusedTwice()],
  });

// ---- composed -------------------------------------------------------------------------------------------------------------
function varianceOf(x: Nd, dim?: Dims, { keepdim, correction = 1 }: Options = {}): Nd {
  return reduce(x, dim, keepdim, (values) => {
    const mean = sumOf(values) / values.length;
    return sumOf(values.map((v) => (v - mean) ** 2)) / Math.max(0, values.length - correction);
  });
}
/** `spread` of 1000 ± 1 shows whether the mean is taken off before squaring. */
const varianceSamples = (): Reduction[] => [
  [float([17])],
  [float([3, 5]), 1],
  [float([2, 3, 4]), [0, 2], { keepdim: true }],
  [float([3, 5]), 0, { correction: 0 }],
  [float([300], [999, 1001])],
  [float([70, 33]), 1],
];
const oneValue = (): Reduction[] => [[constant(float([]))], [constant(float([1]))], [constant(float([2, 0])), 1]];
const varianceRow = (f: (x: Nd, dim?: Dims, options?: Options) => Nd, gradients: Row<Reduction>['gradients']): Row =>
  row<Reduction>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    samples: () => [...varianceSamples(), ...oneValue()],
    reference: f,
    ...(gradients && { gradients }),
    large: () => large(float),
    refused: () => [
      ...refusedDims(),
      ...refusedTwice(),
      [[float([3]), 0, { correction: '1' }], 'ArgumentError', /correction is "?1"?. Expected a number/],
    ],
  });
const variance = (): Row => varianceRow(varianceOf, undefined);

interface NormOptions extends Options {
  p?: number;
  dim?: Dims;
}
function normOf(values: readonly number[], p: number): number {
  const sizes = values.map(Math.abs);
  if (p === 0) return sizes.filter((size) => size !== 0).length;
  if (Math.abs(p) === Number.POSITIVE_INFINITY) return p > 0 ? nd.largest(sizes) : nd.smallest(sizes);
  return sumOf(sizes.map((size) => size ** p)) ** (1 / p);
}
const zeros = given([2], [0, 0]);

export const reductions = {
  sum: folded(sumOf, { terms: count }, { large: () => large(float, 1_000_003) }),
  mean: folded((values) => sumOf(values) / values.length, { terms: (x, dim) => count(x, dim) + 1 }, { dtypes: FLOATS }),
  prod: folded(
    (values) => values.reduce((a, b) => a * b, 1),
    { terms: count },
    {
      // Of a lone zero the gradient is the product of the others; of two it is 0.
      gradients: () => [
        [[given([3], [2, 0, 5])], given([3], [0, 10, 0])],
        [[given([3], [0, 3, 0])], given([3], [0, 0, 0])],
      ],
    },
    (shape) => float(shape, [0.8, 1.2]),
  ),
  amax: extreme(nd.largest, 1),
  amin: extreme(nd.smallest, -1),
  max: withPlace(nd.largest, 1),
  min: withPlace(nd.smallest, -1),
  argmax: argExtreme(nd.largest),
  argmin: argExtreme(nd.smallest),
  all: truth((values) => values.every((v) => v !== 0)),
  any: truth((values) => values.some((v) => v !== 0)),
  var: variance(),
  std: varianceRow(
    (x, dim, options) => nd.map(varianceOf(x, dim, options), Math.sqrt),
    () => [[[given([3], [2, 2, 2])], given([3], [0, 0, 0])]],
  ),
  norm: row<[x: Nd, options?: NormOptions]>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    samples: () => [
      [float([17])],
      [float([]), { p: 2 }],
      [float([3, 5]), { dim: 1 }],
      [float([3, 5]), { p: 1, dim: 0, keepdim: true }],
      [float([2, 3, 4]), { p: 3, dim: [0, 2] }],
      [float([3, 5], [0.5, 2]), { p: -1.5, dim: 0 }],
      [distinct([3, 5]), { p: Number.POSITIVE_INFINITY, dim: 1 }],
      [distinct([3, 5]), { p: Number.NEGATIVE_INFINITY }],
      [constant(whole([3, 5])), { p: 0, dim: 0 }],
      [float([3, 5], [0.5, 2]), { p: 0, dim: 1 }],
      [float([2, 0]), { dim: 1 }],
    ],
    reference: (x, { p = 2, dim, keepdim } = {}) => reduce(x, dim, keepdim, (values) => normOf(values, p)),
    gradients: () => [
      [[zeros], zeros],
      [[zeros, { p: 3 }], zeros],
      [[zeros, { p: 1 }], zeros],
    ],
    large: () => [[float([150_001])]],
    refused: () => [
      [[float([3]), { p: Number.NaN }], 'ArgumentError', /p is NaN. Expected a number/],
      [[float([3]), { p: '2' }], 'ArgumentError', /p is "?2"?. Expected a number/],
      [[float([3]), { dim: 1 }], 'IndexError', /dim 1 is outside \[-1, 0\]/],
    ],
  }),
  logsumexp: row<Reduction>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    samples: () => [
      ...oneDim(float),
      ...manyDims(float),
      [float([0, 3]), 1],
      [float([5], [900, 1000])],
      [float([5], [-1000, -900])],
      [constant(given([2, 2], [-Infinity, -Infinity, Infinity, 1])), 1],
      [constant(given([2], [Number.NaN, 1]))],
    ],
    reference: (x, dim, options) => reduce(x, dim, options?.keepdim, nd.logSumExp),
    large: () => large(float),
    refused: () => [...refusedDims(), ...refusedTwice(), ...refusedEmpty()],
  }),
};

// ---- along one dimension ----------------------------------------------------------------------------------------------------
type Along = [x: Nd, dim: number];
const alongSamples = (make: Make): Along[] => [
  [make([17]), 0],
  [make([]), 0],
  [make([1]), -1],
  [make([3, 5]), 1],
  [make([3, 5]), 0],
  [make([2, 33, 3]), -2],
  [make([4, 65]), -1],
  [make([0]), 0],
  [make([2, 0]), 1],
  [make([0, 3]), 1],
];
const extremes = (): Along[] => [
  [float([2, 5], [9_000, 10_000]), 1],
  [float([2, 5], [-10_000, -9_000]), 1],
  [constant(given([3, 2], [-Infinity, -Infinity, Infinity, 1, Number.NaN, 1])), 1],
  [constant(given([2], [-Infinity, 1])), 0],
];
const alongRow = (f: (values: number[]) => number[], more: Partial<Row<Along>>): Row =>
  row<Along>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    batched: true,
    samples: () => [...alongSamples(float), ...extremes()],
    reference: (x, dim) => nd.along(x, dim, f),
    large: () => [
      [float([300, 701]), 1],
      [float([701, 300]), 0],
    ],
    refused: refusedDims,
    ...more,
  });
function runningSum(values: readonly number[]): number[] {
  return values.map((_, i) => sumOf(values.slice(0, i + 1)));
}

export const alongOneDim = {
  softmax: alongRow((values) => nd.logSoftmax(values).map(Math.exp), {}),
  logSoftmax: alongRow(nd.logSoftmax, {}),
  cumsum: alongRow(runningSum, {
    samples: () => [...alongSamples(float), [whole([70, 3]), 0]],
    tolerance: { terms: (x, dim) => x.shape.at(dim) ?? 1 },
    dtypes: ALL,
    result: inInt32,
  }),
};
