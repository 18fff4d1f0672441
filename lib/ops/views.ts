// Views: other shapes and strides on the same storage. They copy nothing, except reshape where it must.
import { type Rule, record, tracks } from '../autograd/tape.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import { checkDim, checkShape, numelOf, type Shape, show, stridesOf } from '../shape.ts';
import { checkTensor, type Tensor, track, viewOf } from '../tensor.ts';
import { Batched, behind, lower } from './batched.ts';
import { clone } from './cast.ts';

/** Other strides on the same elements, recorded. */
export function strided<C>(x: Tensor, shape: Shape, strides: Shape, offset: number, rule: Rule<C>, context: C): Tensor {
  const out = look(x, shape, strides, offset);
  // Spelt out, where recordOp() would do: views cost little else.
  if (tracks(x)) record(out, rule, [x], [], context);
  if (x.physical !== null) behind.record(out, rule, [x], [], context);
  return out;
}

/** Other strides on the same elements, of one example or of all behind it. */
function look(x: Tensor, shape: Shape, strides: Shape, offset: number): Tensor {
  if (!(x instanceof Batched)) return viewOf(x, shape, strides, offset);
  const { physical: all, level } = x;
  return track(lower(level, () => look(all, [all.shape[0]!, ...shape], [all.strides[0]!, ...strides], offset)));
}

/** The rule of a view that only names the same elements otherwise. */
const reshaping = (name: string): Rule<Shape> => ({
  name,
  vjp: [(g, _, shape) => reshape(g, shape)],
  jvp: ([t], _, __, out) => reshape(t!, out.shape),
});

// ---- shape ------------------------------------------------------------------------------------------------------------
/** The strides that give x another shape without a copy, or null. */
function stridesFor(x: Tensor, shape: Shape): number[] | null {
  if (x.isContiguous) return stridesOf(shape);
  // Match groups of dimensions with equal products; within a group x must be dense.
  const strides = new Array<number>(shape.length).fill(1);
  let from = x.shape.length - 1;
  let to = shape.length - 1;
  while (to >= 0 && from >= 0) {
    if (x.shape[from] === 1) {
      from--;
      continue;
    }
    let step = x.strides[from]!;
    let have = x.shape[from]!;
    while (from > 0 && (x.shape[from - 1] === 1 || x.strides[from - 1] === step * have)) {
      have *= x.shape[--from]!;
    }
    for (; to >= 0 && have % shape[to]! === 0 && (have > 1 || shape[to] === 1); to--) {
      strides[to] = step;
      step *= shape[to]!;
      have /= shape[to]!;
    }
    if (have !== 1) return null;
    from--;
  }
  return strides;
}

/** A shape with at most one -1, which takes what is left. @throws ShapeError */
function resolveShape(op: string, x: Tensor, sizes: Shape): number[] {
  const wanted = checkShape(op, sizes, -1);
  const open = wanted.indexOf(-1);
  if (open >= 0) {
    if (wanted.indexOf(-1, open + 1) >= 0) throw new ShapeError(`${op}: ${show(wanted)} has more than one -1.`);
    const rest = numelOf(wanted.filter((_, d) => d !== open));
    if (rest === 0) throw new ShapeError(`${op}: -1 in ${show(wanted)} could be any size, for there are no elements.`);
    wanted[open] = x.numel / rest;
  }
  if (numelOf(wanted) !== x.numel || !wanted.every(Number.isInteger)) {
    throw new ShapeError(`${op}: ${show(x.shape)} has ${x.numel} elements and cannot take shape ${show(sizes)}.`);
  }
  return wanted;
}

const reshapeRule = reshaping('ReshapeBackward');

/** x with another shape, one size of which may be -1: a view where strides allow, else a copy. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  checkTensor('reshape', x);
  const wanted = resolveShape('reshape', x, shape);
  const strides = stridesFor(x, wanted);
  if (strides !== null) return strided(x, wanted, strides, x.offset, reshapeRule, x.shape);
  return reshape(clone(x), wanted);
}

const viewRule = reshaping('ViewBackward');

function viewAs(x: Tensor, shape: Shape): Tensor {
  checkTensor('view', x);
  const wanted = resolveShape('view', x, shape);
  const strides = stridesFor(x, wanted);
  if (strides === null) {
    throw new ShapeError(
      `view: ${show(x.shape)} with strides ${show(x.strides)} cannot be seen as ${show(wanted)} without a copy. Use reshape.`,
    );
  }
  return strided(x, wanted, strides, x.offset, viewRule, x.shape);
}

export { viewAs as view };

/** Dimensions start to end joined into one. */
export function flatten(x: Tensor, start = 0, end = -1): Tensor {
  checkTensor('flatten', x);
  const first = checkDim('flatten', start, x.ndim);
  const last = checkDim('flatten', end, x.ndim);
  if (first > last) throw new ArgumentError(`flatten: start dim ${first} comes after end dim ${last}.`);
  const joined = numelOf(x.shape.slice(first, last + 1));
  return reshape(x, [...x.shape.slice(0, first), joined, ...x.shape.slice(last + 1)]);
}

