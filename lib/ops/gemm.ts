// The command of a product: any strides, so that transposes and broadcast batches copy nothing; and how exactly float32 is
// multiplied. Records nothing.
import { BF16, F32 } from '../dtype.ts';
import { ArgumentError } from '../errors.ts';
import * as commands from '../program/commands.ts';
import { flush } from '../program/engine.ts';
import type { View } from '../program/storage.ts';
import { describe, type Shape } from '../shape.ts';
import { fresh, type Tensor } from '../tensor.ts';

/** A vector as a matrix of one row or one column, for the command only. */
export const asMatrix = (v: Tensor, shape: Shape, strides: Shape): View => ({
  storage: v.storage,
  shape,
  strides,
  offset: v.offset,
  numel: v.numel,
  code: v.code,
  isContiguous: false,
});
export const asRow = (v: Tensor): View => asMatrix(v, [1, v.shape[0]!], [0, v.strides[0]!]);
export const asColumn = (v: Tensor): View => asMatrix(v, [v.shape[0]!, 1], [v.strides[0]!, 0]);

export type MatmulPrecision = 'highest' | 'medium';
let precision: MatmulPrecision = 'highest';

/**
 * How float32 matrices are multiplied, in forward and backward passes. 'medium' rounds both factors to bfloat16; their products are
 * exact and added in float32, so that the bits are the same on every machine. It is no faster: it shows what bfloat16
 * does to a model. torch.set_float32_matmul_precision
 * @throws ArgumentError
 */
export function setFloat32MatmulPrecision(value: MatmulPrecision): void {
  if (value !== 'highest' && value !== 'medium') {
    throw new ArgumentError(`setFloat32MatmulPrecision: got ${describe(value)}. Expected 'highest' or 'medium'.`);
  }
  precision = value;
}

/** As set; 'highest' at first. */
export const getFloat32MatmulPrecision = (): MatmulPrecision => precision;

/** A copy with every element rounded to bfloat16. The caller disposes it. */
function rounded(t: View): Tensor {
  const [narrow, wide] = [fresh(t.shape, BF16), fresh(t.shape, F32)];
  commands.copy(narrow, t);
  commands.copy(wide, narrow);
  flush();
  narrow.dispose();
  return wide;
}

/** Which factors of a product are taken transposed: nothing is copied for it, and no view recorded. */
export interface Turned {
  readonly a: boolean;
  readonly b: boolean;
}
export const AS_THEY_ARE: Turned = { a: false, b: false };

const NO_BATCH: readonly commands.Batch[] = [];

/** out = a @ b + beta * (bias or out); out is row-major of shape batch + [m, n]. */
export function gemm(
  out: View,
  batch: Shape,
  a: View,
  b: View,
  turned: Turned,
  beta = 0,
  bias: View | null = null,
): void {
  if (precision === 'highest' || out.code !== F32) {
    multiply(out, batch, a, b, turned, beta, bias);
    return;
  }
  const factors = [rounded(a), rounded(b)] as const;
  multiply(out, batch, ...factors, turned, beta, bias);
  flush();
  for (const factor of factors) factor.dispose();
}

function multiply(out: View, batch: Shape, a: View, b: View, turned: Turned, beta: number, bias: View | null): void {
  const [aRow, aCol] = turned.a ? [a.shape.length - 1, a.shape.length - 2] : [a.shape.length - 2, a.shape.length - 1];
  const [bRow, bCol] = turned.b ? [b.shape.length - 1, b.shape.length - 2] : [b.shape.length - 2, b.shape.length - 1];
  const stride = (t: View, d: number): number => {
    const own = d - (batch.length - (t.shape.length - 2));
    return own < 0 || t.shape[own] === 1 ? 0 : t.strides[own]!;
  };
  const n = b.shape[bCol]!;
  commands.matmul(out, a, b, {
    m: a.shape[aRow]!,
    n,
    k: a.shape[aCol]!,
    aRow: a.strides[aRow]!,
    aCol: a.strides[aCol]!,
    bRow: b.strides[bRow]!,
    bCol: b.strides[bCol]!,
    cRow: n,
    batch:
      batch.length === 0
        ? NO_BATCH
        : batch.map((size, d) => ({ size, a: stride(a, d), b: stride(b, d), c: out.strides[d]! })),
    alpha: 1,
    beta,
    bias,
  });
}
