// Comparisons of whole tensors: they read values, and answer true or false.
import { checkOptions } from '../arguments.ts';
import { noGrad } from '../autograd/grad-mode.ts';
import { F64, isFloat } from '../dtype.ts';
import { broadcastShapes, sameShape } from '../shape.ts';
import { scope, type Tensor } from '../tensor.ts';
import { cast } from './cast.ts';
import { checkNumber } from './define.ts';
import { abs, add, eq, le, lt, maximum, mul, ne, sub } from './elementwise.ts';
import { checkSameDtype } from './op.ts';
import { checkReadable, item } from './read.ts';
import { all } from './reduce.ts';

/** Whether a and b have one shape, one dtype and equal elements; NaN equals nothing. torch.equal */
export function equal(a: Tensor, b: Tensor): boolean {
  checkReadable('equal', a, 'first operand');
  checkReadable('equal', b, 'second operand');
  if (a.code !== b.code || !sameShape(a.shape, b.shape)) return false;
  return noGrad(() => scope(() => item(all(eq(a, b))) === 1));
}

export interface CloseOptions {
  rtol?: number;
  atol?: number;
  equalNan?: boolean;
}

/**
 * Whether |a - b| <= atol + rtol * |b| everywhere, a and b broadcast; infinities are close to themselves, NaN to NaN
 * only with equalNan. Defaults: rtol 1e-5, atol 1e-8. torch.allclose
 */
export function allClose(a: Tensor, b: Tensor, options: CloseOptions = {}): boolean {
  checkReadable('allClose', a, 'first operand');
  checkReadable('allClose', b, 'second operand');
  checkSameDtype('allClose', a, b);
  checkOptions('allClose', options, { rtol: 0, atol: 0, equalNan: false });
  const { rtol = 1e-5, atol = 1e-8, equalNan = false } = options;
  checkNumber('allClose', 'rtol', rtol);
  checkNumber('allClose', 'atol', atol);
  broadcastShapes('allClose', a.shape, b.shape);
  return noGrad(() =>
    scope(() => {
      // Whole numbers are exact in float64.
      const [x, y] = isFloat(a.code) ? [a, b] : [cast(a, F64), cast(b, F64)];
      const error = abs(sub(x, y));
      // Infinities are close only to their equals, however large the error allowed.
      const near = mul(lt(error, Number.POSITIVE_INFINITY), le(error, add(mul(abs(y), rtol), atol)));
      let close = maximum(eq(x, y), near);
      if (equalNan) close = maximum(close, mul(ne(x, x), ne(y, y)));
      return item(all(close)) === 1;
    }),
  );
}
