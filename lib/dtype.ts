// Dtypes: names for users, codes for programs (the order of DType in native/kernels/table.h). Below everything but errors and shape.
import { DTypeError } from './errors.ts';
import { describe } from './shape.ts';

export const DTYPES = ['float32', 'float64', 'int32', 'uint8', 'bool', 'bfloat16'] as const;
export type DType = (typeof DTYPES)[number];
export type TypedArray = Float32Array | Float64Array | Int32Array | Uint8Array | Uint16Array;

export const F32 = 0;
export const F64 = 1;
export const I32 = 2;
export const U8 = 3;
export const BOOL = 4;
export const BF16 = 5;

export const BYTES: readonly number[] = [4, 8, 4, 1, 1, 2];
/** The dtype that kernels compute in: bfloat16 in float32, uint8 and bool in int32. */
export const COMPUTE: readonly number[] = [F32, F64, I32, I32, I32, F32];
const ARRAYS = [Float32Array, Float64Array, Int32Array, Uint8Array, Uint8Array, Uint16Array] as const;

export const isFloat = (code: number): boolean => code <= F64 || code === BF16;

/** The code of a dtype name. @throws DTypeError for anything else */
export function dtypeCode(op: string, dtype: unknown): number {
  const code = DTYPES.indexOf(dtype as DType);
  if (code < 0) throw new DTypeError(`${op}: unknown dtype ${describe(dtype)}. Expected one of ${DTYPES.join(', ')}.`);
  return code;
}

/** A zeroed typed array that holds n elements of the dtype bit for bit (bfloat16 as its upper 16 bits). */
export const typedArray = (code: number, n: number): TypedArray => new ARRAYS[code]!(n);

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

export function fromBfloat16(bits: number): number {
  u32[0] = bits << 16;
  return f32[0]!;
}

/** Rounds to nearest, ties to even; NaN stays NaN. */
export function toBfloat16(value: number): number {
  f32[0] = value;
  const bits = u32[0]!;
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}
