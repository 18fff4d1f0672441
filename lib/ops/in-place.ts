// Ops that write into their first argument, and raise the version of its storage. Names end in `_`.
import type { Rule } from '../autograd/tape.ts';
import { isFloat } from '../dtype.ts';
import { ArgumentError, AutogradError } from '../errors.ts';
import * as commands from '../program/commands.ts';
import { broadcastShapes, describe } from '../shape.ts';
import { checkTensor, type Tensor } from '../tensor.ts';
import { cast, castLike } from './cast.ts';
import { zerosLike } from './create.ts';
import { checkNumber } from './define.ts';
import * as elementwise from './elementwise.ts';
import { beforeInPlace, finishInPlace, overlaps } from './overwrite.ts';
import * as random from './random.ts';

export const add_ = elementwise.add.inPlace;
export const sub_ = elementwise.sub.inPlace;
export const mul_ = elementwise.mul.inPlace;
export const div_ = elementwise.div.inPlace;
export const pow_ = elementwise.pow.inPlace;
export const clamp_ = elementwise.clamp.inPlace;
export const maskedFill_ = elementwise.maskedFill.inPlace;
export const uniform_ = random.uniformInPlace;
export const normal_ = random.normalInPlace;

type Parameterless = (x: Tensor) => Tensor;
export const neg_: Parameterless = (x) => elementwise.neg.inPlace(x);
export const abs_: Parameterless = (x) => elementwise.abs.inPlace(x);
export const exp_: Parameterless = (x) => elementwise.exp.inPlace(x);
export const log_: Parameterless = (x) => elementwise.log.inPlace(x);
export const sqrt_: Parameterless = (x) => elementwise.sqrt.inPlace(x);
export const square_: Parameterless = (x) => elementwise.square.inPlace(x);
export const tanh_: Parameterless = (x) => elementwise.tanh.inPlace(x);
export const sigmoid_: Parameterless = (x) => elementwise.sigmoid.inPlace(x);
export const relu_: Parameterless = (x) => elementwise.relu.inPlace(x);

// What was in x is gone: its gradient is zero.
const copyRule: Rule<number> = {
  name: 'CopyBackwards',
  broadcasts: true,
  vjp: [(g) => zerosLike(g), (g, _, code) => cast(g, code)],
};
const fillRule: Rule = { name: 'FillBackward', vjp: [(g) => zerosLike(g)] };

/** Writes src, broadcast and converted, into x. Gradients flow to src. */
export function copy_(x: Tensor, src: Tensor): Tensor {
  checkTensor('copy_', x);
  checkTensor('copy_', src, 'source');
  beforeInPlace('copy_', x, [src], broadcastShapes('copy_', x.shape, src.shape));
  const source = overlaps(x, src) ? castLike(src, src) : src;
  commands.copy(x, source);
  return finishInPlace(x, copyRule, [x, isFloat(x.code) ? src : null], () => [], src.code);
}

/** Writes v into every element of x. */
export const fill_ = (x: Tensor, v: number): Tensor => fill('fill_', x, v);
export const zero_ = (x: Tensor): Tensor => fill('zero_', x, 0);

function fill(op: string, x: Tensor, v: number): Tensor {
  checkTensor(op, x);
  checkNumber(op, 'the value', v);
  beforeInPlace(op, x, [], x.shape);
  commands.copy(x, v);
  return finishInPlace(x, fillRule, [x], () => [], null);
}
/**
 * Makes a leaf require gradients, or not. torch.Tensor.requires_grad_
 * @throws AutogradError for a tensor that ops computed, or of a dtype without gradients
 */
export function requiresGrad_(x: Tensor, flag = true): Tensor {
  checkTensor('requiresGrad_', x);
  if (typeof flag !== 'boolean') throw new ArgumentError(`requiresGrad_: ${describe(flag)}. Expected true or false.`);
  if (!flag && x.node !== null) {
    throw new AutogradError(
      'requiresGrad_: only a leaf can stop requiring grad. Use detach() for a tensor without history.',
    );
  }
  if (flag && !isFloat(x.code)) {
    throw new AutogradError(
      `requiresGrad_: ${x.dtype} tensors cannot require grad: only floating dtypes have gradients.`,
    );
  }
  if (x.node === null) x.leafRequiresGrad = flag;
  return x;
}
