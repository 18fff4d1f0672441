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

/** A parameter, its gradient, and the optimizer's tensors for it; all contiguous, of one dtype. */
export interface UpdateItem {
  param: Tensor;
  grad: Tensor;
  state: readonly Tensor[];
}

export interface SgdOptions {
  lr: number;
  momentum: number;
  dampening: number;
  weightDecay: number;
  nesterov: boolean;
  maximize: boolean;
  /** The momentum buffers start as the gradients. */
  first: boolean;
}

export interface AdamOptions {
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
  maximize: boolean;
}

export interface RmspropOptions {
  lr: number;
  momentum: number;
  alpha: number;
  eps: number;
  weightDecay: number;
  centered: boolean;
  maximize: boolean;
}

export interface AdagradOptions {
  /** Of this step. */
  lr: number;
  eps: number;
  weightDecay: number;
  maximize: boolean;
}

export interface AdadeltaOptions {
  lr: number;
  rho: number;
  eps: number;
  weightDecay: number;
  maximize: boolean;
}

const bits = (...flags: boolean[]): number => flags.reduce((sum, flag, i) => sum | (Number(flag) << i), 0);

function update(
  op: string,
  opcode: number,
  flags: number,
  options: readonly number[],
  items: readonly UpdateItem[],
): void {
  const first = items[0];
  if (first === undefined) return;
  for (const { param, grad, state } of items) {
    for (const t of [param, grad, ...state]) {
      checkTensor(op, t);
      checkSameDtype(op, first.param, t);
      if (!sameShape(t.shape, param.shape)) {
        throw new ShapeError(
          `${op}: a parameter of shape ${show(param.shape)} with a gradient or state of ${show(t.shape)}.`,
        );
      }
    }
    if (!param.isContiguous || state.some((t) => !t.isContiguous)) {
      throw new ShapeError(
        `${op}: a parameter of shape ${show(param.shape)} is a view with gaps. Optimize its base instead.`,
      );
    }
  }
  checkFloat(op, first.param);
  if (COMPUTE[first.param.code] !== first.param.code) {
    throw new DTypeError(`${op}: ${first.param.dtype} parameters are not supported: keep them in float32.`);
  }
  const grads = items.map(({ grad }) => dense(grad));
  for (let i = 0; i < items.length; i += commands.MAX_ITEMS) {
    const part = items.slice(i, i + commands.MAX_ITEMS).map((item, j) => ({ ...item, grad: grads[i + j]! }));
    commands.update(opcode, first.param.code, flags, options, part);
    flush();
  }
  items.forEach(({ param, grad, state }, i) => {
    drop(grads[i]!, grad);
    for (const t of [param, ...state]) t.storage.changed();
  });
}

/** One step of SGD on every item, in place. state: [momentum buffer] when there is momentum, else []. */
export function sgdStep_(items: readonly UpdateItem[], o: SgdOptions): void {
  update('sgdStep_', SGD, bits(o.nesterov, o.maximize, o.first), [o.lr, o.momentum, o.dampening, o.weightDecay], items);
}

/** One step of Adam or AdamW on every item, in place. state: [exp. average, of squares, their maximum if amsgrad]. */
export function adamStep_(items: readonly UpdateItem[], o: AdamOptions): void {
  const bias = [1 - o.beta1 ** o.step, 1 - o.beta2 ** o.step];
  const options = [o.lr, o.beta1, o.beta2, o.eps, o.weightDecay, ...bias];
  update('adamStep_', ADAM, bits(o.decoupled, o.amsgrad, o.maximize), options, items);
}

/** One step of RMSprop on every item, in place. state: [average of squares, of gradients if centered, momentum buffer if any]. */
export function rmspropStep_(items: readonly UpdateItem[], o: RmspropOptions): void {
  const options = [o.lr, o.momentum, o.alpha, o.eps, o.weightDecay];
  update('rmspropStep_', RMSPROP, bits(o.centered, o.maximize), options, items);
}

/** One step of Adagrad on every item, in place. state: [sum of squares]. */
export function adagradStep_(items: readonly UpdateItem[], o: AdagradOptions): void {
  update('adagradStep_', ADAGRAD, bits(o.maximize), [o.lr, o.eps, o.weightDecay], items);
}

/** One step of Adadelta on every item, in place. state: [average of squares, of squared steps]. */
export function adadeltaStep_(items: readonly UpdateItem[], o: AdadeltaOptions): void {
  update('adadeltaStep_', ADADELTA, bits(o.maximize), [o.lr, o.rho, o.eps, o.weightDecay], items);
}

/** The Euclidean norm of all elements of all tensors together. */
export function globalNorm(tensors: readonly Tensor[]): number {
  let squares = 0;
  for (const code of new Set(tensors.map((t) => COMPUTE[t.code]!))) {
    const group = tensors.filter((t) => COMPUTE[t.code] === code);
    for (const t of group) {
      checkTensor('globalNorm', t);
      checkFloat('globalNorm', t);
    }
    for (let i = 0; i < group.length; i += commands.MAX_ITEMS) {
      const part = group.slice(i, i + commands.MAX_ITEMS);
      const operands = part.map((t) => dense(t));
      const out = fresh([1], F64);
      commands.sumSquares(out, code, operands);
      flush();
      squares += native.readNumber(out.storage.slot, 0, F64)!;
      operands.forEach((operand, j) => {
        drop(operand, part[j]!);
      });
      out.dispose();
    }
  }
  return Math.sqrt(squares);
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
