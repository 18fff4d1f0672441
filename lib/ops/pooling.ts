// Pooling: the largest or the mean element of each window of the last two dimensions.
import { checkOptions } from '../arguments.ts';
import { needsGrad, type Rule } from '../autograd/tape.ts';
import { BF16, F32 } from '../dtype.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import { divert } from '../program/engine.ts';
import { numelOf, type Shape, show } from '../shape.ts';
import { checkTensor, scope, type Tensor } from '../tensor.ts';
import { cast } from './cast.ts';
import { filled, tensor } from './create.ts';
import { add, eq, mul, where } from './elementwise.ts';
import { gather, indexSelect, scatterAdd } from './indexing.ts';
import { checkFloat, recordOp } from './op.ts';
import { amax, argmax, mean } from './reduce.ts';
import { detach, expand, flatten, reshape, unsqueeze } from './views.ts';
import { checkSizes, exchange, layWindows, overlapAdd, type Size, type Windows, windows } from './windows.ts';

export interface PoolOptions {
  /** From one window to the next. Default: the size, so that windows do not overlap. */
  stride?: Size;
  /** Borders on both sides, at most half a window. */
  padding?: Size;
}
export interface MaxPoolOptions extends PoolOptions {
  dilation?: Size;
}
const AVERAGE: PoolOptions = { stride: 0, padding: 0 };
const MAXIMUM: MaxPoolOptions = { ...AVERAGE, dilation: 1 };

function poolWindows(op: string, x: Tensor, size: Size, options: MaxPoolOptions, known: object): Windows {
  checkTensor(op, x);
  checkFloat(op, x);
  checkOptions(op, options, known);
  if (x.ndim !== 3 && x.ndim !== 4) {
    throw new ShapeError(
      `${op}: the input has shape ${show(x.shape)}. Expected [batch, channels, height, width] or [channels, height, width].`,
    );
  }
  const kernel = checkSizes(op, 'size', size, 2, 1);
  const stride = checkSizes(op, 'stride', options.stride ?? kernel, 2, 1);
  const dilation = checkSizes(op, 'dilation', options.dilation ?? 1, 2, 1);
  const padding = checkSizes(op, 'padding', options.padding ?? 0, 2, 0);
  if (padding.some((width, d) => 2 * width > kernel[d]!)) {
    throw new ArgumentError(
      `${op}: padding ${show(padding)} is more than half of the size ${show(kernel)}. Use pad for wider borders.`,
    );
  }
  const borders = padding.map((width) => [width, width] as const);
  return layWindows(op, { sizes: x.shape.slice(-2), borders, kernel, stride, dilation });
}

// ---- the largest ----------------------------------------------------------------------------------------------------------
// Saved: where in its plane, the last two dimensions as one, each maximum was.
const maxRule: Rule<Shape> = {
  name: 'MaxPool2DWithIndicesBackward',
  vjp: [
    (g, [places], shape) => {
      const planes = filled('maxPool2d', [...shape.slice(0, -2), numelOf(shape.slice(-2))], 0, { dtype: g.dtype });
      return reshape(scatterAdd(planes, -1, places!, flatten(g, -2)), shape);
    },
  ],
  jvp: ([t], [places], _, out) => reshape(gather(flatten(t!, -2), -1, places!), out.shape),
};

/** For each window along dimension d its first element that is not border. @throws ShapeError when one has none */
function firstInside({ sizes, borders, kernel, stride, dilation, count }: Windows, d: number): number[] {
  return Array.from({ length: count[d]! }, (_, i) => {
    const start = i * stride[d]! - borders[d]![0];
    const first = start < 0 ? start + Math.ceil(-start / dilation[d]!) * dilation[d]! : start;
    if (first < sizes[d]! && first <= start + (kernel[d]! - 1) * dilation[d]!) return first;
    throw new ShapeError(
      `maxPool2d: a window of ${show(kernel)} with dilation ${show(dilation)} meets only padding in ${show(sizes)}. ` +
        'Use less padding or dilation.',
    );
  });
}

/** Places in planes of this width, from rows and columns. */
function grid([rows, columns]: readonly number[][], width: number): Tensor {
  const starts = Int32Array.from(rows!, (row) => row * width);
  // Made at once, also while a function is being compiled: it depends on shapes alone.
  const constant = (values: Int32Array): Tensor => divert(null, () => tensor(values));
  return add(unsqueeze(constant(starts), 1), constant(Int32Array.from(columns!)));
}

/** From the place of each maximum in its window that in its plane. */
function placesInPlane(inWindow: Tensor, largest: Tensor, w: Windows, firsts: readonly number[][] | null): Tensor {
  const width = w.sizes[1]!;
  const steps = w.kernel.map((n, d) => Array.from({ length: n }, (_, i) => i * w.dilation[d]!));
  const starts = w.count.map((n, d) => Array.from({ length: n }, (_, i) => i * w.stride[d]! - w.borders[d]![0]));
  const fromStart = indexSelect(flatten(grid(steps, width)), 0, flatten(inWindow));
  const places = add(reshape(fromStart, inWindow.shape), grid(starts, width));
  if (firsts === null) return flatten(places, -2);
  // Of a window of nothing but -Infinity the first maximum may have been a border.
  const lowest = eq(largest, Number.NEGATIVE_INFINITY);
  return flatten(where(lowest, grid(firsts, width), places), -2);
}

/**
 * The largest element of each window of the last two dimensions of x (batch, channels, height, width), or without
 * batch; NaN if one is. The first of equals takes the gradient. torch.nn.functional.max_pool2d
 * @throws ShapeError when no window fits, or one meets only padding; ArgumentError for padding over half the size
 */
export function maxPool2d(x: Tensor, size: Size, options: MaxPoolOptions = {}): Tensor {
  const w = poolWindows('maxPool2d', x, size, options, MAXIMUM);
  const bordered = w.borders.some(([width]) => width > 0);
  const firsts = bordered ? [firstInside(w, 0), firstInside(w, 1)] : null;
  const [out, places] = scope(() => {
    const candidates = flatten(exchange(windows(detach(x), w, Number.NEGATIVE_INFINITY), w), -4, -3);
    const largest = amax(candidates, -3);
    return [largest, needsGrad(x) ? placesInPlane(argmax(candidates, -3), largest, w, firsts) : null] as const;
  });
  recordOp(out, maxRule, [x], [places], x.shape);
  return out;
}

// ---- the mean -------------------------------------------------------------------------------------------------------------
const averageRule: Rule<Windows> = {
  name: 'AvgPool2DBackward',
  vjp: [
    (g, _, w) => {
      const share = reshape(mul(g, 1 / numelOf(w.kernel)), [...g.shape, 1, 1]);
      return overlapAdd(expand(share, [...g.shape, ...w.kernel]), w);
    },
  ],
  jvp: ([t], _, w) => average(t!, w),
};

function average(x: Tensor, w: Windows): Tensor {
  // bfloat16 adds up in float32.
  if (x.code === BF16) return cast(average(cast(x, F32), w), BF16);
  const out = scope(() => mean(exchange(windows(detach(x), w), w), [-4, -3]));
  recordOp(out, averageRule, [x], [], w);
  return out;
}

/**
 * The mean of each window of the last two dimensions of x (batch, channels, height, width), or without batch; borders
 * count as zeros. torch.nn.functional.avg_pool2d
 * @throws ShapeError when no window fits; ArgumentError for padding over half the size
 */
export const avgPool2d = (x: Tensor, size: Size, options: PoolOptions = {}): Tensor =>
  average(x, poolWindows('avgPool2d', x, size, options, AVERAGE));
