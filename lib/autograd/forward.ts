// Forward mode: tangents travel with tensors, each op passing them on as it runs. One sweep, whatever the number of
// outputs. The rule of an op is the row's own: its vjp where the Jacobian is diagonal, else the vjp transposed, unless
// it states a shorter way.
import { current, within } from '../context.ts';
import { ArgumentError, DTypeError, ShapeError } from '../errors.ts';
import { zerosLike } from '../ops/create.ts';
import { plus } from '../ops/plus.ts';
import { sumTo } from '../ops/sum-to.ts';
import { expand } from '../ops/views.ts';
import { describe, sameShape, show } from '../shape.ts';
import { checkTensor, type Dual, Tensor } from '../tensor.ts';
import { grad } from './backward.ts';
import { enableGrad } from './grad-mode.ts';
import { forwardMode, gradientOf, handleInGraph, type Rule } from './tape.ts';

// ---- levels -----------------------------------------------------------------------------------------------------------
let levels = 0;
const open = new Set<number>();
/**
 * Tangents of this level and inner ones are not looked at: while an outer level's tangent is computed, the inner ones
 * are constants. What they contribute is computed in their own turn.
 */
let ceiling = Number.POSITIVE_INFINITY;

const inForce = ({ level }: Dual): boolean => level < ceiling && open.has(level);
forwardMode.inForce = (dual) => {
  for (let one: Dual | null = dual; one !== null; one = one.next) if (inForce(one)) return true;
  return false;
};

forwardMode.active = () => open.size > 0;

/** The levels that are open, and fn run with them open again: for what computes again later. */
export const levelsNow = (): readonly number[] => [...open];
export function withLevels<T>(again: readonly number[], fn: () => T): T {
  const closed = again.filter((level) => !open.has(level));
  for (const level of closed) open.add(level);
  const outerCeiling = ceiling;
  ceiling = Number.POSITIVE_INFINITY;
  try {
    return fn();
  } finally {
    ceiling = outerCeiling;
    for (const level of closed) open.delete(level);
  }
}

function tangentAt(t: Tensor | null, level: number): Tensor | null {
  for (let dual = t?.dual ?? null; dual !== null; dual = dual.next) if (dual.level === level) return dual.tangent;
  return null;
}

/** t's tangents with that of one level replaced, or taken away. */
function withTangent(t: Tensor, level: number, tangent: Tensor | null): Dual | null {
  const others: Dual[] = [];
  for (let dual = t.dual; dual !== null; dual = dual.next) {
    if (dual.level !== level && open.has(dual.level)) others.push(dual);
  }
  const rest = others.reduceRight((next: Dual | null, dual) => ({ ...dual, next }), null);
  return tangent === null ? rest : { level, tangent, next: rest };
}

function levelsOf(inputs: readonly (Tensor | null)[]): number[] {
  const found = new Set<number>();
  for (const t of inputs) {
    for (let dual = t?.dual ?? null; dual !== null; dual = dual.next) if (inForce(dual)) found.add(dual.level);
  }
  return [...found].sort((a, b) => a - b);
}

// ---- one op -----------------------------------------------------------------------------------------------------------
type Inputs = readonly (Tensor | null)[];

forwardMode.propagate = (out, rule, inputs, saved, context) => {
  // An op in place overwrites its input's tangents: all are read first. Outer levels come first, so that what is saved
  // of the output has its outer tangents when inner ones are computed from it.
  const turns = levelsOf(inputs).map((level) => ({ level, tangents: inputs.map((t) => tangentAt(t, level)) }));
  const surroundings = current();
  const { scope } = surroundings;
  const outerCeiling = ceiling;
  // Tangents live as long as the tensor they belong to.
  surroundings.scope = null;
  try {
    for (const { level, tangents } of turns) {
      ceiling = level;
      out.dual = withTangent(out, level, tangentOf(rule, out, inputs, tangents, saved, context));
    }
  } finally {
    ceiling = outerCeiling;
    surroundings.scope = scope;
  }
};

function tangentOf(rule: Rule, out: Tensor, inputs: Inputs, tangents: Inputs, saved: Inputs, context: unknown) {
  if (rule.jvp) return rule.jvp(tangents, saved, context, out);
  if (!rule.elementwise) return transposed(rule, out, inputs, tangents, saved, context);
  return tangents.reduce((sum: Tensor | null, t, i) => {
    if (t === null) return sum;
    const spread = sameShape(t.shape, out.shape) ? t : expand(t, out.shape);
    return plus(sum, gradientOf(rule, spread, saved as Tensor[], context, i));
  }, null);
}

