// Copies: dtype conversion, clone, contiguous. Conversions between floating dtypes carry gradients.
import type { Rule } from '../autograd/tape.ts';
import { type DType, dtypeCode, F32, F64, isFloat } from '../dtype.ts';
import { copy } from '../program/commands.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { Batched, lower } from './batched.ts';
import { finish, finishPlain, freshLike } from './op.ts';

const castRule: Rule<number> = {
  name: 'ToCopyBackward',
  vjp: [(g, _, code) => cast(g, code)],
  jvp: ([t], _, __, out) => cast(t!, out.code),
};

/** x in another dtype, by code. */
export function cast(x: Tensor, code: number): Tensor {
  if (x.code === code) return x;
  const out = x instanceof Batched ? lower(x.level, () => cast(x.physical, code)) : freshLike(x, code);
  if (out.physical === null) copy(out, x);
  return isFloat(x.code) && isFloat(code) ? finish(out, castRule, [x], [], x.code) : finishPlain(out);
}

/** A tensor of no dimensions from a number, or a copy of a tensor, in like's dtype. */
export function castLike(value: Tensor | number, like: Tensor): Tensor {
  if (value instanceof Batched) return finishPlain(lower(value.level, () => castLike(value.physical, like)));
  const out = typeof value === 'number' ? fresh([], like.code) : freshLike(value, like.code);
  copy(out, value);
  return finishPlain(out);
}

/**
 * x in another dtype; x itself when it has it. Floating to integer cuts toward zero and saturates, NaN becomes 0;
 * to bool is x != 0. torch.Tensor.to
 */
export function to(x: Tensor, dtype: DType): Tensor {
  checkTensor('to', x);
  return cast(x, dtypeCode('to', dtype));
}
/** x.to('float32') */
export function float(x: Tensor): Tensor {
  checkTensor('float', x);
  return cast(x, F32);
}
/** x.to('float64') */
export function double(x: Tensor): Tensor {
  checkTensor('double', x);
  return cast(x, F64);
}

const cloneRule: Rule = { name: 'CloneBackward', vjp: [(g) => g], elementwise: true };

/** A copy with storage of its own; gradients pass through. */
export function clone(x: Tensor): Tensor {
  checkTensor('clone', x);
  const out = x instanceof Batched ? lower(x.level, () => clone(x.physical)) : freshLike(x);
  if (out.physical === null) copy(out, x);
  return finish(out, cloneRule, [x], [], null);
}

/** x itself when it is row-major without gaps, else a copy that is. */
export function contiguous(x: Tensor): Tensor {
  checkTensor('contiguous', x);
  return x.isContiguous ? x : clone(x);
}
