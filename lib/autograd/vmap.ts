// vmap: a function of one example, run once on all of them. Ops on one example run their kernels on the whole batch
// (ops/batched.ts); here is the entry, the exit, and how the op behind is recorded.
import { current } from '../context.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import { spreadOver } from '../ops/align.ts';
import { allOf, Batched, behind, isBatchedAt, Level, openLevels } from '../ops/batched.ts';
import { sum } from '../ops/reduce.ts';
import { sumTo } from '../ops/sum-to.ts';
import { permute } from '../ops/views.ts';
import { checkDim, type Shape, show } from '../shape.ts';
import { checkTensor, Tensor, track } from '../tensor.ts';
import { checkFunction } from './forward.ts';
import { gradientOf, type Rule, record, recording } from './tape.ts';

// ---- the op behind ------------------------------------------------------------------------------------------------------
interface Behind {
  readonly rule: Rule;
  readonly context: unknown;
  readonly size: number;
  /** Of one example: the shapes of inputs, and which inputs and saved tensors differ between examples. */
  readonly shapes: readonly Shape[];
  readonly batched: readonly boolean[];
  readonly savedBatched: readonly boolean[];
}

/** The gradients of all examples: those of one, computed at a level of their own. */
function pullAll(g: Tensor, saved: Tensor[], b: Behind, needed: readonly boolean[]): (Tensor | null)[] {
  const level = new Level(b.size, current().grad);
  const one = (t: Tensor, batched: boolean): Tensor => (batched && t !== undefined ? new Batched(level, t) : t);
  const gradient = one(g, true);
  const values = saved.map((t, i) => one(t, b.savedBatched[i]!));
  const { pull, broadcasts } = b.rule;
  const pulled = pull?.(gradient, values, b.context, needed);
  return needed.map((wanted, i) => {
    if (!wanted) return null;
    const own = pulled ? pulled[i]! : gradientOf(b.rule, gradient, values, b.context, i);
    if (own === null) return null;
    const shaped = broadcasts ? sumTo(own, b.shapes[i]!) : own;
    const all = spreadOver(level, shaped);
    return b.batched[i] ? all : sum(all, 0);
  });
}

behind.record = (out, rule, inputs, saved, context) => {
  const { level, physical } = out as Batched;
  // Recorded by the ops that made it.
  if (physical.node !== null || physical.dual !== null) return;
  const surroundings = current();
  const { grad } = surroundings;
  surroundings.grad = level.grad && !surroundings.stopped;
  try {
    const all = inputs.map((t) => t && allOf(level, t));
    const allSaved = saved.map((t) => t && allOf(level, t));
    const own: Behind = {
      rule: rule as unknown as Rule,
      context,
      size: level.size,
      shapes: inputs.map((t) => t?.shape ?? []),
      batched: inputs.map((t) => t !== null && isBatchedAt(level, t)),
      savedBatched: saved.map((t) => t !== null && isBatchedAt(level, t)),
    };
    const whole: Rule<Behind> = { name: rule.name, vjp: [], pull: pullAll };
    if (recording(all)) record(physical, whole, all, allSaved, own);
    if (physical.physical !== null) behind.record(physical, whole, all, allSaved, own);
  } finally {
    surroundings.grad = grad;
  }
};

// ---- vmap ---------------------------------------------------------------------------------------------------------------
/** A dimension of each argument to run over, null for an argument that is the same for all; one for all arguments. */
export type InDims = number | null | readonly (number | null)[];

function dimsOf(args: readonly unknown[], inDims: InDims): (number | null)[] {
  if (Array.isArray(inDims) && inDims.length !== args.length) {
    throw new ArgumentError(`vmap: ${inDims.length} inDims for ${args.length} arguments. Expected one for each.`);
  }
  const dims = args.map((arg, i) => {
    if (!(arg instanceof Tensor)) return null;
    checkTensor('vmap', arg, `argument ${i}`);
    const dim = Array.isArray(inDims) ? (inDims as readonly (number | null)[])[i] : (inDims as number | null);
    if (dim === null) return null;
    if (arg.ndim === 0)
      throw new ShapeError(`vmap: argument ${i} has no dimensions to run over. Pass null for it in inDims.`);
    return checkDim('vmap', dim, arg.ndim);
  });
  if (dims.every((dim) => dim === null)) {
    throw new ArgumentError('vmap: no argument has a dimension to run over. Give at least one tensor and its inDim.');
  }
  return dims;
}

function sizeOf(args: readonly unknown[], dims: readonly (number | null)[]): number {
  const sizes = dims.map((dim, i) => (dim === null ? null : (args[i] as Tensor).shape[dim]!));
  const size = sizes.find((n) => n !== null)!;
  sizes.forEach((n, i) => {
    if (n !== null && n !== size) {
      throw new ShapeError(
        `vmap: argument ${i} of shape ${show((args[i] as Tensor).shape)} has ${n} examples, others ${size}.`,
      );
    }
  });
  return size;
}

const frontOf = (t: Tensor, dim: number): Tensor =>
  dim === 0 ? t : permute(t, [dim, ...t.shape.map((_, d) => d).filter((d) => d !== dim)]);

/** Results of one example as results for all, the batch in front. */
function gather<T>(level: Level, value: T): T {
  if (value instanceof Tensor) return spreadOver(level, value) as T;
  if (Array.isArray(value)) return value.map((entry) => gather(level, entry)) as T;
  if (typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, gather(level, entry)])) as T;
  }
  return value;
}

/**
 * fn, written for one example, for a batch: each op runs once on all examples, never in a loop over them. `inDims` says
 * over which dimension of each argument (default 0; null: the same for all); results have the batch as dimension 0.
 * Nests, and composes with grad, vjp and jvp: `vmap((x, y) => grad(loss(x, y), w)[0])` are gradients per example.
 * Random ops draw other numbers for each example. Inside fn a tensor has one example's shape and no value of its own:
 * reading it, or changing it in place, is an AutogradError. torch.func.vmap
 * @throws ArgumentError, ShapeError for arguments of different batch sizes
 */
export function vmap<A extends unknown[], R>(fn: (...args: A) => R, inDims: InDims = 0): (...args: A) => R {
  checkFunction('vmap', fn);
  return (...args) => {
    const dims = dimsOf(args, inDims);
    const level = new Level(sizeOf(args, dims), current().grad);
    const ones = args.map((arg, i) => {
      const dim = dims[i]!;
      return dim === null ? arg : track(new Batched(level, frontOf(arg as Tensor, dim)));
    });
    openLevels.push(level);
    try {
      const result = fn(...(ones as A));
      if (result instanceof Promise) {
        result.catch(() => {});
        throw new ArgumentError('vmap: the function is async. Expected a synchronous one.');
      }
      return gather(level, result);
    } finally {
      openLevels.splice(openLevels.indexOf(level), 1);
    }
  };
}
