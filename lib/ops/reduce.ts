// Reductions and running sums. Kernels see [outer, reduce, inner]; other dimension lists are permuted there first.

import { checkOptions } from '../arguments.ts';
import { noGrad } from '../autograd/grad-mode.ts';
import { type Rule, tracks } from '../autograd/tape.ts';
import { BF16, COMPUTE, F32, I32, isFloat } from '../dtype.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import { opcode } from '../native.ts';
import * as commands from '../program/commands.ts';
import { checkDim, checkDims, describe, numelOf, type Shape, show } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { Batched, lower } from './batched.ts';
import { cast, clone } from './cast.ts';
import { abs, add, div, eq, exp, log, mul, ne, pow, sqrt, square, sub, where } from './elementwise.ts';
import { gather } from './indexing.ts';
import { checkFloat, composed, dense, drop, finish, finishPlain } from './op.ts';
import { detach, expand, permute, reshape, squeeze, unsqueeze } from './views.ts';

export type Dims = number | readonly number[];
export interface ReduceOptions {
  /** Leave reduced dimensions in place with size 1. */
  keepdim?: boolean;
}

const REDUCE: ReduceOptions = { keepdim: false };

function keepdimOf(op: string, options: ReduceOptions): boolean {
  checkOptions(op, options, REDUCE);
  return options.keepdim ?? false;
}

// ---- the command ------------------------------------------------------------------------------------------------------
interface Plan {
  /** x with the reduced dimensions next to each other; a view. */
  x: Tensor;
  axis: commands.Axis;
  shape: Shape;
}

const kept = (shape: Shape, dims: Shape, keepdim: boolean): Shape =>
  keepdim ? shape.map((size, d) => (dims.includes(d) ? 1 : size)) : shape.filter((_, d) => !dims.includes(d));

function plan(x: Tensor, dims: Shape, keepdim: boolean): Plan {
  const shape = kept(x.shape, dims, keepdim);
  if (dims.length === x.ndim) return { x, axis: { outer: 1, reduce: x.numel, inner: 1 }, shape };
  const first = dims[0] ?? 0;
  const last = dims.at(-1) ?? -1;
  if (last - first + 1 === dims.length) {
    const axis = {
      outer: numelOf(x.shape.slice(0, first)),
      reduce: numelOf(x.shape.slice(first, last + 1)),
      inner: numelOf(x.shape.slice(last + 1)),
    };
    return { x, axis, shape };
  }
  const rest = x.shape.map((_, d) => d).filter((d) => !dims.includes(d));
  const axis = {
    outer: numelOf(rest.map((d) => x.shape[d]!)),
    reduce: numelOf(dims.map((d) => x.shape[d]!)),
    inner: 1,
  };
  return { x: permute(detach(x), [...rest, ...dims]), axis, shape };
}

/** Runs a reduction kernel; `code`: the result's dtype. Outside the graph, the caller finishes. */
function run(op: number, x: Tensor, dims: Shape, keepdim: boolean, code: number, scale = 1): Tensor {
  if (x instanceof Batched) {
    const behind = dims.map((d) => d + 1);
    return lower(x.level, () => finishPlain(run(op, x.physical, behind, keepdim, code, scale)));
  }
  const { x: seen, axis, shape } = plan(x, dims, keepdim);
  const operand = dense(seen);
  const out = fresh(shape, code);
  commands.reduce(op, out, operand, axis, scale);
  drop(operand, seen);
  return out;
}

const [SUM, PROD, AMAX, AMIN, ARGMAX, ARGMIN] = ['sum', 'prod', 'amax', 'amin', 'argmax', 'argmin'].map((name) =>
  opcode(name),
) as [number, number, number, number, number, number];

interface Reduced {
  readonly shape: Shape;
  readonly dims: Shape;
}
/** A reduced tensor with its dimensions of size 1 back. */
const restore = (t: Tensor, { shape, dims }: Reduced): Tensor => reshape(t, kept(shape, dims, true));
const spreadOut = (g: Tensor, to: Reduced): Tensor => expand(restore(g, to), to.shape);

/** bfloat16 reduces in float32. */
const widened = (x: Tensor, op: (x: Tensor) => Tensor): Tensor => cast(op(cast(x, F32)), BF16);

