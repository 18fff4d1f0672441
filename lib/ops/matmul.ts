// Products of matrices and vectors, and how they are differentiated.
import { needsGrad, type Rule } from '../autograd/tape.ts';
import { BF16, F32 } from '../dtype.ts';
import { ShapeError } from '../errors.ts';
import * as commands from '../program/commands.ts';
import { broadcastShapes, numelOf, type Shape, sameShape, show } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { overBatch } from './align.ts';
import { cast } from './cast.ts';
import { add, mul } from './elementwise.ts';
import { AS_THEY_ARE, asColumn, asMatrix, asRow, gemm, type Turned } from './gemm.ts';
import { checkFloat, checkSameDtype, finish } from './op.ts';
import { plus } from './plus.ts';
import { expand, reshape, squeeze, transpose, unsqueeze, view } from './views.ts';

function checkPair(op: string, a: Tensor, b: Tensor): void {
  checkTensor(op, a, 'first operand');
  checkTensor(op, b, 'second operand');
  checkSameDtype(op, a, b);
  checkFloat(op, a);
}

function checkInner(op: string, a: Tensor, b: Tensor): void {
  const rows = b.ndim === 1 ? 0 : b.ndim - 2;
  if (a.shape[a.ndim - 1] !== b.shape[rows]) {
    throw new ShapeError(
      `${op}: inner dimensions differ: ${show(a.shape)} x ${show(b.shape)}. ` +
        `Expected a.shape[-1] == b.shape[${b.ndim === 1 ? 0 : -2}].`,
    );
  }
}

function checkRank(op: string, what: string, t: Tensor, rank: number): void {
  if (t.ndim !== rank) {
    throw new ShapeError(
      `${op}: the ${what} has shape ${show(t.shape)}. Expected ${rank} dimension${rank > 1 ? 's' : ''}.`,
    );
  }
}

/** bfloat16 multiplies in float32. */
const widened = (op: (...ts: Tensor[]) => Tensor, ...ts: Tensor[]): Tensor =>
  cast(op(...ts.map((t) => cast(t, F32))), BF16);

/** Of a product of a and b, what each one's gradient reads of the other. */
const savedOf = (a: Tensor, b: Tensor): [Tensor | null, Tensor | null] => [
  needsGrad(b) ? a : null,
  needsGrad(a) ? b : null,
];

/** (…, k) as (rows, k). */
const asRows = (x: Tensor): Tensor => reshape(x, [numelOf(x.shape.slice(0, -1)), x.shape.at(-1)!]);
const mT = (x: Tensor): Tensor => transpose(x, -2, -1);

// ---- matrix @ matrix ------------------------------------------------------------------------------------------------------
/**
 * How the factors of a product were read and how they lie. Their gradients are made to lie as they do: a weight used as
 * W.T gets its gradient row-major, and no copy has to turn it.
 */
interface Layout {
  readonly turned: Turned;
  readonly lies: Turned;
}
const liesTransposed = (t: Tensor): boolean => t.strides.at(-2) === 1 && t.strides.at(-1) !== 1;
const layoutOf = (a: Tensor, b: Tensor, turned: Turned): Layout => ({
  turned,
  lies: { a: liesTransposed(a), b: liesTransposed(b) },
});

function gradA(g: Tensor, b: Tensor, { turned, lies }: Layout): Tensor {
  const along = turned.a === lies.a;
  const own = along ? product(g, b, { a: false, b: !turned.b }) : product(b, g, { a: turned.b, b: true });
  return lies.a ? mT(own) : own;
}
function gradB(g: Tensor, a: Tensor, { turned, lies }: Layout): Tensor {
  const along = turned.b === lies.b;
  const own = along ? product(a, g, { a: !turned.a, b: false }) : product(g, a, { a: true, b: turned.a });
  return lies.b ? mT(own) : own;
}
const tangent = (ta: Tensor | null, tb: Tensor | null, a: Tensor, b: Tensor, { turned }: Layout): Tensor | null =>
  plus(ta && product(ta, b, turned), tb && product(a, tb, turned));

/** Inside vmap. */
const isBatched = (a: Tensor, b: Tensor): boolean => a.physical !== null || b.physical !== null;

// Batch dimensions that an input lacks are summed away by the traversal.
const productRule = (name: string): Rule<Layout> => ({
  name,
  broadcasts: true,
  vjp: [(g, [, b], layout) => gradA(g, b!, layout), (g, [a], layout) => gradB(g, a!, layout)],
  jvp: ([ta, tb], [a, b], layout) => tangent(ta!, tb!, a!, b!, layout),
});
const mmRule = productRule('MmBackward');
const bmmRule = productRule('BmmBackward');