/** A vjp maps g linearly to J'g: its own vjp maps a tangent t to Jt, whatever g is. */
function transposed(rule: Rule, out: Tensor, inputs: Inputs, tangents: Inputs, saved: Inputs, context: unknown) {
  const createGraph = current().grad;
  return enableGrad(() => {
    const g = zerosLike(out, { requiresGrad: true });
    const needed = tangents.map((t) => t !== null);
    const pulled = rule.pull
      ? rule.pull(g, saved as Tensor[], context, needed)
      : tangents.map((t, i) => t && gradientOf(rule, g, saved as Tensor[], context, i));
    const outputs: Tensor[] = [];
    const gradOutputs: Tensor[] = [];
    pulled.forEach((gradient, i) => {
      if (!needed[i] || gradient === null) return;
      const own = rule.broadcasts ? sumTo(gradient, inputs[i]!.shape) : gradient;
      if (!own.requiresGrad) return;
      outputs.push(own);
      gradOutputs.push(tangents[i]!);
    });
    if (outputs.length === 0) return null;
    return grad(outputs, [g], { gradOutputs, createGraph, allowUnused: true })[0] ?? null;
  });
}

// ---- jvp --------------------------------------------------------------------------------------------------------------
type OneOrMany = Tensor | readonly Tensor[];
/** What a differentiated function returns: a tensor, or an array of them. */
export type Outputs = Tensor | Tensor[];

/** @throws ArgumentError unless it is one */
export function checkFunction(op: string, fn: unknown): void {
  if (typeof fn !== 'function') throw new ArgumentError(`${op}: got ${describe(fn)}. Expected a function.`);
}

/** @throws DTypeError for whole numbers, which have no derivatives */
export function checkFloats(op: string, primals: readonly Tensor[]): void {
  primals.forEach((x, i) => {
    if (x.dtype.includes('float')) return;
    throw new DTypeError(
      `${op}: primal ${i} is ${x.dtype}. Only floating dtypes have derivatives: convert with .float().`,
    );
  });
}

/** @throws ArgumentError unless each is a tensor */
export function checkTensors(op: string, what: string, value: unknown): readonly Tensor[] {
  const all = value instanceof Tensor ? [value] : value;
  if (!Array.isArray(all)) throw new ArgumentError(`${op}: the ${what} is ${describe(value)}. Expected tensors.`);
  for (const t of all) checkTensor(op, t, what);
  return all;
}

function checkTangents(primals: readonly Tensor[], tangents: readonly Tensor[]): void {
  if (primals.length !== tangents.length) {
    throw new ArgumentError(`jvp: ${primals.length} primals and ${tangents.length} tangents. Expected one for each.`);
  }
  primals.forEach((x, i) => {
    const t = tangents[i]!;
    if (!sameShape(t.shape, x.shape)) {
      throw new ShapeError(`jvp: tangent ${i} has shape ${show(t.shape)}, its primal ${show(x.shape)}.`);
    }
    if (t.code !== x.code) throw new DTypeError(`jvp: tangent ${i} is ${t.dtype}, its primal ${x.dtype}.`);
  });
}

/**
 * The value of fn at primals and its derivative along tangents, J·t, in one sweep: forward mode. fn takes as many
 * tensors as there are primals. The results can be differentiated again, backward or forward. torch.func.jvp
 * @returns [fn(...primals), tangent], the second of the first's form; zeros where an output does not depend on primals
 * @throws ShapeError, DTypeError unless each tangent is like its primal
 */
export function jvp<T extends Outputs>(
  fn: (...primals: Tensor[]) => T,
  primals: OneOrMany,
  tangents: OneOrMany,
): [out: T, tangentOut: T] {
  checkFunction('jvp', fn);
  const xs = checkTensors('jvp', 'primal', primals);
  checkFloats('jvp', xs);
  const ts = checkTensors('jvp', 'tangent', tangents);
  checkTangents(xs, ts);
  const level = ++levels;
  open.add(level);
  try {
    const duals = xs.map((x, i) => withDual(x, level, ts[i]!));
    const out = within('jvp', {}, () => fn(...duals));
    const outs = checkTensors('jvp', 'result of the function', out);
    const pairs = outs.map((y) => [primalOf(y, level), tangentAt(y, level) ?? zerosLike(y)] as const);
    const [values, derivatives] = [pairs.map(([y]) => y), pairs.map(([, t]) => t)];
    return (out instanceof Tensor ? [values[0], derivatives[0]] : [values, derivatives]) as [T, T];
  } finally {
    open.delete(level);
  }
}

/** Another handle on t, at its place in the graph, with a tangent. */
function withDual(t: Tensor, level: number, tangent: Tensor): Tensor {
  const handle = handleInGraph(t);
  handle.dual = { level, tangent, next: t.dual };
  return handle;
}

function primalOf(t: Tensor, level: number): Tensor {
  if (tangentAt(t, level) === null) return t;
  const handle = handleInGraph(t);
  handle.dual = withTangent(t, level, null);
  return handle;
}
