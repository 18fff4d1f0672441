// Convolutions over one or two spatial dimensions, and their gradients: one command each, which makes no matrix of
// windows.
import { checkOptions } from '../arguments.ts';
import { needsGrad, type Rule } from '../autograd/tape.ts';
import { BF16, F32 } from '../dtype.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import { opcode } from '../native.ts';
import * as commands from '../program/commands-convolution.ts';
import { checkInteger, describe, type Shape, show } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { spreadOver } from './align.ts';
import { allOf, type Batched, isBatchedAt, type Level, levelOf, lower } from './batched.ts';
import { cast } from './cast.ts';
import { add } from './elementwise.ts';
import { checkFloat, checkSameDtype, dense, drop, finish } from './op.ts';
import { plus } from './plus.ts';
import { sum } from './reduce.ts';
import { expand, flatten, reshape, squeeze, transpose, unsqueeze } from './views.ts';
import { checkSizes, layWindows, type Size, type Windows } from './windows.ts';

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

// ---- the ops --------------------------------------------------------------------------------------------------------------
// Of x, weight and the output, each is bilinear in the other two: the gradients of one of the three ops below are the
// other two.
interface Geometry {
  readonly windows: Windows;
  readonly groups: number;
  /** Of the weight: (out, in / groups, …kernel). */
  readonly weight: Shape;
}
type Bilinear = (a: Tensor, b: Tensor, geometry: Geometry) => Tensor;

const GRADIENT = { input: opcode('convolutionInput'), weight: opcode('convolutionWeight') };

/** As commands take it: two spatial dimensions, of which a line has one. */
function layoutOf(n: number, { windows: w, groups, weight }: Geometry): commands.Conv {
  const [first, second = { in: 1, out: 1, kernel: 1, stride: 1, pad: 0, dilation: 1 }] = w.sizes.map((size, d) => ({
    in: size,
    out: w.count[d]!,
    kernel: w.kernel[d]!,
    stride: w.stride[d]!,
    pad: w.borders[d]![0],
    dilation: w.dilation[d]!,
  }));
  return { n, groups, inChannels: weight[1]!, outChannels: weight[0]! / groups, dims: [first!, second] };
}

/** What each gradient reads of the other operand. */
const savedOf = (a: Tensor, b: Tensor): [Tensor | null, Tensor | null] => [
  needsGrad(b) ? a : null,
  needsGrad(a) ? b : null,
];

/** (out) as it is added to (N, out, …count). */
const biasColumn = (bias: Tensor, { windows: w }: Geometry): Tensor =>
  reshape(bias, [bias.numel, ...w.count.map(() => 1)]);

const convolutionRule: Rule<Geometry> = {
  name: 'ConvolutionBackward',
  vjp: [
    (g, [, weight], to) => inputGradient(g, weight!, to),
    (g, [x], to) => weightGradient(x!, g, to),
    (g) => sum(sum(flatten(g, 2), 2), 0),
  ],
  jvp: ([tx, tweight, tbias], [x, weight], to, out) =>
    [
      tx && convolve(tx, weight!, null, to),
      tweight && convolve(x!, tweight, null, to),
      tbias && expand(biasColumn(tbias, to), out.shape),
    ].reduce(plus) as Tensor,
};
const inputRule: Rule<Geometry> = {
  name: 'ConvolutionBackwardBackward',
  vjp: [(h, [, weight], to) => convolve(h, weight!, null, to), (h, [g], to) => weightGradient(h, g!, to)],
  jvp: ([tg, tweight], [g, weight], to) =>
    plus(tg && inputGradient(tg, weight!, to), tweight && inputGradient(g!, tweight, to)),
};
const weightRule: Rule<Geometry> = {
  name: 'ConvolutionBackwardBackward',
  vjp: [(h, [, g], to) => inputGradient(g!, h, to), (h, [x], to) => convolve(x!, h, null, to)],
  jvp: ([tx, tg], [x, g], to) => plus(tx && weightGradient(tx, g!, to), tg && weightGradient(x!, tg, to)),
};

/** Runs the command on operands as it reads them, row-major. */
function run(out: Tensor, operands: readonly (Tensor | null)[], write: (...views: Tensor[]) => void): Tensor {
  const plain = operands.map((t) => t && dense(t));
  write(...(plain as Tensor[]));
  operands.forEach((t, i) => void (t && drop(plain[i]!, t)));
  return out;
}

