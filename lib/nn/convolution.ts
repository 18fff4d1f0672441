// Convolution layers. Layer nn: no mathematics here.
import type { DType } from '../dtype.ts';
import { ArgumentError } from '../errors.ts';
import { type ConvOptions, checkConvOptions } from '../ops/convolution.ts';
import { conv1d, conv2d, empty } from '../ops/index.ts';
import { checkSizes, type Size } from '../ops/windows.ts';
import { checkInteger, numelOf } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { kaimingUniform_, uniform_ } from './init.ts';
import { Module } from './module.ts';
import { Parameter } from './parameter.ts';

export interface ConvLayerOptions extends ConvOptions {
  bias?: boolean;
  dtype?: DType;
}

/** Weight [outChannels, inChannels / groups, …kernel] and bias, both drawn from U(±1/√fanIn) with fanIn = in / groups · kernel. */
abstract class Convolution extends Module {
  readonly options: ConvOptions;
  readonly weight: Parameter;
  readonly bias: Parameter | null;

  constructor(
    owner: string,
    n: number,
    inChannels: number,
    outChannels: number,
    kernelSize: Size,
    { bias = true, dtype = 'float32', ...options }: ConvLayerOptions,
  ) {
    super();
    checkInteger(owner, 'inChannels', inChannels, 0);
    checkInteger(owner, 'outChannels', outChannels, 0);
    const kernel = checkSizes(owner, 'kernelSize', kernelSize, n, 1);
    const { groups } = checkConvOptions(owner, n, kernel, options);
    for (const [what, channels] of Object.entries({ inChannels, outChannels })) {
      if (channels % groups !== 0) {
        throw new ArgumentError(`${owner}: ${what} is ${channels}. Expected a multiple of groups, ${groups}.`);
      }
    }
    this.options = options;
    this.weight = new Parameter(empty([outChannels, inChannels / groups, ...kernel], { dtype }));
    this.bias = bias ? new Parameter(empty([outChannels], { dtype })) : null;
    // With a = √5 the gain is 1/√3, so the bound √3·gain/√fanIn is 1/√fanIn.
    kaimingUniform_(this.weight, { a: Math.sqrt(5) });
    const fanIn = numelOf(this.weight.shape.slice(1));
    const bound = fanIn > 0 ? 1 / Math.sqrt(fanIn) : 0;
    if (this.bias) uniform_(this.bias, -bound, bound);
  }
}

/** Of input [batch, inChannels, length], or without batch. */
export class Conv1d extends Convolution {
  constructor(inChannels: number, outChannels: number, kernelSize: Size, options: ConvLayerOptions = {}) {
    super('Conv1d', 1, inChannels, outChannels, kernelSize, options);
  }

  override forward(input: Tensor): Tensor {
    return conv1d(input, this.weight, this.bias, this.options);
  }
}

/** Of input [batch, inChannels, height, width], or without batch. */
export class Conv2d extends Convolution {
  constructor(inChannels: number, outChannels: number, kernelSize: Size, options: ConvLayerOptions = {}) {
    super('Conv2d', 2, inChannels, outChannels, kernelSize, options);
  }

  override forward(input: Tensor): Tensor {
    return conv2d(input, this.weight, this.bias, this.options);
  }
}
