// Operands of one example as operands for all of them: the batch in front, the dimensions behind it in line.
import type { Tensor } from '../tensor.ts';
import { allOf, type Batched, isBatchedAt, type Level, levelOf, lower } from './batched.ts';
import { expand, reshape } from './views.ts';

/** All examples of t, `ndim` dimensions each. */
function withRank(level: Level, t: Tensor, ndim: number): Tensor {
  if (!isBatchedAt(level, t)) return t;
  const all = allOf(level, t);
  if (t.ndim === ndim) return all;
  return reshape(all, [level.size, ...new Array<number>(ndim - t.ndim).fill(1), ...t.shape]);
}

type Operand = Tensor | number;
const isBatched = (t: Operand): boolean => typeof t !== 'number' && t.physical !== null;
const rankOf = (t: Operand): number => (typeof t === 'number' ? 0 : t.ndim);

/** An op that broadcasts leading dimensions, run on all examples; null when no operand is batched. */
export function overBatch(op: (...operands: never[]) => Tensor, ...operands: readonly Operand[]): Batched | null {
  if (!operands.some(isBatched)) return null;
  const level = levelOf(...operands)!;
  const ndim = Math.max(...operands.map(rankOf));
  return lower(level, () => {
    const aligned = operands.map((t) => (typeof t === 'number' ? t : withRank(level, t, ndim)));
    return op(...(aligned as never[]));
  });
}

/** All examples of t, repeated where it is the same for all. */
export const spreadOver = (level: Level, t: Tensor): Tensor =>
  isBatchedAt(level, t) ? allOf(level, t) : expand(t, [level.size, ...t.shape]);
