// What every op does around its command: check inputs, make the output, run, record.
import { hasTangent, needsGrad, type Rule, record, recording } from '../autograd/tape.ts';
import { current } from '../context.ts';
import { COMPUTE, DTYPES, isFloat } from '../dtype.ts';
import { AutogradError, ChainruleError, DTypeError, ShapeError } from '../errors.ts';
import { hasKernel } from '../native.ts';
import { copy } from '../program/commands.ts';
import { flush } from '../program/engine.ts';
import { broadcastShapes, type Shape, sameShape, show, stridesOf } from '../shape.ts';
import { checkTensor, fresh, type Tensor, track } from '../tensor.ts';
import { behind } from './batched.ts';

/**
 * Runs the op's commands; its output becomes the user's. Records it when one of the inputs needs a gradient.
 * `saved`: what the rule's vjp reads, in its order; entries that only an unneeded gradient reads may be null.
 */
export function finish<C>(
  out: Tensor,
  rule: Rule<C>,
  inputs: readonly (Tensor | null)[],
  saved: readonly (Tensor | null)[],
  context: C,
): Tensor {
  finishPlain(out);
  recordOp(out, rule, inputs, saved, context);
  return out;
}

/** Records an op whose output is the user's already. */
export function recordOp<C>(
  out: Tensor,
  rule: Rule<C>,
  inputs: readonly (Tensor | null)[],
  saved: readonly (Tensor | null)[],
  context: C,
): void {
  if (recording(inputs)) record(out, rule, inputs, saved, context);
  if (out.physical !== null) behind.record(out, rule, inputs, saved, context);
}

/** As finish, for an op whose output never has a gradient. */
export function finishPlain(out: Tensor): Tensor {
  flush();
  return track(out);
}

/** @throws DTypeError when the kernel is not defined for t's dtype */
export function checkKernel(name: string, op: number, t: Tensor): void {
  if (!hasKernel(op, COMPUTE[t.code]!)) {
    throw new DTypeError(`${name}: not defined for ${t.dtype}. Convert with .to('float32') or .float().`);
  }
}

/** An output like t: row-major, of its shape and, unless given, its dtype. */
export const freshLike = (t: Tensor, code = t.code): Tensor =>
  t.isContiguous ? fresh(t.shape, code, t.strides, t.numel) : fresh(t.shape, code, stridesOf(t.shape), t.numel);

/** @throws DTypeError unless both have one dtype */
export function checkSameDtype(op: string, a: Tensor, b: Tensor): void {
  if (a.code !== b.code) {
    throw new DTypeError(
      `${op}: dtypes differ: ${a.dtype} and ${b.dtype}. Nothing is promoted silently: convert one with .to('${a.dtype}').`,
    );
  }
}

/** @throws DTypeError unless t is of a floating dtype */
export function checkFloat(op: string, t: Tensor): void {
  if (!isFloat(t.code)) {
    throw new DTypeError(`${op}: not defined for ${t.dtype}. Convert with .to('float32') or .float().`);
  }
}

/** @throws DTypeError unless t holds int32 indices */
export function checkIndex(op: string, t: unknown, what = 'index'): asserts t is Tensor {
  checkTensor(op, t, what);
  if (DTYPES[t.code] !== 'int32') {
    throw new DTypeError(`${op}: the ${what} is ${t.dtype}. Indices are int32: convert with .to('int32').`);
  }
}

/** The shape of an elementwise result. @throws ShapeError */
export const resultShape = (op: string, a: Tensor, b: Tensor): Shape =>
  sameShape(a.shape, b.shape) ? a.shape : broadcastShapes(op, a.shape, b.shape);

/** Row-major and in a dtype that kernels read directly: itself, or a copy outside the graph that the caller disposes. */
export function dense(t: Tensor, code = COMPUTE[t.code]!): Tensor {
  if (t.isContiguous && t.code === code) return t;
  const out = fresh(t.shape, code);
  copy(out, t);
  return out;
}

/** Runs the commands so far, then frees what `dense` copied. */
export function drop(copied: Tensor, original: Tensor): void {
  if (copied === original) return;
  flush();
  copied.dispose();
}

/**
 * Proves that x may be written in place and counts the change, before anything is written.
 * @throws AutogradError for a leaf that requires grad, for a view while recording; ShapeError for an expanded view
 */
export function beforeInPlace(op: string, x: Tensor, others: readonly Tensor[], result: Shape): void {
  checkTensor(op, x);
  if (!sameShape(result, x.shape)) {
    throw new ShapeError(
      `${op}: the result has shape ${show(result)} and does not fit in place into ${show(x.shape)}.`,
    );
  }
  for (let d = 0; d < x.shape.length; d++) {
    // Without elements row-major strides are 0 as well, and nothing is shared.
    if (x.strides[d] === 0 && x.shape[d]! > 1 && x.numel > 0) {
      throw new ShapeError(`${op}: ${show(x.shape)} is an expanded view: its elements share memory. Use a clone().`);
    }
  }
  if (x.physical !== null || others.some((t) => t.physical !== null)) {
    throw new AutogradError(
      `${op}: a tensor of shape ${show(x.shape)} cannot be changed in place inside vmap. Use the out-of-place op.`,
    );
  }
  if (current().grad) {
    if (x.leafRequiresGrad && x.node === null) {
      throw new AutogradError(
        `${op}: a leaf that requires grad of shape ${show(x.shape)} cannot be changed in place while recording. ` +
          'Update it inside noGrad(() => ...), or use the out-of-place op.',
      );
    }
  }
  const flows = current().grad ? needsGrad : hasTangent;
  if (x.viewVersion >= 0 && (flows(x) || others.some(flows))) {
    throw new AutogradError(
      `${op}: a view of shape ${show(x.shape)} cannot be changed in place while its gradient is recorded. Use the ` +
        'out-of-place op and put the parts together with cat, where or scatterAdd, or work inside noGrad.',
    );
  }
}

/** Runs the commands of an in-place op and gives x its new place in the graph. */
export function finishInPlace<C>(
  x: Tensor,
  rule: Rule<C>,
  inputs: readonly (Tensor | null)[],
  saved: () => readonly (Tensor | null)[],
  context: C,
): Tensor {
  flush();
  x.storage.changed();
  if (recording(inputs)) {
    const before = x.node;
    record(x, rule, inputs, saved(), context);
    x.storage.graphVersion++;
    // Hooks stay with the value that was, as in PyTorch; what x retains is the gradient of the value that is.
    if (before !== null && before.retaining === x && x.node !== before) {
      before.retaining = null;
      x.node!.retaining = x;
    }
  }
  return x;
}

/** Whether writing x while reading y would read elements that are already written. */
export function overlaps(x: Tensor, y: Tensor): boolean {
  return (
    x.storage === y.storage &&
    !(x.offset === y.offset && sameShape(x.shape, y.shape) && sameShape(x.strides, y.strides))
  );
}

/** An op made of other ops: an error of one of its parts names the op that the user called. */
export const composed =
  <A extends unknown[], T>(op: string, run: (...args: A) => T): ((...args: A) => T) =>
  (...args) => {
    try {
      return run(...args);
    } catch (error) {
      throw renamed(op, error);
    }
  };

/** The same error under another op's name. */
export function renamed(op: string, error: unknown): unknown {
  if (!(error instanceof ChainruleError) || error.message.startsWith(`${op}: `)) return error;
  const message = error.message.replace(/^\w+: /, `${op}: `);
  return new (error.constructor as new (message: string, options: ErrorOptions) => ChainruleError)(message, {
    cause: error,
  });
}