// ---- sums ---------------------------------------------------------------------------------------------------------------
const sumRule: Rule<Reduced> = {
  name: 'SumBackward',
  vjp: [(g, _, to) => spreadOut(g, to)],
  jvp: ([t], _, { dims }, out) => reshape(sum(t!, dims), out.shape),
};

/** The sum over dims (all when absent). Whole numbers and bool sum in int32, wrapping. */
export function sum(x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor {
  checkTensor('sum', x);
  if (x.code === BF16) return widened(x, (wide) => sum(wide, dim, options));
  const dims = checkDims('sum', dim, x.ndim);
  const out = run(SUM, x, dims, keepdimOf('sum', options), COMPUTE[x.code]!);
  return isFloat(x.code) ? finish(out, sumRule, [x], [], { shape: x.shape, dims }) : finishPlain(out);
}

const meanRule: Rule<Reduced> = {
  name: 'MeanBackward',
  vjp: [(g, _, to) => spreadOut(mul(g, 1 / countOf(to)), to)],
  jvp: ([t], _, { dims }, out) => reshape(mean(t!, dims), out.shape),
};
const countOf = ({ shape, dims }: Reduced): number => dims.reduce((n, d) => n * shape[d]!, 1);

/** The mean over dims (all when absent); NaN of nothing. */
export function mean(x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor {
  checkTensor('mean', x);
  checkFloat('mean', x);
  if (x.code === BF16) return widened(x, (wide) => mean(wide, dim, options));
  const to = { shape: x.shape, dims: checkDims('mean', dim, x.ndim) };
  // 0 times 1/0 is the NaN that the mean of nothing is.
  return finish(run(SUM, x, to.dims, keepdimOf('mean', options), x.code, 1 / countOf(to)), meanRule, [x], [], to);
}

const cumsumRule: Rule<readonly [number, boolean]> = {
  name: 'CumsumBackward',
  vjp: [(g, _, [dim, reverse]) => runCumsum(g, dim, !reverse)],
  jvp: ([t], _, [dim, reverse]) => runCumsum(t!, dim, reverse),
};

function runCumsum(x: Tensor, dim: number, reverse: boolean): Tensor {
  if (x.code === BF16) return widened(x, (wide) => runCumsum(wide, dim, reverse));
  let out: Tensor;
  if (x instanceof Batched) {
    out = lower(x.level, () => (x.ndim === 0 ? clone(x.physical) : runCumsum(x.physical, dim + 1, reverse)));
  } else {
    const operand = dense(x);
    out = fresh(x.shape, operand.code);
    const { axis } = plan(operand, x.ndim === 0 ? [] : [dim], false);
    commands.cumsum(out, operand, axis, reverse);
    drop(operand, x);
  }
  return isFloat(x.code) ? finish(out, cumsumRule, [x], [], [dim, reverse] as const) : finishPlain(out);
}

/** Running sums along dim, in ascending order. */
export function cumsum(x: Tensor, dim: number): Tensor {
  checkTensor('cumsum', x);
  return runCumsum(x, checkDim('cumsum', dim, x.ndim), false);
}

// ---- products -----------------------------------------------------------------------------------------------------------
const prodRule: Rule<Reduced> = {
  name: 'ProdBackward',
  vjp: [(g, [x], to) => mul(expand(restore(g, to), to.shape), tracks(x!) ? othersExactly(x!, to) : others(x!, to))],
};

/** For each element the product of all others, by division. A lone zero takes the others' product, its peers 0. */
function others(x: Tensor, to: Reduced): Tensor {
  const zero = eq(x, 0);
  const rest = where(zero, 1, x);
  const product = prod(rest, to.dims, { keepdim: true });
  const zeros = sum(zero, to.dims, { keepdim: true });
  return where(eq(zeros, 0), div(product, rest), where(mul(zero, eq(zeros, 1)), product, 0));
}

/** The same without division, so that it can be differentiated through zeros: n² products for n elements. */
function othersExactly(x: Tensor, to: Reduced): Tensor {
  const rest = x.shape.map((_, d) => d).filter((d) => !to.dims.includes(d));
  const order = [...rest, ...to.dims];
  const n = countOf(to);
  const rows = reshape(permute(x, order), [...rest.map((d) => x.shape[d]!), n]);
  const own = eq(unsqueeze(indices(n), 1), indices(n));
  const product = prod(where(own, 1, unsqueeze(rows, -2)), -1);
  const back = order.map((_, d) => order.indexOf(d));
  return permute(
    reshape(
      product,
      order.map((d) => x.shape[d]!),
    ),
    back,
  );
}

function indices(n: number): Tensor {
  const out = fresh([n], I32);
  commands.arange(out, 0, 1);
  return finishPlain(out);
}

/** The product over dims (all when absent). */
export function prod(x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor {
  checkTensor('prod', x);
  if (x.code === BF16) return widened(x, (wide) => prod(wide, dim, options));
  const dims = checkDims('prod', dim, x.ndim);
  const out = run(PROD, x, dims, keepdimOf('prod', options), COMPUTE[x.code]!);
  return isFloat(x.code) ? finish(out, prodRule, [x], [x], { shape: x.shape, dims }) : finishPlain(out);
}

// ---- extremes -----------------------------------------------------------------------------------------------------------
// Equal extremes share the gradient, as in PyTorch.
const extremeRule = (name: string): Rule<Reduced> => ({
  name,
  vjp: [
    (g, [x, y], to) => {
      const winners = cast(eq(x!, restore(y!, to)), x!.code);
      return mul(div(winners, sum(winners, to.dims, { keepdim: true })), restore(g, to));
    },
  ],
});
const amaxRule = extremeRule('AmaxBackward');
const aminRule = extremeRule('AminBackward');

function extreme(
  name: string,
  op: number,
  rule: Rule<Reduced>,
  x: Tensor,
  dim: Dims | undefined,
  keepdim: boolean,
): Tensor {
  checkTensor(name, x);
  if (x.code === BF16) return widened(x, (wide) => extreme(name, op, rule, wide, dim, keepdim));
  const dims = checkDims(name, dim, x.ndim);
  checkNotEmpty(name, x, dims);
  const out = run(op, x, dims, keepdim, COMPUTE[x.code]!);
  if (isFloat(x.code)) return finish(out, rule, [x], [x, out], { shape: x.shape, dims });
  return cast(finishPlain(out), x.code);
}

function checkNotEmpty(name: string, x: Tensor, dims: Shape): void {
  if (countOf({ shape: x.shape, dims }) === 0) {
    throw new ShapeError(`${name}: ${show(x.shape)} has no elements to choose from along dims ${show(dims)}.`);
  }
}

/** The largest over dims (all when absent); NaN if any is NaN. Ties share the gradient. */
export const amax = (x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor =>
  extreme('amax', AMAX, amaxRule, x, dim, keepdimOf('amax', options));
/** The smallest over dims (all when absent); NaN if any is NaN. Ties share the gradient. */
export const amin = (x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor =>
  extreme('amin', AMIN, aminRule, x, dim, keepdimOf('amin', options));

function argExtreme(name: string, op: number, x: Tensor, dim: number | undefined, keepdim: boolean): Tensor {
  checkTensor(name, x);
  const dims = dim === undefined ? checkDims(name, undefined, x.ndim) : checkDims(name, [dim], x.ndim);
  checkNotEmpty(name, x, dims);
  return finishPlain(run(op, x, dims, keepdim, I32));
}

/** The index (int32) of the first largest along dim, or in the flattened tensor; the first NaN's, if any. */
export const argmax = (x: Tensor, dim?: number, options: ReduceOptions = {}): Tensor =>
  argExtreme('argmax', ARGMAX, x, dim, keepdimOf('argmax', options));
/** The index (int32) of the first smallest along dim, or in the flattened tensor; the first NaN's, if any. */
export const argmin = (x: Tensor, dim?: number, options: ReduceOptions = {}): Tensor =>
  argExtreme('argmin', ARGMIN, x, dim, keepdimOf('argmin', options));

// ---- truth --------------------------------------------------------------------------------------------------------------
/** Whether any element is not zero. */
export const any = composed(
  'any',
  (x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor => ne(sum(ne(x, 0), dim, options), 0),
);
/** Whether no element is zero. */
export const all = composed(
  'all',
  (x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor => eq(sum(eq(x, 0), dim, options), 0),
);

// ---- composed -----------------------------------------------------------------------------------------------------------
/** f(x), with f(0) = 0 and there a gradient of 0 where f's own is infinite. */
function flatAtZero(x: Tensor, f: (x: Tensor) => Tensor): Tensor {
  const zero = eq(x, 0);
  return where(zero, 0, f(where(zero, 1, x)));
}

export interface VarOptions extends ReduceOptions {
  /** The divisor is n - correction. */
  correction?: number;
}

/** The variance over dims (all when absent), in two passes. */
function variance(x: Tensor, dim?: Dims, options: VarOptions = {}): Tensor {
  checkTensor('var', x);
  checkFloat('var', x);
  checkOptions('var', options, { ...REDUCE, correction: 1 });
  const { correction = 1, keepdim = false } = options;
  if (typeof correction !== 'number')
    throw new ArgumentError(`var: correction is ${describe(correction)}. Expected a number.`);
  const dims = checkDims('var', dim, x.ndim);
  const n = countOf({ shape: x.shape, dims });
  const deviation = sub(x, mean(x, dims, { keepdim: true }));
  return div(sum(square(deviation), dims, { keepdim }), Math.max(0, n - correction));
}

export { variance as var };

/** The standard deviation over dims; its gradient where all elements are equal is 0. */
export const std = composed(
  'std',
  (x: Tensor, dim?: Dims, options: VarOptions = {}): Tensor => flatAtZero(variance(x, dim, options), sqrt),
);

export interface NormOptions extends ReduceOptions {
  /** The order: any number, ±Infinity for the extremes, 0 for the count of non-zeros. */
  p?: number;
  dim?: Dims;
}

/** (Σ|x|^p)^(1/p) over dims; its gradient at 0 is 0. torch.linalg.vector_norm */
export const norm = composed('norm', (x: Tensor, options: NormOptions = {}): Tensor => {
  checkTensor('norm', x);
  checkFloat('norm', x);
  checkOptions('norm', options, { ...REDUCE, p: 2, dim: 0 });
  const { p = 2, dim, keepdim = false } = options;
  if (typeof p !== 'number' || Number.isNaN(p))
    throw new ArgumentError(`norm: p is ${describe(p)}. Expected a number.`);
  if (p === 2) return flatAtZero(sum(square(x), dim, { keepdim }), sqrt);
  if (p === 1) return sum(abs(x), dim, { keepdim });
  if (p === Number.POSITIVE_INFINITY) return amax(abs(x), dim, { keepdim });
  if (p === Number.NEGATIVE_INFINITY) return amin(abs(x), dim, { keepdim });
  const powers = flatAtZero(abs(x), (size) => pow(size, p));
  if (p === 0) return sum(powers, dim, { keepdim });
  return flatAtZero(sum(powers, dim, { keepdim }), (total) => pow(total, 1 / p));
});

/** log Σ exp(x) over dims, without overflow; -inf of nothing but -inf. */
export function logsumexp(x: Tensor, dim?: Dims, options: ReduceOptions = {}): Tensor {
  checkTensor('logsumexp', x);
  checkFloat('logsumexp', x);
  const dims = checkDims('logsumexp', dim, x.ndim);
  checkNotEmpty('logsumexp', x, dims);
  const largest = noGrad(() => {
    const top = amax(detach(x), dims, { keepdim: true });
    return where(eq(abs(top), Number.POSITIVE_INFINITY), 0, top);
  });
  const total = log(sum(exp(sub(x, largest)), dims, { keepdim: true }));
  return reshape(add(total, largest), kept(x.shape, dims, keepdimOf('logsumexp', options)));
}

// ---- values with their places -------------------------------------------------------------------------------------------
type Pair = [values: Tensor, indices: Tensor];

/** Without dim the largest (smallest) of all; with dim the values along it and the index (int32) of each. */
function chosen(whole: typeof amax, place: typeof argmax) {
  return (x: Tensor, dim?: number, options: ReduceOptions = {}): Tensor | Pair => {
    if (dim === undefined) return whole(x);
    keepdimOf('max', options);
    const indices = place(x, dim, { keepdim: true });
    const values = x.ndim === 0 ? whole(x) : gather(x, dim, indices);
    if (options.keepdim || x.ndim === 0) return [values, indices];
    return [squeeze(values, dim), squeeze(indices, dim)];
  };
}
interface Chosen {
  (x: Tensor): Tensor;
  (x: Tensor, dim: number, options?: ReduceOptions): Pair;
}
/** max(x): the largest element. max(x, dim): [values, indices], the gradient to the first of equal ones. */
export const max = composed('max', chosen(amax, argmax)) as Chosen;
/** min(x): the smallest element. min(x, dim): [values, indices], the gradient to the first of equal ones. */
export const min = composed('min', chosen(amin, argmin)) as Chosen;
