// Convolutions over any number of spatial dimensions: windows laid side by side as the columns of a matrix, and one
// product with the weight for each example and group.
import { checkOptions } from '../arguments.ts';
import { needsGrad, type Rule } from '../autograd/tape.ts';
import { BF16, F32 } from '../dtype.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import * as commands from '../program/commands.ts';
import { flush } from '../program/engine.ts';
import { checkInteger, describe, numelOf, type Shape, show } from '../shape.ts';
import { checkTensor, fresh, scope, type Tensor } from '../tensor.ts';
import { levelOf } from './batched.ts';
import { cast } from './cast.ts';
import { add } from './elementwise.ts';
import { matmul } from './matmul.ts';
import { checkFloat, checkSameDtype, finish } from './op.ts';
import { plus } from './plus.ts';
import { sum } from './reduce.ts';
import { detach, expand, flatten, reshape, squeeze, transpose, unsqueeze } from './views.ts';
import { checkSizes, exchange, layWindows, overlapAdd, type Size, type Windows, windows } from './windows.ts';

// ---- options --------------------------------------------------------------------------------------------------------------
export interface ConvOptions {
  stride?: Size;
  /** Zeros on both sides; 'same': as many as keep the size, with a stride of 1; 'valid': none. */
  padding?: Size | 'same' | 'valid';
  dilation?: Size;
  /** Channels fall into so many groups, and each output channel sees one of them. */
  groups?: number;
}

const KNOWN: ConvOptions = { stride: 1, padding: 0, dilation: 1, groups: 1 };
type Checked = Pick<Windows, 'kernel' | 'stride' | 'dilation' | 'borders'> & { readonly groups: number };

/** The options of a convolution with n spatial dimensions, complete. @throws ArgumentError */
export function checkConvOptions(op: string, n: number, kernel: Shape, options: ConvOptions): Checked {
  checkOptions(op, options, KNOWN);
  const { padding = 0 } = options;
  const stride = checkSizes(op, 'stride', options.stride ?? 1, n, 1);
  const dilation = checkSizes(op, 'dilation', options.dilation ?? 1, n, 1);
  const groups = checkInteger(op, 'groups', options.groups ?? 1, 1);
  if (padding === 'same') {
    if (stride.some((step) => step !== 1)) {
      throw new ArgumentError(`${op}: padding 'same' with stride ${show(stride)}. Use a stride of 1, or give numbers.`);
    }
    const borders = kernel.map((size, d) => {
      const all = dilation[d]! * (size - 1);
      return [Math.floor(all / 2), Math.ceil(all / 2)] as const;
    });
    return { kernel, stride, dilation, groups, borders };
  }
  if (typeof padding === 'string' && padding !== 'valid') {
    throw new ArgumentError(`${op}: padding is ${describe(padding)}. Expected numbers, 'same' or 'valid'.`);
  }
  const sides = checkSizes(op, 'padding', padding === 'valid' ? 0 : padding, n, 0);
  return { kernel, stride, dilation, groups, borders: sides.map((size) => [size, size] as const) };
}

// ---- the op ---------------------------------------------------------------------------------------------------------------
interface Geometry {
  readonly windows: Windows;
  readonly groups: number;
  /** Of the weight: (out, in / groups, …kernel). */
  readonly weight: Shape;
}

/** (N, C, …sizes) as (N, groups, C / groups · kernel, count): every column one window. */
function columnsOf(x: Tensor, { windows: w, groups, weight }: Geometry): Tensor {
  const rows = numelOf(weight.slice(1));
  return reshape(exchange(windows(x, w), w), [x.shape[0]!, groups, rows, numelOf(w.count)]);
}
/** The transpose of `columnsOf`. */
function addColumns(columns: Tensor, { windows: w, groups, weight }: Geometry): Tensor {
  const shape = [columns.shape[0]!, groups * weight[1]!, ...w.kernel, ...w.count];
  return overlapAdd(exchange(reshape(columns, shape), w), w);
}
/** (groups, out / groups, in / groups · kernel) */
const weightRows = (weight: Tensor, { groups }: Geometry): Tensor =>
  reshape(weight, [groups, weight.shape[0]! / groups, numelOf(weight.shape.slice(1))]);
/** (N, out, …count) as (N, groups, out / groups, count) */
const outputRows = (g: Tensor, { windows: w, groups, weight }: Geometry): Tensor =>
  reshape(g, [g.shape[0]!, groups, weight[0]! / groups, numelOf(w.count)]);
const mT = (x: Tensor): Tensor => transpose(x, -2, -1);

/** (out) as it is added to (N, out, …count). */
const biasColumn = (bias: Tensor, { windows: w }: Geometry): Tensor =>
  reshape(bias, [bias.numel, ...w.count.map(() => 1)]);

// Columns are not saved: they are as many times x as the kernel has elements, and quickly made again.
const convolutionRule: Rule<Geometry> = {
  name: 'ConvolutionBackward',
  vjp: [
    (g, [, weight], to) => addColumns(matmul(mT(weightRows(weight!, to)), outputRows(g, to)), to),
    (g, [x], to) => reshape(sum(matmul(outputRows(g, to), mT(columnsOf(x!, to))), 0), to.weight),
    (g) => sum(sum(flatten(g, 2), 2), 0),
  ],
  jvp: ([tx, tweight, tbias], [x, weight], to, out) =>
    [
      tx && convolve(tx, weight!, null, to),
      tweight && convolve(x!, tweight, null, to),
      tbias && expand(biasColumn(tbias, to), out.shape),
    ].reduce(plus) as Tensor,
};

