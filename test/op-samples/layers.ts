// Rows of dropout and losses.
import { strict as assert } from 'node:assert';
import {
  along,
  at,
  build,
  div,
  logSoftmax,
  map,
  mean,
  mul,
  type Nd,
  range,
  softplus,
  sum,
  sumOf,
  zip,
} from '../reference.ts';
import { COMPOSED, constant, FLOATS, float, given, index, type Refusal, type Row, row } from './row.ts';

export const layers = {
  dropout: row<[x: Nd, p?: number, options?: { training: boolean }]>({
    dtypes: FLOATS,
    samples: () => [
      [float([3, 4]), 0],
      [float([3, 4]), 1],
      [float([10_000], [1, 2])],
      [float([9]), 0.5, { training: false }],
      [float([0]), 0.5],
    ],
    reference: null,
    check: (y, x, p = 0.5, { training } = { training: true }) => {
      const kept = zip(y, x, (out, value) => (out === 0 ? 0 : out / value)).data;
      const share = kept.filter((factor) => factor !== 0).length / Math.max(kept.length, 1);
      const factor = training ? 1 / (1 - p) : 1;
      assert(
        kept.every((value) => value === 0 || Math.abs(value - factor) < 0.02),
        'kept values are divided by 1 - p',
      );
      assert(
        x.data.length === 0 || Math.abs(share - (training ? 1 - p : 1)) < 0.03,
        `${share} of the elements are kept`,
      );
    },
    large: () => [[float([100_003])]],
    refused: () => [
      [[float([3]), 1.5], 'ArgumentError', /p is 1.5. Expected a chance in \[0, 1\]/],
      [[float([3]), Number.NaN], 'ArgumentError', /p is NaN/],
      [[float([3]), '0.5'], 'ArgumentError', /p is "0.5"/],
    ],
  }),
};

// ---- losses -----------------------------------------------------------------------------------------------------------------
interface LossOptions {
  reduction?: 'mean' | 'sum' | 'none';
}
const reduced = (losses: Nd, reduction = 'mean'): Nd =>
  reduction === 'none' ? losses : reduction === 'sum' ? sum(losses) : mean(losses);
const unknownReduction = (input: Nd, target: Nd): Refusal => [
  [input, target, { reduction: 'max' }],
  'ArgumentError',
  /reduction is "max". Expected 'mean', 'sum' or 'none'/,
];

interface Elementwise<O> {
  loss: (input: number, target: number, options: O) => number;
  input?: (shape: number[]) => Nd;
  target?: (shape: number[]) => Nd;
  options?: readonly O[];
  more?: readonly [input: Nd, target: Nd][];
  refused?: readonly [options: Record<string, unknown>, error: Refusal[1], message: RegExp][];
}

/** A loss of each element and its target, of one shape. */
function elementwise<O extends object>(spec: Elementwise<O>): Row {
  const { loss, input = float, target = float, options = [], more = [], refused = [] } = spec;
  type Args = [input: Nd, target: Nd, options?: O & LossOptions];
  const pair = (...shape: number[]): [Nd, Nd] => [input(shape), target(shape)];
  return row<Args>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    samples: () => [
      pair(3, 4),
      pair(),
      pair(0),
      [...pair(1000), { reduction: 'mean' } as O & LossOptions],
      [...pair(7), { reduction: 'sum' } as O & LossOptions],
      [...pair(2, 9), { reduction: 'none' } as O & LossOptions],
      ...options.map((option): Args => [...pair(5, 5), option]),
      ...more,
    ],
    reference: (a, b, { reduction, ...rest } = {} as O & LossOptions) =>
      reduced(
        zip(a, b, (x, y) => loss(x, y, rest as unknown as O)),
        reduction,
      ),
    large: () => [pair(100_003)],
    refused: () => [
      [[input([3, 1]), target([3])], 'ShapeError', /input \[3,1\] and target \[3\] differ. A loss does not broadcast/],
      unknownReduction(...pair(3)),
      ...refused.map(([option, error, message]): Refusal => [[...pair(3), option], error, message]),
    ],
  });
}

// Distances stay away from 1 and 0.5, where these losses have their kinks in the second derivative.
const apart = (shape: number[]): Nd =>
  map(
    float(
      shape,
      [-8, 8],
      range(33).map((i) => i / 2 - 8),
    ),
    (v) => v,
  );
const origin = (shape: number[]): Nd => map(float(shape), () => 0);
/** Smooth where both are equal: the second derivative is that of the square. */
const equal: [Nd, Nd] = [given([3], [0.25, 0, 3]), given([3], [0.25, 0, 0])];
const probability = (shape: number[]): Nd => float(shape, [0.05, 0.95]);
const smooth = (d: number, beta: number): number => (d < beta ? (d * d) / beta / 2 : d - beta / 2);

