// Rows of views: other shapes and strides on the same elements, all exact; and what rows of moved elements share.
import { at, build, dimsOf, Nd, numel, permute, range, replaced, type Shape, transpose } from '../reference.ts';
import { ALL, EXACT, float, type Refusal, type Row, row } from './row.ts';

export const moved = <A extends readonly unknown[]>(spec: Omit<Row<A>, 'tolerance'>): Row =>
  row<A>({ tolerance: EXACT, dtypes: ALL, ...spec });
export const modulo = (i: number, n: number): number => ((i % n) + n) % n;
export const dimOf = (dim: number, ndim: number): number => (dim < 0 ? dim + Math.max(ndim, 1) : dim);

export const outside = (dim: number, x = float([2, 3])): Refusal => [
  [x, dim],
  'IndexError',
  new RegExp(`dim ${dim} is outside`),
];
const noParts = (...rest: unknown[]): Refusal => [
  [float([]), ...rest],
  'ShapeError',
  /without dimensions has no parts/,
];

// ---- shape ------------------------------------------------------------------------------------------------------------------
function reshaped(x: Nd, shape: Shape): Nd {
  const known = numel(shape.filter((size) => size !== -1));
  return new Nd(
    shape.map((size) => (size === -1 ? x.data.length / known : size)),
    x.data,
    x.kind,
  );
}
type Reshape = [x: Nd, shape: Shape];
const reshapeSamples = (): Reshape[] => [
  [float([2, 6]), [3, 4]],
  [float([2, 3, 4]), [6, -1]],
  [float([]), [1, 1]],
  [float([1]), []],
  [float([0, 3]), [3, 0]],
  [float([0, 3]), [-1, 3]],
  [float([6]), [1, 6, 1]],
];
const reshapeRefused = (): Refusal[] => [
  [[float([2, 3]), [4]], 'ShapeError', /\[2,3\] has 6 elements and cannot take shape \[4\]/],
  [[float([2, 3]), [-1, -1]], 'ShapeError', /more than one -1/],
  [[float([2, 3]), [-1, 4]], 'ShapeError', /cannot take shape/],
  [[float([0]), [0, -1]], 'ShapeError', /could be any size/],
  [[float([2]), [-2]], 'ArgumentError', /size 0 of the shape is -2/],
  [[float([2]), [1.5]], 'ArgumentError', /is 1.5/],
  [[float([2]), 2], 'ArgumentError', /the shape is 2. Expected an array/],
  [[float([2]), [1, 1, 1, 1, 1, 1, 1, 1, 2]], 'ShapeError', /9 dimensions. At most 8/],
];

