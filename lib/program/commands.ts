// Writers of commands: one per layout of native/runtime/{map,commands}.cc, in the order that those read.
// They append to the buffer; the op that calls them flushes. Knows views, no tensors.
import { COMPUTE } from '../dtype.ts';
import { opcode } from '../native.ts';
import type { Shape } from '../shape.ts';
import { cursor, flush, settle, words } from './engine.ts';
import { capturing } from './recorder.ts';
import type { View } from './storage.ts';

const doubles = new Float64Array(1);
const halves = new Int32Array(doubles.buffer);

// Room for the longest command of fixed length; lists check their own.
const ROOM = 128;

export function begin(): number {
  if (cursor.at + ROOM > words.length) flush();
  return cursor.at;
}

export function end(start: number, op: number, at: number): void {
  words[start] = op | ((at - start) << 16);
  cursor.at = at;
}

export function number(at: number, value: number, to: Int32Array = words): number {
  doubles[0] = value;
  to[at] = halves[0]!;
  to[at + 1] = halves[1]!;
  return at + 2;
}

/** Words of an operand. */
export const OPERAND = 2;

/** What the command reads. */
export const operand = (at: number, view: View): number => place(at, view, false);
/** What it writes, and may read as well. */
export const output = (at: number, view: View): number => place(at, view, true);

function place(at: number, view: View, written: boolean): number {
  const recorder = capturing();
  if (recorder !== null) recorder.operand(at, view, written);
  else settle(view.storage);
  words[at] = view.storage.slot;
  words[at + 1] = view.offset;
  return at + 2;
}

// ---- elementwise ----------------------------------------------------------------------------------------------------

/** An operand, or a number that every element shares. */
export type Input = View | number;

function writeStrides(at: number, view: View, shape: Shape): number {
  const skip = shape.length - view.shape.length;
  for (let d = 0; d < shape.length; d++) {
    const own = d - skip;
    words[at++] = own < 0 || (view.shape[own] === 1 && shape[d] !== 1) ? 0 : view.strides[own]!;
  }
  return at;
}

const isPlain = (input: Input | undefined, out: View): boolean =>
  input === undefined ||
  typeof input === 'number' ||
  (input.isContiguous && input.numel === out.numel && input.shape.length <= out.shape.length);

const inputFlags = (input: Input, i: number): number => (typeof input === 'number' ? 8 : input.code) << (12 + 4 * i);

/**
 * out[...] = op(x, y, z), the inputs broadcast to out's shape. Computes in the first tensor input's compute type, or
 * in out's; p0 and p1 are the op's scalar parameters.
 */
export function map(op: number, out: View, x: Input, y?: Input, z?: Input, p0?: number, p1?: number): void {
  const start = begin();
  const plain = out.isContiguous && isPlain(x, out) && isPlain(y, out) && isPlain(z, out);
  const dims = plain ? 1 : out.shape.length;
  const leading = typeof x !== 'number' ? x : typeof y !== 'number' ? y : undefined;
  // where(cond, a, b) computes in the dtype of its values.
  const typed = z !== undefined ? (typeof y !== 'number' ? y! : typeof z !== 'number' ? z : out) : (leading ?? out);
  const count = z !== undefined ? 3 : y !== undefined ? 2 : 1;
  const params = p1 !== undefined ? 2 : p0 !== undefined ? 1 : 0;
  let flags = dims | (count << 4) | (COMPUTE[typed.code]! << 6) | (out.code << 8) | (params << 24) | inputFlags(x, 0);
  if (y !== undefined) flags |= inputFlags(y, 1);
  if (z !== undefined) flags |= inputFlags(z, 2);
  let at = start + 1;
  words[at++] = flags;
  if (plain) {
    words[at++] = out.numel;
    words[at++] = 1;
    if (typeof x !== 'number') words[at++] = 1;
    if (y !== undefined && typeof y !== 'number') words[at++] = 1;
    if (z !== undefined && typeof z !== 'number') words[at++] = 1;
  } else {
    for (let d = 0; d < dims; d++) words[at++] = out.shape[d]!;
    at = writeStrides(at, out, out.shape);
    if (typeof x !== 'number') at = writeStrides(at, x, out.shape);
    if (y !== undefined && typeof y !== 'number') at = writeStrides(at, y, out.shape);
    if (z !== undefined && typeof z !== 'number') at = writeStrides(at, z, out.shape);
  }
  if (p0 !== undefined) at = number(at, p0);
  if (p1 !== undefined) at = number(at, p1);
  at = output(at, out);
  at = typeof x === 'number' ? number(at, x) : operand(at, x);
  if (y !== undefined) at = typeof y === 'number' ? number(at, y) : operand(at, y);
  if (z !== undefined) at = typeof z === 'number' ? number(at, z) : operand(at, z);
  end(start, op, at);
}