export const elementwiseLosses = {
  mseLoss: elementwise({ loss: (x, t) => (x - t) ** 2 }),
  l1Loss: elementwise({ loss: (x, t) => Math.abs(x - t), input: apart, target: origin }),
  smoothL1Loss: elementwise<{ beta?: number }>({
    loss: (x, t, { beta = 1 }) => (beta === 0 ? Math.abs(x - t) : smooth(Math.abs(x - t), beta)),
    input: apart,
    target: origin,
    options: [{ beta: 0.5 }, { beta: 0 }],
    more: [equal],
    refused: [
      [{ beta: -1 }, 'ArgumentError', /beta is -1/],
      [{ beta: '1' }, 'ArgumentError', /beta is "1"/],
    ],
  }),
  huberLoss: elementwise<{ delta?: number }>({
    loss: (x, t, { delta = 1 }) => delta * smooth(Math.abs(x - t), delta),
    input: apart,
    target: origin,
    options: [{ delta: 0.5 }, { delta: 3 }],
    more: [equal],
    refused: [
      [{ delta: 0 }, 'ArgumentError', /delta is 0/],
      [{ delta: Number.NaN }, 'ArgumentError', /delta is NaN/],
    ],
  }),
  binaryCrossEntropy: elementwise({
    loss: (p, t) => -(t * Math.max(Math.log(p), -100) + (1 - t) * Math.max(Math.log1p(-p), -100)),
    input: probability,
    target: probability,
  }),
  binaryCrossEntropyWithLogits: elementwise({
    loss: (x, t) => t * softplus(-x) + (1 - t) * softplus(x),
    input: (shape) => float(shape, [-5, 5]),
    target: probability,
  }),
  klDiv: elementwise<{ logTarget?: boolean }>({
    loss: (x, t, { logTarget }) => (logTarget ? Math.exp(t) * (t - x) : t * (Math.log(t) - x)),
    target: probability,
    options: [{ logTarget: true }],
  }),
};

// ---- classes ----------------------------------------------------------------------------------------------------------------
interface ClassOptions extends LossOptions {
  ignoreIndex?: number;
  weight?: Nd;
  labelSmoothing?: number;
}
type Classes = [input: Nd, target: Nd, options?: ClassOptions];
const dimOfClasses = (input: Nd): number => (input.ndim === 1 ? 0 : 1);

/** Minus the log-probabilities `logs` of the target classes. */
function negativeLogLikelihood(
  logs: Nd,
  target: Nd,
  { ignoreIndex = -100, weight, labelSmoothing = 0, reduction }: ClassOptions,
): Nd {
  const dim = dimOfClasses(logs);
  const classes = range(logs.shape[dim]!);
  const factor = (c: number): number => (weight ? weight.data[c]! : 1);
  const counts = map(target, (t) => (t === ignoreIndex ? 0 : factor(t)), 'float');
  const losses = build(target.shape, (i) => {
    const t = at(target, i);
    if (t === ignoreIndex) return 0;
    const loss = (c: number): number => -factor(c) * at(logs, i.toSpliced(dim, 0, c));
    return (1 - labelSmoothing) * loss(t) + (labelSmoothing / classes.length) * sumOf(classes.map(loss));
  });
  return reduction === undefined || reduction === 'mean' ? div(sum(losses), sum(counts)) : reduced(losses, reduction);
}

const ignoring = (target: Nd, ignored: number): Nd => map(target, (t) => (t === 1 ? ignored : t));
const classSamples = (): Classes[] => [
  [float([3, 5]), index([3], 5)],
  [float([5]), given([], [2], 'int32')],
  [float([2, 5, 3]), index([2, 3], 5)],
  [float([7, 3]), ignoring(index([7], 3), -100)],
  [float([7, 3]), ignoring(index([7], 3), 9), { ignoreIndex: 9, reduction: 'none' }],
  [float([7, 3]), index([7], 3), { weight: constant(float([3], [0.5, 2])) }],
  [float([2, 3, 2]), index([2, 2], 3), { weight: constant(float([3], [0.5, 2])), reduction: 'sum' }],
  [constant(float([0, 3])), index([0], 3)],
  [constant(float([2, 3])), given([2], [-100, -100], 'int32')],
  [constant(given([2, 2], [-Infinity, 0, -1, -2])), given([2], [-100, 0], 'int32')],
];
/** The mean of no rows is NaN; what was ignored still takes no gradient. */
const allIgnored = (): [Classes, Nd] => [[float([2, 3]), given([2], [-100, -100], 'int32')], build([2, 3], () => 0)];
const classRefused = (): Refusal[] => [
  [[float([2, 3]), given([2], [0, 3], 'int32')], 'IndexError', /index 3 at position \d+ is outside \[0, 2\]/],
  [[float([2, 3]), given([2], [0, -1], 'int32')], 'IndexError', /index -1 at position/],
  [[float([2, 3]), index([3], 3)], 'ShapeError', /\[2,3\].*\[3\]/],
  [[float([2, 3]), index([2], 3), { weight: float([2]) }], 'ShapeError', /weight.*\[2\].*\[3\]/],
  unknownReduction(float([2, 3]), index([2], 3)),
];
/** For each row of `shape`, probabilities of the classes along dim 1. */
const distribution = (shape: number[]): Nd =>
  along(float(shape, [0.1, 1]), 1, (values) => values.map((v) => v / sumOf(values)));

