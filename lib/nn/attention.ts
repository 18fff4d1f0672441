// Multi-head attention, and a layer of a transformer encoder made with it. Layer nn.
import { checkOptions, checkRange } from '../arguments.ts';
import type { DType } from '../dtype.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import { type AttentionOptions, attend } from '../ops/attention.ts';
import { empty, gelu, linear, mean, relu, reshape, split, transpose, zeros } from '../ops/index.ts';
import { checkInteger, describe, show } from '../shape.ts';
import { checkTensor, type Tensor } from '../tensor.ts';
import { Dropout } from './dropout.ts';
import { xavierUniform_, zeros_ } from './init.ts';
import { Linear } from './linear.ts';
import { Module } from './module.ts';
import { LayerNorm } from './norm.ts';
import { Parameter } from './parameter.ts';

export interface MultiheadAttentionOptions {
  bias?: boolean;
  /** The chance that a weight is dropped in training. */
  dropout?: number;
  /** Inputs and output are (N, L, E) instead of (L, N, E). */
  batchFirst?: boolean;
  dtype?: DType;
}

/** Of a call: mask and isCausal as scaledDotProductAttention takes them. */
export interface AttendOptions extends Pick<AttentionOptions, 'mask' | 'isCausal'> {
  /** Also return the weights, averaged over the heads. Default: true. */
  needWeights?: boolean;
}

type AttentionOutput = [output: Tensor, weights: Tensor | null];

/**
 * Attention of `numHeads` heads, each over its share of embedDim. Parameters as PyTorch's: inProjWeight (3 embedDim,
 * embedDim) and inProjBias for query, key and value one after the other, outProj.weight, outProj.bias.
 */
export class MultiheadAttention extends Module<
  [query: Tensor, key: Tensor, value: Tensor, options?: AttendOptions],
  AttentionOutput
> {
  readonly embedDim: number;
  readonly numHeads: number;
  readonly dropout: number;
  readonly batchFirst: boolean;
  readonly inProjWeight: Parameter;
  readonly inProjBias: Parameter | null;
  readonly outProj: Linear;

  constructor(embedDim: number, numHeads: number, options: MultiheadAttentionOptions = {}) {
    super();
    checkOptions('MultiheadAttention', options, { bias: true, dropout: 0, batchFirst: false, dtype: 'float32' });
    const { bias = true, dropout = 0, batchFirst = false, dtype = 'float32' } = options;
    this.embedDim = checkInteger('MultiheadAttention', 'embedDim', embedDim, 1);
    this.numHeads = checkInteger('MultiheadAttention', 'numHeads', numHeads, 1);
    if (embedDim % numHeads !== 0) {
      throw new ArgumentError(`MultiheadAttention: embedDim ${embedDim} does not divide into ${numHeads} heads.`);
    }
    this.dropout = checkRange('MultiheadAttention', 'dropout', dropout, 0, 1);
    this.batchFirst = batchFirst;
    this.inProjWeight = new Parameter(empty([3 * embedDim, embedDim], { dtype }));
    this.inProjBias = bias ? new Parameter(zeros([3 * embedDim], { dtype })) : null;
    this.outProj = new Linear(embedDim, embedDim, { bias, dtype });
    xavierUniform_(this.inProjWeight);
    if (this.outProj.bias) zeros_(this.outProj.bias);
  }

  /**
   * Query (L, N, embedDim), key and value (S, N, embedDim), N first if `batchFirst`, or all without N: [output of
   * query's shape, weights (N, L, S) or null]. A mask broadcasts to (N, numHeads, L, S); unlike PyTorch's, true means that a key takes part.
   */
  override forward(query: Tensor, key: Tensor, value: Tensor, options: AttendOptions = {}): AttentionOutput {
    checkOptions('MultiheadAttention', options, { mask: null, isCausal: false, needWeights: true });
    const { needWeights = true, ...masking } = options;
    const [q, k, v] = this.project({ query, key, value });
    const dropout = this.training ? this.dropout : 0;
    const [values, weights] = attend('MultiheadAttention', q!, k!, v!, { ...masking, dropout });
    const joined = transpose(values, -3, -2);
    const output = this.outProj.call(reshape(joined, [...joined.shape.slice(0, -2), this.embedDim]));
    return [this.exchanged(output), needWeights ? mean(weights, -3) : null];
  }

  /** Between the order of the caller and (N, length, embedDim). */
  private exchanged(t: Tensor): Tensor {
    return t.ndim === 3 && !this.batchFirst ? transpose(t, 0, 1) : t;
  }

  /** Each input through its part of the projection, as (N, numHeads, length, size of a head). */
  private project(inputs: Readonly<Record<string, Tensor>>): Tensor[] {
    const { embedDim, numHeads } = this;
    const weights = split(this.inProjWeight, embedDim);
    const biases = this.inProjBias && split(this.inProjBias, embedDim);
    return Object.entries(inputs).map(([what, input], i) => {
      checkTensor('MultiheadAttention', input, what);
      const { shape } = input;
      if ((shape.length !== 2 && shape.length !== 3) || shape.at(-1) !== embedDim) {
        throw new ShapeError(
          `MultiheadAttention: the ${what} has shape ${show(shape)}. Expected ` +
            `(${this.batchFirst ? 'N, length' : 'length, N'}, ${embedDim}), or without N.`,
        );
      }
      const projected = linear(this.exchanged(input), weights[i]!, biases?.[i]);
      return transpose(reshape(projected, [...projected.shape.slice(0, -1), numHeads, embedDim / numHeads]), -3, -2);
    });
  }
}

