// Normalisations: x less its mean, over its deviation, and what differs between them: over which elements.
import { checkOptions, checkRange } from '../arguments.ts';
import { noGrad } from '../autograd/grad-mode.ts';
import { type Rule, recording } from '../autograd/tape.ts';
import { BF16, F32 } from '../dtype.ts';
import { ArgumentError, AutogradError, ShapeError } from '../errors.ts';
import * as commands from '../program/commands.ts';
import { checkInteger, checkShape, describe, numelOf, type Shape, sameShape, show } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { levelOf } from './batched.ts';
import { cast } from './cast.ts';
import { add, mul, rsqrt, square, sub } from './elementwise.ts';
import { add_, mul_ } from './in-place.ts';
import { checkFloat, checkSameDtype, dense, drop, finish, finishPlain, leaveToGraph } from './op.ts';
import { beforeInPlace } from './overwrite.ts';
import { mean, sum } from './reduce.ts';
import { detach, reshape } from './views.ts';

type Optional = Tensor | null | undefined;

/** @throws unless t, if given, has the wanted shape and x's dtype */
function checkPart(op: string, what: string, x: Tensor, t: Optional, shape: Shape, of: string): void {
  if (t === undefined || t === null) return;
  checkTensor(op, t, what);
  checkSameDtype(op, x, t);
  if (!sameShape(t.shape, shape)) {
    throw new ShapeError(`${op}: a ${what} of shape ${show(t.shape)}. Expected the ${of} ${show(shape)}.`);
  }
}

function affine(x: Tensor, weight: Optional, bias: Optional): Tensor {
  const scaled = weight ? mul(x, weight) : x;
  return bias ? add(scaled, bias) : scaled;
}

/** x less its mean over dims, and its (biased) variance: two passes, so that a large mean cancels first. */
function moments(x: Tensor, dims: Shape): { average: Tensor; centred: Tensor; variance: Tensor } {
  const average = mean(x, dims, { keepdim: true });
  const centred = sub(x, average);
  return { average, centred, variance: mean(square(centred), dims, { keepdim: true }) };
}

const scaledBy = (centred: Tensor, variance: Tensor, eps: number): Tensor => mul(centred, rsqrt(add(variance, eps)));

// ---- rows ---------------------------------------------------------------------------------------------------------------
interface Rows {
  /** The trailing dimensions that make a row. */
  readonly dims: Shape;
  readonly eps: number;
}
const rowsRule: Rule<Rows> = {
  name: 'LayerNormBackward',
  vjp: [],
  pull: (g, [x, stats, weight], rows, needed) => pullback(g, x!, stats!, weight, rows, needed),
};

/** x less its mean, over its deviation, of the trailing dims; then times weight plus bias. */
function normalised(x: Tensor, dims: Shape, weight: Optional, bias: Optional, eps: number): Tensor {
  if (levelOf(x, weight, bias) !== null) {
    const { centred, variance } = moments(x, dims);
    return affine(scaledBy(centred, variance, eps), weight, bias);
  }
  if (x.code === BF16) {
    const [factor, shift] = [weight, bias].map((t) => t && cast(t, F32));
    return cast(normalised(cast(x, F32), dims, factor, shift, eps), BF16);
  }
  const [source, factor, shift] = [dense(x), weight ? dense(weight) : null, bias ? dense(bias) : null];
  const n = numelOf(dims.map((d) => x.shape[d]!));
  const out = fresh(x.shape, x.code);
  const stats = fresh([2, numelOf(x.shape.slice(0, dims[0]))], x.code);
  commands.layerNorm(out, stats, source, factor, shift, n, eps);
  if (shift) drop(shift, bias!);
  if (factor) drop(factor, weight!);
  drop(source, x);
  finish(out, rowsRule, [x, weight ?? null, bias ?? null], [x, stats, weight ?? null], { dims, eps });
  leaveToGraph(stats);
  return out;
}

