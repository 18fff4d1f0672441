// Rows of conversions and of tensors from data, from nothing and from chance.
import { strict as assert } from 'node:assert';
import { build, map, Nd, range, type Shape, sumOf, vector } from '../reference.ts';
import { ALL, constant, type DType, EXACT, FLOATS, float, given, type Refusal, type Row, row, WHOLE } from './row.ts';

// ---- conversions ------------------------------------------------------------------------------------------------------------
const copied = (more: Partial<Row<[x: Nd]>> = {}): Row =>
  row<[x: Nd]>({
    tolerance: EXACT,
    dtypes: ALL,
    samples: () => [[float([3, 5])], [float([])], [float([0])], [float([1000], [-99, 99])]],
    reference: (x) => x,
    large: () => [[float([100_003])]],
    ...more,
  });
const ones = (n: number): Nd => vector(...new Array<number>(n).fill(1));

export const conversions = {
  to: row<[x: Nd, dtype: DType]>({
    tolerance: EXACT,
    samples: () =>
      ALL.map((dtype) => [constant(float([3, 5], [0, 99])), dtype] as [Nd, DType]).concat([
        [float([0]), 'float64'],
        [float([3]), 'float64'],
      ]),
    reference: (x, dtype) =>
      dtype === 'bool' ? map(x, (v) => Number(v !== 0)) : WHOLE.includes(dtype) ? map(x, Math.trunc) : x,
    result: (_, __, dtype) => dtype,
    gradients: () => FLOATS.map((dtype) => [[float([3]), dtype], ones(3)]),
    large: () => [[float([100_003]), 'float64']],
    refused: () => [
      [[float([2]), 'float16'], 'DTypeError', /unknown dtype "float16". Expected one of float32/],
      [[float([2])], 'DTypeError', /unknown dtype undefined/],
    ],
  }),
  float: copied({
    result: () => 'float32',
    samples: () => [[constant(float([3, 5]))], [constant(float([0]))]],
    gradients: () => [[[float([3])], ones(3)]],
  }),
  double: copied({ result: () => 'float64' }),
  clone: copied(),
  contiguous: copied(),
};

// ---- from data and from nothing -----------------------------------------------------------------------------------------------
interface Options {
  dtype?: DType;
  requiresGrad?: boolean;
}
const asked = (options?: Options): DType => options?.dtype ?? 'float32';
const wholeGrad: Refusal[2] = /int32 tensors cannot require grad/;

/** A tensor of one value. */
const constants = (value: number): Row =>
  row<[shape: Shape, options?: Options]>({
    gradient: 'none',
    samples: () => [[[2, 3]], [[]], [[0, 2]], [[1000]], ...ALL.map((dtype): [Shape, Options] => [[17], { dtype }])],
    reference: (shape) => build(shape, () => value),
    result: (_, __, options) => asked(options),
    large: () => [[[100_003]]],
    refused: () => [
      [[[2, -1]], 'ArgumentError', /size 1 of the shape is -1. Expected a whole number >= 0/],
      [[3], 'ArgumentError', /the shape is 3. Expected an array of sizes/],
      [[[2 ** 20, 2 ** 20]], 'ShapeError', /size overflows/],
      [[[2], { dtype: 'float16' }], 'DTypeError', /unknown dtype "float16"/],
      [[[2], { dtype: 'int32', requiresGrad: true }], 'AutogradError', wholeGrad],
    ],
  });
const constantsLike = (value: number): Row =>
  row<[x: Nd, options?: Options]>({
    gradient: 'none',
    samples: () => [[float([2, 3])], [float([])], [float([0])], [float([3]), { dtype: 'int32' }]],
    reference: (x) => map(x, () => value),
    result: (dtype, _, options) => options?.dtype ?? dtype,
    refused: () => [[[float([2]), { dtype: 'int32', requiresGrad: true }], 'AutogradError', wholeGrad]],
  });

type Ramp = [start: number, end?: number | Options, step?: number | Options, options?: Options];
const spaced = (first: number, step: number, n: number): Nd =>
  new Nd(
    [n],
    range(n).map((i) => first + i * step),
  );
