// Parts of tensors: views of some elements, and how a part is put back among the others.
import type { Rule } from '../autograd/tape.ts';
import { ArgumentError, IndexError, ShapeError } from '../errors.ts';
import { copy } from '../program/commands.ts';
import type { View } from '../program/storage.ts';
import { checkDim, checkInteger, checkShape, numelOf, type Shape, show } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { Batched, lower } from './batched.ts';
import { contiguous } from './cast.ts';
import { finish } from './op.ts';
import { strided } from './views.ts';

/** Where a part of a tensor lies: its shape, and its strides and offset given those of the whole. */
export interface Placement {
  readonly whole: Shape;
  readonly shape: Shape;
  readonly layout: (strides: Shape) => readonly [strides: Shape, offset: number];
  /** The layout holds in row-major tensors only. */
  readonly rowMajor?: boolean;
}

// The gradient of a part is its place in zeros, and the gradient of that is the part.
const spreadRule: Rule<Placement> = {
  name: 'SpreadBackward',
  vjp: [(g, _, p) => pick(g, p, sliceRule)],
  jvp: ([t], _, p) => spread(t!, p),
};
export const partRule = (name: string): Rule<Placement> => ({
  name,
  vjp: [(g, _, p) => spread(g, p)],
  jvp: ([t], _, p) => pick(t!, p, sliceRule),
});
const sliceRule = partRule('SliceBackward');
const selectRule = partRule('SelectBackward');
const diagonalRule = partRule('DiagonalBackward');

export function pick(whole: Tensor, placement: Placement, rule: Rule<Placement>): Tensor {
  const x = placement.rowMajor ? contiguous(whole) : whole;
  const [strides, offset] = placement.layout(x.strides);
  const inside = numelOf(placement.shape) > 0 ? offset : 0;
  return strided(x, placement.shape, strides, x.offset + inside, rule, placement);
}

/** The same part of every example. */
const ofAll = ({ whole, shape, layout }: Placement, size: number): Placement => ({
  whole: [size, ...whole],
  shape: [size, ...shape],
  layout: ([batch, ...rest]) => {
    const [strides, offset] = layout(rest);
    return [[batch!, ...strides], offset];
  },
});

/** A part of a new tensor, to be written. */
const partOf = ({ storage, code, strides }: Tensor, { shape, layout }: Placement): View => {
  const [steps, offset] = layout(strides);
  return { storage, code, shape, strides: steps, offset, numel: numelOf(shape), isContiguous: false };
};

export function spread(g: Tensor, placement: Placement): Tensor {
  if (g instanceof Batched) {
    const all = lower(g.level, () => spread(g.physical, ofAll(placement, g.level.size)));
    return finish(all, spreadRule, [g], [], placement);
  }
  const out = fresh(placement.whole, g.code);
  copy(out, 0);
  if (g.numel > 0) copy(partOf(out, placement), g);
  return finish(out, spreadRule, [g], [], placement);
}

const cutRule: Rule<Placement> = {
  name: 'CutBackward',
  vjp: [(g, _, p) => cutOut(g, p)],
  jvp: ([t], _, p) => cutOut(t!, p),
};

/** x with zeros in a part of it. */
export function cutOut(x: Tensor, placement: Placement): Tensor {
  if (x instanceof Batched) {
    const all = lower(x.level, () => cutOut(x.physical, ofAll(placement, x.level.size)));
    return finish(all, cutRule, [x], [], placement);
  }
  const out = fresh(placement.whole, x.code);
  copy(out, x);
  if (numelOf(placement.shape) > 0) copy(partOf(out, placement), 0);
  return finish(out, cutRule, [x], [], placement);
}

const without = <T>(list: readonly T[], dim: number): T[] => list.filter((_, d) => d !== dim);
const replaced = <T>(list: readonly T[], dim: number, value: T): T[] => list.map((v, d) => (d === dim ? value : v));

/** Elements start, start + step, … of one dimension, `length` of them. */
function part(x: Tensor, dim: number, start: number, length: number, step = 1): Tensor {
  const layout = (strides: Shape) => [replaced(strides, dim, strides[dim]! * step), start * strides[dim]!] as const;
  return pick(x, { whole: x.shape, shape: replaced(x.shape, dim, length), layout }, sliceRule);
}

function checkNotScalar(op: string, x: Tensor): void {
  checkTensor(op, x);
  if (x.ndim === 0) throw new ShapeError(`${op}: a tensor without dimensions has no parts.`);
}

