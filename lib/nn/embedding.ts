// Embedding: row `i` of a table for each index `i`. Layer nn.
import type { DType } from '../dtype.ts';
import { embedding, empty } from '../ops/index.ts';
import { checkInteger } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { normal_ } from './init.ts';
import { Module } from './module.ts';
import { Parameter } from './parameter.ts';

/** Weight [count, dim], drawn from N(0, 1). Input: int32 indices of any shape. */
export class Embedding extends Module {
  readonly weight: Parameter;

  constructor(count: number, dim: number, { dtype = 'float32' as DType } = {}) {
    super();
    checkInteger('Embedding', 'the number of embeddings', count, 0);
    checkInteger('Embedding', 'dim', dim, 0);
    this.weight = new Parameter(empty([count, dim], { dtype }));
    normal_(this.weight);
  }

  override forward(indices: Tensor): Tensor {
    return embedding(indices, this.weight);
  }
}
