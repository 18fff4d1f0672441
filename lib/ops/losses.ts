// Losses, composed of differentiable ops. Input and target never broadcast against each other.
import { checkOptions, checkRange } from '../arguments.ts';
import type { Rule } from '../autograd/tape.ts';
import { BF16, I32 } from '../dtype.ts';
import { ArgumentError, DTypeError, ShapeError } from '../errors.ts';
import { opcode } from '../native.ts';
import * as commands from '../program/commands.ts';
import { checkDim, describe, sameShape, show } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { cast } from './cast.ts';
import { rowCrossEntropy } from './cross-entropy.ts';
import { checkNumber } from './define.ts';
import {
  abs,
  add,
  clamp,
  div,
  exp,
  gt,
  le,
  log,
  log1p,
  logSigmoid,
  lt,
  mul,
  ne,
  neg,
  square,
  sub,
  where,
} from './elementwise.ts';
import { gather, indexSelect } from './indexing.ts';
import { checkFloat, checkSameDtype, composed, finish } from './op.ts';
import { mean, norm, sum } from './reduce.ts';
import { logSoftmax } from './softmax.ts';
import { detach, flatten, reshape, squeeze, unsqueeze } from './views.ts';

export type Reduction = 'mean' | 'sum' | 'none';
export interface LossOptions {
  /** mean (default) over all elements, sum, or none: a loss for each element. */
  reduction?: Reduction;
}

const REDUCTION: LossOptions = { reduction: 'mean' };

function reduce(op: string, losses: Tensor, reduction: Reduction = 'mean'): Tensor {
  if (reduction === 'mean') return mean(losses);
  if (reduction === 'sum') return sum(losses);
  if (reduction === 'none') return losses;
  throw new ArgumentError(`${op}: reduction is ${describe(reduction)}. Expected 'mean', 'sum' or 'none'.`);
}

/** @throws ShapeError, DTypeError unless both have one shape and one floating dtype */
function checkPair(op: string, input: Tensor, target: Tensor, options: object, known: object = REDUCTION): void {
  checkOptions(op, options, known);
  checkTensor(op, input);
  checkTensor(op, target, 'target');
  if (!sameShape(input.shape, target.shape)) {
    throw new ShapeError(
      `${op}: input ${show(input.shape)} and target ${show(target.shape)} differ. A loss does not broadcast: reshape one.`,
    );
  }
  checkSameDtype(op, input, target);
  checkFloat(op, input);
}

// ---- regression -----------------------------------------------------------------------------------------------------------
const mseRule: Rule<number> = {
  name: 'MseLossBackward',
  vjp: [
    (g, [x, y], weight) => mul(sub(x!, y!), mul(g, 2 * weight)),
    (g, [x, y], weight) => mul(sub(x!, y!), mul(g, -2 * weight)),
  ],
};
const [SUB, SQUARE, SUM] = [opcode('sub'), opcode('square'), opcode('sum')] as const;

/** (input - target)². */
export function mseLoss(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  checkPair('mseLoss', input, target, options);
  const { reduction = 'mean' } = options;
  const batched = input.physical !== null || target.physical !== null;
  if (batched || input.code === BF16 || (reduction !== 'mean' && reduction !== 'sum')) {
    return reduce('mseLoss', square(sub(input, target)), reduction);
  }
  // One op: three would cost a small model more than its arithmetic.
  const n = input.numel;
  const weight = reduction === 'mean' ? 1 / n : 1;
  const difference = fresh(input.shape, input.code);
  const out = fresh([], input.code);
  commands.map(SUB, difference, input, target);
  commands.map(SQUARE, difference, difference);
  commands.reduce(SUM, out, difference, { outer: 1, reduce: n, inner: 1 }, weight);
  finish(out, mseRule, [input, target], [input, target], weight);
  difference.dispose();
  return out;
}

/** |input - target|. */
export function l1Loss(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  checkPair('l1Loss', input, target, options);
  return reduce('l1Loss', abs(sub(input, target)), options.reduction);
}

/** Half the square of a difference below beta, over beta; the difference less beta / 2 above. */
export function smoothL1Loss(input: Tensor, target: Tensor, options: LossOptions & { beta?: number } = {}): Tensor {
  checkPair('smoothL1Loss', input, target, options, { ...REDUCTION, beta: 1 });
  const beta = checkNumber('smoothL1Loss', 'beta', options.beta ?? 1);
  if (!(beta >= 0)) throw new ArgumentError(`smoothL1Loss: beta is ${beta}. Expected a number >= 0.`);
  if (beta === 0) return reduce('smoothL1Loss', abs(sub(input, target)), options.reduction);
  const difference = sub(input, target);
  const distance = abs(difference);
  // The square of the difference: that of the distance would be flat to the second order where both are equal.
  const losses = where(lt(distance, beta), mul(square(difference), 0.5 / beta), sub(distance, beta / 2));
  return reduce('smoothL1Loss', losses, options.reduction);
}

