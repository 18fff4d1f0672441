// Dropout: zeroes each element with probability p while training. Layer nn.
import { checkRange } from '../arguments.ts';
import { dropout } from '../ops/index.ts';
import type { Tensor } from '../tensor.ts';
import { Module } from './module.ts';

export class Dropout extends Module {
  readonly p: number;

  constructor(p = 0.5) {
    super();
    this.p = checkRange('Dropout', 'p', p, 0, 1);
  }

  override forward(input: Tensor): Tensor {
    return dropout(input, this.p, { training: this.training });
  }
}
