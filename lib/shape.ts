// Shapes, strides, dimensions: pure arithmetic, no tensors. Imports errors only.
import { ArgumentError, IndexError, ShapeError } from './errors.ts';

export type Shape = readonly number[];

export const MAX_DIMS = 8;
/** Elements that one tensor may have: offsets in programs are unsigned 32-bit words. */
export const MAX_ELEMENTS = 2 ** 32 - 1;

export const show = (shape: Shape): string => `[${shape.join(',')}]`;

export function sameShape(a: Shape, b: Shape): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export function numelOf(shape: Shape): number {
  let n = 1;
  for (let i = 0; i < shape.length; i++) n *= shape[i]!;
  return n;
}

/** Row-major strides. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= Math.max(shape[i]!, 1);
  }
  return strides;
}

export function isRowMajor(shape: Shape, strides: Shape): boolean {
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] === 0) return true;
    if (shape[i] !== 1 && strides[i] !== step) return false;
    step *= shape[i]!;
  }
  return true;
}

/** One whole number, at least `least`; -0 becomes 0. @throws ArgumentError */
export function checkInteger(op: string, what: string, value: unknown, least = Number.MIN_SAFE_INTEGER): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least) {
    const expected = least === Number.MIN_SAFE_INTEGER ? 'a whole number' : `a whole number >= ${least}`;
    throw new ArgumentError(`${op}: ${what} is ${describe(value)}. Expected ${expected}.`);
  }
  return value + 0;
}

export function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (value === null || typeof value !== 'object') return String(value);
  return Array.isArray(value)
    ? `an array of ${value.length}`
    : `a ${value.constructor?.name ?? 'null-prototype object'}`;
}

/** A copy of a shape given by the user, each entry read once. @throws ShapeError, ArgumentError */
export function checkShape(op: string, shape: unknown, least = 0): number[] {
  if (!Array.isArray(shape))
    throw new ArgumentError(`${op}: the shape is ${describe(shape)}. Expected an array of sizes.`);
  if (shape.length > MAX_DIMS) {
    throw new ShapeError(`${op}: ${shape.length} dimensions. At most ${MAX_DIMS} are supported.`);
  }
  const sizes: number[] = [];
  let n = 1;
  for (let i = 0; i < shape.length; i++) {
    const size = checkInteger(op, `size ${i} of the shape`, shape[i], least);
    sizes.push(size);
    n *= Math.max(size, 1);
  }
  if (n > MAX_ELEMENTS) {
    throw new ShapeError(`${op}: size overflows: ${show(sizes)} has ${n} elements, a tensor at most ${MAX_ELEMENTS}.`);
  }
  return sizes;
}

/** The shape that both broadcast to. @throws ShapeError naming the dimension */
export function broadcastShapes(op: string, a: Shape, b: Shape): Shape {
  if (sameShape(a, b)) return a;
  const length = Math.max(a.length, b.length);
  const out = new Array<number>(length);
  for (let i = 1; i <= length; i++) {
    const x = i > a.length ? 1 : a[a.length - i]!;
    const y = i > b.length ? 1 : b[b.length - i]!;
    if (x !== y && x !== 1 && y !== 1) {
      throw new ShapeError(
        `${op}: shapes ${show(a)} and ${show(b)} do not broadcast: dimension ${length - i} is ${x} against ${y}. ` +
          'Expected equal sizes, or 1 on one side.',
      );
    }
    out[length - i] = x === 1 ? y : x;
  }
  return out;
}

/** A dimension in [-n, n) as one in [0, n). A tensor without dimensions counts as having one. @throws IndexError */
export function checkDim(op: string, dim: unknown, ndim: number): number {
  const d = checkInteger(op, 'dim', dim);
  const n = Math.max(ndim, 1);
  if (d < -n || d >= n) throw new IndexError(`${op}: dim ${d} is outside [${-n}, ${n - 1}] for ${ndim} dimensions.`);
  return d < 0 ? d + n : d;
}

/** One dimension, a list of them, or all when undefined: ascending, without repeats. @throws ArgumentError */
export function checkDims(op: string, dims: unknown, ndim: number): number[] {
  if (dims === undefined || dims === null) {
    const all = new Array<number>(ndim);
    for (let d = 0; d < ndim; d++) all[d] = d;
    return all;
  }
  const list = Array.isArray(dims) ? dims : [dims];
  const out: number[] = [];
  for (const d of list) out.push(checkDim(op, d, ndim));
  if (out.length > 1) out.sort((x, y) => x - y);
  for (let i = 1; i < out.length; i++) {
    if (out[i] === out[i - 1]) throw new ArgumentError(`${op}: dim ${out[i]} is named twice in [${list.join(',')}].`);
  }
  // A scalar has no dimensions to reduce, though 0 and -1 name the one it is treated as having.
  return ndim === 0 ? [] : out;
}