const isNumber = (value: unknown): value is number => typeof value === 'number';

export const creation = {
  zeros: constants(0),
  ones: constants(1),
  empty: constants(0),
  zerosLike: constantsLike(0),
  onesLike: constantsLike(1),
  full: row<[shape: Shape, v: number, options?: Options]>({
    gradient: 'none',
    samples: () => [
      [[2, 3], 7],
      [[], -0],
      [[0], 1],
      [[17], Number.NaN],
      [[3], 2.5, { dtype: 'float64' }],
      [[3], -7, { dtype: 'int32' }],
    ],
    reference: (shape, v) => build(shape, () => v),
    result: (_, __, ___, options) => asked(options),
    refused: () => [
      [[[2], '1'], 'ArgumentError', /value is "1". Expected a number/],
      [[[-1], 1], 'ArgumentError', /size 0 of the shape is -1/],
    ],
  }),
  fullLike: row<[x: Nd, v: number]>({
    gradient: 'none',
    samples: () => [
      [float([2, 3]), 1],
      [float([]), 1],
      [float([0]), 1],
    ],
    reference: (x, v) => map(x, () => v),
    refused: () => [[[float([2]), '1'], 'ArgumentError', /value is "1". Expected a number/]],
  }),
  eye: row<[n: number, m?: number | Options, options?: Options]>({
    gradient: 'none',
    samples: () => [[3], [2, 4], [4, 2], [0], [3, { dtype: 'int32' }], [2, 3, { dtype: 'bool' }]],
    reference: (n, m) => build([n, isNumber(m) ? m : n], (i) => Number(i[0] === i[1])),
    result: (_, __, m, options) => asked(typeof m === 'object' ? m : options),
    refused: () => [
      [[-1], 'ArgumentError', /n is -1/],
      [[2, 1.5], 'ArgumentError', /m is 1.5/],
    ],
  }),
  arange: row<Ramp>({
    gradient: 'none',
    tolerance: { ulp: 2 },
    samples: () => [
      [5],
      [0],
      [2, 9],
      [9, 2, -2],
      [0, 1, 0.25],
      [1.5],
      [5, { dtype: 'float64' }],
      [0, 5, 2, { dtype: 'float32' }],
      [0, 5, { dtype: 'uint8' }],
    ],
    reference: (start, end, step) => {
      const [first, last] = isNumber(end) ? [start, end] : [0, start];
      const by = isNumber(step) ? step : 1;
      return spaced(first, by, Math.ceil((last - first) / by));
    },
    result: (_, ...args) => {
      const options = args.find((arg) => typeof arg === 'object') as Options | undefined;
      return options?.dtype ?? (args.filter(isNumber).every(Number.isInteger) ? 'int32' : 'float32');
    },
    large: () => [[100_003], [0, 100_003, 1.5]],
    refused: () => [
      [[0, 5, 0], 'ArgumentError', /0 to 5 by 0 never ends/],
      [[0, 5, -1], 'ArgumentError', /never ends/],
      [[0, Number.POSITIVE_INFINITY], 'ArgumentError', /never ends/],
      [['5'], 'ArgumentError', /is "5". Expected a number/],
    ],
  }),
  linspace: row<[start: number, end: number, n: number, options?: Options]>({
    gradient: 'none',
    tolerance: { ulp: 3 },
    samples: () => [
      [1, 2, 5],
      [3, 1, 17],
      [0, 1, 1],
      [0, 1, 0],
      [0, 0.7, 8, { dtype: 'float64' }],
    ],
    reference: (start, end, n) => spaced(start, n > 1 ? (end - start) / (n - 1) : 0, n),
    result: (_, ...args) => asked(args[3]),
    large: () => [[0, 1, 100_003]],
    refused: () => [
      [[0, 1, -1], 'ArgumentError', /n is -1/],
      [['0', 1, 2], 'ArgumentError', /start is "0"/],
      [[0, null, 2], 'ArgumentError', /end is null/],
    ],
  }),
  tensor: row<[data: unknown, options?: Options & { shape?: Shape }]>({
    gradient: 'none',
    tolerance: EXACT,
    samples: () => [
      [3.5],
      [[1, 2.5, -3]],
      [
        [
          [1, 2],
          [3, 4],
          [5, 6],
        ],
      ],
      [[]],
      [[[], []]],
      [[true, false, true]],
      [new Float64Array([1, 0.1])],
      [new Int32Array([1, -2, 3, 4]), { shape: [2, 2] }],
      [new Uint8Array([255])],
      [[1, 2, 3], { dtype: 'float64' }],
      [[0, 2, 3], { dtype: 'bool' }],
      [[1, 300, -1], { dtype: 'uint8' }],
      [[0.1, 1e39], { dtype: 'bfloat16' }],
    ],
    reference: (data, { shape, dtype } = {}) => {
      const natural = ArrayBuffer.isView(data) ? [(data as Uint8Array).length] : sizesOf(data);
      const flat = ArrayBuffer.isView(data) ? [...(data as Uint8Array)] : [data].flat(8).map(Number);
      return new Nd(
        shape ?? natural,
        dtype === 'bool'
          ? flat.map((v) => Number(v !== 0))
          : dtype === 'uint8'
            ? flat.map((v) => Math.min(Math.max(v, 0), 255))
            : flat,
      );
    },
    result: (_, data, options) => options?.dtype ?? naturalType(data),
    refused: () => [
      [[[[1, 2], [3]]], 'ShapeError', /ragged data: dimension 1 has 2 entries in one place, 1 entries in another/],
      [[[[1, 2], 3]], 'ShapeError', /ragged data/],
      [[[1, [2]]], 'ShapeError', /ragged data/],
      [[[1, '2']], 'ArgumentError', /the data holds "2". Expected numbers/],
      [[undefined], 'ArgumentError', /the data holds undefined/],
      [[[1, 2, 3], { shape: [2, 2] }], 'ShapeError', /3 values do not fill shape \[2,2\] \(4\)/],
      [[[1], { dtype: 'int32', requiresGrad: true }], 'AutogradError', wholeGrad],
      [[[1], { dtype: 'half' }], 'DTypeError', /unknown dtype "half"/],
      [[new BigInt64Array(1)], 'ArgumentError', /BigInt64Array is not supported/],
    ],
  }),
};

