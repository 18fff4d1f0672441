// Rows of sorting. Ties stand in order of their places, and are constant where gradients come from differences.
import { build, type Nd, range, replaced } from '../reference.ts';
import { ALL, constant, distinct, float, given, type Refusal, type Row, row, whole } from './row.ts';
import { dimOf } from './shape.ts';

/** The first `count` along dim, and where they stood. */
function orderedOf(x: Nd, dim: number, count: number | undefined, descending: boolean): Nd[] {
  const d = dimOf(dim, x.ndim);
  const n = x.shape[d] ?? 1;
  const kept = x.ndim === 0 ? [] : replaced(x.shape, d, count ?? n);
  const inner = x.shape.slice(d + 1).reduce((a, b) => a * b, 1);
  const compare = (a: number, b: number): number =>
    Number.isNaN(a) || Number.isNaN(b) ? Number(Number.isNaN(a)) - Number(Number.isNaN(b)) : a - b;
  const cache = new Map<number, number[]>();
  const placesOf = (start: number): number[] => {
    const value = (i: number): number => x.data[start + i * inner]!;
    const places = range(n).sort((i, j) => (descending ? -1 : 1) * compare(value(i), value(j)));
    cache.set(start, places);
    return places;
  };
  const place = (index: readonly number[]): [start: number, place: number] => {
    const start = index.reduce((at, i, k) => at * x.shape[k]! + (k === d ? 0 : i), 0);
    return [start, (cache.get(start) ?? placesOf(start))[index[d] ?? 0]!];
  };
  const values = build(kept, (index) => {
    const [start, i] = place(index);
    return x.data[start + i * inner]!;
  });
  return [values, build(kept, (index) => place(index)[1], 'int32')];
}

const special = (): Nd =>
  constant(given([2, 6], [Number.NaN, 1, Infinity, -Infinity, -0, 0, 0, -0, 3, Number.NaN, -Number.NaN, -3]));
const dimRefused = (...rest: unknown[]): Refusal => [
  [float([3, 2]), ...rest, 2],
  'IndexError',
  /dim 2 is outside \[-2, 1\]/,
];

export const sorting: Record<string, Row> = {
  sort: row<[x: Nd, dim?: number, options?: { descending?: boolean }]>({
    dtypes: ALL,
    batched: true,
    samples: () => [
      [distinct([17])],
      [distinct([3, 5]), 1],
      [distinct([3, 5]), 0, { descending: true }],
      [distinct([2, 33, 3]), -2],
      [distinct([4, 65]), -1, { descending: true }],
      [distinct([])],
      [distinct([1]), 0],
      [constant(whole([4, 60])), 1],
      [constant(whole([60, 4])), 0, { descending: true }],
      [special()],
      [special(), 1, { descending: true }],
      [float([0])],
      [float([2, 0]), 1],
      [float([0, 3]), 1],
    ],
    reference: (x, dim = -1, { descending = false } = {}) => orderedOf(x, dim, undefined, descending),
    gradients: () => [[[given([3], [2, 2, 1])], given([3], [1, 1, 1])]],
    large: () => [[float([300, 701]), 1], [constant(whole([701, 300])), 0, { descending: true }], [float([150_001])]],
    refused: () => [
      dimRefused(),
      [[float([3]), 0, { descending: 1 }], 'ArgumentError', /descending is 1. Expected true or false/],
      [[float([3]), 0, { ascending: true }], 'ArgumentError', /unknown option "ascending"/],
      [[float([3]), 0.5], 'ArgumentError', /dim is 0.5/],
    ],
  }),
  topk: row<[x: Nd, k: number, dim?: number, options?: { largest?: boolean }]>({
    dtypes: ALL,
    samples: () => [
      [distinct([17]), 3],
      [distinct([3, 5]), 5, 1],
      [distinct([3, 5]), 2, 0, { largest: false }],
      [distinct([2, 33, 3]), 4, -2],
      [distinct([]), 1],
      [constant(whole([4, 60])), 7],
      [constant(float([2, 3000], [0, 1])), 40],
      [special(), 4],
      [special(), 4, -1, { largest: false }],
      [float([4]), 0],
      [float([0]), 0],
      [float([0, 3]), 2],
    ],
    reference: (x, k, dim = -1, { largest = true } = {}) => orderedOf(x, dim, k, largest),
    gradients: () => [
      [[given([4], [1, 2, 2, 0]), 1], given([4], [0, 1, 0, 0])],
      [[given([4], [1, 2, 2, 0]), 2, 0, { largest: false }], given([4], [1, 0, 0, 1])],
    ],
    large: () => [[float([40, 7001]), 50]],
    refused: () => [
      dimRefused(1),
      [[float([3]), 4], 'ArgumentError', /k is 4, dimension 0 has 3 elements/],
      [[float([3]), -1], 'ArgumentError', /k is -1. Expected a whole number >= 0/],
      [[float([]), 0], 'ArgumentError', /k is 0. Expected a whole number >= 1/],
      [[float([3]), 1, 0, { largest: 'yes' }], 'ArgumentError', /largest is "yes"/],
    ],
  }),
};
