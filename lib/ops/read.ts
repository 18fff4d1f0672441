// Values back to JavaScript: always copies. Reads wait for what they read.
import { BF16, BOOL, BYTES, fromBfloat16, type TypedArray, typedArray } from '../dtype.ts';
import { AutogradError, ChainruleError, ShapeError } from '../errors.ts';
import { native } from '../native.ts';
import { flush, settle } from '../program/engine.ts';
import { settled } from '../program/queue.ts';
import { refuseWhileRecording } from '../program/recorder.ts';
import { show } from '../shape.ts';
import { checkTensor, type Tensor } from '../tensor.ts';
import type { Nested } from './create.ts';
import { dense, drop } from './op.ts';

const READ =
  'Return the tensor and read it outside; choose with where() instead of an if, and let the optimizer clip by maxGradNorm.';

/** @throws AutogradError inside vmap, where a tensor stands for many */
export function checkReadable(op: string, x: Tensor, what?: string): void {
  checkTensor(op, x, what);
  if (x.physical !== null) {
    throw new AutogradError(
      `${op}: inside vmap a tensor of shape ${show(x.shape)} stands for one of each example and has no value of its own. ` +
        'Choose with where() instead of an if, and read values from the result of vmap.',
    );
  }
}

/**
 * The elements in row-major order, as a copy: Float32Array, Float64Array, Int32Array, Uint8Array (uint8 and bool);
 * bfloat16 widened to Float32Array.
 */
export function toTypedArray(x: Tensor): TypedArray {
  checkReadable('toTypedArray', x);
  refuseWhileRecording('toTypedArray', READ);
  const operand = dense(x, x.code);
  flush();
  settle(operand.storage);
  const out = typedArray(x.code, x.numel);
  const read = native.read(operand.storage.slot, operand.offset * BYTES[x.code]!, out);
  drop(operand, x);
  if (!read)
    throw new ChainruleError('ERR_INTERNAL', `toTypedArray: storage of ${show(x.shape)} is shorter than its shape`);
  return x.code === BF16 ? Float32Array.from(out, fromBfloat16) : out;
}

/** The one element of a tensor, as a number; bool as 0 or 1. @throws ShapeError for more or fewer */
export function item(x: Tensor): number {
  checkReadable('item', x);
  if (x.numel !== 1) {
    throw new ShapeError(
      `item: a tensor of shape ${show(x.shape)} has ${x.numel} elements. Expected one; use toArray().`,
    );
  }
  refuseWhileRecording('item', READ);
  flush();
  settle(x.storage);
  return native.readNumber(x.storage.slot, x.offset * BYTES[x.code]!, x.code)!;
}

/** Nested arrays of numbers, booleans for bool; a number for a tensor without dimensions. */
export function toArray(x: Tensor): Nested {
  const flat = toTypedArray(x);
  const value = x.code === BOOL ? (i: number) => flat[i] !== 0 : (i: number) => flat[i]!;
  const nest = (dim: number, at: number, step: number): Nested => {
    if (dim === x.ndim) return value(at);
    const inner = step / Math.max(x.shape[dim]!, 1);
    return Array.from({ length: x.shape[dim]! }, (_, i) => nest(dim + 1, at + i * inner, inner));
  };
  return nest(0, 0, x.numel);
}

async function when<T>(op: string, x: Tensor, read: (x: Tensor) => T): Promise<T> {
  checkReadable(op, x);
  await settled(x.storage);
  return read(x);
}

/** A promise of `item`: waits beside the event loop for what is in flight. */
export const itemAsync = (x: Tensor): Promise<number> => when('itemAsync', x, item);
/** A promise of `toArray`, likewise. */
export const toArrayAsync = (x: Tensor): Promise<Nested> => when('toArrayAsync', x, toArray);
/** A promise of `toTypedArray`, likewise. */
export const toTypedArrayAsync = (x: Tensor): Promise<TypedArray> => when('toTypedArrayAsync', x, toTypedArray);