const rowsOf = (t: Tensor, turned: boolean): number => t.shape[t.ndim - (turned ? 1 : 2)]!;

/** a (…, m, k) @ b (…, k, n), batches broadcast, either taken transposed. */
function product(a: Tensor, b: Tensor, turned = AS_THEY_ARE): Tensor {
  if (a.code === BF16) return widened((a, b) => product(a!, b!, turned), a, b);
  let out: Tensor;
  let batch: Shape = [];
  if (isBatched(a, b)) {
    out = overBatch(matmul, turned.a ? mT(a) : a, turned.b ? mT(b) : b)!;
    batch = out.shape.slice(0, -2);
  } else {
    if (a.ndim > 2 || b.ndim > 2) batch = broadcastShapes('matmul', a.shape.slice(0, -2), b.shape.slice(0, -2));
    out = fresh([...batch, rowsOf(a, turned.a), rowsOf(b, !turned.b)], a.code);
    gemm(out, batch, a, b, turned);
  }
  return finish(out, batch.length > 0 ? bmmRule : mmRule, [a, b], savedOf(a, b), layoutOf(a, b, turned));
}

/**
 * Matrix product as torch.matmul: vectors, matrices, and batches of matrices with broadcast batch dimensions.
 * Each element is one chain of fused multiply-adds over k in ascending order, for any batch and thread count.
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  checkPair('matmul', a, b);
  if (a.ndim === 0 || b.ndim === 0) {
    throw new ShapeError(`matmul: ${show(a.shape)} x ${show(b.shape)}: both need at least one dimension. Use mul.`);
  }
  checkInner('matmul', a, b);
  if (a.ndim === 1) return b.ndim === 1 ? dot(a, b) : squeeze(matmul(unsqueeze(a, 0), b), -2);
  if (b.ndim === 1) return a.ndim === 2 ? mv(a, b) : squeeze(matmul(a, unsqueeze(b, 1)), -1);
  // One large product is faster than many small ones, and its gradient for b needs no sum over the batch. Also where
  // the rows must be copied together: the order of additions depends on shapes, never on strides.
  if (a.ndim > 2 && b.ndim === 2) {
    return reshape(product(asRows(a), b), [...a.shape.slice(0, -1), b.shape[1]!]);
  }
  return product(a, b);
}

/** (m, k) @ (k, n). */
export function mm(a: Tensor, b: Tensor): Tensor {
  checkPair('mm', a, b);
  checkRank('mm', 'first operand', a, 2);
  checkRank('mm', 'second operand', b, 2);
  checkInner('mm', a, b);
  return product(a, b);
}

/** (b, m, k) @ (b, k, n). */
export function bmm(a: Tensor, b: Tensor): Tensor {
  checkPair('bmm', a, b);
  checkRank('bmm', 'first operand', a, 3);
  checkRank('bmm', 'second operand', b, 3);
  if (a.shape[0] !== b.shape[0]) throw new ShapeError(`bmm: batches differ: ${show(a.shape)} x ${show(b.shape)}.`);
  checkInner('bmm', a, b);
  return product(a, b);
}

// ---- with vectors -----------------------------------------------------------------------------------------------------------
const mvRule: Rule = {
  name: 'MvBackward',
  vjp: [(g, [, x]) => outer(g, x!), (g, [a]) => mv(mT(a!), g)],
  jvp: ([ta, tx], [a, x]) => plus(ta && mv(ta, x!), tx && mv(a!, tx)),
};

/** (m, k) @ (k). */
export function mv(a: Tensor, x: Tensor): Tensor {
  checkPair('mv', a, x);
  checkRank('mv', 'matrix', a, 2);
  checkRank('mv', 'vector', x, 1);
  checkInner('mv', a, x);
  if (a.code === BF16) return widened(mv, a, x);
  let out: Tensor;
  if (isBatched(a, x)) {
    out = overBatch((a: Tensor, x: Tensor) => (x.ndim === 1 ? matmul(a, x) : squeeze(matmul(a, mT(x)), -1)), a, x)!;
  } else {
    out = fresh([a.shape[0]!], a.code);
    gemm(asColumn(out), [], a, asColumn(x), AS_THEY_ARE);
  }
  return finish(out, mvRule, [a, x], savedOf(a, x), null);
}

const dotRule: Rule = {
  name: 'DotBackward',
  vjp: [(g, [, b]) => mul(g, b!), (g, [a]) => mul(g, a!)],
  jvp: ([ta, tb], [a, b]) => plus(ta && dot(ta, b!), tb && dot(a!, tb)),
};
const rowTimesColumn = (a: Tensor, b: Tensor): Tensor =>
  squeeze(squeeze(matmul(unsqueeze(a, -2), unsqueeze(b, -1)), -1), -1);