/** Each element is one chain of multiply-adds, added to the bias: the same in any batch. */
function convolve(x: Tensor, weight: Tensor, bias: Tensor | null, to: Geometry): Tensor {
  if (x.code === BF16) return cast(convolve(cast(x, F32), cast(weight, F32), bias && cast(bias, F32), to), BF16);
  if (levelOf(x, weight, bias) !== null) {
    const batched = overExamples((a, b, all) => convolve(a, b, null, all), x, weight, to, 'images');
    const product = batched
      ? finish(batched, convolutionRule, [x, weight, null], savedOf(x, weight), to)
      : convolve(x, weight, null, to);
    return bias ? add(product, biasColumn(bias, to)) : product;
  }
  const out = fresh([x.shape[0]!, weight.shape[0]!, ...to.windows.count], x.code);
  const layout = layoutOf(x.shape[0]!, to);
  run(out, [x, weight, bias], (a, b, c) => commands.convolution(out, a!, b!, c ?? null, layout));
  return finish(out, convolutionRule, [x, weight, bias], savedOf(x, weight), to);
}

/** The gradient for x: also known as the transposed convolution of g. */
function inputGradient(g: Tensor, weight: Tensor, to: Geometry): Tensor {
  let out: Tensor | null = overExamples(inputGradient, g, weight, to, 'images');
  if (out === null) {
    const made = fresh([g.shape[0]!, to.groups * to.weight[1]!, ...to.windows.sizes], g.code);
    const layout = layoutOf(g.shape[0]!, to);
    out = run(made, [g, weight], (a, b) => commands.convolutionGradient(GRADIENT.input, made, a!, b!, layout));
  }
  return finish(out, inputRule, [g, weight], savedOf(g, weight), to);
}

/** The gradient for the weight: a sum over the batch and all windows. */
function weightGradient(x: Tensor, g: Tensor, to: Geometry): Tensor {
  let out: Tensor | null = overExamples(weightGradient, x, g, to, 'weight');
  if (out === null) {
    const made = fresh(to.weight, x.code);
    const layout = layoutOf(x.shape[0]!, to);
    out = run(made, [x, g], (a, b) => commands.convolutionGradient(GRADIENT.weight, made, a!, b!, layout));
  }
  return finish(out, weightRule, [x, g], savedOf(x, g), to);
}

// ---- inside vmap ----------------------------------------------------------------------------------------------------------
/** Examples of images, (B, N, C, …), as groups of channels, (N, B · C, …), and back. */
function asGroups(level: Level, x: Tensor): Tensor {
  const [size, n, channels, ...rest] = spreadOver(level, x).shape as [number, number, number, ...number[]];
  return reshape(transpose(spreadOver(level, x), 0, 1), [n, size * channels, ...rest]);
}
function fromGroups({ size }: Level, y: Tensor): Tensor {
  const [n, channels, ...rest] = y.shape as [number, number, ...number[]];
  return transpose(reshape(y, [n, size, channels / size, ...rest]), 0, 1);
}
/** Leading dimensions a and b as one, a · b. */
const together = (x: Tensor): Tensor => reshape(x, [x.shape[0]! * x.shape[1]!, ...x.shape.slice(2)]);

/**
 * The op on all examples, null outside of vmap: examples with one weight as images of one batch, others as groups. The
 * first operand is images; the second is a weight for images, and more images for a weight.
 */
function overExamples(op: Bilinear, a: Tensor, b: Tensor, to: Geometry, result: 'images' | 'weight'): Batched | null {
  const level = levelOf(a, b);
  if (level === null) return null;
  return lower(level, () => {
    if (result === 'images' && !isBatchedAt(level, b)) {
      const y = op(together(allOf(level, a)), b, to);
      return reshape(y, [level.size, a.shape[0]!, ...y.shape.slice(1)]);
    }
    const all = { ...to, groups: level.size * to.groups, weight: [level.size * to.weight[0]!, ...to.weight.slice(1)] };
    const second = result === 'images' ? together(spreadOver(level, b)) : asGroups(level, b);
    const y = op(asGroups(level, a), second, all);
    return result === 'images' ? fromGroups(level, y) : reshape(y, [level.size, ...to.weight]);
  });
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
