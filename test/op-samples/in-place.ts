// Rows of the in-place ops that have no out-of-place twin; the others are held to their twins' rows.
import { at, build, map, type Nd } from '../reference.ts';
import { ALL, constant, EXACT, FLOATS, float, row, whole } from './row.ts';

export const inPlaceOnly = {
  copy_: row<[x: Nd, src: Nd]>({
    tolerance: EXACT,
    dtypes: ALL,
    mixed: true,
    samples: () => [
      [constant(float([3, 4])), float([3, 4])],
      [constant(float([3, 4])), float([4])],
      [constant(float([17])), whole([])],
      [constant(float([0])), float([0])],
    ],
    reference: (x, src) => build(x.shape, (i) => at(src, i)),
    refused: () => [
      [[float([3]), float([3, 3])], 'ShapeError', /result has shape \[3,3\] and does not fit in place into \[3\]/],
    ],
  }),
  fill_: row<[x: Nd, v: number]>({
    gradient: 'zero',
    samples: () => [
      [float([3, 4]), 7],
      [float([]), 1],
      [float([0]), 1],
    ],
    reference: (x, v) => map(x, () => v),
    refused: () => [[[float([3]), '1'], 'ArgumentError', /value is "1". Expected a number/]],
  }),
  zero_: row<[x: Nd]>({
    gradient: 'zero',
    samples: () => [[float([3, 4])], [float([])], [float([0])]],
    reference: (x) => map(x, () => 0),
  }),
  uniform_: row<[x: Nd, a?: number, b?: number]>({
    gradient: 'none',
    dtypes: FLOATS,
    samples: () => [[float([300])], [float([3, 100]), -2, 3]],
    reference: null,
    check: () => {},
  }),
  normal_: row<[x: Nd, mean?: number, std?: number]>({
    gradient: 'none',
    dtypes: FLOATS,
    samples: () => [[float([300])], [float([3, 100]), -2, 3]],
    reference: null,
    check: () => {},
  }),
  requiresGrad_: row<[x: Nd, flag?: boolean]>({
    unwritten: true,
    wrongDtype: 'AutogradError',
    dtypes: FLOATS,
    samples: () => [[float([3])], [float([3]), false]],
    reference: (x) => x,
    refused: () => [[[float([3]), 1], 'ArgumentError', /1. Expected true or false/]],
  }),
};