/** The inner product of two vectors. */
export function dot(a: Tensor, b: Tensor): Tensor {
  checkPair('dot', a, b);
  checkRank('dot', 'first operand', a, 1);
  checkRank('dot', 'second operand', b, 1);
  checkInner('dot', a, b);
  if (a.code === BF16) return widened(dot, a, b);
  let out: Tensor;
  if (isBatched(a, b)) out = overBatch(rowTimesColumn, a, b)!;
  else {
    out = fresh([], a.code);
    gemm(asMatrix(out, [1, 1], [1, 1]), [], asRow(a), asColumn(b), AS_THEY_ARE);
  }
  return finish(out, dotRule, [a, b], savedOf(a, b), null);
}

/** (m) and (n) give (m, n). */
export function outer(a: Tensor, b: Tensor): Tensor {
  checkPair('outer', a, b);
  checkRank('outer', 'first operand', a, 1);
  checkRank('outer', 'second operand', b, 1);
  return mul(unsqueeze(a, 1), b);
}

// ---- with a bias ------------------------------------------------------------------------------------------------------------
const addmmRule: Rule<Layout> = {
  name: 'AddmmBackward',
  broadcasts: true,
  vjp: [(g) => g, (g, [, b], layout) => gradA(g, b!, layout), (g, [a], layout) => gradB(g, a!, layout)],
  jvp: ([tbias, ta, tb], [a, b], layout, out) =>
    plus(tbias && expand(tbias, out.shape), tangent(ta!, tb!, a!, b!, layout)),
};

/** A bias of one row is added in the store of the product, any other is where the product is added to. */
function productPlus(bias: Tensor, a: Tensor, b: Tensor, turned: Turned): Tensor {
  if (a.code === BF16) return widened((bias, a, b) => productPlus(bias!, a!, b!, turned), bias, a, b);
  if (bias.physical !== null || isBatched(a, b)) return add(product(a, b, turned), bias);
  const out = fresh([rowsOf(a, turned.a), rowsOf(b, !turned.b)], a.code);
  const inStore = bias.ndim === 1 && bias.shape[0] === out.shape[1] && bias.isContiguous;
  if (!inStore) commands.copy(out, bias);
  gemm(out, [], a, b, turned, 1, inStore ? bias : null);
  return finish(out, addmmRule, [bias, a, b], savedOf(a, b), layoutOf(a, b, turned));
}

/** bias + a @ b, the bias broadcast to (m, n). */
export function addmm(bias: Tensor, a: Tensor, b: Tensor): Tensor {
  checkPair('addmm', a, b);
  checkTensor('addmm', bias, 'bias');
  checkSameDtype('addmm', bias, a);
  checkRank('addmm', 'first matrix', a, 2);
  checkRank('addmm', 'second matrix', b, 2);
  checkInner('addmm', a, b);
  const shape = [a.shape[0]!, b.shape[1]!];
  if (!sameShape(broadcastShapes('addmm', shape, bias.shape), shape)) {
    throw new ShapeError(`addmm: the bias of shape ${show(bias.shape)} does not broadcast to ${show(shape)}.`);
  }
  return productPlus(bias, a, b, AS_THEY_ARE);
}

const BY_ROWS_OF_WEIGHT: Turned = { a: false, b: true };

/** x (…, in) times weight (out, in) transposed, plus bias (out): torch.nn.functional.linear. */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor | null): Tensor {
  checkPair('linear', x, weight);
  checkRank('linear', 'weight', weight, 2);
  if (x.ndim === 0 || x.shape.at(-1) !== weight.shape[1]) {
    throw new ShapeError(
      `linear: input ${show(x.shape)} and weight ${show(weight.shape)} do not fit. Expected x.shape[-1] == weight.shape[1].`,
    );
  }
  if (bias !== undefined && bias !== null) {
    checkTensor('linear', bias, 'bias');
    checkSameDtype('linear', x, bias);
    if (bias.ndim !== 1 || bias.shape[0] !== weight.shape[0]) {
      throw new ShapeError(`linear: the bias has shape ${show(bias.shape)}. Expected [${weight.shape[0]}].`);
    }
  }
  if (x.ndim === 1) return bias ? add(mv(weight, x), bias) : mv(weight, x);
  const rows = x.ndim === 2 ? x : asRows(x);
  const out = bias ? productPlus(bias, rows, weight, BY_ROWS_OF_WEIGHT) : product(rows, weight, BY_ROWS_OF_WEIGHT);
  return x.ndim === 2 ? out : view(out, [...x.shape.slice(0, -1), weight.shape[0]!]);
}