/** Each element is one chain of multiply-adds, starting from the bias: the same in any batch. */
function convolve(x: Tensor, weight: Tensor, bias: Tensor | null, geometry: Geometry): Tensor {
  if (x.code === BF16) {
    const wide = convolve(cast(x, F32), cast(weight, F32), bias && cast(bias, F32), geometry);
    return cast(wide, BF16);
  }
  const { windows: w, groups } = geometry;
  const shape = [x.shape[0]!, weight.shape[0]!, ...w.count];
  if (levelOf(x, weight, bias) !== null) {
    const product = reshape(matmul(weightRows(weight, geometry), columnsOf(x, geometry)), shape);
    return bias ? add(product, biasColumn(bias, geometry)) : product;
  }
  const out = fresh(shape, x.code);
  scope(() => {
    const columns = columnsOf(detach(x), geometry);
    const rows = weightRows(detach(weight), geometry);
    if (bias) commands.copy(out, biasColumn(detach(bias), geometry));
    const [m, n] = [rows.shape[1]!, columns.shape[3]!];
    commands.matmul(out, rows, columns, {
      m,
      n,
      k: columns.shape[2]!,
      aRow: rows.strides[1]!,
      aCol: rows.strides[2]!,
      bRow: columns.strides[2]!,
      bCol: columns.strides[3]!,
      cRow: n,
      batch: [
        { size: x.shape[0]!, a: 0, b: columns.strides[0]!, c: groups * m * n },
        { size: groups, a: rows.strides[0]!, b: columns.strides[1]!, c: m * n },
      ],
      alpha: 1,
      bias: null,
      beta: bias ? 1 : 0,
    });
    flush();
  });
  const saved = [needsGrad(weight) ? x : null, needsGrad(x) ? weight : null];
  return finish(out, convolutionRule, [x, weight, bias], saved, geometry);
}

// ---- checks ---------------------------------------------------------------------------------------------------------------
/** @throws ShapeError unless the channels of x, weight and bias fit together */
function checkChannels(op: string, channels: number, weight: Tensor, bias: Tensor | null, groups: number): void {
  const [out, input] = weight.shape as [number, number];
  if (channels !== input * groups) {
    throw new ShapeError(
      `${op}: the input has ${channels} channels, a weight of ${show(weight.shape)} in ${groups} groups takes ${input * groups}. ` +
        'Expected x channels == weight.shape[1] * groups.',
    );
  }
  if (out % groups !== 0) {
    throw new ShapeError(`${op}: ${out} output channels do not fall into ${groups} equal groups.`);
  }
  if (bias && (bias.ndim !== 1 || bias.shape[0] !== out)) {
    throw new ShapeError(`${op}: the bias has shape ${show(bias.shape)}. Expected [${out}].`);
  }
}

type Convolution = (x: Tensor, weight: Tensor, bias?: Tensor | null, options?: ConvOptions) => Tensor;

function convolution(op: string, n: number, dims: string): Convolution {
  return (x, weight, bias, options = {}) => {
    checkTensor(op, x);
    checkTensor(op, weight, 'weight');
    checkSameDtype(op, x, weight);
    checkFloat(op, x);
    const added = bias ?? null;
    if (added) {
      checkTensor(op, added, 'bias');
      checkSameDtype(op, x, added);
    }
    if (x.ndim !== n + 1 && x.ndim !== n + 2) {
      throw new ShapeError(
        `${op}: the input has shape ${show(x.shape)}. Expected [batch, channels, ${dims}] or [channels, ${dims}].`,
      );
    }
    if (weight.ndim !== n + 2 || weight.shape.slice(2).includes(0)) {
      throw new ShapeError(
        `${op}: the weight has shape ${show(weight.shape)}. Expected [out, in / groups, ${dims} of a kernel >= 1].`,
      );
    }
    const { groups, ...layout } = checkConvOptions(op, n, weight.shape.slice(2), options);
    checkChannels(op, x.shape[x.ndim - n - 1]!, weight, added, groups);
    const laid = layWindows(op, { ...layout, sizes: x.shape.slice(-n) });
    const geometry = { windows: laid, groups, weight: weight.shape };
    if (x.ndim === n + 2) return convolve(x, weight, added, geometry);
    return squeeze(convolve(unsqueeze(x, 0), weight, added, geometry), 0);
  };
}

/**
 * Cross-correlation of x (batch, in, length), or (in, length), with weight (out, in / groups, kernel), plus bias (out):
 * (batch, out, windows). torch.nn.functional.conv1d
 * @throws ShapeError when channels do not fit together or the kernel is larger than the padded input
 */
export const conv1d = convolution('conv1d', 1, 'length');
/**
 * Cross-correlation of x (batch, in, height, width), or without batch, with weight (out, in / groups, height, width),
 * plus bias (out): (batch, out, windows down, windows across). torch.nn.functional.conv2d
 * @throws ShapeError when channels do not fit together or the kernel is larger than the padded input
 */
export const conv2d = convolution('conv2d', 2, 'height, width');
