// Rows of normalisations.
import { add, map, mean, mul, Nd, range, type Shape, sub, zip } from '../reference.ts';
import { COMPOSED, FLOATS, float, type Refusal, type Row, row } from './row.ts';

const trailing = (x: Nd, shape: Shape): number[] => range(shape.length).map((d) => x.ndim - shape.length + d);
const scaled = (x: Nd, weight?: Nd | null, bias?: Nd | null): Nd => {
  const y = weight ? mul(x, weight) : x;
  return bias ? add(y, bias) : y;
};
const squares = (x: Nd, dims: number[]): Nd =>
  mean(
    map(x, (v) => v * v),
    dims,
    true,
  );
const over = (x: Nd, meanSquare: Nd, eps: number): Nd => zip(x, meanSquare, (v, m) => v / Math.sqrt(m + eps));

/** One value per channel, dimension 1, in a shape that broadcasts over x. */
const channelwise = <T extends Nd | null | undefined>(t: T, x: Nd): T =>
  (t && reshaped(t, [t.data.length, ...range(x.ndim - 2).map(() => 1)])) as T;
const reshaped = (x: Nd, shape: Shape): Nd => new Nd(shape, x.data);
interface BatchNorm {
  runningMean?: Nd;
  runningVar?: Nd;
  weight?: Nd;
  bias?: Nd;
  training?: boolean;
  momentum?: number;
  eps?: number;
}
const statistics = (n: number): BatchNorm => ({ runningMean: float([n]), runningVar: float([n], [0.5, 2]) });

const normalisedRefused = (): Refusal[] => [
  [[float([3, 4]), [3]], 'ShapeError', /\[3,4\] does not end in the normalised shape \[3\]/],
  [[float([3, 4]), []], 'ShapeError', /does not end in/],
  [[float([4]), [3, 4]], 'ShapeError', /does not end in/],
  [
    [float([3, 4]), [4], float([3])],
    'ShapeError',
    /weight or bias of shape \[3\]. Expected the normalised shape \[4\]/,
  ],
  [[float([3, 4]), 4], 'ArgumentError', /the shape is 4/],
];