const COPY = opcode('copy');

/** out = x, broadcast and converted. A number fills. */
export const copy = (out: View, x: Input): void => map(COPY, out, x);

const ALLOCATE = opcode('allocate');

/** Gives out its block, for commands that write it in parts: the first alone would size it too small. */
export function allocate(out: View): void {
  const start = begin();
  words[start + 1] = out.code;
  words[start + 2] = out.numel;
  end(start, ALLOCATE, output(start + 3, out));
}

// ---- matmul -----------------------------------------------------------------------------------------------------------
const MATMUL = opcode('matmul');

export interface Batch {
  size: number;
  a: number;
  b: number;
  c: number;
}

export interface Gemm {
  m: number;
  n: number;
  k: number;
  aRow: number;
  aCol: number;
  bRow: number;
  bCol: number;
  cRow: number;
  batch: readonly Batch[];
  alpha: number;
  beta: number;
  /** n elements in a row, added to every row of the product. */
  bias: View | null;
}

/** out = alpha * a @ b + beta * (bias or out), for every batch entry. Strides in elements. */
export function matmul(out: View, a: View, b: View, g: Gemm): void {
  const start = begin();
  let at = start + 1;
  words[at++] = out.code | (g.batch.length << 8) | (g.bias === null ? 0 : 1 << 12);
  words[at++] = g.m;
  words[at++] = g.n;
  words[at++] = g.k;
  words[at++] = g.aRow;
  words[at++] = g.aCol;
  words[at++] = g.bRow;
  words[at++] = g.bCol;
  words[at++] = g.cRow;
  for (const dim of g.batch) {
    words[at++] = dim.size;
    words[at++] = dim.a;
    words[at++] = dim.b;
    words[at++] = dim.c;
  }
  at = number(at, g.alpha);
  at = number(at, g.beta);
  at = output(at, out);
  at = operand(at, a);
  at = operand(at, b);
  end(start, MATMUL, g.bias === null ? at : operand(at, g.bias));
}

// ---- along one axis: x as [outer, reduce, inner], contiguous --------------------------------------------------------------
export interface Axis {
  outer: number;
  reduce: number;
  inner: number;
}

function axis(start: number, code: number, a: Axis): number {
  words[start + 1] = code;
  words[start + 2] = a.outer;
  words[start + 3] = a.reduce;
  words[start + 4] = a.inner;
  return start + 5;
}

/** sum (times scale), prod, amax, amin, argmax, argmin. */
export function reduce(op: number, out: View, x: View, a: Axis, scale: number): void {
  const start = begin();
  let at = number(axis(start, x.code, a), scale);
  at = output(at, out);
  end(start, op, operand(at, x));
}

const CUMSUM = opcode('cumsum');

export function cumsum(out: View, x: View, a: Axis, reverse: boolean): void {
  const start = begin();
  let at = axis(start, x.code, a);
  words[at++] = reverse ? 1 : 0;
  at = output(at, out);
  end(start, CUMSUM, operand(at, x));
}

/** softmax, logSoftmax (x), and their pullbacks (g, y). */
export function softmax(op: number, out: View, a: Axis, x: View, y?: View): void {
  const start = begin();
  let at = output(axis(start, out.code, a), out);
  at = operand(at, x);
  end(start, op, y ? operand(at, y) : at);
}

// ---- rows ---------------------------------------------------------------------------------------------------------------
/** As LossReduction in native/kernels/table.h numbers them. */
export const LOSS_REDUCTIONS = ['none', 'sum', 'mean'] as const;

export interface RowLosses {
  rows: number;
  classes: number;
  ignoreIndex: number;
  reduction: (typeof LOSS_REDUCTIONS)[number];
}

function rowLosses(start: number, code: number, l: RowLosses): number {
  words[start + 1] = code;
  words[start + 2] = l.rows;
  words[start + 3] = l.classes;
  words[start + 4] = l.ignoreIndex;
  words[start + 5] = LOSS_REDUCTIONS.indexOf(l.reduction);
  return start + 6;
}

const CROSS_ENTROPY = opcode('crossEntropy');
const CROSS_ENTROPY_VJP = opcode('crossEntropyVjp');

/** out = the losses of x's rows, or their sum or mean; stats (2, rows) is what the pullback reads. */
export function crossEntropy(out: View, stats: View, x: View, target: View, l: RowLosses): void {
  const start = begin();
  let at = rowLosses(start, x.code, l);
  for (const view of [out, stats]) at = output(at, view);
  at = operand(at, x);
  end(start, CROSS_ENTROPY, operand(at, target));
}