/** Half the square of a difference up to delta; delta times the difference less delta / 2 above. */
export function huberLoss(input: Tensor, target: Tensor, options: LossOptions & { delta?: number } = {}): Tensor {
  checkPair('huberLoss', input, target, options, { ...REDUCTION, delta: 1 });
  const delta = checkNumber('huberLoss', 'delta', options.delta ?? 1);
  if (!(delta > 0)) throw new ArgumentError(`huberLoss: delta is ${delta}. Expected a number > 0.`);
  const difference = sub(input, target);
  const distance = abs(difference);
  const losses = where(le(distance, delta), mul(square(difference), 0.5), mul(sub(distance, delta / 2), delta));
  return reduce('huberLoss', losses, options.reduction);
}

// ---- two classes ------------------------------------------------------------------------------------------------------------
// log(0) counts as -100, and the gradient divides by at least 1e-12, as in PyTorch.
const bceRule: Rule = {
  name: 'BinaryCrossEntropyBackward',
  elementwise: true,
  vjp: [
    (g, [p, t]) => mul(g, div(sub(p!, t!), clamp(mul(p!, sub(1, p!)), { min: 1e-12 }))),
    (g, [p]) => mul(g, sub(log1p(neg(p!)), log(p!))),
  ],
};

/** -(t log p + (1 - t) log(1 - p)) for probabilities p. p outside [0, 1] gives NaN. */
export function binaryCrossEntropy(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  checkPair('binaryCrossEntropy', input, target, options);
  const [p, t] = [detach(input), detach(target)];
  const value = neg(add(mul(t, clamp(log(p), { min: -100 })), mul(sub(1, t), clamp(log1p(neg(p)), { min: -100 }))));
  return reduce(
    'binaryCrossEntropy',
    finish(value, bceRule, [input, target], [input, target], null),
    options.reduction,
  );
}

/** The same for logits, without overflow. */
export function binaryCrossEntropyWithLogits(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  checkPair('binaryCrossEntropyWithLogits', input, target, options);
  const losses = sub(mul(sub(1, target), input), logSigmoid(input));
  return reduce('binaryCrossEntropyWithLogits', losses, options.reduction);
}

// ---- classes ------------------------------------------------------------------------------------------------------------------
export interface ClassOptions extends LossOptions {
  /** Targets of this class count for nothing. Default -100. */
  ignoreIndex?: number;
  /** A factor for each class. */
  weight?: Tensor;
}

const CLASS_OPTIONS = { ...REDUCTION, ignoreIndex: -100, weight: null, labelSmoothing: 0 };

const classDim = (input: Tensor): number => (input.ndim === 1 ? 0 : 1);

function checkClasses(op: string, input: Tensor, target: Tensor, weight: Tensor | undefined): void {
  const dim = classDim(input);
  const expected = input.shape.filter((_, d) => d !== dim);
  if (input.ndim === 0 || !sameShape(target.shape, expected)) {
    throw new ShapeError(
      `${op}: input ${show(input.shape)} and target ${show(target.shape)} do not fit. ` +
        `Expected one class index per row: a target of shape ${show(expected)}.`,
    );
  }
  if (weight === undefined) return;
  checkTensor(op, weight, 'weight');
  checkSameDtype(op, input, weight);
  if (!sameShape(weight.shape, [input.shape[dim]!])) {
    throw new ShapeError(
      `${op}: the weight has shape ${show(weight.shape)}. Expected [${input.shape[dim]}], one per class.`,
    );
  }
}

/** The factor of each target: its class's weight, 0 where it is ignored. */
function targetWeights(input: Tensor, safe: Tensor, counted: Tensor, weight: Tensor | undefined): Tensor {
  const ones = cast(counted, input.code);
  return weight ? mul(reshape(indexSelect(weight, 0, flatten(safe)), safe.shape), ones) : ones;
}

/** Sums of losses, or their mean with the given factors' sum as the divisor. */
function reduceWeighted(op: string, losses: Tensor, factors: Tensor, reduction: Reduction | undefined): Tensor {
  return reduction === undefined || reduction === 'mean'
    ? div(sum(losses), sum(factors))
    : reduce(op, losses, reduction);
}

/**
 * Minus the log-probability of each target class (int32). input: log-probabilities (classes), (n, classes) or
 * (n, classes, …). The mean divides by the factors of the targets that count. torch.nn.functional.nll_loss
 */
export const nllLoss = composed(
  'nllLoss',
  (input: Tensor, target: Tensor, options: ClassOptions = {}): Tensor => nll('nllLoss', input, target, options, 0),
);