export const normalizations: Record<string, Row> = {
  layerNorm: row<[x: Nd, shape: Shape, weight?: Nd | null, bias?: Nd | null, eps?: number]>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    batched: true,
    samples: () => [
      [float([3, 17]), [17]],
      [float([3, 17]), [17], float([17]), float([17])],
      [float([2, 3, 4]), [3, 4], float([3, 4]), null, 0.1],
      [float([2, 70], [9, 11]), [70], null, float([70])],
      [float([0, 4]), [4], float([4]), float([4])],
    ],
    reference: (x, shape, weight, bias, eps = 1e-5) => {
      const dims = trailing(x, shape);
      const centred = sub(x, mean(x, dims, true));
      return scaled(over(centred, squares(centred, dims), eps), weight, bias);
    },
    large: () => [[float([300, 401]), [401], float([401]), float([401])]],
    refused: () => [
      ...normalisedRefused(),
      [[float([3, 4]), [4], null, float([3])], 'ShapeError', /Expected the normalised shape \[4\]/],
    ],
  }),
  rmsNorm: row<[x: Nd, shape: Shape, weight?: Nd | null, eps?: number]>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    batched: true,
    samples: () => [
      [float([3, 17]), [17]],
      [float([3, 17]), [17], float([17])],
      [float([2, 3, 4]), [3, 4], null, 0.1],
      [float([0, 4]), [4], float([4])],
    ],
    reference: (x, shape, weight, eps = 1e-5) => scaled(over(x, squares(x, trailing(x, shape)), eps), weight),
    large: () => [[float([300, 401]), [401], float([401])]],
    refused: normalisedRefused,
  }),
  groupNorm: row<[x: Nd, groups: number, weight?: Nd | null, bias?: Nd | null, eps?: number]>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    batched: true,
    samples: () => [
      [float([3, 6]), 2],
      [float([3, 6, 5]), 3, float([6]), float([6])],
      [float([2, 4, 3, 2]), 4, null, float([4]), 0.1],
      [float([2, 4, 70], [2, 4]), 1, null, float([4])],
      [float([0, 4, 2]), 2, float([4]), float([4])],
    ],
    reference: (x, groups, weight, bias, eps = 1e-5) => {
      const n = x.shape[0]!;
      const rows = reshaped(x, [n, groups, x.data.length / Math.max(n * groups, 1)]);
      const centred = sub(rows, mean(rows, 2, true));
      return scaled(
        reshaped(over(centred, squares(centred, [2]), eps), x.shape),
        channelwise(weight, x),
        channelwise(bias, x),
      );
    },
    large: () => [[float([30, 12, 401]), 4, float([12]), float([12])]],
    refused: () => [
      [[float([3, 6]), 4], 'ShapeError', /6 channels of \[3,6\] do not divide into 4 groups/],
      [[float([3, 6]), 0], 'ArgumentError', /the number of groups is 0/],
      [[float([6]), 2], 'ShapeError', /the input has shape \[6\]. Expected \(N, C, ...\)/],
      [[float([3, 6]), 2, float([3])], 'ShapeError', /weight or bias of shape \[3\]. Expected the shape \[6\]/],
      [[float([3, 6]), 2, null, float([6, 1])], 'ShapeError', /weight or bias of shape \[6,1\]/],
      [[float([3, 6]), 2, null, null, Number.NaN], 'ArgumentError', /eps is NaN/],
    ],
  }),
  // How it changes running statistics is in nn-batchnorm.test.ts: rows are of ops that leave their inputs alone.
  batchNorm: row<[x: Nd, options: BatchNorm]>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    samples: () => [
      [float([4, 3]), { ...statistics(3), weight: float([3]), bias: float([3]) }],
      [float([4, 3]), { training: true, weight: float([3]), bias: float([3]) }],
      [float([4, 3, 5]), { training: true, eps: 0.1 }],
      [float([2, 3, 4, 2], [9, 11]), { training: true, bias: float([3]), momentum: 0.5 }],
      [float([2, 3, 4, 2]), { ...statistics(3), training: false, eps: 0.1 }],
      [float([0, 3, 2]), statistics(3)],
    ],
    reference: (x, { weight, bias, runningMean, runningVar, training = false, eps = 1e-5 }) => {
      const dims = range(x.ndim).filter((d) => d !== 1);
      const centred = sub(x, training ? mean(x, dims, true) : channelwise(runningMean, x)!);
      const variance = training ? squares(centred, dims) : channelwise(runningVar, x)!;
      return scaled(over(centred, variance, eps), channelwise(weight, x), channelwise(bias, x));
    },
    large: () => [[float([30, 12, 401]), { training: true, weight: float([12]) }]],
    refused: () => [
      [[float([4, 3]), {}], 'ArgumentError', /runningMean and runningVar are missing/],
      [[float([4, 3])], 'ArgumentError', /runningMean and runningVar are missing/],
      [[float([4, 3]), { runningMean: float([3]) }], 'ArgumentError', /runningMean and runningVar are missing/],
      [
        [float([1, 3]), { training: true }],
        'ShapeError',
        /\[1,3\]. Expected more than 1 value per channel when training/,
      ],
      [[float([0, 3]), { training: true }], 'ShapeError', /Expected more than 1 value per channel when training/],
      [[float([3]), { training: true }], 'ShapeError', /the input has shape \[3\]. Expected \(N, C, ...\)/],
      [
        [float([4, 3]), { training: true, weight: float([4]) }],
        'ShapeError',
        /a weight of shape \[4\]. Expected the shape \[3\]/,
      ],
      [[float([4, 3]), { training: true, runningVar: float([1]) }], 'ShapeError', /a runningVar of shape \[1\]/],
      [[float([4, 3]), { training: 1 }], 'ArgumentError', /training is 1. Expected true or false/],
      [
        [float([4, 3]), { training: true, momentum: 2 }],
        'ArgumentError',
        /momentum is 2. Expected a number in \[0, 1\]/,
      ],
      [[float([4, 3]), { training: true, eps: -1 }], 'ArgumentError', /eps is -1/],
      [[float([4, 3]), { affine: true }], 'ArgumentError', /unknown option "affine"/],
    ],
  }),
};
