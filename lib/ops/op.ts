// What every op does around its command: check inputs, make the output, run, record.
import { type Rule, record, recording } from '../autograd/tape.ts';
import { COMPUTE, DTYPES, isFloat } from '../dtype.ts';
import { ChainruleError, DTypeError, IndexError } from '../errors.ts';
import { hasKernel } from '../native.ts';
import { copy } from '../program/commands.ts';
import { adopt, flush } from '../program/engine.ts';
import { capturing } from '../program/recorder.ts';
import { broadcastShapes, type Shape, sameShape, stridesOf } from '../shape.ts';
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

/** Ends the op's own hold on what it saved: the graph's from here on, and with the graph the collector's. */
export function leaveToGraph(t: Tensor): void {
  t.dispose();
  if (t.storage.slot >= 0) adopt(t.storage);
}

/** Runs fn; an index that the kernel refuses is told under the op's own name, with the range. */
export function indexed(op: string, rows: number, fn: () => Tensor): Tensor {
  const recorder = capturing();
  if (recorder !== null) return recorder.named((error) => outsideOf(op, rows, error), fn);
  try {
    return fn();
  } catch (error) {
    throw outsideOf(op, rows, error);
  }
}

function outsideOf(op: string, rows: number, error: unknown): unknown {
  if (!(error instanceof IndexError)) return error;
  const found = /index (\S+) at position (\d+)/.exec(error.message);
  return new IndexError(`${op}: index ${found?.[1]} at position ${found?.[2]} is outside [0, ${rows - 1}].`, {
    cause: error,
  });
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