function nll(op: string, logs: Tensor, target: Tensor, options: ClassOptions, smoothing: number): Tensor {
  checkTensor(op, logs);
  checkTensor(op, target, 'target');
  checkFloat(op, logs);
  if (target.code !== I32) throw new DTypeError(`${op}: the target is ${target.dtype}. Class indices are int32.`);
  checkOptions(op, options, CLASS_OPTIONS);
  const { ignoreIndex = -100, weight, reduction } = options;
  checkClasses(op, logs, target, weight);
  const dim = classDim(logs);
  const counted = ne(target, ignoreIndex);
  const safe = where(counted, target, 0);
  const factors = targetWeights(logs, safe, counted, weight);
  const found = squeeze(gather(logs, dim, unsqueeze(safe, dim)), dim);
  // Chosen, not multiplied by 0: neither an infinity of an ignored row nor the division by no rows may reach the others.
  const picked = where(counted, neg(mul(found, factors)), 0);
  if (smoothing === 0) return reduceWeighted(op, picked, factors, reduction);
  // Every class takes an equal share of the smoothing, weighted as itself.
  const classes = logs.shape[dim]!;
  const columns = weight
    ? mul(logs, reshape(weight, [classes, ...new Array<number>(logs.ndim - 1 - dim).fill(1)]))
    : logs;
  const spread = where(counted, neg(sum(columns, dim)), 0);
  const losses = add(mul(picked, 1 - smoothing), mul(spread, smoothing / classes));
  return reduceWeighted(op, losses, factors, reduction);
}

export interface CrossEntropyOptions extends ClassOptions {
  /** The share of each target that goes to all classes alike, in [0, 1]. */
  labelSmoothing?: number;
}

/**
 * The negative log-likelihood of softmax(input): for class indices (int32) as nllLoss, or for probabilities of
 * input's shape, whose mean is over rows. The backward pass reads the input again: do not change it in place before.
 * torch.nn.functional.cross_entropy
 */
export const crossEntropy = composed('crossEntropy', classLoss);

function classLoss(input: Tensor, target: Tensor, options: CrossEntropyOptions = {}): Tensor {
  checkOptions('crossEntropy', options, CLASS_OPTIONS);
  checkTensor('crossEntropy', input);
  checkTensor('crossEntropy', target, 'target');
  checkFloat('crossEntropy', input);
  const { labelSmoothing = 0, reduction = 'mean', weight } = options;
  checkRange('crossEntropy', 'labelSmoothing', labelSmoothing, 0, 1);
  const dim = checkDim('crossEntropy', classDim(input), input.ndim);
  if (target.code === I32) {
    checkClasses('crossEntropy', input, target, weight);
    const { ignoreIndex = -100 } = options;
    const plain =
      input.ndim === 2 && !weight && labelSmoothing === 0 && input.physical === null && target.physical === null;
    if (plain && (ignoreIndex | 0) === ignoreIndex && commands.LOSS_REDUCTIONS.includes(reduction)) {
      const [rows, classes] = input.shape as [number, number];
      return rowCrossEntropy(input, target, { rows, classes, ignoreIndex, reduction });
    }
    return nll('crossEntropy', logSoftmax(input, dim), target, options, labelSmoothing);
  }
  checkPair('crossEntropy', input, target, options, CLASS_OPTIONS);
  const classes = input.shape[dim]!;
  const wanted = labelSmoothing > 0 ? add(mul(target, 1 - labelSmoothing), labelSmoothing / classes) : target;
  const logs = logSoftmax(input, dim);
  const weighted = weight
    ? mul(logs, reshape(weight, [classes, ...new Array<number>(input.ndim - 1 - dim).fill(1)]))
    : logs;
  return reduce('crossEntropy', neg(sum(mul(weighted, wanted), dim)), reduction);
}

// ---- distributions and angles -----------------------------------------------------------------------------------------------
/**
 * target · (log target - input) for log-probabilities `input` and probabilities `target` (or their logarithms, with
 * logTarget); 0 where the target is 0. The mean divides by all elements.
 */
export function klDiv(input: Tensor, target: Tensor, options: LossOptions & { logTarget?: boolean } = {}): Tensor {
  checkPair('klDiv', input, target, options, { ...REDUCTION, logTarget: false });
  if (options.logTarget) return reduce('klDiv', mul(exp(target), sub(target, input)), options.reduction);
  const positive = gt(target, 0);
  const entropy = where(positive, mul(target, log(where(positive, target, 1))), 0);
  return reduce('klDiv', sub(entropy, mul(target, input)), options.reduction);
}

/** The cosine of the angle between a and b along dim; lengths below eps count as eps. */
export function cosineSimilarity(a: Tensor, b: Tensor, options: { dim?: number; eps?: number } = {}): Tensor {
  checkPair('cosineSimilarity', a, b, options, { dim: 1, eps: 1e-8 });
  const dim = checkDim('cosineSimilarity', options.dim ?? 1, a.ndim);
  const eps = checkNumber('cosineSimilarity', 'eps', options.eps ?? 1e-8);
  const length = (t: Tensor): Tensor => clamp(norm(t, { dim }), { min: eps });
  return div(sum(mul(a, b), dim), mul(length(a), length(b)));
}
