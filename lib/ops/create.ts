// Tensors from data and from nothing.
import { checkOptions } from '../arguments.ts';
import {
  BF16,
  BOOL,
  type DType,
  dtypeCode,
  F32,
  F64,
  I32,
  isFloat,
  type TypedArray,
  toBfloat16,
  typedArray,
  U8,
} from '../dtype.ts';
import { ArgumentError, AutogradError, ShapeError } from '../errors.ts';
import { native } from '../native.ts';
import * as commands from '../program/commands.ts';
import { flush, outOfMemory } from '../program/engine.ts';
import { refuseWhileRecording } from '../program/recorder.ts';
import { checkInteger, checkShape, describe, numelOf, type Shape, show } from '../shape.ts';
import { checkTensor, fresh, type Tensor, track } from '../tensor.ts';
import { checkNumber } from './define.ts';
import { finishPlain } from './op.ts';
import { diagonal, narrow } from './parts.ts';

export interface CreateOptions {
  dtype?: DType;
  requiresGrad?: boolean;
}

const KNOWN: CreateOptions = { dtype: 'float32', requiresGrad: false };

/** Applies `requiresGrad` to a new leaf. @throws AutogradError unless it is of a floating dtype */
export function asLeaf(op: string, t: Tensor, requiresGrad: boolean | undefined): Tensor {
  if (!requiresGrad) return t;
  if (!isFloat(t.code)) {
    throw new AutogradError(`${op}: ${t.dtype} tensors cannot require grad: only floating dtypes have gradients.`);
  }
  t.leafRequiresGrad = true;
  return t;
}

// ---- data -------------------------------------------------------------------------------------------------------------
/** Nested arrays of numbers and booleans. */
export type Nested = number | boolean | readonly Nested[];

/** The shape of nested arrays, and their leaves in order. @throws ShapeError when they are ragged */
function flatten(data: Nested): { shape: number[]; values: (number | boolean)[] } {
  const shape: number[] = [];
  for (let level: Nested = data; Array.isArray(level); level = level[0] as Nested) {
    shape.push(level.length);
    if (level.length === 0) break;
  }
  let level: Nested[] = [data];
  for (let d = 0; d < shape.length; d++) {
    const next: Nested[] = [];
    for (const entry of level) {
      if (!Array.isArray(entry) || entry.length !== shape[d]) {
        const got = Array.isArray(entry) ? `${entry.length} entries` : describe(entry);
        throw new ShapeError(
          `tensor: ragged data: dimension ${d} has ${shape[d]} entries in one place, ${got} in another.`,
        );
      }
      for (const item of entry) next.push(item as Nested);
    }
    level = next;
  }
  for (const value of level) {
    if (typeof value !== 'number' && typeof value !== 'boolean') {
      throw Array.isArray(value)
        ? new ShapeError(`tensor: ragged data: an array stands where numbers do, at depth ${shape.length}.`)
        : new ArgumentError(`tensor: the data holds ${describe(value)}. Expected numbers.`);
    }
  }
  return { shape: checkShape('tensor', shape), values: level as (number | boolean)[] };
}

const NATURAL: Readonly<Record<string, number>> = {
  Float32Array: F32,
  Float64Array: F64,
  Int32Array: I32,
  Uint8Array: U8,
};
const CONVERTED = ['Int8Array', 'Uint8ClampedArray', 'Int16Array', 'Uint16Array', 'Uint32Array'];
/** The class of a typed array, also of its subclasses: a Buffer is a Uint8Array. */
const kindOf = (array: ArrayBufferView): string => (array as Uint8Array)[Symbol.toStringTag] ?? 'DataView';

/** @throws ArgumentError for a view whose buffer was transferred, which reads as empty */
function checkAttached(array: ArrayBufferView): void {
  try {
    if (array.byteLength === 0) new Uint8Array(array.buffer);
  } catch (cause) {
    throw new ArgumentError('tensor: the typed array is detached: its buffer was transferred.', { cause });
  }
}