const sizesOf = (data: unknown): number[] =>
  Array.isArray(data) ? [data.length, ...(data.length > 0 ? sizesOf(data[0]) : [])] : [];
function naturalType(data: unknown): DType {
  if (data instanceof Float64Array) return 'float64';
  if (data instanceof Int32Array) return 'int32';
  if (data instanceof Uint8Array) return 'uint8';
  return [data].flat(8)[0] === true ? 'bool' : 'float32';
}

// ---- from chance ------------------------------------------------------------------------------------------------------------
const N = 20_000;
const momentsAre = (mean: number, std: number) => (x: Nd) => {
  if (x.data.length < N) return;
  const average = sumOf([...x.data]) / x.data.length;
  const deviation = Math.sqrt(sumOf([...x.data].map((v) => (v - average) ** 2)) / x.data.length);
  // Five standard errors of the mean, and of the deviation of any distribution without long tails.
  assert(Math.abs(average - mean) < (5 * std) / Math.sqrt(N), `the mean is ${average}, expected ${mean}`);
  assert(Math.abs(deviation - std) < (5 * std) / Math.sqrt(N), `the deviation is ${deviation}, expected ${std}`);
};
const within =
  (low: number, high: number, step = 0) =>
  (x: Nd) =>
    assert(
      x.data.every((v) => v >= low && v < high && (step === 0 || v % step === 0)),
      `values in [${low}, ${high})`,
    );