type Pulled = readonly (Tensor | null)[];
function pullback(
  g: Tensor,
  x: Tensor,
  stats: Tensor,
  weight: Tensor | undefined,
  rows: Rows,
  needed: readonly boolean[],
): Pulled {
  if (recording([g, x, weight ?? null]) || levelOf(g, x, weight) !== null) {
    return composedPullback(g, x, weight, rows, needed);
  }
  const [gradient, source, factor] = [dense(g), dense(x), weight ? dense(weight) : null];
  const row = rows.dims.map((d) => x.shape[d]!);
  const pulled = needed.map((wanted, i) => (wanted ? fresh(i === 0 ? x.shape : row, x.code) : null));
  commands.layerNormVjp(pulled, gradient, source, stats, factor, numelOf(row));
  if (factor) drop(factor, weight!);
  drop(source, x);
  drop(gradient, g);
  return pulled.map((t) => t && finishPlain(t));
}

/** The same in differentiable ops, for gradients of gradients. */
function composedPullback(g: Tensor, x: Tensor, weight: Optional, rows: Rows, needed: readonly boolean[]): Pulled {
  const { dims, eps } = rows;
  const { centred, variance } = moments(x, dims);
  const scale = rsqrt(add(variance, eps));
  const y = mul(centred, scale);
  const along = (t: Tensor): Tensor => mean(t, dims, { keepdim: true });
  const over = x.shape.map((_, d) => d).filter((d) => !dims.includes(d));
  const summed = (t: Tensor): Tensor => (over.length === 0 ? t : sum(t, over));
  const own = weight ? mul(g, weight) : g;
  return [
    needed[0] ? mul(scale, sub(sub(own, along(own)), mul(y, along(mul(own, y))))) : null,
    needed[1] ? summed(mul(g, y)) : null,
    needed[2] ? summed(g) : null,
  ];
}

// ---- the last dimensions ------------------------------------------------------------------------------------------------
/** The trailing dimensions that a normalisation covers. @throws ShapeError */
function trailing(op: string, x: Tensor, shape: Shape, weight?: Optional, bias?: Optional): number[] {
  checkTensor(op, x);
  checkFloat(op, x);
  const sizes = checkShape(op, shape);
  const skip = x.ndim - sizes.length;
  if (sizes.length === 0 || skip < 0 || !sameShape(x.shape.slice(skip), sizes)) {
    throw new ShapeError(`${op}: ${show(x.shape)} does not end in the normalised shape ${show(sizes)}.`);
  }
  for (const t of [weight, bias]) checkPart(op, 'weight or bias', x, t, sizes, 'normalised shape');
  return sizes.map((_, i) => skip + i);
}

/**
 * x less its mean, over its deviation, of the trailing dimensions `shape`; then times weight plus bias. The backward pass
 * reads x again: do not change it in place before.
 */
export function layerNorm(x: Tensor, shape: Shape, weight?: Tensor | null, bias?: Tensor | null, eps = 1e-5): Tensor {
  const dims = trailing('layerNorm', x, shape, weight, bias);
  checkRange('layerNorm', 'eps', eps);
  return normalised(x, dims, weight, bias, eps);
}

/** x over its root mean square of the trailing dimensions `shape`, times weight. Zhang & Sennrich 2019 */
export function rmsNorm(x: Tensor, shape: Shape, weight?: Tensor | null, eps = 1e-5): Tensor {
  const dims = trailing('rmsNorm', x, shape, weight);
  checkRange('rmsNorm', 'eps', eps);
  return affine(scaledBy(x, mean(square(x), dims, { keepdim: true }), eps), weight, null);
}

// ---- channels: dimension 1 ----------------------------------------------------------------------------------------------
/** The number of channels. @throws unless x is (N, C, ...) of a floating dtype */
function channelsOf(op: string, x: Tensor): number {
  checkTensor(op, x);
  checkFloat(op, x);
  if (x.ndim < 2) throw new ShapeError(`${op}: the input has shape ${show(x.shape)}. Expected (N, C, ...).`);
  return x.shape[1]!;
}

/** One value per channel, in a shape that broadcasts over x. */
const perChannel = <T extends Optional>(t: T, x: Tensor): T =>
  (t && reshape(t, [t.numel, ...new Array<number>(x.ndim - 2).fill(1)])) as T;

/**
 * The channels of x (N, C, ...) in `groups` equal parts, each less its mean, over its deviation, example by example;
 * then times weight (C) plus bias (C). Wu & He 2018
 */
