// Sliding windows over the last dimensions and their transpose, the overlap-add: what convolution and pooling are made
// of. Not among the ops that users see.
import type { Rule } from '../autograd/tape.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import { opcode } from '../native.ts';
import * as commands from '../program/commands.ts';
import type { View } from '../program/storage.ts';
import { checkInteger, numelOf, type Shape, show } from '../shape.ts';
import { fresh, type Tensor } from '../tensor.ts';
import { Batched, lower } from './batched.ts';
import { pad } from './join.ts';
import { finish } from './op.ts';
import { narrow } from './parts.ts';
import { permute, strided } from './views.ts';

// ---- geometry -----------------------------------------------------------------------------------------------------------
/** A number for all spatial dimensions, or one for each of them. */
export type Size = number | readonly number[];

/** One number for each of n spatial dimensions. @throws ArgumentError */
export function checkSizes(op: string, what: string, value: unknown, n: number, least: number): number[] {
  const list: readonly unknown[] = Array.isArray(value) ? value : new Array(n).fill(value);
  if (list.length !== n) {
    throw new ArgumentError(
      `${op}: ${what} is a list of ${list.length}. Expected a number, or one for each of ${n} spatial dimension${n > 1 ? 's' : ''}.`,
    );
  }
  return Array.from(list, (entry) => checkInteger(op, what, entry, least));
}

/** How windows lie over the last dimensions of a tensor; each list has an entry per dimension. */
export interface Windows {
  /** Sizes of those dimensions, without borders and with them. */
  readonly sizes: Shape;
  readonly padded: Shape;
  readonly borders: readonly (readonly [before: number, after: number])[];
  readonly kernel: Shape;
  readonly stride: Shape;
  readonly dilation: Shape;
  /** How many windows there are. */
  readonly count: Shape;
}

/** Counts the windows. @throws ShapeError when not even one fits */
export function layWindows(op: string, w: Omit<Windows, 'padded' | 'count'>): Windows {
  const padded = w.sizes.map((size, d) => size + w.borders[d]![0] + w.borders[d]![1]);
  const spans = w.kernel.map((size, d) => w.dilation[d]! * (size - 1) + 1);
  const count = padded.map((size, d) => Math.floor((size - spans[d]!) / w.stride[d]!) + 1);
  if (spans.some((span, d) => span > padded[d]!)) {
    throw new ShapeError(
      `${op}: a kernel of ${show(w.kernel)} spans ${show(spans)} elements and does not fit into ${show(w.sizes)}, with ` +
        `padding ${show(padded)}. Use a smaller kernel or dilation, or more padding.`,
    );
  }
  return { ...w, padded, count };
}

/** Exchanges count and kernel in (…, count, kernel), or back. */
export function exchange(x: Tensor, { kernel }: Windows): Tensor {
  const n = kernel.length;
  const first = x.ndim - 2 * n;
  return permute(
    x,
    x.shape.map((_, d) => (d < first ? d : d < first + n ? d + n : d - n)),
  );
}

// ---- windows and overlap-add ----------------------------------------------------------------------------------------------
/** The strides of a tensor's windows: (…, count, kernel). */
function windowStrides(strides: Shape, { kernel, stride, dilation }: Windows): number[] {
  const first = strides.length - kernel.length;
  const own = strides.slice(first);
  return [
    ...strides.slice(0, first),
    ...own.map((step, d) => step * stride[d]!),
    ...own.map((step, d) => step * dilation[d]!),
  ];
}

const unfoldRule: Rule<Windows> = {
  name: 'UnfoldBackward',
  vjp: [(g, _, w) => fold(g, w)],
  jvp: ([t], _, w) => unfold(t!, w),
};
const foldRule: Rule<Windows> = {
  name: 'FoldBackward',
  vjp: [(g, _, w) => unfold(g, w)],
  jvp: ([t], _, w) => fold(t!, w),
};

function unfold(x: Tensor, w: Windows): Tensor {
  const shape = [...x.shape.slice(0, x.ndim - w.kernel.length), ...w.count, ...w.kernel];
  return strided(x, shape, windowStrides(x.strides, w), x.offset, unfoldRule, w);
}

const ADD = opcode('add');

/** All places of a kernel, in row-major order. */
const places = (kernel: Shape): number[][] =>
  kernel.reduce<number[][]>(
    (all, size) => all.flatMap((place) => Array.from({ length: size }, (_, i) => [...place, i])),
    [[]],
  );

/** Zeros with the windows added where they were taken: one command for each place of the kernel, in order. */
function fold(g: Tensor, w: Windows): Tensor {
  if (g instanceof Batched) {
    const all = lower(g.level, () => fold(g.physical, w));
    return finish(all, foldRule, [g], [], w);
  }
  const n = w.kernel.length;
  const shape = g.shape.slice(0, g.ndim - n);
  const out = fresh([...shape.slice(0, shape.length - n), ...w.padded], g.code);
  commands.copy(out, 0);
  // Of every window the element at one place.
  const element = ({ storage, code, offset }: Tensor, strides: Shape, place: readonly number[]): View => ({
    storage,
    code,
    shape,
    numel: numelOf(shape),
    strides: strides.slice(0, shape.length),
    offset: place.reduce((at, i, d) => at + i * strides[shape.length + d]!, offset),
    isContiguous: false,
  });
  const strides = windowStrides(out.strides, w);
  for (const place of g.numel > 0 ? places(w.kernel) : []) {
    const sums = element(out, strides, place);
    commands.map(ADD, sums, sums, element(g, g.strides, place));
  }
  return finish(out, foldRule, [g], [], w);
}

/** The windows of x, (…, sizes) as (…, count, kernel): a view of x, or of a copy with borders of `value`. */
export function windows(x: Tensor, w: Windows, value = 0): Tensor {
  const bare = w.borders.every(([before, after]) => before === 0 && after === 0);
  return unfold(bare ? x : pad(x, [...w.borders].reverse().flat(), value), w);
}

/** The transpose of `windows`, (…, count, kernel) as (…, sizes): each element the sum of its copies. */
export function overlapAdd(g: Tensor, w: Windows): Tensor {
  const whole = fold(g, w);
  const first = whole.ndim - w.kernel.length;
  return w.sizes.reduce(
    (t: Tensor, size, d) => (size === w.padded[d] ? t : narrow(t, first + d, w.borders[d]![0], size)),
    whole,
  );
}
