// Rows of convolutions and pooling.
import { at, build, largest, Nd, numel, range, type Shape, sumOf } from '../reference.ts';
import { constant, distinct, EXACT, FLOATS, float, given, index, type Refusal, type Row, row, whole } from './row.ts';

type Size = number | readonly number[];

/** One number for each spatial dimension. */
const sizes = (value: Size, n: number): readonly number[] =>
  typeof value === 'number' ? range(n).map(() => value) : value;
/** Every index into an array of this shape. */
const indices = (shape: Shape): number[][] => {
  const all: number[][] = [];
  build(shape, (i) => all.push([...i]));
  return all;
};

interface Laid {
  kernel: readonly number[];
  stride: readonly number[];
  dilation: readonly number[];
  before: readonly number[];
  after: readonly number[];
}
/** How many windows there are along each of the last dimensions. */
const counts = (x: Nd, { kernel, stride, dilation, before, after }: Laid): number[] =>
  kernel.map((size, d) => {
    const room = x.shape.at(d - kernel.length)! + before[d]! + after[d]! - dilation[d]! * (size - 1) - 1;
    return Math.floor(room / stride[d]!) + 1;
  });
/** The elements of one window in row-major order, with `border` for what lies outside x. */
function windowOf(x: Nd, lead: Shape, place: Shape, laid: Laid, border: number): number[] {
  const { kernel, stride, dilation, before } = laid;
  return indices(kernel).map((offset) => {
    const i = offset.map((o, d) => place[d]! * stride[d]! - before[d]! + o * dilation[d]!);
    return i.every((v, d) => v >= 0 && v < x.shape.at(d - kernel.length)!) ? at(x, [...lead, ...i]) : border;
  });
}

// ---- convolutions -----------------------------------------------------------------------------------------------------------
interface ConvOptions {
  stride?: Size;
  padding?: Size | 'same' | 'valid';
  dilation?: Size;
  groups?: number;
}
type Conv = [x: Nd, weight: Nd, bias?: Nd | null, options?: ConvOptions];

function layout(kernel: Shape, { stride = 1, padding = 0, dilation = 1 }: ConvOptions): Laid {
  const n = kernel.length;
  const laid = { kernel, stride: sizes(stride, n), dilation: sizes(dilation, n) };
  if (padding === 'same') {
    const all = kernel.map((size, d) => laid.dilation[d]! * (size - 1));
    return { ...laid, before: all.map((v) => Math.floor(v / 2)), after: all.map((v) => Math.ceil(v / 2)) };
  }
  const sides = sizes(padding === 'valid' ? 0 : padding, n);
  return { ...laid, before: sides, after: sides };
}

/** Each output channel: its kernel times the windows of its group's channels, all added up. */
function convolution(x: Nd, weight: Nd, bias?: Nd | null, options: ConvOptions = {}): Nd {
  const kernel = weight.shape.slice(2);
  if (x.ndim === kernel.length + 1) {
    const y = convolution(new Nd([1, ...x.shape], x.data), weight, bias, options);
    return new Nd(y.shape.slice(1), y.data);
  }
  const laid = layout(kernel, options);
  const [out, inputs] = weight.shape as [number, number];
  const perGroup = out / (options.groups ?? 1);
  return build([x.shape[0]!, out, ...counts(x, laid)], ([example, channel, ...place]) => {
    const first = Math.floor(channel! / perGroup) * inputs;
    const products = range(inputs).flatMap((c) => {
      const weights = indices(kernel).map((i) => at(weight, [channel!, c, ...i]));
      return windowOf(x, [example!, first + c], place, laid, 0).map((value, i) => value * weights[i]!);
    });
    return sumOf([...products, bias?.data[channel!] ?? 0]);
  });
}

function convolutionRow(samples: () => Conv[], large: () => Conv[], refused: () => Refusal[]): Row {
  return row<Conv>({
    samples,
    reference: convolution,
    tolerance: { terms: (_, weight) => numel(weight.shape.slice(1)) + 1 },
    dtypes: FLOATS,
    large,
    refused,
  });
}