export function groupNorm(x: Tensor, groups: number, weight?: Tensor | null, bias?: Tensor | null, eps = 1e-5): Tensor {
  const channels = channelsOf('groupNorm', x);
  checkInteger('groupNorm', 'the number of groups', groups, 1);
  if (channels % groups !== 0) {
    throw new ShapeError(`groupNorm: ${channels} channels of ${show(x.shape)} do not divide into ${groups} groups.`);
  }
  for (const t of [weight, bias]) checkPart('groupNorm', 'weight or bias', x, t, [channels], 'shape');
  checkRange('groupNorm', 'eps', eps);
  const rows = reshape(x, [x.shape[0]!, groups, (channels / groups) * numelOf(x.shape.slice(2))]);
  return affine(reshape(normalised(rows, [2], null, null, eps), x.shape), perChannel(weight, x), perChannel(bias, x));
}

export interface BatchNormOptions {
  /** One per channel. Required when not training; in training updated in place, if given. */
  runningMean?: Tensor | null;
  runningVar?: Tensor | null;
  weight?: Tensor | null;
  bias?: Tensor | null;
  /** Normalise by the batch's own statistics instead of the running ones. */
  training?: boolean;
  /** Share of the batch's statistics in the new running ones. */
  momentum?: number;
  eps?: number;
}
const BATCH_NORM: BatchNormOptions = {
  runningMean: null,
  runningVar: null,
  weight: null,
  bias: null,
  training: false,
  momentum: 0.1,
  eps: 1e-5,
};

function checkBatchNorm(x: Tensor, options: BatchNormOptions): void {
  const channels = channelsOf('batchNorm', x);
  checkOptions('batchNorm', options, BATCH_NORM);
  const { runningMean, runningVar, training = false, momentum = 0.1, eps = 1e-5 } = options;
  for (const what of ['runningMean', 'runningVar', 'weight', 'bias'] as const) {
    checkPart('batchNorm', what, x, options[what], [channels], 'shape');
  }
  checkRange('batchNorm', 'momentum', momentum, 0, 1);
  checkRange('batchNorm', 'eps', eps);
  if (typeof training !== 'boolean') {
    throw new ArgumentError(`batchNorm: training is ${describe(training)}. Expected true or false.`);
  }
  if (!training && !(runningMean && runningVar)) {
    throw new ArgumentError('batchNorm: runningMean and runningVar are missing. They are needed unless training.');
  }
  if (training && x.physical !== null && (runningMean || runningVar)) {
    throw new AutogradError(
      'batchNorm: inside vmap there is no one batch whose statistics could be kept. Use eval mode, leave runningMean and ' +
        'runningVar out, or use groupNorm.',
    );
  }
  if (training && x.numel <= channels) {
    throw new ShapeError(
      `batchNorm: an input of shape ${show(x.shape)}. Expected more than 1 value per channel when training.`,
    );
  }
  for (const running of training ? [runningMean, runningVar] : []) {
    if (running) noGrad(() => beforeInPlace('batchNorm', running, [], running.shape));
  }
}

/** running = (1 - momentum) running + momentum batch, outside the graph. */
function follow(running: Optional, batch: Tensor, momentum: number, factor = 1): void {
  if (!running) return;
  noGrad(() => add_(mul_(running, 1 - momentum), mul(reshape(detach(batch), running.shape), momentum * factor)));
}

/**
 * Each channel of x (N, C, ...) less its mean, over its deviation; then times weight (C) plus bias (C). In training the
 * mean and the biased variance are the batch's, and the running ones take a step towards the batch's mean and unbiased
 * variance, in place. Ioffe & Szegedy 2015
 */
export function batchNorm(x: Tensor, options: BatchNormOptions = {}): Tensor {
  checkBatchNorm(x, options);
  const { runningMean, runningVar, weight, bias, training = false, momentum = 0.1, eps = 1e-5 } = options;
  const parts = [perChannel(weight, x), perChannel(bias, x)] as const;
  if (!training) {
    const centred = sub(x, perChannel(runningMean!, x));
    return affine(scaledBy(centred, perChannel(runningVar!, x), eps), ...parts);
  }
  const dims = x.shape.map((_, d) => d).filter((d) => d !== 1);
  const { average, centred, variance } = moments(x, dims);
  const normalised = affine(scaledBy(centred, variance, eps), ...parts);
  const count = x.numel / x.shape[1]!;
  follow(runningMean, average, momentum);
  follow(runningVar, variance, momentum, count / (count - 1));
  return normalised;
}