/** out = the gradient of x from that of the loss. */
export function crossEntropyVjp(out: View, g: View, x: View, target: View, stats: View, l: RowLosses): void {
  const start = begin();
  let at = rowLosses(start, x.code, l);
  at = output(at, out);
  for (const view of [g, x, target]) at = operand(at, view);
  end(start, CROSS_ENTROPY_VJP, operand(at, stats));
}

const LAYER_NORM = opcode('layerNorm');
const LAYER_NORM_VJP = opcode('layerNormVjp');
type Maybe = View | null;

/** y = each row of n elements of x less its mean, over its deviation, times weight plus bias; stats (2, rows). */
export function layerNorm(y: View, stats: View, x: View, weight: Maybe, bias: Maybe, n: number, eps: number): void {
  const start = begin();
  words[start + 1] = x.code;
  words[start + 2] = (weight ? 1 : 0) | (bias ? 2 : 0);
  words[start + 3] = stats.shape[1]!;
  words[start + 4] = n;
  let at = number(start + 5, eps);
  for (const view of [y, stats]) at = output(at, view);
  for (const view of [x, weight, bias]) if (view) at = operand(at, view);
  end(start, LAYER_NORM, at);
}

/** The gradients of x, weight and bias, those that are not null, from that of y. */
export function layerNormVjp(to: readonly Maybe[], g: View, x: View, stats: View, weight: Maybe, n: number): void {
  const start = begin();
  words[start + 1] = x.code;
  words[start + 2] = to.reduce((flags, view, i) => flags | (view ? 2 << i : 0), weight ? 1 : 0);
  words[start + 3] = stats.shape[1]!;
  words[start + 4] = n;
  let at = start + 5;
  for (const view of to) if (view) at = output(at, view);
  for (const view of [g, x, stats, weight]) if (view) at = operand(at, view);
  end(start, LAYER_NORM_VJP, at);
}

// ---- indexing -----------------------------------------------------------------------------------------------------------
export interface Indexing {
  perElement: boolean;
  outer: number;
  rows: number;
  count: number;
  inner: number;
}

/** gather (out[o, j, i] = x[o, index, i]) and scatterAdd (out[o, index, i] += x[o, j, i]). */
export function indexing(op: number, out: View, x: View, index: View, s: Indexing): void {
  const start = begin();
  let at = start + 1;
  words[at++] = out.code;
  words[at++] = s.perElement ? 1 : 0;
  words[at++] = s.outer;
  words[at++] = s.rows;
  words[at++] = s.count;
  words[at++] = s.inner;
  at = output(at, out);
  at = operand(at, x);
  end(start, op, operand(at, index));
}

// ---- sorting ------------------------------------------------------------------------------------------------------------
const SORT = opcode('sort');

/** Of each row of x the first `count` values in order, and their indices (int32): [outer, count, inner]. */
export function sort(values: View, indices: View, x: View, a: Axis, count: number, descending: boolean): void {
  const start = begin();
  let at = axis(start, x.code, a);
  words[at++] = count;
  words[at++] = descending ? 1 : 0;
  at = output(at, values);
  at = output(at, indices);
  end(start, SORT, operand(at, x));
}

// ---- sources ------------------------------------------------------------------------------------------------------------
const ARANGE = opcode('arange');

/** out[i] = first + i * step. */
export function arange(out: View, first: number, step: number): void {
  const start = begin();
  words[start + 1] = out.code;
  words[start + 2] = out.numel;
  let at = number(start + 3, first);
  at = number(at, step);
  end(start, ARANGE, output(at, out));
}

/** Where in a Philox stream numbers are drawn. */
export interface Position {
  seed: bigint;
  counter: bigint;
}

function position(to: Int32Array, start: number, { seed, counter }: Position): number {
  let at = start;
  for (const wide of [seed, counter]) {
    to[at++] = Number(wide & 0xffffffffn);
    to[at++] = Number(wide >> 32n);
  }
  return at;
}

/** Numbers from where `take` says on, asked again in each run; a and b as RandomArgs in native/kernels/table.h. */
export function random(op: number, out: View, take: () => Position, a: number, b: number): void {
  const start = begin();
  words[start + 1] = out.code;
  words[start + 2] = out.numel;
  let at = position(words, start + 3, take());
  capturing()?.rewrite(start + 3, (to, from) => position(to, from, take()));
  at = number(at, a);
  at = number(at, b);
  end(start, op, output(at, out));
}
