// What a tensor is inside vmap: one example to look at, all of them behind it. Lowest of ops: imports no op.
import type { Rule } from '../autograd/tape.ts';
import { current } from '../context.ts';
import { Storage } from '../program/storage.ts';
import { isRowMajor, numelOf } from '../shape.ts';
import { Tensor, track } from '../tensor.ts';

let levels = 0;

/** One call of vmap, or one walk back over what was recorded in it. */
export class Level {
  /** Inner calls have greater numbers. */
  readonly depth = ++levels;
  /** How many examples. */
  readonly size: number;
  /** Whether ops on all examples are recorded: the grad mode around the call. */
  readonly grad: boolean;

  constructor(size: number, grad: boolean) {
    this.size = size;
    this.grad = grad;
  }
}

/** The calls of vmap whose function is running, innermost last. */
export const openLevels: Level[] = [];

// A command that is written for one example would read this, and be refused: an op that forgets vmap fails, and is
// never wrong.
const NO_STORAGE = new Storage(-1, 0);

/**
 * An example for all: shape and strides of one, `physical` with the batch as dimension 0. What it holds is the
 * collector's.
 */
export class Batched extends Tensor {
  override readonly physical: Tensor;
  readonly level: Level;

  constructor(level: Level, physical: Tensor) {
    const { shape, strides, offset, code } = physical;
    NO_STORAGE.owners++;
    const [one, steps] = [shape.slice(1), strides.slice(1)];
    super(NO_STORAGE, one, steps, offset, numelOf(one), code, isRowMajor(one, steps), 0);
    this.physical = physical;
    this.level = level;
  }

  override alias(): Tensor {
    return track(new Batched(this.level, this.physical));
  }
}

/** The innermost level at which one of the operands is batched; null, as outside of vmap, when none is. */
export function levelOf(...operands: readonly unknown[]): Level | null {
  let level: Level | null = null;
  for (const t of operands) {
    if (t instanceof Batched && (level === null || t.level.depth > level.depth)) level = t.level;
  }
  return level;
}

/** What an op of one example makes, from an op on all of them. The caller finishes it. */
export function lower(level: Level, op: () => Tensor): Batched {
  const context = current();
  const { grad, scope } = context;
  context.grad = level.grad && !context.stopped;
  context.scope = null;
  try {
    return new Batched(level, op());
  } finally {
    context.grad = grad;
    context.scope = scope;
  }
}

/** All examples of t at a level; t itself where it is the same for all. */
export const allOf = (level: Level, t: Tensor): Tensor => (t instanceof Batched && t.level === level ? t.physical : t);
export const isBatchedAt = (level: Level, t: Tensor): boolean => t instanceof Batched && t.level === level;

/** Records the op behind `out`, on all examples, where it has not been recorded already. autograd/vmap.ts puts it here. */
export const behind: {
  record(
    out: Tensor,
    rule: Rule<never>,
    inputs: readonly (Tensor | null)[],
    saved: readonly (Tensor | null)[],
    context: unknown,
  ): void;
} = { record: () => {} };
