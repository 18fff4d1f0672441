// Ops that layers are made of: normalisation and dropout.
import { checkOptions } from '../arguments.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import type { Generator } from '../random.ts';
import { checkShape, describe, type Shape, sameShape, show } from '../shape.ts';
import { checkTensor, type Tensor } from '../tensor.ts';
import { add, mul, rsqrt, square, sub } from './elementwise.ts';
import { checkFloat, checkSameDtype } from './op.ts';
import { bernoulli } from './random.ts';
import { mean } from './reduce.ts';

/** The trailing dimensions that a normalisation covers. @throws ShapeError */
function trailing(op: string, x: Tensor, shape: Shape, weight?: Tensor | null, bias?: Tensor | null): number[] {
  checkTensor(op, x);
  checkFloat(op, x);
  const sizes = checkShape(op, shape);
  const skip = x.ndim - sizes.length;
  if (sizes.length === 0 || skip < 0 || !sameShape(x.shape.slice(skip), sizes)) {
    throw new ShapeError(`${op}: ${show(x.shape)} does not end in the normalised shape ${show(sizes)}.`);
  }
  for (const t of [weight, bias]) {
    if (t === undefined || t === null) continue;
    checkTensor(op, t, 'weight or bias');
    checkSameDtype(op, x, t);
    if (!sameShape(t.shape, sizes)) {
      throw new ShapeError(
        `${op}: a weight or bias of shape ${show(t.shape)}. Expected the normalised shape ${show(sizes)}.`,
      );
    }
  }
  return sizes.map((_, i) => skip + i);
}

function affine(x: Tensor, weight?: Tensor | null, bias?: Tensor | null): Tensor {
  const scaled = weight ? mul(x, weight) : x;
  return bias ? add(scaled, bias) : scaled;
}

/** x less its mean, over its deviation, of the trailing dimensions `shape`; then times weight plus bias. */
export function layerNorm(x: Tensor, shape: Shape, weight?: Tensor | null, bias?: Tensor | null, eps = 1e-5): Tensor {
  const dims = trailing('layerNorm', x, shape, weight, bias);
  const centred = sub(x, mean(x, dims, { keepdim: true }));
  const variance = mean(square(centred), dims, { keepdim: true });
  return affine(mul(centred, rsqrt(add(variance, eps))), weight, bias);
}

/** x over its root mean square of the trailing dimensions `shape`, times weight. Zhang & Sennrich 2019 */
export function rmsNorm(x: Tensor, shape: Shape, weight?: Tensor | null, eps = 1e-5): Tensor {
  const dims = trailing('rmsNorm', x, shape, weight);
  return affine(mul(x, rsqrt(add(mean(square(x), dims, { keepdim: true }), eps))), weight);
}

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
