// Updates of lists of parameters in one command each, and norms over them. Used by optim and nn.utils.
import { COMPUTE, F64 } from '../dtype.ts';
import { DTypeError, ShapeError } from '../errors.ts';
import { native, opcode } from '../native.ts';
import { copy, map } from '../program/commands.ts';
import * as commands from '../program/commands-list.ts';
import { flush } from '../program/engine.ts';
import { refuseWhileRecording } from '../program/recorder.ts';
import { sameShape, show } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { checkFloat, checkSameDtype, dense, drop } from './op.ts';

const SGD = opcode('sgd');
const ADAM = opcode('adam');
const RMSPROP = opcode('rmsprop');
const ADAGRAD = opcode('adagrad');
const ADADELTA = opcode('adadelta');

export type Clip = commands.Clip;

/** A parameter, its gradient, and the optimizer's tensors for it; all contiguous, of one dtype. */
export interface UpdateItem {
  param: Tensor;
  grad: Tensor;
  state: readonly Tensor[];
}

/** What the updates of all optimizers are told. */
export interface UpdateOptions {
  maximize: boolean;
}

export interface SgdOptions extends UpdateOptions {
  lr: number;
  momentum: number;
  dampening: number;
  weightDecay: number;
  nesterov: boolean;
}

export interface AdamOptions extends UpdateOptions {
  lr: number;
  betas: readonly [number, number];
  eps: number;
  weightDecay: number;
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
  lr: number;
  lrDecay: number;
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

/** How many updates the items have had, the one at hand included. */
export interface Count {
  readonly step: number;
}

function update(
  op: string,
  opcode: number,
  clip: Clip | null,
  items: readonly UpdateItem[],
  settings: () => commands.Settings,
): void {
  const first = items[0]?.param;
  if (first === undefined) return;
  for (const item of items) checkItem(op, item, first);
  checkFloat(op, first);
  if (COMPUTE[first.code] !== first.code) {
    throw new DTypeError(`${op}: ${first.dtype} parameters are not supported: keep them in float32.`);
  }
  const ready = items.every(({ grad }) => grad.isContiguous)
    ? items
    : items.map((item) => ({ ...item, grad: dense(item.grad) }));
  for (let i = 0; i < ready.length; i += commands.MAX_ITEMS) {
    commands.update(opcode, first.code, settings, clip, ready.slice(i, i + commands.MAX_ITEMS));
    flush();
  }
  if (ready !== items) {
    ready.forEach(({ grad }, i) => {
      drop(grad, items[i]!.grad);
    });
  }
  for (const { param, state } of items) {
    param.storage.changed();
    for (const t of state) t.storage.changed();
  }
}

/** One step of SGD on every item, in place. state: [momentum buffer] when there is momentum, else []; set by the first. */
export function sgdStep_(items: readonly UpdateItem[], o: SgdOptions, count: Count, clip: Clip | null): void {
  update('sgdStep_', SGD, clip, items, () => ({
    flags: bits(o, o.nesterov, count.step === 1),
    options: [o.lr, o.momentum, o.dampening, o.weightDecay],
  }));
}

/**
 * One step of Adam on every item, in place; `decoupled`: of AdamW, whose weight decay is apart from the gradient. state:
 * [exp. average, of squares, their maximum if amsgrad].
 */
export function adamStep_(
  items: readonly UpdateItem[],
  o: AdamOptions,
  count: Count,
  clip: Clip | null,
  decoupled: boolean,
): void {
  update('adamStep_', ADAM, clip, items, () => {
    const [beta1, beta2] = o.betas;
    const corrections = [1 - beta1 ** count.step, 1 - beta2 ** count.step];
    return {
      flags: bits(o, decoupled, o.amsgrad),
      options: [o.lr, beta1, beta2, o.eps, o.weightDecay, ...corrections],
    };
  });
}

/** One step of RMSprop on every item, in place. state: [average of squares, of gradients if centered, momentum buffer if any]. */
export function rmspropStep_(items: readonly UpdateItem[], o: RmspropOptions, clip: Clip | null): void {
  update('rmspropStep_', RMSPROP, clip, items, () => ({
    flags: bits(o, o.centered),
    options: [o.lr, o.momentum, o.alpha, o.eps, o.weightDecay],
  }));
}

/** One step of Adagrad on every item, in place. state: [sum of squares]. */
export function adagradStep_(items: readonly UpdateItem[], o: AdagradOptions, count: Count, clip: Clip | null): void {
  update('adagradStep_', ADAGRAD, clip, items, () => ({
    flags: bits(o),
    options: [o.lr / (1 + (count.step - 1) * o.lrDecay), o.eps, o.weightDecay],
  }));
}

/** One step of Adadelta on every item, in place. state: [average of squares, of squared steps]. */
export function adadeltaStep_(items: readonly UpdateItem[], o: AdadeltaOptions, clip: Clip | null): void {
  update('adadeltaStep_', ADADELTA, clip, items, () => ({
    flags: bits(o),
    options: [o.lr, o.rho, o.eps, o.weightDecay],
  }));
}

/** Writes into out, one float64, the sum of the squares of all elements of all tensors. */
export function sumSquares_(out: Tensor, tensors: readonly Tensor[]): void {
  copy(out, 0);
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
  refuseWhileRecording('the norm of gradients', 'Give the optimizer maxGradNorm instead: it clips without reading.');
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
    map(MUL, t, t, factor);
    t.storage.changed();
  }
  flush();
}
