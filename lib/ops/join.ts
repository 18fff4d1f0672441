// Ops that put tensors together or move their elements: copies into parts of a new tensor.
import type { Rule } from '../autograd/tape.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import * as commands from '../program/commands.ts';
import { checkDim, checkDims, checkInteger, describe, type Shape, show } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { spreadOver } from './align.ts';
import { Batched, levelOf, lower } from './batched.ts';
import { clone, contiguous } from './cast.ts';
import { arange } from './create.ts';
import { checkNumber } from './define.ts';
import { le, sub, where } from './elementwise.ts';
import { checkSameDtype, finish, finishPlain } from './op.ts';
import { narrow } from './parts.ts';
import { expand, flatten, reshape, unsqueeze } from './views.ts';

function checkList(op: string, list: readonly Tensor[]): void {
  if (!Array.isArray(list) || list.length === 0) {
    throw new ArgumentError(`${op}: the list is ${describe(list)}. Expected at least one tensor.`);
  }
  list.forEach((t, i) => {
    checkTensor(op, t, `entry ${i} of the list`);
    checkSameDtype(op, list[0]!, t);
  });
}

// ---- joining ------------------------------------------------------------------------------------------------------------
interface Joint {
  readonly dim: number;
  readonly starts: Shape;
  readonly shapes: readonly Shape[];
}
const catRule: Rule<Joint> = {
  name: 'CatBackward',
  vjp: (g, _, { dim, starts, shapes }, i) =>
    isNothing(shapes[i]!) ? flatten(narrow(g, dim, 0, 0)) : narrow(g, dim, starts[i]!, shapes[i]![dim]!),
};

/** What a loop that collects starts from: it joins tensors of any shape, as in PyTorch. */
const isNothing = (shape: Shape): boolean => shape.length === 1 && shape[0] === 0;

/** The tensors one after another along dim; their other sizes agree, unless one is of shape [0]. */
export function cat(list: readonly Tensor[], dim = 0): Tensor {
  checkList('cat', list);
  const first = list.find(({ shape }) => !isNothing(shape)) ?? list[0]!;
  if (first.ndim === 0) throw new ShapeError('cat: tensors without dimensions cannot be joined. Use stack.');
  const d = checkDim('cat', dim, first.ndim);
  const starts: number[] = [];
  let total = 0;
  for (const { shape } of list) {
    starts.push(total);
    if (isNothing(shape)) continue;
    if (shape.length !== first.ndim || shape.some((size, i) => i !== d && size !== first.shape[i])) {
      throw new ShapeError(`cat: ${show(first.shape)} and ${show(shape)} differ outside dimension ${d}.`);
    }
    total += shape[d]!;
  }
  const shapes = list.map(({ shape }) => shape);
  const level = levelOf(...list);
  const out =
    level === null
      ? joined(list, d, starts, first.shape.with(d, total))
      : lower(level, () =>
          cat(
            list.filter((_, i) => !isNothing(shapes[i]!)).map((t) => spreadOver(level, t)),
            d + 1,
          ),
        );
  return finish(out, catRule, list, [], { dim: d, starts, shapes });
}

function joined(list: readonly Tensor[], d: number, starts: Shape, whole: Shape): Tensor {
  const out = fresh(whole, list[0]!.code);
  const { storage, strides, code } = out;
  commands.allocate(out);
  list.forEach((t, i) => {
    const offset = starts[i]! * strides[d]!;
    if (t.numel > 0)
      commands.copy({ storage, strides, code, offset, shape: t.shape, numel: t.numel, isContiguous: false }, t);
  });
  return out;
}

/** The tensors, all of one shape, along a new dimension. */
export function stack(list: readonly Tensor[], dim = 0): Tensor {
  checkList('stack', list);
  const odd = list.find((t) => show(t.shape) !== show(list[0]!.shape));
  if (odd) throw new ShapeError(`stack: shapes differ: ${show(list[0]!.shape)} and ${show(odd.shape)}.`);
  const d = checkDim('stack', dim, list[0]!.ndim + 1);
  return cat(
    list.map((t) => unsqueeze(t, d)),
    d,
  );
}

/** x laid side by side, `reps[d]` times along dimension d; more reps than dimensions add dimensions in front. */
export function repeat(x: Tensor, reps: Shape): Tensor {
  checkTensor('repeat', x);
  if (!Array.isArray(reps) || reps.length < x.ndim) {
    throw new ShapeError(`repeat: ${describe(reps)} for ${x.ndim} dimensions. Expected at least one number each.`);
  }
  const counts = reps.map((n) => checkInteger('repeat', 'a count', n, 0));
  const start = reshape(x, [...new Array<number>(reps.length - x.ndim).fill(1), ...x.shape]);
  const out = counts.reduce((t: Tensor, n, d) => {
    if (n === 1) return t;
    const before = t.shape.slice(0, d);
    const after = t.shape.slice(d);
    return reshape(expand(unsqueeze(t, d), [...before, n, ...after]), [
      ...before,
      n * t.shape[d]!,
      ...t.shape.slice(d + 1),
    ]);
  }, start);
  // What is repeated once, or along dimensions of size 1 only, is a view so far.
  return counts.every((n) => n === 1) ? clone(out) : contiguous(out);
}

// ---- moving -------------------------------------------------------------------------------------------------------------
const flipRule: Rule<Shape> = { name: 'FlipBackward', vjp: [(g, _, dims) => flip(g, dims)] };

