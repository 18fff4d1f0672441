// Rows of conversions and of tensors from data, from nothing and from chance.
import { strict as assert } from 'node:assert';
import { build, map, Nd, numel, range, type Shape, vector } from '../reference.ts';
import { ALL, type DType, EXACT, float, FLOATS, given, type Refusal, type Row, row } from './row.ts';

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
const toInt = (v: number): number => Math.trunc(v);
/** Beyond every whole dtype; conversion saturates, NaN becomes 0. */
const wild = (): Nd => new Nd([6], [Number.NaN, 1e30, -1e30, Number.POSITIVE_INFINITY, 300.7, -1.5], 'float', true);

export const conversions = {
  to: row<[x: Nd, dtype: DType]>({
    samples: () => [[float([3, 5]), 'float64'], [float([3, 5]), 'float32'], [float([]), 'float32'], [float([0]), 'float64']],
    reference: (x) => x,
    result: () => 'float64',
    refused: () => [
      [[float([2]), 'float16'], 'DTypeError', /unknown dtype float16. Expected one of float32/],
      [[float([2])], 'DTypeError', /unknown dtype undefined/],
    ],
  }),
  float: copied({ result: () => 'float32' }),
  double: copied({ result: () => 'float64' }),
  clone: copied(),
  contiguous: copied(),
};