export const convolutions = {
  conv1d: convolutionRow(
    () => [
      [float([2, 3, 7]), float([4, 3, 3])],
      [whole([2, 4, 11]), whole([6, 4, 3]), whole([6]), { stride: 2, padding: 1 }],
      [float([3, 7]), float([2, 3, 2]), float([2])],
      [float([2, 4, 9]), float([6, 2, 3]), float([6]), { groups: 2, dilation: 2, padding: [2] }],
      [float([1, 2, 6]), float([2, 2, 4]), null, { padding: 'same' }],
      [float([1, 2, 6]), float([2, 2, 2]), null, { padding: 'valid', stride: [3] }],
      [float([0, 2, 6]), float([3, 2, 3]), float([3])],
      [whole([2, 0, 5]), whole([3, 0, 2]), whole([3])],
      [float([2, 1, 1]), float([2, 1, 1]), float([2])],
    ],
    () => [[float([4, 16, 500]), float([32, 16, 5]), float([32]), { padding: 2 }]],
    () => [
      [[float([3]), float([4, 3, 3])], 'ShapeError', /input has shape \[3\]. Expected \[batch, channels, length\]/],
      [[float([2, 3, 7]), float([4, 3])], 'ShapeError', /weight has shape \[4,3\]. Expected \[out, in \/ groups/],
      [
        [float([2, 3, 7]), float([4, 3, 3]), null, { stride: [1, 1] }],
        'ArgumentError',
        /stride is a list of 2.*each of 1/,
      ],
    ],
  ),
  conv2d: convolutionRow(
    () => [
      [float([2, 3, 5, 6]), float([4, 3, 3, 2]), float([4])],
      [whole([2, 2, 6, 5]), whole([3, 2, 3, 3]), null, { stride: [2, 1], padding: [1, 0] }],
      [float([2, 4, 5, 6]), float([6, 2, 2, 3]), float([6]), { groups: 2, padding: 1, stride: 2 }],
      [float([1, 3, 6, 7]), float([3, 1, 3, 2]), null, { groups: 3, dilation: [1, 2], padding: [2, 1] }],
      [float([3, 4, 5]), float([2, 3, 2, 2]), float([2])],
      [float([1, 2, 5, 4]), float([2, 2, 4, 3]), float([2]), { padding: 'same', dilation: [1, 2] }],
      [float([2, 3, 4, 4]), float([5, 3, 1, 1]), float([5]), { padding: 'valid' }],
      [float([1, 1, 4, 4]), float([1, 1, 1, 1]), null, { stride: 3, padding: 1 }],
      [float([0, 2, 4, 4]), float([3, 2, 3, 3]), float([3])],
      [float([2, 2, 4, 4]), float([0, 2, 3, 3]), float([0])],
    ],
    () => [
      [float([4, 8, 30, 30]), float([16, 8, 3, 3]), float([16]), { padding: 1 }],
      [float([2, 32, 20, 20]), float([64, 8, 3, 3]), null, { groups: 4 }],
    ],
    () => [
      [
        [float([2, 3, 5, 5]), float([4, 2, 3, 3])],
        'ShapeError',
        /input has 3 channels, a weight of \[4,2,3,3\] in 1 groups takes 2/,
      ],
      [
        [float([2, 4, 5, 5]), float([3, 2, 3, 3]), null, { groups: 2 }],
        'ShapeError',
        /3 output channels do not fall into 2 equal groups/,
      ],
      [[float([2, 3, 5, 5]), float([4, 3, 3, 3]), float([3])], 'ShapeError', /bias has shape \[3\]. Expected \[4\]/],
      [
        [float([5, 5]), float([4, 3, 3, 3])],
        'ShapeError',
        /input has shape \[5,5\]. Expected \[batch, channels, height, width\]/,
      ],
      [[float([1, 3, 5, 5]), float([4, 3, 0, 3])], 'ShapeError', /weight has shape \[4,3,0,3\].*kernel >= 1/],
      [
        [float([1, 3, 5, 4]), float([4, 3, 3, 3]), null, { dilation: 2 }],
        'ShapeError',
        /kernel of \[3,3\] spans \[5,5\] elements and does not fit into \[5,4\]/,
      ],
      [
        [float([1, 3, 5, 5]), float([4, 3, 3, 3]), null, { stride: 0 }],
        'ArgumentError',
        /stride is 0. Expected .* >= 1/,
      ],
      [[float([1, 3, 5, 5]), float([4, 3, 3, 3]), null, { dilation: [1, 0] }], 'ArgumentError', /dilation is 0/],
      [
        [float([1, 3, 5, 5]), float([4, 3, 3, 3]), null, { padding: -1 }],
        'ArgumentError',
        /padding is -1. Expected .* >= 0/,
      ],
      [
        [float([1, 3, 5, 5]), float([4, 3, 3, 3]), null, { padding: 'full' }],
        'ArgumentError',
        /padding is "full".*'same' or 'valid'/,
      ],
      [
        [float([1, 3, 5, 5]), float([4, 3, 3, 3]), null, { padding: 'same', stride: 2 }],
        'ArgumentError',
        /padding 'same' with stride \[2,2\]/,
      ],
      [[float([1, 3, 5, 5]), float([4, 3, 3, 3]), null, { groups: 0 }], 'ArgumentError', /groups is 0/],
      [[float([1, 3, 5, 5]), float([4, 3, 3, 3]), null, { strides: 2 }], 'ArgumentError', /unknown option "strides"/],
    ],
  ),
};

// ---- pooling ----------------------------------------------------------------------------------------------------------------
interface PoolOptions {
  stride?: Size;
  padding?: Size;
  dilation?: Size;
}
type Pool = [x: Nd, size: Size, options?: PoolOptions];

function pooled(x: Nd, size: Size, options: PoolOptions, border: number, f: (values: number[]) => number): Nd {
  const kernel = sizes(size, 2);
  const laid = layout(kernel, { ...options, stride: options.stride ?? kernel });
  return build([...x.shape.slice(0, -2), ...counts(x, laid)], (i) =>
    f(windowOf(x, i.slice(0, -2), i.slice(-2), laid, border)),
  );
}

const poolRefused = (): Refusal[] => [
  [[float([4, 4]), 2], 'ShapeError', /input has shape \[4,4\]. Expected \[batch, channels, height, width\]/],
  [
    [float([1, 2, 3, 4]), [4, 2]],
    'ShapeError',
    /kernel of \[4,2\] spans \[4,2\] elements and does not fit into \[3,4\]/,
  ],
  [[float([1, 2, 4, 4]), 0], 'ArgumentError', /size is 0. Expected .* >= 1/],
  [[float([1, 2, 4, 4]), [2]], 'ArgumentError', /size is a list of 1.*each of 2/],
  [[float([1, 2, 4, 4])], 'ArgumentError', /size is undefined/],
  [[float([1, 2, 4, 4]), 2, { stride: 0 }], 'ArgumentError', /stride is 0/],
  [[float([1, 2, 4, 4]), 3, { padding: 2 }], 'ArgumentError', /padding \[2,2\] is more than half of the size \[3,3\]/],
  [[float([1, 2, 4, 4]), 2, { ceilMode: true }], 'ArgumentError', /unknown option "ceilMode"/],
  [[index([1, 2, 4, 4], 3), 2], 'DTypeError', /int32/],
];
const { NaN: nan, NEGATIVE_INFINITY: lowest } = Number;

export const pools = {
  maxPool2d: row<Pool>({
    samples: () => [
      [distinct([2, 3, 4, 6]), 2],
      [distinct([1, 2, 5, 7]), [3, 2], { stride: [1, 2], padding: [1, 1] }],
      [distinct([2, 7, 6]), 3, { stride: 2, padding: 1, dilation: [2, 1] }],
      [distinct([3, 1, 1, 1]), 1],
      [distinct([1, 1, 2, 3]), [2, 3], { padding: [1, 1], stride: 1 }],
      [constant(given([1, 2, 4], [1, nan, 3, 4, 2, 5, lowest, -1])), 2],
      [constant(given([1, 2, 2], [lowest, lowest, lowest, lowest])), 2, { padding: 1, stride: 1 }],
      [float([0, 2, 4, 4]), 2],
    ],
    reference: (x, size, options = {}) => pooled(x, size, options, lowest, largest),
    tolerance: EXACT,
    dtypes: FLOATS,
    batched: true,
    // The first maximum, the first NaN; never a border, though it equals -Infinity.
    gradients: () => [
      [[given([1, 2, 2], [1, 1, 1, 1]), 2], given([1, 2, 2], [1, 0, 0, 0])],
      [[given([1, 2, 2], [0, 2, 2, 1]), 2], given([1, 2, 2], [0, 1, 0, 0])],
      [[given([1, 2, 2], [3, nan, nan, 4]), 2], given([1, 2, 2], [0, 1, 0, 0])],
      [[given([1, 2, 2], [lowest, lowest, lowest, lowest]), 3, { padding: 1 }], given([1, 2, 2], [1, 0, 0, 0])],
      [
        [given([1, 1, 3], [lowest, lowest, lowest]), [1, 3], { padding: [0, 1], stride: 1 }],
        given([1, 1, 3], [2, 1, 0]),
      ],
      [
        [given([1, 1, 4], [lowest, lowest, lowest, lowest]), [1, 3], { padding: [0, 1], stride: 1, dilation: [1, 2] }],
        given([1, 1, 4], [1, 1, 0, 0]),
      ],
    ],
    large: () => [[float([8, 16, 64, 64]), 3, { stride: 2, padding: 1 }]],
    refused: () => [
      ...poolRefused(),
      [
        [float([1, 1, 1, 5]), 2, { padding: 1, dilation: 2 }],
        'ShapeError',
        /window of \[2,2\] with dilation \[2,2\] meets only padding/,
      ],
    ],
  }),
  avgPool2d: row<Pool>({
    samples: () => [
      [float([2, 3, 4, 6]), 2],
      [float([1, 2, 5, 7]), [3, 2], { stride: [1, 2], padding: [1, 1] }],
      [float([2, 7, 6]), 3, { stride: 2, padding: 1 }],
      [float([3, 1, 1, 1]), 1],
      [float([1, 1, 2, 3]), [2, 3], { padding: [1, 1], stride: 1 }],
      [float([2, 5, 5]), [2, 1], { stride: 4 }],
      [float([0, 2, 4, 4]), 2],
    ],
    reference: (x, size, options = {}) => pooled(x, size, options, 0, (values) => sumOf(values) / values.length),
    tolerance: { terms: (_, size) => numel(sizes(size, 2)) + 1 },
    dtypes: FLOATS,
    batched: true,
    large: () => [[float([8, 16, 64, 64]), 3, { stride: 2, padding: 1 }]],
    refused: () => [
      ...poolRefused(),
      [[float([1, 2, 4, 4]), 2, { dilation: 2 }], 'ArgumentError', /unknown option "dilation"/],
    ],
  }),
};
