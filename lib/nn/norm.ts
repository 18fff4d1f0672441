// LayerNorm and RMSNorm over the last dimensions, GroupNorm and BatchNorm by channels. Layer nn.
import { checkRange } from '../arguments.ts';
import { noGrad } from '../autograd/grad-mode.ts';
import type { DType } from '../dtype.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import { batchNorm, groupNorm, layerNorm, ones, rmsNorm, zeros } from '../ops/index.ts';
import { checkInteger, checkShape, show } from '../shape.ts';
import { checkTensor, type Tensor } from '../tensor.ts';
import { Module } from './module.ts';
import { Parameter } from './parameter.ts';

const asShape = (owner: string, shape: number | readonly number[]): number[] =>
  checkShape(owner, typeof shape === 'number' ? [shape] : shape, 1);

/** `shape` is that of the last dimensions, or the size of the last one. */
export class LayerNorm extends Module {
  readonly shape: readonly number[];
  readonly eps: number;
  readonly weight: Parameter | null;
  readonly bias: Parameter | null;

  constructor(
    shape: number | readonly number[],
    { eps = 1e-5, elementwiseAffine = true, bias = true, dtype = 'float32' as DType } = {},
  ) {
    super();
    this.shape = asShape('LayerNorm', shape);
    this.eps = eps;
    this.weight = elementwiseAffine ? new Parameter(ones(this.shape, { dtype })) : null;
    this.bias = elementwiseAffine && bias ? new Parameter(zeros(this.shape, { dtype })) : null;
  }

  override forward(input: Tensor): Tensor {
    return layerNorm(input, this.shape, this.weight, this.bias, this.eps);
  }
}

/** As LayerNorm, without subtracting the mean and without bias. */
export class RMSNorm extends Module {
  readonly shape: readonly number[];
  readonly eps: number | undefined;
  readonly weight: Parameter | null;

  constructor(
    shape: number | readonly number[],
    {
      eps,
      elementwiseAffine = true,
      dtype = 'float32',
    }: { eps?: number; elementwiseAffine?: boolean; dtype?: DType } = {},
  ) {
    super();
    this.shape = asShape('RMSNorm', shape);
    this.eps = eps;
    this.weight = elementwiseAffine ? new Parameter(ones(this.shape, { dtype })) : null;
  }

  override forward(input: Tensor): Tensor {
    return rmsNorm(input, this.shape, this.weight, this.eps);
  }
}

/** Normalises `groups` groups of channels, example by example: input (N, channels, ...). */
export class GroupNorm extends Module {
  readonly groups: number;
  readonly eps: number;
  readonly weight: Parameter | null;
  readonly bias: Parameter | null;

  constructor(groups: number, channels: number, { eps = 1e-5, affine = true, dtype = 'float32' as DType } = {}) {
    super();
    this.groups = checkInteger('GroupNorm', 'the number of groups', groups, 1);
    checkInteger('GroupNorm', 'the number of channels', channels, 1);
    if (channels % groups !== 0) {
      throw new ArgumentError(`GroupNorm: ${channels} channels do not divide into ${groups} groups.`);
    }
    this.eps = eps;
    this.weight = affine ? new Parameter(ones([channels], { dtype })) : null;
    this.bias = affine ? new Parameter(zeros([channels], { dtype })) : null;
  }

  override forward(input: Tensor): Tensor {
    return groupNorm(input, this.groups, this.weight, this.bias, this.eps);
  }
}

export interface BatchNormModuleOptions {
  eps?: number;
  /** Share of a batch in the new running statistics; null: they are the plain average over all batches. */
  momentum?: number | null;
  affine?: boolean;
  /** Without, the batch's own statistics serve in evaluation, too. */
  trackRunningStats?: boolean;
  dtype?: DType;
}

/** What the BatchNorms have in common; they differ in the ranks that they take. */
abstract class BatchNorm extends Module {
  readonly features: number;
  readonly eps: number;
  readonly momentum: number | null;
  readonly weight: Parameter | null;
  readonly bias: Parameter | null;
  readonly runningMean: Tensor | null = null;
  readonly runningVar: Tensor | null = null;
  /** int32, without dimensions: batches seen in training. */
  readonly numBatchesTracked: Tensor | null = null;
  /** Of an input. */
  protected abstract readonly ranks: readonly number[];

  constructor(features: number, options: BatchNormModuleOptions = {}) {
    super();
    const { eps = 1e-5, momentum = 0.1, affine = true, trackRunningStats = true, dtype = 'float32' } = options;
    const { name } = this.constructor;
    this.features = checkInteger(name, 'the number of features', features, 1);
    this.eps = checkRange(name, 'eps', eps);
    this.momentum = momentum === null ? null : checkRange(name, 'momentum', momentum, 0, 1);
    this.weight = affine ? new Parameter(ones([features], { dtype })) : null;
    this.bias = affine ? new Parameter(zeros([features], { dtype })) : null;
    if (trackRunningStats) {
      this.registerBuffer('runningMean', zeros([features], { dtype }));
      this.registerBuffer('runningVar', ones([features], { dtype }));
      this.registerBuffer('numBatchesTracked', zeros([], { dtype: 'int32' }));
    }
  }

  override forward(input: Tensor): Tensor {
    this.checkInput(input);
    const { runningMean, runningVar, numBatchesTracked, weight, bias, eps } = this;
    const training = this.training || runningMean === null;
    // The plain average of n batches is a step of 1/n from that of n - 1.
    const momentum = this.momentum ?? 1 / ((numBatchesTracked?.item() ?? 0) + 1);
    const output = batchNorm(input, { runningMean, runningVar, weight, bias, training, momentum, eps });
    if (this.training) noGrad(() => numBatchesTracked?.add_(1));
    return output;
  }

  private checkInput(input: Tensor): void {
    const { name } = this.constructor;
    checkTensor(name, input);
    if (this.ranks.includes(input.ndim) && input.shape[1] === this.features) return;
    const ranks = this.ranks.join(' or ');
    throw new ShapeError(
      `${name}: an input of shape ${show(input.shape)}. Expected ${ranks} dimensions, the second of size ${this.features}.`,
    );
  }
}

/**
 * Normalises each feature over the batch: input (N, features) or (N, features, L). Evaluation uses running statistics:
 * the buffers runningMean, runningVar and numBatchesTracked.
 */
export class BatchNorm1d extends BatchNorm {
  protected readonly ranks = [2, 3];
}

/** Normalises each channel over batch and pixels: input (N, features, H, W). Otherwise as BatchNorm1d. */
export class BatchNorm2d extends BatchNorm {
  protected readonly ranks = [4];
}
