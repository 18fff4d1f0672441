// Sorting along one dimension: values, and where they stood. Stable, NaN as the largest, as in PyTorch.
import { checkOptions } from '../arguments.ts';
import type { Rule } from '../autograd/tape.ts';
import { COMPUTE, I32, isFloat } from '../dtype.ts';
import { ArgumentError } from '../errors.ts';
import * as commands from '../program/commands.ts';
import { checkDim, checkInteger, describe, numelOf, type Shape } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { Batched, lower } from './batched.ts';
import { cast } from './cast.ts';
import { filled } from './create.ts';
import { gather, scatterAdd } from './indexing.ts';
import { dense, drop, finish, finishPlain } from './op.ts';
import { squeeze, unsqueeze } from './views.ts';

type Sorted = [values: Tensor, indices: Tensor];
interface Place {
  readonly shape: Shape;
  readonly dim: number;
}

const placeRule = (name: string): Rule<Place> => ({
  name,
  vjp: [(g, [index], { shape, dim }) => scatterAdd(filled(name, shape, 0, { dtype: g.dtype }), dim, index!, g)],
  jvp: ([t], [index], { dim }) => gather(t!, dim, index!),
});
const sortRule = placeRule('SortBackward');
const topkRule = placeRule('TopkBackward');

/** The first `count` along dim in order. */
function ordered(x: Tensor, dim: number, count: number, descending: boolean, rule: Rule<Place>): Sorted {
  const code = COMPUTE[x.code]!;
  if (code !== x.code) {
    const [wide, indices] = ordered(cast(x, code), dim, count, descending, rule);
    return [cast(wide, x.code), indices];
  }
  const [values, indices] =
    x instanceof Batched ? runAll(x, dim, count, descending, rule) : run(x, dim, count, descending);
  finishPlain(indices);
  if (!isFloat(code)) return [finishPlain(values), indices];
  return [finish(values, rule, [x], [indices], { shape: x.shape, dim }), indices];
}

/** Runs the kernel. Outside the graph, the caller finishes. */
function run(x: Tensor, dim: number, count: number, descending: boolean): Sorted {
  const operand = dense(x);
  const shape = x.shape.map((size, d) => (d === dim ? count : size));
  const values = fresh(shape, x.code);
  const indices = fresh(shape, I32);
  const axis = {
    outer: numelOf(x.shape.slice(0, dim)),
    reduce: x.shape[dim] ?? 1,
    inner: numelOf(x.shape.slice(dim + 1)),
  };
  commands.sort(values, indices, operand, axis, count, descending);
  drop(operand, x);
  return [values, indices];
}

/** Every example by itself. */
function runAll(
  { ndim, physical, level }: Batched,
  dim: number,
  count: number,
  descending: boolean,
  rule: Rule<Place>,
): Sorted {
  let places: Tensor;
  const values = lower(level, () => {
    // Without dimensions there is one element, a row of its own.
    const rows = ndim === 0 ? unsqueeze(physical, 1) : physical;
    const sorted = ordered(rows, dim + 1, count, descending, rule).map((t) => (ndim === 0 ? squeeze(t, 1) : t));
    places = sorted[1]!;
    return sorted[0]!;
  });
  return [values, lower(level, () => places)];
}

function flagOf(op: string, options: object, name: string, fallback: boolean): boolean {
  checkOptions(op, options, { [name]: fallback });
  const value: unknown = (options as Record<string, unknown>)[name] ?? fallback;
  if (typeof value !== 'boolean')
    throw new ArgumentError(`${op}: ${name} is ${describe(value)}. Expected true or false.`);
  return value;
}

/** x in ascending (descending) order along dim, and the indices (int32) it came from. Equal values keep their order. */
export function sort(x: Tensor, dim = -1, options: { descending?: boolean } = {}): Sorted {
  checkTensor('sort', x);
  const descending = flagOf('sort', options, 'descending', false);
  const d = checkDim('sort', dim, x.ndim);
  return ordered(x, d, x.shape[d] ?? 1, descending, sortRule);
}

/** The k largest (smallest) along dim in order, and their indices (int32). Of equal values the first come first. */
export function topk(x: Tensor, k: number, dim = -1, options: { largest?: boolean } = {}): Sorted {
  checkTensor('topk', x);
  const largest = flagOf('topk', options, 'largest', true);
  const d = checkDim('topk', dim, x.ndim);
  const size = x.shape[d] ?? 1;
  // A tensor without dimensions has one element to choose, and no room for none.
  const count = checkInteger('topk', 'k', k, x.ndim === 0 ? 1 : 0);
  if (count > size) throw new ArgumentError(`topk: k is ${count}, dimension ${d} has ${size} elements.`);
  return ordered(x, d, count, largest, topkRule);
}