type Drawn = [shape: Shape, options?: Options];
const drawnSamples = (): Drawn[] => [
  [[N]],
  [[3, 4]],
  [[]],
  [[0]],
  [[N], { dtype: 'float64' }],
  [[100, 300], { dtype: 'bfloat16' }],
];
const drawnRefused = (): Refusal[] => [
  [[[-1]], 'ArgumentError', /size 0 of the shape is -1/],
  [[[2], { dtype: 'int32' }], 'DTypeError', /int32 is not a floating dtype/],
  [[[2], { generator: {} }], 'ArgumentError', /generator is a Object. Expected a Generator/],
];

export const chance = {
  rand: row<Drawn>({
    gradient: 'none',
    samples: () => drawnSamples().slice(0, 5),
    reference: null,
    check: (x) => {
      within(0, 1)(x);
      momentsAre(0.5, Math.sqrt(1 / 12))(x);
    },
    result: (_, __, options) => asked(options),
    large: () => [[[100_003]]],
    refused: drawnRefused,
  }),
  randn: row<Drawn>({
    gradient: 'none',
    samples: drawnSamples,
    reference: null,
    check: momentsAre(0, 1),
    result: (_, __, options) => asked(options),
    large: () => [[[100_003]]],
    refused: drawnRefused,
  }),
  normal: row<[mean: number, std: number, shape: Shape]>({
    gradient: 'none',
    samples: () => [
      [3, 2, [N]],
      [0, 0, [3]],
    ],
    reference: null,
    check: (x, mean, std) => momentsAre(mean, std)(x),
    refused: () => [
      [[0, -1, [2]], 'ArgumentError', /std is -1/],
      [['0', 1, [2]], 'ArgumentError', /mean is "0"/],
    ],
  }),
  randint: row<[low: number, high: number, shape: Shape, options?: Options]>({
    gradient: 'none',
    samples: () => [
      [-3, 5, [N]],
      [0, 1, [7]],
      [0, 2, [N], { dtype: 'float32' }],
      [0, 256, [N], { dtype: 'uint8' }],
    ],
    reference: null,
    check: (x, low, high) => {
      within(low, high, 1)(x);
      momentsAre((low + high - 1) / 2, Math.sqrt(((high - low) ** 2 - 1) / 12))(x);
    },
    result: (_, ...args) => args[3]?.dtype ?? 'int32',
    large: () => [[0, 1000, [100_003]]],
    refused: () => [
      [[2, 2, [3]], 'ArgumentError', /\[2, 2\) is empty/],
      [[0, 1.5, [3]], 'ArgumentError', /high is 1.5/],
      [[0, 2 ** 32, [1]], 'ArgumentError', /past int32/],
    ],
  }),
  randperm: row<[n: number]>({
    gradient: 'none',
    samples: () => [[0], [1], [1000]],
    reference: null,
    check: (x, n) => {
      assert.deepEqual(
        [...x.data].sort((a, b) => a - b),
        range(n),
      );
      assert(n < 2 || x.data.some((v, i) => v !== i), 'the order is not the first');
    },
    result: () => 'int32',
    refused: () => [[[-1], 'ArgumentError', /n is -1/]],
  }),
  bernoulli: row<[p: Nd | number, shape?: Shape, options?: Options]>({
    gradient: 'none',
    methodless: true,
    dtypes: FLOATS,
    samples: () => [
      [0.3, [N]],
      [0, [9]],
      [1, [9]],
      [0.5, [N], { dtype: 'float64' }],
      [given([4], [0, 1, 0, 1])],
      [float([0])],
    ],
    reference: null,
    check: (x, p) => {
      if (typeof p !== 'number') return assert.deepEqual(x.data, p.data);
      within(0, 2, 1)(x);
      momentsAre(p, Math.sqrt(p * (1 - p)))(x);
    },
    result: (dtype, ...args) => args[2]?.dtype ?? dtype,
    large: () => [[0.3, [100_003]]],
    refused: () => [
      [[1.5, [2]], 'ArgumentError', /chance is 1.5. Expected a number in \[0, 1\]/],
      [['0', [2]], 'ArgumentError', /chance is "0"/],
    ],
  }),
};
