// Updates of lists of parameters in one command each, and norms over them. Used by optim and nn.utils.
import { COMPUTE, F64 } from '../dtype.ts';
import { DTypeError, ShapeError } from '../errors.ts';
import { native, opcode } from '../native.ts';
import * as commands from '../program/commands.ts';
import { flush } from '../program/engine.ts';
import { sameShape, show } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { checkFloat, checkSameDtype, dense, drop } from './op.ts';

const SGD = opcode('sgd');
const ADAM = opcode('adam');
const RMSPROP = opcode('rmsprop');
const ADAGRAD = opcode('adagrad');
const ADADELTA = opcode('adadelta');

export type { Clip } from '../program/commands.ts';

/** A parameter, its gradient, and the optimizer's tensors for it; all contiguous, of one dtype. */
export interface UpdateItem {
  param: Tensor;
  grad: Tensor;
  state: readonly Tensor[];
}

/** What the updates of all optimizers are told. */
export interface UpdateOptions {
  maximize: boolean;
  clip: commands.Clip | null;
}

export interface SgdOptions extends UpdateOptions {
  lr: number;
  momentum: number;
  dampening: number;
  weightDecay: number;
  nesterov: boolean;
  /** The momentum buffers start as the gradients. */
  first: boolean;
}

export interface AdamOptions extends UpdateOptions {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  /** The step that this update is, from 1. */
  step: number;
  /** Weight decay apart from the gradient, as in AdamW. */
  decoupled: boolean;
  amsgrad: boolean;
}

export interface RmspropOptions extends UpdateOptions {
  lr: number;
  momentum: number;
  alpha: number;
  eps: number;
  weightDecay: number;
  centered: boolean;
}

export interface AdagradOptions extends UpdateOptions {
  /** Of this step. */
  lr: number;
  eps: number;
  weightDecay: number;
}

export interface AdadeltaOptions extends UpdateOptions {
  lr: number;
  rho: number;
  eps: number;
  weightDecay: number;
}

/** The flags of a command: bit 1 is its writer's. */
const bits = ({ maximize }: UpdateOptions, first = false, second = false): number =>
  Number(maximize) | (Number(first) << 2) | (Number(second) << 3);

function checkItem(op: string, { param, grad, state }: UpdateItem, first: Tensor): void {
  checkTensor(op, param);
  checkSameDtype(op, first, param);
  checkLike(op, grad, param);
  for (const t of state) checkLike(op, t, param);
  if (!param.isContiguous || state.some((t) => !t.isContiguous)) {
    throw new ShapeError(
      `${op}: a parameter of shape ${show(param.shape)} is a view with gaps. Optimize its base instead.`,
    );
  }
}

function checkLike(op: string, t: Tensor, param: Tensor): void {
  checkTensor(op, t);
  checkSameDtype(op, param, t);
  if (sameShape(t.shape, param.shape)) return;
  throw new ShapeError(
    `${op}: a parameter of shape ${show(param.shape)} with a gradient or state of ${show(t.shape)}.`,
  );
}

function update(
  op: string,
  opcode: number,
  flags: number,
  clip: commands.Clip | null,
  options: readonly number[],
  items: readonly UpdateItem[],
): void {
  const first = items[0]?.param;
  if (first === undefined) return;
  for (const item of items) checkItem(op, item, first);
  checkFloat(op, first);
  if (COMPUTE[first.code] !== first.code) {
    throw new DTypeError(`${op}: ${first.dtype} parameters are not supported: keep them in float32.`);
  }
  for (let i = 0; i < items.length; i += commands.MAX_ITEMS) {
    const part = items.slice(i, i + commands.MAX_ITEMS).map((item) => ({ ...item, grad: dense(item.grad) }));
    commands.update(opcode, first.code, flags, clip, options, part);
    flush();
    part.forEach(({ grad }, j) => {
      drop(grad, items[i + j]!.grad);
    });
  }
  for (const { param, state } of items) {
    param.storage.changed();
    for (const t of state) t.storage.changed();
  }
}

/** One step of SGD on every item, in place. state: [momentum buffer] when there is momentum, else []. */
export function sgdStep_(items: readonly UpdateItem[], o: SgdOptions): void {
  const options = [o.lr, o.momentum, o.dampening, o.weightDecay];
  update('sgdStep_', SGD, bits(o, o.nesterov, o.first), o.clip, options, items);
}

/** One step of Adam or AdamW on every item, in place. state: [exp. average, of squares, their maximum if amsgrad]. */
export function adamStep_(items: readonly UpdateItem[], o: AdamOptions): void {
  const bias = [1 - o.beta1 ** o.step, 1 - o.beta2 ** o.step];
  const options = [o.lr, o.beta1, o.beta2, o.eps, o.weightDecay, ...bias];
  update('adamStep_', ADAM, bits(o, o.decoupled, o.amsgrad), o.clip, options, items);
}

/** One step of RMSprop on every item, in place. state: [average of squares, of gradients if centered, momentum buffer if any]. */
export function rmspropStep_(items: readonly UpdateItem[], o: RmspropOptions): void {
  const options = [o.lr, o.momentum, o.alpha, o.eps, o.weightDecay];
  update('rmspropStep_', RMSPROP, bits(o, o.centered), o.clip, options, items);
}

/** One step of Adagrad on every item, in place. state: [sum of squares]. */
export function adagradStep_(items: readonly UpdateItem[], o: AdagradOptions): void {
  update('adagradStep_', ADAGRAD, bits(o), o.clip, [o.lr, o.eps, o.weightDecay], items);
}

/** One step of Adadelta on every item, in place. state: [average of squares, of squared steps]. */
export function adadeltaStep_(items: readonly UpdateItem[], o: AdadeltaOptions): void {
  update('adadeltaStep_', ADADELTA, bits(o), o.clip, [o.lr, o.rho, o.eps, o.weightDecay], items);
}

/** Writes into out, one float64, the sum of the squares of all elements of all tensors. */
export function sumSquares_(out: Tensor, tensors: readonly Tensor[]): void {
  commands.copy(out, 0);
  for (const code of new Set(tensors.map((t) => COMPUTE[t.code]!))) {
    const group = tensors.filter((t) => COMPUTE[t.code] === code);
    for (const t of group) {
      checkTensor('sumSquares_', t);
      checkFloat('sumSquares_', t);
    }
    for (let i = 0; i < group.length; i += commands.MAX_ITEMS) {
      const part = group.slice(i, i + commands.MAX_ITEMS);
      const operands = part.map((t) => dense(t));
      commands.sumSquares(out, code, operands);
      operands.forEach((operand, j) => {
        drop(operand, part[j]!);
      });
    }
  }
  flush();
}

/** The Euclidean norm of all elements of all tensors together. */
export function globalNorm(tensors: readonly Tensor[]): number {
  const squares = fresh([1], F64);
  sumSquares_(squares, tensors);
  const norm = Math.sqrt(native.readNumber(squares.storage.slot, 0, F64)!);
  squares.dispose();
  return norm;
}

const MUL = opcode('mul');

/** Multiplies every tensor in place, outside the graph. */
export function scale_(tensors: readonly Tensor[], factor: number): void {
  for (const t of tensors) {
    checkTensor('scale_', t);
    commands.map(MUL, t, t, factor);
    t.storage.changed();
  }
  flush();
}