const squeezeRule = reshaping('SqueezeBackward');

/** x without its dimensions of size 1, or without the named ones among them. */
export function squeeze(x: Tensor, dim?: number | readonly number[]): Tensor {
  checkTensor('squeeze', x);
  const named =
    dim === undefined ? null : Array.from(Array.isArray(dim) ? dim : [dim], (d) => checkDim('squeeze', d, x.ndim));
  const kept = x.shape.map((_, d) => d).filter((d) => x.shape[d] !== 1 || (named !== null && !named.includes(d)));
  return strided(
    x,
    kept.map((d) => x.shape[d]!),
    kept.map((d) => x.strides[d]!),
    x.offset,
    squeezeRule,
    x.shape,
  );
}

const unsqueezeRule = reshaping('UnsqueezeBackward');

/** x with a dimension of size 1 put in at dim. */
export function unsqueeze(x: Tensor, dim: number): Tensor {
  checkTensor('unsqueeze', x);
  const d = checkDim('unsqueeze', dim, x.ndim + 1);
  const stride = d < x.ndim ? x.strides[d]! * Math.max(x.shape[d]!, 1) : 1;
  const shape = [...x.shape.slice(0, d), 1, ...x.shape.slice(d)];
  return strided(x, shape, [...x.strides.slice(0, d), stride, ...x.strides.slice(d)], x.offset, unsqueezeRule, x.shape);
}

// ---- order ------------------------------------------------------------------------------------------------------------
const inverse = (dims: Shape): number[] => {
  const out = new Array<number>(dims.length);
  dims.forEach((d, i) => {
    out[d] = i;
  });
  return out;
};
const permuteRule: Rule<Shape> = {
  name: 'PermuteBackward',
  vjp: [(g, _, dims) => permute(g, inverse(dims))],
  jvp: ([t], _, dims) => permute(t!, dims),
};

/** x with its dimensions in another order. */
export function permute(x: Tensor, dims: Shape): Tensor {
  checkTensor('permute', x);
  if (!Array.isArray(dims) || dims.length !== x.ndim) {
    throw new ArgumentError(`permute: ${x.ndim} dimensions need as many dims, each named once.`);
  }
  const order = Array.from(dims, (d) => checkDim('permute', d, x.ndim));
  if (new Set(order).size !== order.length)
    throw new ArgumentError(`permute: dims ${show(dims)} name a dimension twice.`);
  return strided(
    x,
    order.map((d) => x.shape[d]!),
    order.map((d) => x.strides[d]!),
    x.offset,
    permuteRule,
    order,
  );
}

const transposeRule: Rule<readonly [number, number]> = {
  name: 'TransposeBackward',
  vjp: [(g, _, [d0, d1]) => transpose(g, d0, d1)],
  jvp: ([t], _, [d0, d1]) => transpose(t!, d0, d1),
};

/** x with two dimensions exchanged. */
export function transpose(x: Tensor, d0: number, d1: number): Tensor {
  checkTensor('transpose', x);
  const a = checkDim('transpose', d0, x.ndim);
  const b = checkDim('transpose', d1, x.ndim);
  const shape = [...x.shape];
  const strides = [...x.strides];
  if (x.ndim > 0) {
    [shape[a], shape[b]] = [shape[b]!, shape[a]!];
    [strides[a], strides[b]] = [strides[b]!, strides[a]!];
  }
  return strided(x, shape, strides, x.offset, transposeRule, [a, b] as const);
}

// The traversal sums a gradient of a broadcast op down to its input's shape.
const expandRule: Rule = {
  name: 'ExpandBackward',
  broadcasts: true,
  vjp: [(g) => g],
  jvp: ([t], _, __, out) => expand(t!, out.shape),
};

/** x repeated along dimensions of size 1, and new ones in front, without a copy; -1 keeps a size. */
export function expand(x: Tensor, shape: Shape): Tensor {
  checkTensor('expand', x);
  const sizes = checkShape('expand', shape, -1);
  const skip = sizes.length - x.ndim;
  if (skip < 0) {
    throw new ShapeError(`expand: ${show(x.shape)} does not expand to ${show(sizes)}, which has fewer dimensions.`);
  }
  const strides = sizes.map((size, d) => {
    const own = d - skip;
    if (own >= 0 && size === -1) sizes[d] = x.shape[own]!;
    if (sizes[d] === -1 || (own >= 0 && x.shape[own] !== 1 && sizes[d] !== x.shape[own])) {
      throw new ShapeError(
        `expand: ${show(x.shape)} does not expand to ${show(shape)}: only sizes of 1, and dimensions in front, can grow.`,
      );
    }
    return own < 0 || (x.shape[own] === 1 && sizes[d] !== 1) ? 0 : x.strides[own]!;
  });
  return strided(x, sizes, strides, x.offset, expandRule, null);
}

/** The same elements outside the graph: gradients stop here. Shares storage and its version. */
export function detach(x: Tensor): Tensor {
  checkTensor('detach', x);
  return x instanceof Batched ? track(lower(x.level, () => detach(x.physical))) : x.alias();
}
