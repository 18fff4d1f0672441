// LayerNorm and RMSNorm over the last dimensions. Layer nn.
import type { DType } from '../dtype.ts';
import { layerNorm, ones, rmsNorm, zeros } from '../ops/index.ts';
import { checkShape } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
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