export const shapes = {
  reshape: moved<Reshape>({ samples: reshapeSamples, reference: reshaped, refused: reshapeRefused }),
  view: moved<Reshape>({ samples: reshapeSamples, reference: reshaped, refused: reshapeRefused }),
  flatten: moved<[x: Nd, start?: number, end?: number]>({
    samples: () => [[float([2, 3, 4])], [float([2, 3, 4]), 1], [float([2, 3, 4]), 0, -2], [float([])], [float([2, 0])]],
    reference: (x, start = 0, end = -1) => {
      const last = dimOf(end, x.ndim);
      return reshaped(x, [
        ...x.shape.slice(0, start),
        numel(x.shape.slice(start, last + 1)),
        ...x.shape.slice(last + 1),
      ]);
    },
    refused: () => [outside(2), [[float([2, 3]), 1, 0], 'ArgumentError', /start dim 1 comes after end dim 0/]],
  }),
  squeeze: moved<[x: Nd, dim?: number | readonly number[]]>({
    samples: () => [
      [float([1, 3, 1])],
      [float([1, 3, 1]), -1],
      [float([1, 3]), 1],
      [float([1, 1, 2]), [0, 1]],
      [float([])],
      [float([1, 0])],
    ],
    reference: (x, dim) => {
      const named = dimsOf(dim, x.ndim);
      return reshaped(
        x,
        x.shape.filter((size, d) => size !== 1 || !named.includes(d)),
      );
    },
    refused: () => [outside(-3)],
  }),
  unsqueeze: moved<[x: Nd, dim: number]>({
    samples: () => [
      [float([2, 3]), 0],
      [float([2, 3]), 1],
      [float([2, 3]), -1],
      [float([]), 0],
      [float([0]), 1],
    ],
    reference: (x, dim) => reshaped(x, x.shape.toSpliced(dim < 0 ? dim + x.ndim + 1 : dim, 0, 1)),
    refused: () => [outside(3), outside(-4)],
  }),
  permute: moved<[x: Nd, dims: Shape]>({
    samples: () => [
      [float([2, 3, 4]), [2, 0, 1]],
      [float([2, 3]), [-1, 0]],
      [float([]), []],
      [float([0, 2]), [1, 0]],
    ],
    reference: (x, dims) => permute(x, dimsOf(dims, x.ndim)),
    refused: () => [
      [[float([2, 3]), [0]], 'ArgumentError', /2 dimensions need as many dims/],
      [[float([2, 3]), [0, 0]], 'ArgumentError', /name a dimension twice/],
      [[float([2, 3]), [0, 2]], 'IndexError', /dim 2 is outside/],
    ],
  }),
  transpose: moved<[x: Nd, d0: number, d1: number]>({
    samples: () => [
      [float([2, 3]), 0, 1],
      [float([2, 3, 4]), -1, 0],
      [float([5]), 0, 0],
      [float([]), 0, -1],
      [float([0, 2]), 0, 1],
    ],
    reference: transpose,
    refused: () => [
      [[float([2, 3]), 0, 2], 'IndexError', /dim 2 is outside/],
      [[float([2]), 0], 'ArgumentError', /dim is undefined/],
    ],
  }),
  expand: moved<[x: Nd, shape: Shape]>({
    samples: () => [
      [float([3, 1]), [3, 4]],
      [float([3]), [2, 3]],
      [float([1, 3, 1]), [2, -1, 5]],
      [float([]), [2, 2]],
      [float([1]), [0]],
      [float([0, 1]), [0, 3]],
      [float([2, 3]), [2, 3]],
    ],
    reference: (x, shape) => {
      const sizes = shape.map((size, d) => (size === -1 ? x.shape[d - shape.length + x.ndim]! : size));
      return build(sizes, (i) => at(x, i), x.kind);
    },
    refused: () => [
      [[float([2, 3]), [4, 3]], 'ShapeError', /\[2,3\] does not expand to \[4,3\]/],
      [[float([2, 3]), [3]], 'ShapeError', /does not expand/],
      [[float([3]), [-1, 3]], 'ShapeError', /does not expand/],
    ],
  }),
  detach: moved<[x: Nd]>({
    gradient: 'none',
    samples: () => [[float([3, 4])], [float([])], [float([0])]],
    reference: (x) => x,
  }),
};

// ---- parts ------------------------------------------------------------------------------------------------------------------
/** `length` elements of one dimension: the i-th stands at start + i * step. */
const part = (x: Nd, dim: number, start: number, length: number, step = 1): Nd => {
  const d = dimOf(dim, x.ndim);
  return build(replaced(x.shape, d, length), (i) => at(x, i.with(d, start + i[d]! * step)), x.kind);
};
const pieces = (x: Nd, sizes: Shape, dim: number): Nd[] => {
  let start = 0;
  return sizes.map((size) => part(x, dim, (start += size) - size, size));
};
const equalSizes = (total: number, size: number): number[] =>
  range(Math.max(1, Math.ceil(total / size))).map((i) => Math.min(size, total - i * size));

