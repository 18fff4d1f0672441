// Scaled dot-product attention.
import { checkOptions, checkRange } from '../arguments.ts';
import { BOOL } from '../dtype.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import { broadcastShapes, describe, sameShape, show } from '../shape.ts';
import { checkTensor, type Tensor } from '../tensor.ts';
import { arange } from './create.ts';
import { dropout as dropElements } from './dropout.ts';
import { add, le, mul, where } from './elementwise.ts';
import { matmul } from './matmul.ts';
import { checkFloat, checkSameDtype } from './op.ts';
import { softmax } from './softmax.ts';
import { transpose, unsqueeze } from './views.ts';

export interface AttentionOptions {
  /** Broadcasts to (..., L, S): true where a key takes part (bool), or what is added to the scores. */
  mask?: Tensor | null;
  /** Query i sees keys 0 to i. */
  isCausal?: boolean;
  /** The chance that a weight is dropped, whether training or not. */
  dropout?: number;
}
const OPTIONS: AttentionOptions = { mask: null, isCausal: false, dropout: 0 };

/** @throws unless q (..., L, E), k (..., S, E) and v (..., S, Ev) fit together, and the mask fits them */
function check(op: string, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): void {
  const inputs = { query: q, key: k, value: v };
  for (const [what, t] of Object.entries(inputs)) {
    checkTensor(op, t, what);
    checkFloat(op, t);
    checkSameDtype(op, q, t);
    if (t.ndim < 2)
      throw new ShapeError(`${op}: the ${what} has shape ${show(t.shape)}. Expected (..., length, size).`);
  }
  if (q.shape.at(-1) !== k.shape.at(-1) || k.shape.at(-2) !== v.shape.at(-2)) {
    throw new ShapeError(
      `${op}: query ${show(q.shape)}, key ${show(k.shape)} and value ${show(v.shape)} do not fit together. ` +
        'Expected (..., L, E), (..., S, E) and (..., S, Ev).',
    );
  }
  const batch = broadcastShapes(
    op,
    broadcastShapes(op, q.shape.slice(0, -2), k.shape.slice(0, -2)),
    v.shape.slice(0, -2),
  );
  checkOptions(op, options, OPTIONS);
  const { mask, isCausal = false, dropout = 0 } = options;
  checkRange(op, 'dropout', dropout, 0, 1);
  if (typeof isCausal !== 'boolean') {
    throw new ArgumentError(`${op}: isCausal is ${describe(isCausal)}. Expected true or false.`);
  }
  if (mask === undefined || mask === null) return;
  checkTensor(op, mask, 'mask');
  if (isCausal) throw new ArgumentError(`${op}: both a mask and isCausal. Put the causal part into the mask.`);
  if (mask.code !== BOOL) checkSameDtype(op, q, mask);
  const scores = [...batch, q.shape.at(-2)!, k.shape.at(-2)!];
  if (!sameShape(broadcastShapes(op, mask.shape, scores), scores)) {
    throw new ShapeError(
      `${op}: a mask of shape ${show(mask.shape)} does not broadcast to the scores ${show(scores)}.`,
    );
  }
}

/** The keys that each query sees: (L, S), true at and below the diagonal. */
const causal = (queries: number, keys: number): Tensor => le(arange(keys), unsqueeze(arange(queries), 1));

function masked(scores: Tensor, { mask, isCausal }: AttentionOptions): Tensor {
  const seen = isCausal ? causal(scores.shape.at(-2)!, scores.shape.at(-1)!) : mask;
  if (seen === undefined || seen === null) return scores;
  return seen.code === BOOL ? where(seen, scores, Number.NEGATIVE_INFINITY) : add(scores, seen);
}

/** The attended values, and the weights (..., L, S) that they are sums with. */
export function attend(
  op: string,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions,
): [values: Tensor, weights: Tensor] {
  check(op, q, k, v, options);
  // The queries are fewer than the scores.
  const scores = matmul(mul(q, 1 / Math.sqrt(q.shape.at(-1)!)), transpose(k, -2, -1));
  const weights = dropElements(softmax(masked(scores, options), -1), options.dropout ?? 0);
  return [matmul(weights, v), weights];
}

/**
 * softmax(q kᵀ / √E) v of q (..., L, E), k (..., S, E) and v (..., S, Ev): shape (..., L, Ev). A query that may see no
 * key gives NaN: it has nothing to average. torch.nn.functional.scaled_dot_product_attention; Vaswani et al. 2017
 */
export const scaledDotProductAttention = (q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor =>
  attend('scaledDotProductAttention', q, k, v, options)[0];