/** Whole numbers of integer dtypes saturate, NaN becomes 0: as conversion between tensors does. */
function store(target: TypedArray, code: number, values: ArrayLike<number | boolean>): void {
  const [low, high] = code === I32 ? [-(2 ** 31), 2 ** 31 - 1] : [0, 255];
  for (let i = 0; i < values.length; i++) {
    const value = Number(values[i]);
    if (code === BOOL) target[i] = value === 0 ? 0 : 1;
    else if (code === BF16) target[i] = toBfloat16(value);
    else if (code === I32 || code === U8) target[i] = Math.trunc(Math.min(Math.max(value, low), high)) || 0;
    else target[i] = value;
  }
}

/** A tensor with a copy of a typed array that holds the dtype bit for bit. */
export function fromTypedArray(op: string, values: TypedArray, shape: Shape, code: number): Tensor {
  refuseWhileRecording(
    op,
    'What it holds would stay as it is in the first call. Make it outside, or make it an argument.',
  );
  flush();
  const out = fresh(shape, code);
  if (!native.write(out.storage.slot, values)) throw outOfMemory(op, values.byteLength);
  flush();
  return track(out);
}

/**
 * A tensor with a copy of the data: a number, nested arrays, or a typed array with its shape (default: one
 * dimension). The dtype is that of a Float32Array, Float64Array, Int32Array or Uint8Array, bool for booleans, else
 * float32. torch.tensor
 * @throws ShapeError for ragged data or a shape that does not fit, ArgumentError for anything but numbers
 */
export function tensor(data: Nested | TypedArray, options: CreateOptions & { shape?: Shape } = {}): Tensor {
  checkOptions('tensor', options, { ...KNOWN, shape: [] });
  const { dtype, shape: wanted, requiresGrad } = options;
  let values: ArrayLike<number | boolean>;
  let shape: Shape;
  let natural: number;
  if (ArrayBuffer.isView(data)) {
    const kind = kindOf(data);
    if (!(kind in NATURAL) && !CONVERTED.includes(kind)) {
      throw new ArgumentError(
        `tensor: a ${kind} is not supported. Use a Float32Array, Float64Array, Int32Array or Uint8Array.`,
      );
    }
    checkAttached(data);
    values = data as unknown as ArrayLike<number>;
    natural = NATURAL[kind] ?? I32;
    shape = [values.length];
  } else {
    const nested = flatten(data as Nested);
    values = nested.values;
    shape = nested.shape;
    natural = values.length > 0 && typeof values[0] === 'boolean' ? BOOL : F32;
  }
  if (wanted !== undefined) {
    const checked = checkShape('tensor', wanted);
    if (numelOf(checked) !== values.length) {
      throw new ShapeError(`tensor: ${values.length} values do not fill shape ${show(checked)} (${numelOf(checked)}).`);
    }
    shape = checked;
  }
  const code = dtype === undefined ? natural : dtypeCode('tensor', dtype);
  let bits = values as TypedArray;
  if (!ArrayBuffer.isView(values) || NATURAL[kindOf(values)] !== code) {
    bits = typedArray(code, values.length);
    store(bits, code, values);
  }
  return asLeaf('tensor', fromTypedArray('tensor', bits, shape, code), requiresGrad);
}

// ---- constants --------------------------------------------------------------------------------------------------------
/** @internal a new tensor of one value */
export function filled(
  op: string,
  shape: Shape,
  value: number,
  options: CreateOptions,
  fallback: DType = 'float32',
): Tensor {
  checkOptions(op, options, KNOWN);
  const out = fresh(checkShape(op, shape), dtypeCode(op, options.dtype ?? fallback));
  commands.copy(out, value);
  return asLeaf(op, finishPlain(out), options.requiresGrad);
}

export const zeros = (shape: Shape, options: CreateOptions = {}): Tensor => filled('zeros', shape, 0, options);
export const ones = (shape: Shape, options: CreateOptions = {}): Tensor => filled('ones', shape, 1, options);
/** A tensor whose every element is v. */
export const full = (shape: Shape, v: number, options: CreateOptions = {}): Tensor =>
  filled('full', shape, checkNumber('full', 'the value', v), options);
