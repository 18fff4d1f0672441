// Rows of the comparisons of whole tensors, which answer true or false.
import { build, type Nd, zip } from '../reference.ts';
import { constant, float, given, type Row, row, whole } from './row.ts';

const { POSITIVE_INFINITY: HIGH, NaN: NAN } = Number;
const truth = (holds: boolean): Nd => build([], () => Number(holds), 'bool');
const one = (value: number): Nd => given([1], [value]);

interface Options {
  rtol?: number;
  atol?: number;
  equalNan?: boolean;
}
type Comparison = [a: Nd, b: Nd, options?: Options];

function close(a: number, b: number, { rtol = 1e-5, atol = 1e-8, equalNan = false }: Options): boolean {
  if (a === b || (equalNan && Number.isNaN(a) && Number.isNaN(b))) return true;
  return Number.isFinite(b) && Math.abs(a - b) <= atol + rtol * Math.abs(b);
}
const twice = (make: () => Nd): [Nd, Nd] => {
  const x = make();
  return [x, x];
};
const special = (): [Nd, Nd][] =>
  [HIGH, -HIGH, NAN, 1].flatMap((a) => [HIGH, NAN, 0].map((b): [Nd, Nd] => [constant(one(a)), constant(one(b))]));

export const wholeComparisons: Record<string, Row> = {
  equal: row<Comparison>({
    gradient: 'none',
    mixed: true,
    samples: () => [
      twice(() => whole([3, 4])),
      [whole([3, 4]), whole([3, 4])],
      [float([3]), float([1, 3])],
      twice(() => float([0])),
      ...special(),
    ],
    reference: (a, b) => truth(String(a.shape) === String(b.shape) && a.data.every((value, i) => value === b.data[i])),
    large: () => [twice(() => float([100_003]))],
  }),
  allClose: row<Comparison>({
    gradient: 'none',
    samples: () => [
      twice(() => float([3, 4])),
      [float([3, 4]), float([3, 4])],
      twice(() => float([0])),
      [one(8), one(9), { rtol: 0.125 }],
      [one(8), one(10), { rtol: 0.125 }],
      [one(8), one(9), { atol: 1, rtol: 0 }],
      [given([2, 1], [2, 2]), given([3], [2, 2, 2])],
      ...special(),
      [constant(one(NAN)), constant(one(NAN)), { equalNan: true }],
    ],
    reference: (a, b, options = {}) =>
      truth(zip(a, b, (x, y) => Number(close(x, y, options))).data.every((holds) => holds === 1)),
    large: () => [twice(() => float([100_003]))],
    refused: () => [
      [[float([3]), float([4])], 'ShapeError', /\[3\] and \[4\] do not broadcast/],
      [[float([3]), float([3]), { rtol: '1' }], 'ArgumentError', /rtol is "1". Expected a number/],
      [[float([3]), float([3]), { tol: 1 }], 'ArgumentError', /unknown option "tol"/],
    ],
  }),
};
