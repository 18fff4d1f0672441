// Softmax and log-softmax along one dimension, with fused kernels both ways.
import type { Rule } from '../autograd/tape.ts';
import { current } from '../context.ts';
import { BF16, F32 } from '../dtype.ts';
import { opcode } from '../native.ts';
import * as commands from '../program/commands.ts';
import { checkDim, numelOf } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { cast } from './cast.ts';
import { exp, mul, sub } from './elementwise.ts';
import { checkFloat, dense, drop, finish, finishPlain, needsGrad } from './op.ts';
import { sum } from './reduce.ts';

const axisOf = ({ shape }: Tensor, dim: number): commands.Axis => ({
  outer: numelOf(shape.slice(0, dim)),
  reduce: shape[dim] ?? 1,
  inner: numelOf(shape.slice(dim + 1)),
});

/** Both softmaxes: `composed` is the gradient in differentiable ops, for gradients of gradients. */
function define(
  name: string,
  composed: (g: Tensor, y: Tensor, dim: number) => Tensor,
): (x: Tensor, dim: number) => Tensor {
  const forward = opcode(name);
  const pullback = opcode(`${name}Vjp`);
  const rule: Rule<number> = {
    name: `${name[0]!.toUpperCase()}${name.slice(1)}Backward`,
    vjp: [
      (g, [y], dim) => {
        if (current().grad && (needsGrad(g) || needsGrad(y!))) return composed(g, y!, dim);
        const [gradient, output] = [dense(g), dense(y!)];
        const out = fresh(g.shape, g.code);
        commands.softmax(pullback, out, axisOf(g, dim), gradient, output);
        drop(gradient, g);
        drop(output, y!);
        return finishPlain(out);
      },
    ],
  };
  const op = (x: Tensor, dim: number): Tensor => {
    checkTensor(name, x);
    checkFloat(name, x);
    const d = checkDim(name, dim, x.ndim);
    if (x.code === BF16) return cast(op(cast(x, F32), d), BF16);
    const operand = dense(x);
    const out = fresh(x.shape, x.code);
    commands.softmax(forward, out, axisOf(x, d), operand);
    drop(operand, x);
    return finish(out, rule, [x], [out], d);
  };
  return op;
}

/** exp(x) / Σ exp(x) along dim, without overflow. */
export const softmax = define('softmax', (g, y, dim) => {
  const weighted = mul(g, y);
  return sub(weighted, mul(y, sum(weighted, dim, { keepdim: true })));
});

/** log(softmax(x)) along dim, without overflow or cancellation. */
export const logSoftmax = define('logSoftmax', (g, y, dim) => sub(g, mul(exp(y), sum(g, dim, { keepdim: true }))));
