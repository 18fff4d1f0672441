// Rows of reading and adding by index. Indices are int32 in every test.
import { at, build, Nd, replaced } from '../reference.ts';
import { ALL, constant, EXACT, float, given, index, type Refusal, row, whole } from './row.ts';

const dimOf = (dim: number, x: Nd): number => (dim < 0 ? dim + Math.max(x.ndim, 1) : dim);
const by = (...values: number[]): Nd => given([values.length], values, 'int32');
const outOfRange = (i: number, rows: number): ['IndexError', RegExp] => [
  'IndexError',
  new RegExp(`index ${i} at position \\d+ is outside \\[0, ${rows - 1}\\]`),
];
const notInt32 = (): ['DTypeError', RegExp] => ['DTypeError', /the index is float.*Indices are int32/];

type Indexed = [x: Nd, dim: number, index: Nd];
const EMPTY_ROWS = (): Nd => given([0], [], 'int32');

const gatherRefused = (): Refusal[] => [
  [[float([3, 2]), 0, given([1, 2], [0, 3], 'int32')], ...outOfRange(3, 3)],
  [[float([3, 2]), 0, given([1, 2], [-1, 0], 'int32')], ...outOfRange(-1, 3)],
  [[float([3, 2]), 0, by(0)], 'ShapeError', /\[3,2\] and index \[1\] differ in their number of dimensions/],
  [
    [float([3, 2]), 0, given([1, 3], [0, 0, 0], 'int32')],
    'ShapeError',
    /index \[1,3\] is larger than \[3,2\] in dimension 1/,
  ],
  [[float([3, 2]), 2, given([1, 2], [0, 0], 'int32')], 'IndexError', /dim 2 is outside/],
  [[float([3]), 0, constant(float([3]))], ...notInt32()],
];

export const indexing = {
  indexSelect: row<Indexed>({
    tolerance: EXACT,
    dtypes: ALL,
    samples: () => [
      [float([5, 3]), 0, by(4, 0, 0)],
      [float([3, 5]), -1, by(1, 3)],
      [float([2, 5, 3]), 1, index([7], 5)],
      [float([4]), 0, EMPTY_ROWS()],
      [float([4]), 0, given([], [2], 'int32')],
      [float([3, 0]), 0, by(1, 1)],
    ],
    reference: (x, dim, rows) => {
      const d = dimOf(dim, x);
      return build(replaced(x.shape, d, rows.data.length), (i) => at(x, i.with(d, rows.data[i[d]!]!)));
    },
    large: () => [[float([500, 211]), 0, index([700], 500)]],
    refused: () => [
      [[float([3, 2]), 0, by(3)], ...outOfRange(3, 3)],
      [[float([3, 2]), 1, by(0, -1)], ...outOfRange(-1, 2)],
      [[float([3]), 0, given([1, 1], [0], 'int32')], 'ShapeError', /index \[1,1\]. Expected an index of one dimension/],
      [[float([3]), 0, constant(float([3]))], ...notInt32()],
      [[float([3]), 1, by(0)], 'IndexError', /dim 1 is outside/],
    ],
  }),
  embedding: row<[idx: Nd, weight: Nd]>({
    tolerance: EXACT,
    dtypes: ALL,
    samples: () => [
      [by(3, 1, 3), float([5, 2])],
      [index([2, 3], 5), float([5, 17])],
      [given([], [2], 'int32'), float([3, 4])],
      [EMPTY_ROWS(), float([3, 4])],
    ],
    reference: (idx, weight) =>
      build([...idx.shape, weight.shape[1]!], (i) => at(weight, [at(idx, i.slice(0, -1)), i.at(-1)!])),
    large: () => [[index([40, 50], 300), float([300, 64])]],
    refused: () => [
      [[by(5), float([5, 2])], ...outOfRange(5, 5)],
      [[by(0, -1), float([5, 2])], ...outOfRange(-1, 5)],
      [[by(0), float([5])], 'ShapeError', /weight has shape \[5\]. Expected \[n, dim\]/],
      [[constant(float([1])), float([5, 2])], ...notInt32()],
    ],
  }),
  gather: row<Indexed>({
    tolerance: EXACT,
    dtypes: ALL,
    samples: () => [
      [float([5, 3]), 0, index([2, 3], 5)],
      [float([3, 5]), -1, index([3, 9], 5)],
      [float([3, 5]), 1, index([2, 4], 5)],
      [float([2, 3, 4]), 1, index([1, 5, 2], 3)],
      [float([4]), 0, EMPTY_ROWS()],
      [float([]), 0, given([], [0], 'int32')],
    ],
    reference: (x, dim, positions) =>
      build(positions.shape, (i) => (x.ndim === 0 ? x.data[0]! : at(x, i.with(dimOf(dim, x), at(positions, i))))),
    large: () => [[float([500, 211]), 1, index([500, 300], 211)]],
    refused: gatherRefused,
  }),
  scatterAdd: row<[x: Nd, dim: number, index: Nd, src: Nd]>({
    tolerance: { terms: (_, __, positions) => positions.data.length + 1 },
    dtypes: ALL,
    samples: () => [
      [float([5, 3]), 0, index([2, 3], 5), float([2, 3])],
      [whole([3, 5]), -1, index([3, 9], 5), whole([3, 9])],
      [whole([3, 5]), 1, index([2, 4], 5), whole([3, 6])],
      [whole([2, 3, 4]), 1, index([1, 5, 2], 3), whole([1, 5, 2])],
      [float([4]), 0, EMPTY_ROWS(), float([0])],
      [float([]), 0, given([], [0], 'int32'), float([])],
    ],
    reference: (x, dim, positions, src) => {
      const out = new Nd(x.shape, x.data);
      const d = dimOf(dim, x);
      build(positions.shape, (i) => {
        const to = x.ndim === 0 ? [] : i.with(d, at(positions, i));
        out.data[to.reduce((offset, n, k) => offset * x.shape[k]! + n, 0)]! += at(src, i);
        return 0;
      });
      return out;
    },
    large: () => [
      [float([500, 211]), 1, index([500, 300], 211), float([500, 300])],
      [float([50, 211]), 0, index([3000, 211], 50), float([3000, 211])],
    ],
    refused: () => [
      ...gatherRefused()
        .slice(0, 5)
        .map(
          ([[x, dim, positions], ...rest]): Refusal => [[x, dim, positions, float((positions as Nd).shape)], ...rest],
        ),
      [[float([3]), 0, by(0, 1), float([1])], 'ShapeError', /index \[2\] is larger than \[1\]/],
      [[float([3]), 0, constant(float([3])), float([3])], ...notInt32()],
    ],
  }),
  oneHot: row<[idx: Nd, n: number]>({
    samples: () => [
      [by(0, 2, 1), 3],
      [index([2, 5], 7), 7],
      [given([], [1], 'int32'), 2],
      [EMPTY_ROWS(), 3],
    ],
    reference: (idx, n) => build([...idx.shape, n], (i) => Number(at(idx, i.slice(0, -1)) === i.at(-1)), 'int32'),
    gradient: 'none',
    large: () => [[index([2000], 101), 101]],
    refused: () => [
      [[by(3), 3], ...outOfRange(3, 3)],
      [[by(0, -1), 3], ...outOfRange(-1, 3)],
      [[by(0), 0], 'ArgumentError', /n is 0/],
      [[constant(float([2])), 3], ...notInt32()],
    ],
  }),
};
