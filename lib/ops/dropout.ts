// Dropout.
import { checkOptions } from '../arguments.ts';
import { ArgumentError } from '../errors.ts';
import type { Generator } from '../random.ts';
import { describe } from '../shape.ts';
import { checkTensor, type Tensor } from '../tensor.ts';
import { mul } from './elementwise.ts';
import { checkFloat } from './op.ts';
import { bernoulli } from './random.ts';

/** In training each element is 0 with chance p, else divided by 1 - p; otherwise x itself. Srivastava et al. 2014 */
export function dropout(x: Tensor, p = 0.5, options: { training?: boolean; generator?: Generator } = {}): Tensor {
  checkTensor('dropout', x);
  checkFloat('dropout', x);
  if (typeof p !== 'number' || !(p >= 0 && p <= 1)) {
    throw new ArgumentError(`dropout: p is ${describe(p)}. Expected a chance in [0, 1].`);
  }
  checkOptions('dropout', options, { training: true, generator: null });
  const { training = true, generator } = options;
  if (!training || p === 0) return x;
  const kept = bernoulli(1 - p, x.shape, generator ? { dtype: x.dtype, generator } : { dtype: x.dtype });
  return mul(x, p === 1 ? kept : mul(kept, 1 / (1 - p)));
}