/** `length` elements of one dimension from `start` on, which may be negative. */
export function narrow(x: Tensor, dim: number, start: number, length: number): Tensor {
  checkNotScalar('narrow', x);
  const d = checkDim('narrow', dim, x.ndim);
  const size = x.shape[d]!;
  const count = checkInteger('narrow', 'length', length, 0);
  const given = checkInteger('narrow', 'start', start);
  const first = given < 0 ? given + size : given;
  if (first < 0 || first + count > size) {
    throw new IndexError(`narrow: start ${start}, length ${count} reach outside dimension ${d} of size ${size}.`);
  }
  return part(x, d, first, count);
}

/** Elements start to end (not included) of one dimension, every step-th; bounds as Python's: negative from the end, cut. */
export function slice(x: Tensor, dim: number, start = 0, end?: number, step = 1): Tensor {
  checkNotScalar('slice', x);
  const d = checkDim('slice', dim, x.ndim);
  const size = x.shape[d]!;
  const stride = checkInteger('slice', 'step', step, 1);
  const bound = (what: string, value: number): number => {
    const v = checkInteger('slice', what, value);
    return Math.min(Math.max(v < 0 ? v + size : v, 0), size);
  };
  const first = bound('start', start);
  const last = end === undefined ? size : bound('end', end);
  return part(x, d, first, Math.max(0, Math.ceil((last - first) / stride)), stride);
}

/** One index of a dimension, which disappears. */
export function select(x: Tensor, dim: number, i: number): Tensor {
  checkNotScalar('select', x);
  const d = checkDim('select', dim, x.ndim);
  const size = x.shape[d]!;
  const given = checkInteger('select', 'index', i);
  if (given < -size || given >= size) {
    throw new IndexError(`select: index ${given} is outside [${-size}, ${size - 1}] of dimension ${d}.`);
  }
  const at = given < 0 ? given + size : given;
  const layout = (strides: Shape) => [without(strides, d), at * strides[d]!] as const;
  return pick(x, { whole: x.shape, shape: without(x.shape, d), layout }, selectRule);
}

/** Pieces of `size` along dim, the last maybe smaller; or of the listed sizes. */
export function split(x: Tensor, size: number | readonly number[], dim = 0): Tensor[] {
  checkNotScalar('split', x);
  const d = checkDim('split', dim, x.ndim);
  const total = x.shape[d]!;
  let sizes: readonly number[];
  if (typeof size === 'number') {
    checkInteger('split', 'size', size, 1);
    sizes = Array.from({ length: Math.max(1, Math.ceil(total / size)) }, (_, i) => Math.min(size, total - i * size));
  } else {
    sizes = checkShape('split', size);
    const sum = sizes.reduce((a, b) => a + b, 0);
    if (sum !== total)
      throw new ShapeError(`split: sizes ${show(sizes)} add up to ${sum}, dimension ${d} is ${total}.`);
  }
  let at = 0;
  return sizes.map((length) => {
    at += length;
    return part(x, d, at - length, length);
  });
}

/** At most n pieces of equal size along dim, the last maybe smaller. */
export function chunk(x: Tensor, n: number, dim = 0): Tensor[] {
  checkNotScalar('chunk', x);
  const d = checkDim('chunk', dim, x.ndim);
  const [size, count] = [x.shape[d]!, checkInteger('chunk', 'n', n, 1)];
  // As in PyTorch: what is empty still comes in as many pieces as asked for.
  return split(x, size === 0 ? new Array<number>(count).fill(0) : Math.ceil(size / count), d);
}

/** The diagonal of two dimensions as the last dimension; offset > 0 above it, < 0 below. */
export function diagonal(x: Tensor, offset = 0, dim1 = 0, dim2 = 1): Tensor {
  checkTensor('diagonal', x);
  if (x.ndim < 2) throw new ShapeError(`diagonal: ${show(x.shape)} has fewer than two dimensions.`);
  const a = checkDim('diagonal', dim1, x.ndim);
  const b = checkDim('diagonal', dim2, x.ndim);
  if (a === b) throw new ArgumentError(`diagonal: dim1 and dim2 are both ${a}.`);
  const k = checkInteger('diagonal', 'offset', offset);
  const length = Math.max(0, Math.min(x.shape[a]! - Math.max(-k, 0), x.shape[b]! - Math.max(k, 0)));
  const others = <T>(list: readonly T[]): T[] => list.filter((_, d) => d !== a && d !== b);
  const layout = (strides: Shape) =>
    [[...others(strides), strides[a]! + strides[b]!], k >= 0 ? k * strides[b]! : -k * strides[a]!] as const;
  return pick(x, { whole: x.shape, shape: [...others(x.shape), length], layout }, diagonalRule);
}