/** x with the order of elements turned round along dims. */
export function flip(x: Tensor, dims: number | Shape): Tensor {
  checkTensor('flip', x);
  const turned = checkDims('flip', dims, x.ndim);
  if (x instanceof Batched) {
    const behind = turned.map((d) => d + 1);
    return finish(
      lower(x.level, () => flip(x.physical, behind)),
      flipRule,
      [x],
      [],
      turned,
    );
  }
  const strides = x.strides.map((stride, d) => (turned.includes(d) ? -stride : stride));
  const offset = turned.reduce((at, d) => at + (x.numel > 0 ? (x.shape[d]! - 1) * x.strides[d]! : 0), x.offset);
  const out = fresh(x.shape, x.code);
  const { storage, shape, numel, code } = x;
  commands.copy(out, { storage, shape, numel, code, strides, offset, isContiguous: false });
  return finish(out, flipRule, [x], [], turned);
}

/** x moved along dims by shifts, what leaves at the end coming in at the start; without dims the flattened tensor is. */
export function roll(x: Tensor, shift: number | Shape, dim?: number | Shape): Tensor {
  checkTensor('roll', x);
  if (dim === undefined) return reshape(roll(flatten(x), shift, 0), x.shape);
  const shifts = Array.isArray(shift) ? shift : [shift];
  const dims = Array.isArray(dim) ? dim : [dim];
  if (shifts.length !== dims.length) throw new ArgumentError(`roll: ${shifts.length} shifts for ${dims.length} dims.`);
  const out = dims.reduce((t: Tensor, given, i) => {
    const d = checkDim('roll', given, x.ndim);
    const size = t.shape[d] ?? 1;
    const by = size === 0 ? 0 : ((checkInteger('roll', 'shift', shifts[i]) % size) + size) % size;
    return by === 0 ? t : cat([narrow(t, d, size - by, by), narrow(t, d, 0, size - by)], d);
  }, x);
  return out === x ? clone(x) : out;
}

const padRule: Rule<{ before: Shape; inner: Shape }> = {
  name: 'ConstantPadNdBackward',
  selects: true,
  vjp: [(g, _, { before, inner }) => inner.reduce((t: Tensor, size, d) => narrow(t, d, before[d]!, size), g)],
};

/**
 * x with constant borders: pairs (before, after), the last dimension's first; negative numbers cut. As
 * torch.nn.functional.pad
 */
export function pad(x: Tensor, pairs: Shape, value = 0): Tensor {
  checkTensor('pad', x);
  checkNumber('pad', 'value', value);
  if (!Array.isArray(pairs) || pairs.length % 2 !== 0 || pairs.length > 2 * x.ndim) {
    throw new ArgumentError(
      `pad: ${describe(pairs)} for ${x.ndim} dimensions. Expected up to ${x.ndim} pairs (before, after).`,
    );
  }
  const amount = (d: number, side: number): number => {
    const i = 2 * (x.ndim - 1 - d) + side;
    return i < pairs.length ? checkInteger('pad', 'an amount', pairs[i]) : 0;
  };
  const before = x.shape.map((_, d) => amount(d, 0));
  const after = x.shape.map((_, d) => amount(d, 1));
  const inner = x.shape.reduce((t: Tensor, size, d) => {
    const cut = Math.max(-before[d]!, 0);
    const left = size - cut - Math.max(-after[d]!, 0);
    if (left < 0)
      throw new ShapeError(`pad: dimension ${d} of size ${size} cannot be cut by ${-before[d]! - after[d]!}.`);
    return cut === 0 && left === size ? t : narrow(t, d, cut, left);
  }, x);
  const starts = before.map((n) => Math.max(n, 0));
  const ends = after.map((n) => Math.max(n, 0));
  const out = framed(inner, starts, ends, value);
  return finish(out, padRule, [inner], [], { before: starts, inner: inner.shape });
}

/** x in a frame of the given widths, outside the graph. */
function framed(x: Tensor, starts: Shape, ends: Shape, value: number): Tensor {
  if (x instanceof Batched) {
    return lower(x.level, () => finishPlain(framed(x.physical, [0, ...starts], [0, ...ends], value)));
  }
  const { shape, numel, code } = x;
  const out = fresh(
    shape.map((size, d) => starts[d]! + size + ends[d]!),
    code,
  );
  commands.copy(out, value);
  const { storage, strides } = out;
  const offset = starts.reduce((at, n, d) => at + n * strides[d]!, 0);
  if (numel > 0) commands.copy({ storage, strides, code, offset, shape, numel, isContiguous: false }, x);
  return out;
}

// ---- triangles ------------------------------------------------------------------------------------------------------------
/** column - row of the last two dimensions. */
function diagonals(op: string, x: Tensor): Tensor {
  checkTensor(op, x);
  if (x.ndim < 2) throw new ShapeError(`${op}: ${show(x.shape)} has fewer than two dimensions.`);
  return sub(arange(x.shape.at(-1)!), unsqueeze(arange(x.shape.at(-2)!), 1));
}

/** x with zeros above the k-th diagonal of its last two dimensions. */
export const tril = (x: Tensor, k = 0): Tensor => where(le(diagonals('tril', x), checkInteger('tril', 'k', k)), x, 0);
/** x with zeros below the k-th diagonal of its last two dimensions. */
export const triu = (x: Tensor, k = 0): Tensor => where(le(checkInteger('triu', 'k', k), diagonals('triu', x)), x, 0);
