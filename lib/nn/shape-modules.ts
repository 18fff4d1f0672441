// Identity and Flatten. Layer nn.
import { flatten } from '../ops/index.ts';
import type { Tensor } from '../tensor.ts';
import { unaryModule } from './function-module.ts';

export class Identity extends unaryModule((input: Tensor) => input) {}

/** Keeps the first dimension, the batch, unless told otherwise. */
export class Flatten extends unaryModule((input, start: number = 1, end: number = -1) => flatten(input, start, end)) {}
