// Softmax and log-softmax along one dimension, with fused kernels both ways.
import { type Rule, tracks } from '../autograd/tape.ts';
import { BF16, F32 } from '../dtype.ts';
import { opcode } from '../native.ts';
import * as commands from '../program/commands.ts';
import { checkDim, numelOf } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { spreadOver } from './align.ts';
import { Batched, levelOf, lower } from './batched.ts';
import { cast } from './cast.ts';
import { exp, mul, sub } from './elementwise.ts';
import { checkFloat, dense, drop, finish, finishPlain } from './op.ts';
import { sum } from './reduce.ts';
import { squeeze, unsqueeze } from './views.ts';

const axisOf = ({ shape }: Tensor, dim: number): commands.Axis => ({
  outer: numelOf(shape.slice(0, dim)),
  reduce: shape[dim] ?? 1,
  inner: numelOf(shape.slice(dim + 1)),
});

type Linear = (t: Tensor, y: Tensor, dim: number) => Tensor;

/** Both softmaxes: `composed` is the gradient in differentiable ops, for gradients of gradients; `tangent` goes forward. */
function define(name: string, composed: Linear, tangent: Linear): (x: Tensor, dim: number) => Tensor {
  const forward = opcode(name);
  const pullback = opcode(`${name}Vjp`);
  const fused = (g: Tensor, y: Tensor, dim: number): Tensor => {
    if (tracks(g) || tracks(y)) return composed(g, y, dim);
    const level = levelOf(g, y);
    if (level !== null) {
      if (g.ndim === 0) return composed(g, y, dim);
      return finishPlain(lower(level, () => fused(spreadOver(level, g), spreadOver(level, y), dim + 1)));
    }
    const [gradient, output] = [dense(g), dense(y)];
    const out = fresh(g.shape, g.code);
    commands.softmax(pullback, out, axisOf(g, dim), gradient, output);
    drop(gradient, g);
    drop(output, y);
    return finishPlain(out);
  };
  const rule: Rule<number> = {
    name: `${name[0]!.toUpperCase()}${name.slice(1)}Backward`,
    vjp: [(g, [y], dim) => fused(g, y!, dim)],
    jvp: ([t], [y], dim) => tangent(t!, y!, dim),
  };
  const op = (x: Tensor, dim: number): Tensor => {
    checkTensor(name, x);
    checkFloat(name, x);
    const d = checkDim(name, dim, x.ndim);
    if (x.code === BF16) return cast(op(cast(x, F32), d), BF16);
    let out: Tensor;
    if (x instanceof Batched) {
      // Without dimensions there is one element, a row of its own.
      out = lower(x.level, () =>
        x.ndim === 0 ? squeeze(op(unsqueeze(x.physical, -1), -1), -1) : op(x.physical, d + 1),
      );
    } else {
      const operand = dense(x);
      out = fresh(x.shape, x.code);
      commands.softmax(forward, out, axisOf(x, d), operand);
      drop(operand, x);
    }
    return finish(out, rule, [x], [out], d);
  };
  return op;
}

/** The Jacobian of softmax, which is symmetric, times t. */
function symmetric(t: Tensor, y: Tensor, dim: number): Tensor {
  const weighted = mul(t, y);
  return sub(weighted, mul(y, sum(weighted, dim, { keepdim: true })));
}

/** exp(x) / Σ exp(x) along dim, without overflow. */
export const softmax = define('softmax', symmetric, symmetric);

/** log(softmax(x)) along dim, without overflow or cancellation. */
export const logSoftmax = define(
  'logSoftmax',
  (g, y, dim) => sub(g, mul(exp(y), sum(g, dim, { keepdim: true }))),
  (t, y, dim) => sub(t, sum(mul(exp(y), t), dim, { keepdim: true })),
);
