// The cross-entropy of rows of logits against class indices, with fused kernels both ways. losses.ts checks the operands
// and composes the rest: class weights, smoothing, classes in a middle dimension, examples inside vmap.
import { type Rule, tracks } from '../autograd/tape.ts';
import { BF16, F32, I32 } from '../dtype.ts';
import * as commands from '../program/commands.ts';
import { fresh, type Tensor } from '../tensor.ts';
import { levelOf } from './batched.ts';
import { cast } from './cast.ts';
import { clamp, div, mul, ne, sub, where } from './elementwise.ts';
import { oneHot } from './indexing.ts';
import { dense, drop, finish, finishPlain, indexed, leaveToGraph } from './op.ts';
import { sum } from './reduce.ts';
import { softmax } from './softmax.ts';
import { unsqueeze } from './views.ts';

const rule: Rule<commands.RowLosses> = {
  name: 'CrossEntropyBackward',
  vjp: [(g, [x, target, stats], losses) => pullback(g, x!, target!, stats!, losses)],
};

function pullback(g: Tensor, x: Tensor, target: Tensor, stats: Tensor, losses: commands.RowLosses): Tensor {
  if (tracks(g) || tracks(x) || levelOf(g, x, target) !== null) return composedPullback(g, x, target, losses);
  const [gradient, logits, classes] = [dense(g), dense(x), dense(target, I32)];
  const out = fresh(x.shape, x.code);
  commands.crossEntropyVjp(out, gradient, logits, classes, stats, losses);
  drop(gradient, g);
  drop(logits, x);
  drop(classes, target);
  return finishPlain(out);
}

/** The same in differentiable ops, for gradients of gradients. */
function composedPullback(g: Tensor, x: Tensor, target: Tensor, losses: commands.RowLosses): Tensor {
  const { classes, ignoreIndex, reduction } = losses;
  const counted = ne(target, ignoreIndex);
  // Where no row counts the divisor is never used.
  const share = reduction === 'mean' ? div(g, clamp(sum(cast(counted, x.code)), { min: 1 })) : g;
  const own = cast(oneHot(where(counted, target, 0), classes), x.code);
  const gradient = mul(sub(softmax(x, 1), own), reduction === 'none' ? unsqueeze(share, 1) : share);
  return where(unsqueeze(counted, 1), gradient, 0);
}

/** -log softmax(x)[target] of the rows of x (rows, classes). Targets that are `ignoreIndex` count for nothing. */
export function rowCrossEntropy(x: Tensor, target: Tensor, losses: commands.RowLosses): Tensor {
  if (x.code === BF16) return cast(rowCrossEntropy(cast(x, F32), target, losses), BF16);
  const [logits, classes] = [dense(x), dense(target, I32)];
  const out = fresh(losses.reduction === 'none' ? target.shape : [], x.code);
  const stats = fresh([2, losses.rows], x.code);
  commands.crossEntropy(out, stats, logits, classes, losses);
  return indexed('crossEntropy', losses.classes, () => {
    drop(classes, target);
    drop(logits, x);
    finish(out, rule, [x], [x, target, stats], losses);
    leaveToGraph(stats);
    return out;
  });
}