export const parts = {
  narrow: moved<[x: Nd, dim: number, start: number, length: number]>({
    samples: () => [
      [float([5, 3]), 0, 1, 3],
      [float([3, 5]), -1, -2, 2],
      [float([4]), 0, 4, 0],
      [float([0, 2]), 0, 0, 0],
    ],
    reference: (x, dim, start, length) =>
      part(x, dim, modulo(start, x.shape.at(dim)! + 1) + (start < 0 ? -1 : 0), length),
    refused: () => [
      noParts(0, 0, 1),
      outside(2),
      [[float([3]), 0, 2, 2], 'IndexError', /start 2, length 2 reach outside dimension 0 of size 3/],
      [[float([3]), 0, -4, 1], 'IndexError', /start -4/],
      [[float([3]), 0, 0, -1], 'ArgumentError', /length is -1/],
      [[float([3]), 0, 0.5, 1], 'ArgumentError', /start is 0.5/],
    ],
  }),
  slice: moved<[x: Nd, dim: number, start?: number, end?: number, step?: number]>({
    samples: () => [
      [float([5, 3]), 0],
      [float([5, 3]), 0, 1, 4],
      [float([3, 7]), 1, 1, 7, 2],
      [float([7]), -1, -4, -1],
      [float([7]), 0, -100, 100, 3],
      [float([7]), 0, 5, 2],
      [float([0]), 0, 0, 3],
    ],
    reference: (x, dim, start, end, step = 1) => {
      const chosen = range(x.shape.at(dim)!)
        .slice(start, end)
        .filter((_, i) => i % step === 0);
      return part(x, dim, chosen[0] ?? 0, chosen.length, step);
    },
    refused: () => [
      noParts(0),
      outside(2),
      [[float([3]), 0, 0, 3, 0], 'ArgumentError', /step is 0. Expected a whole number >= 1/],
    ],
  }),
  select: moved<[x: Nd, dim: number, i: number]>({
    samples: () => [
      [float([5, 3]), 0, 2],
      [float([2, 5, 3]), 1, -1],
      [float([4]), 0, 3],
      [float([0, 2]), 1, 1],
    ],
    reference: (x, dim, i) => {
      const d = dimOf(dim, x.ndim);
      return new Nd(x.shape.toSpliced(d, 1), part(x, dim, modulo(i, x.shape[d]!), 1).data);
    },
    refused: () => [
      noParts(0, 0),
      outside(2),
      [[float([3]), 0, 3], 'IndexError', /index 3 is outside \[-3, 2\] of dimension 0/],
    ],
  }),
  split: moved<[x: Nd, size: number | Shape, dim?: number]>({
    samples: () => [
      [float([5, 3]), 2],
      [float([2, 6]), 3, 1],
      [float([5, 2]), [1, 0, 4]],
      [float([0, 2]), 3],
    ],
    reference: (x, size, dim = 0) =>
      pieces(x, typeof size === 'number' ? equalSizes(x.shape.at(dim)!, size) : size, dim),
    refused: () => [
      noParts(1),
      [[float([3]), 0], 'ArgumentError', /size is 0/],
      [[float([3]), [1, 1]], 'ShapeError', /sizes \[1,1\] add up to 2, dimension 0 is 3/],
      [[float([3]), 1, 1], 'IndexError', /dim 1 is outside/],
    ],
  }),
  chunk: moved<[x: Nd, n: number, dim?: number]>({
    samples: () => [
      [float([5, 3]), 2],
      [float([2, 6]), 3, -1],
      [float([2]), 5],
      [float([0, 2]), 3],
    ],
    reference: (x, n, dim = 0) => {
      const total = x.shape.at(dim)!;
      return pieces(x, total === 0 ? range(n).map(() => 0) : equalSizes(total, Math.ceil(total / n)), dim);
    },
    refused: () => [
      noParts(1),
      [[float([3]), 0], 'ArgumentError', /n is 0/],
      [[float([3]), 1, 1], 'IndexError', /dim 1 is outside/],
    ],
  }),
  diagonal: moved<[x: Nd, offset?: number, dim1?: number, dim2?: number]>({
    samples: () => [
      [float([4, 4])],
      [float([3, 5]), 2],
      [float([5, 3]), -1],
      [float([2, 3, 4]), 0, 1, 2],
      [float([2, 3, 4]), 1, -1, 0],
      [float([3, 3]), 9],
      [float([0, 3])],
    ],
    reference: (x, offset = 0, dim1 = 0, dim2 = 1) => {
      const [a, b] = [dimOf(dim1, x.ndim), dimOf(dim2, x.ndim)];
      const others = range(x.ndim).filter((d) => d !== a && d !== b);
      const length = Math.max(0, Math.min(x.shape[a]! + Math.min(offset, 0), x.shape[b]! - Math.max(offset, 0)));
      return build([...others.map((d) => x.shape[d]!), length], (i) => {
        const from = range(x.ndim).map((d) => i[others.indexOf(d)]!);
        return at(x, from.with(a, i.at(-1)! - Math.min(offset, 0)).with(b, i.at(-1)! + Math.max(offset, 0)));
      });
    },
    refused: () => [
      [[float([3])], 'ShapeError', /\[3\] has fewer than two dimensions/],
      [[float([3, 3]), 0, 1, -1], 'ArgumentError', /dim1 and dim2 are both 1/],
      [[float([3, 3]), 0, 0, 2], 'IndexError', /dim 2 is outside/],
    ],
  }),
};