export const classLosses = {
  nllLoss: row<Classes>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    samples: classSamples,
    reference: (input, target, options = {}) => negativeLogLikelihood(input, target, options),
    gradients: () => [allIgnored()],
    large: () => [[float([3000, 50]), index([3000], 50)]],
    refused: () => [...classRefused(), [[float([2, 3]), constant(float([2]))], 'DTypeError', /target is float.*int32/]],
  }),
  crossEntropy: row<Classes>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    samples: () => [
      ...classSamples(),
      [float([3, 5]), index([3], 5), { labelSmoothing: 0.1 }],
      [float([7, 3]), ignoring(index([7], 3), -100), { labelSmoothing: 0.3, weight: constant(float([3], [0.5, 2])) }],
      [float([3, 5], [-9000, 9000]), index([3], 5)],
      [float([3, 5]), distribution([3, 5])],
      [float([2, 5, 3]), distribution([2, 5, 3]), { reduction: 'none', labelSmoothing: 0.2 }],
      [float([3, 4]), distribution([3, 4]), { weight: constant(float([4], [0.5, 2])) }],
    ],
    reference: (input, target, options = {}) => {
      const dim = dimOfClasses(input);
      const logs = along(input, dim, logSoftmax);
      if (target.kind === 'int32') return negativeLogLikelihood(logs, target, options);
      const { labelSmoothing: e = 0, weight, reduction } = options;
      const wanted = map(target, (p) => p * (1 - e) + e / input.shape[dim]!);
      const losses = sum(
        build(logs.shape, (i) => -at(logs, i) * at(wanted, i) * (weight?.data[i[dim]!] ?? 1)),
        dim,
      );
      return reduction === undefined || reduction === 'mean'
        ? div(sum(losses), input.data.length / input.shape[dim]!)
        : reduced(losses, reduction);
    },
    gradients: () => [allIgnored()],
    large: () => [[float([3000, 50]), index([3000], 50)]],
    refused: () => [
      ...classRefused(),
      [
        [float([2, 3]), index([2], 3), { labelSmoothing: 1.5 }],
        'ArgumentError',
        /labelSmoothing is 1.5. Expected a number in \[0, 1\]/,
      ],
      [[float([2, 3]), constant(float([2, 4]))], 'ShapeError', /input \[2,3\] and target \[2,4\] differ/],
    ],
  }),
  cosineSimilarity: row<[a: Nd, b: Nd, options?: { dim?: number; eps?: number }]>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    samples: () => [
      [float([3, 5]), float([3, 5])],
      [float([17]), float([17]), { dim: 0 }],
      [float([2, 3, 4]), float([2, 3, 4]), { dim: -1, eps: 1e-3 }],
      [constant(given([1, 2], [0, 0])), constant(given([1, 2], [1, 2]))],
      [constant(given([1, 2], [0, 2 ** -30])), constant(given([1, 2], [1, 2]))],
      [constant(given([2, 2], [1e12, 1e12, 1e-6, 0])), constant(given([2, 2], [1e12, 1e12, 1e-6, 0]))],
      [float([0, 3]), float([0, 3])],
    ],
    reference: (a, b, { dim = 1, eps = 1e-8 } = {}) => {
      const length = (x: Nd): Nd => map(sum(mul(x, x), dim), (square) => Math.max(Math.sqrt(square), eps));
      return div(sum(mul(a, b), dim), mul(length(a), length(b)));
    },
    large: () => [[float([300, 401]), float([300, 401])]],
    refused: () => [
      [[float([2, 3]), float([3])], 'ShapeError', /input \[2,3\] and target \[3\] differ/],
      [[float([2, 3]), float([2, 3]), { dim: 2 }], 'IndexError', /dim 2 is outside/],
      [[float([2, 3]), float([2, 3]), { eps: '1' }], 'ArgumentError', /eps is "1"/],
    ],
  }),
};