export interface TransformerEncoderLayerOptions {
  dimFeedforward?: number;
  dropout?: number;
  activation?: 'relu' | 'gelu';
  /** Normalise before attention and feed-forward instead of after them. */
  normFirst?: boolean;
  layerNormEps?: number;
  /** Input and output are (N, L, dModel) instead of (L, N, dModel). */
  batchFirst?: boolean;
  bias?: boolean;
  dtype?: DType;
}
const ENCODER: TransformerEncoderLayerOptions = {
  dimFeedforward: 2048,
  dropout: 0.1,
  activation: 'relu',
  normFirst: false,
  layerNormEps: 1e-5,
  batchFirst: false,
  bias: true,
  dtype: 'float32',
};

/**
 * Self-attention, then a feed-forward network of one hidden layer, each with dropout, a residual connection and a layer
 * norm. Input and output (L, N, dModel), N first if `batchFirst`, or without N. Submodules as PyTorch's: selfAttn, linear1, dropout, linear2,
 * norm1, norm2, dropout1, dropout2.
 */
export class TransformerEncoderLayer extends Module<[input: Tensor, options?: Omit<AttendOptions, 'needWeights'>]> {
  readonly selfAttn: MultiheadAttention;
  readonly linear1: Linear;
  readonly dropout: Dropout;
  readonly linear2: Linear;
  readonly norm1: LayerNorm;
  readonly norm2: LayerNorm;
  readonly dropout1: Dropout;
  readonly dropout2: Dropout;
  readonly activation: 'relu' | 'gelu';
  readonly normFirst: boolean;

  constructor(dModel: number, nhead: number, options: TransformerEncoderLayerOptions = {}) {
    super();
    checkOptions('TransformerEncoderLayer', options, ENCODER);
    const { dimFeedforward = 2048, dropout = 0.1, activation = 'relu', normFirst = false } = options;
    const { layerNormEps = 1e-5, batchFirst = false, bias = true, dtype = 'float32' } = options;
    if (activation !== 'relu' && activation !== 'gelu') {
      throw new ArgumentError(
        `TransformerEncoderLayer: activation is ${describe(activation)}. Expected 'relu' or 'gelu'.`,
      );
    }
    this.selfAttn = new MultiheadAttention(dModel, nhead, { bias, dropout, batchFirst, dtype });
    this.linear1 = new Linear(dModel, dimFeedforward, { bias, dtype });
    this.dropout = new Dropout(dropout);
    this.linear2 = new Linear(dimFeedforward, dModel, { bias, dtype });
    this.norm1 = new LayerNorm(dModel, { eps: layerNormEps, bias, dtype });
    this.norm2 = new LayerNorm(dModel, { eps: layerNormEps, bias, dtype });
    this.dropout1 = new Dropout(dropout);
    this.dropout2 = new Dropout(dropout);
    this.activation = activation;
    this.normFirst = normFirst;
  }

  override forward(input: Tensor, options: Omit<AttendOptions, 'needWeights'> = {}): Tensor {
    const attended = (x: Tensor): Tensor =>
      this.dropout1.call(this.selfAttn.call(x, x, x, { ...options, needWeights: false })[0]);
    const activate = this.activation === 'relu' ? relu : gelu;
    const transformed = (x: Tensor): Tensor =>
      this.dropout2.call(this.linear2.call(this.dropout.call(activate(this.linear1.call(x)))));
    if (this.normFirst) {
      const x = input.add(attended(this.norm1.call(input)));
      return x.add(transformed(this.norm2.call(x)));
    }
    const x = this.norm1.call(input.add(attended(input)));
    return this.norm2.call(x.add(transformed(x)));
  }
}
