// Linear: y = x Wᵀ + b. Layer nn.
import type { DType } from '../dtype.ts';
import { empty, linear } from '../ops/index.ts';
import { checkInteger } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { kaimingUniform_, uniform_ } from './init.ts';
import { Module } from './module.ts';
import { Parameter } from './parameter.ts';

/** Weight [outFeatures, inFeatures] and bias, both drawn from U(±1/√inFeatures). */
export class Linear extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter | null;

  constructor(inFeatures: number, outFeatures: number, { bias = true, dtype = 'float32' as DType } = {}) {
    super();
    checkInteger('Linear', 'inFeatures', inFeatures, 0);
    checkInteger('Linear', 'outFeatures', outFeatures, 0);
    this.weight = new Parameter(empty([outFeatures, inFeatures], { dtype }));
    this.bias = bias ? new Parameter(empty([outFeatures], { dtype })) : null;
    // With a = √5 the gain is 1/√3, so the bound √3·gain/√fanIn is 1/√fanIn.
    kaimingUniform_(this.weight, { a: Math.sqrt(5) });
    const bound = inFeatures > 0 ? 1 / Math.sqrt(inFeatures) : 0;
    if (this.bias) uniform_(this.bias, -bound, bound);
  }

  override forward(input: Tensor): Tensor {
    return linear(input, this.weight, this.bias);
  }
}