/** A tensor to be written before it is read. Its elements are zero: no memory of other tensors shows through. */
export const empty = (shape: Shape, options: CreateOptions = {}): Tensor => filled('empty', shape, 0, options);

/** Zeros of x's shape and dtype. */
export function zerosLike(x: Tensor, options: CreateOptions = {}): Tensor {
  checkTensor('zerosLike', x);
  return filled('zerosLike', x.shape, 0, options, x.dtype);
}
/** Ones of x's shape and dtype. */
export function onesLike(x: Tensor, options: CreateOptions = {}): Tensor {
  checkTensor('onesLike', x);
  return filled('onesLike', x.shape, 1, options, x.dtype);
}
/** A tensor of x's shape and dtype, every element v. */
export function fullLike(x: Tensor, v: number, options: CreateOptions = {}): Tensor {
  checkTensor('fullLike', x);
  return filled('fullLike', x.shape, checkNumber('fullLike', 'the value', v), options, x.dtype);
}

const isOptions = (value: unknown): value is CreateOptions => typeof value === 'object' && value !== null;

/** The n × m identity (m defaults to n). */
export function eye(n: number, m?: number | CreateOptions, options: CreateOptions = {}): Tensor {
  const rest = isOptions(m) ? m : options;
  checkOptions('eye', rest, KNOWN);
  const columns = m === undefined || isOptions(m) ? n : m;
  const out = filled('eye', [checkInteger('eye', 'n', n, 0), checkInteger('eye', 'm', columns, 0)], 0, {
    dtype: rest.dtype,
  });
  commands.copy(diagonal(out), 1);
  flush();
  return asLeaf('eye', out, rest.requiresGrad);
}

function ramp(op: string, n: number, first: number, step: number, options: CreateOptions, fallback: DType): Tensor {
  checkOptions(op, options, KNOWN);
  const code = dtypeCode(op, options.dtype ?? fallback);
  const out = fresh(checkShape(op, [n]), code === F64 || code === I32 ? code : F32);
  commands.arange(out, first, step);
  finishPlain(out);
  if (code === out.code) return asLeaf(op, out, options.requiresGrad);
  const converted = fresh(out.shape, code);
  commands.copy(converted, out);
  return asLeaf(op, finishPlain(converted), options.requiresGrad);
}

/**
 * start, start + step, … below end. arange(end) starts at 0. int32 when start, end and step are whole numbers, else
 * float32. torch.arange
 */
export function arange(
  start: number,
  end?: number | CreateOptions,
  step?: number | CreateOptions,
  options: CreateOptions = {},
): Tensor {
  const rest = [end, step].find(isOptions) ?? options;
  const given = (value: unknown): boolean => value !== undefined && !isOptions(value);
  const first = given(end) ? checkNumber('arange', 'start', start) : 0;
  const last = checkNumber('arange', 'end', given(end) ? end : start);
  const by = given(step) ? checkNumber('arange', 'step', step) : 1;
  if (by === 0 || ![first, last, by].every(Number.isFinite) || (last - first) / by < 0) {
    throw new ArgumentError(
      `arange: ${first} to ${last} by ${by} never ends. Expected finite bounds and a step towards end.`,
    );
  }
  const whole = [first, last, by].every((v) => Number.isInteger(v) && Math.abs(v) < 2 ** 31);
  return ramp('arange', Math.ceil((last - first) / by), first, by, rest as CreateOptions, whole ? 'int32' : 'float32');
}

/** n values from start to end, both included, evenly spaced. */
export function linspace(start: number, end: number, n: number, options: CreateOptions = {}): Tensor {
  checkOptions('linspace', options, KNOWN);
  const count = checkInteger('linspace', 'n', n, 0);
  checkNumber('linspace', 'start', start);
  checkNumber('linspace', 'end', end);
  const out = ramp(
    'linspace',
    count,
    start,
    count > 1 ? (end - start) / (count - 1) : 0,
    { dtype: options.dtype },
    'float32',
  );
  if (count > 1) {
    // The ramp's last value may be off by a rounding; the end is promised exactly.
    commands.copy(narrow(out, 0, count - 1, 1), end);
    flush();
  }
  return asLeaf('linspace', out, options.requiresGrad);
}
