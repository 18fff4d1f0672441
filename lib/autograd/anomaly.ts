// detectAnomaly: finds the op that made the first NaN or infinity, in the forward pass or in the backward pass. Reads
// every value, so it is for looking for a fault, not for training.
import { within } from '../context.ts';
import { AutogradError } from '../errors.ts';
import { toTypedArray } from '../ops/read.ts';
import type { Storage } from '../program/storage.ts';
import { show } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import type { Observer } from './observer.ts';
import type { Node } from './tape.ts';

type Numbers = ArrayLike<number>;
/** Values of a tensor; of all examples inside vmap; none of whole numbers and bool, which are always finite. */
const valuesOf = (t: Tensor): Numbers =>
  t.physical !== null ? valuesOf(t.physical) : t.dtype.includes('float') && !t.disposed ? toTypedArray(t) : [];

interface Faults {
  readonly nan: number;
  readonly infinite: number;
}
function faultsIn(values: Numbers): Faults {
  let nan = 0;
  let infinite = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (Number.isNaN(value)) nan++;
    else if (!Number.isFinite(value)) infinite++;
  }
  return { nan, infinite };
}
const count = (n: number, one: string, many: string): string => (n === 0 ? '' : `${n} ${n === 1 ? one : many}`);
const tell = ({ nan, infinite }: Faults): string =>
  [count(nan, 'NaN', 'NaN'), count(infinite, 'infinity', 'infinities')].filter((text) => text !== '').join(' and ');

/** `float32 [3,4], -1.2 to 3.4, mean 0.5, 2 zeros, 1 NaN` */
function statistics(t: Tensor): string {
  const values = valuesOf(t);
  const finite = Array.from(values).filter(Number.isFinite);
  const range = finite.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)] as const, [
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
  ] as readonly [number, number]);
  const short = (v: number): string => String(Number(v.toPrecision(5)));
  const parts = [`${t.dtype} ${show(t.shape)}`];
  if (finite.length > 0) {
    parts.push(`${short(range[0])} to ${short(range[1])}`);
    parts.push(`mean ${short(finite.reduce((a, b) => a + b, 0) / finite.length)}`);
  }
  const zeros = finite.filter((v) => v === 0).length;
  return [...parts, count(zeros, 'zero', 'zeros'), tell(faultsIn(values))].filter((text) => text !== '').join(', ');
}

const describeAll = (what: string, tensors: readonly (Tensor | null | undefined)[]): string =>
  tensors.map((t, i) => (t ? ` ${what} ${i}: ${statistics(t)}.` : '')).join('');
const placeOf = ({ name, madeAt }: Node): string => (madeAt === '' ? name : `${name}, recorded at ${madeAt}`);

/** Where the gradient that arrived is 0 and the one that leaves is NaN, an infinite derivative was multiplied by it. */
function isZeroTimesInfinity(arrived: Numbers, left: Numbers): boolean {
  if (arrived.length !== left.length) return false;
  const bad = Array.from(left, (value, i) => (Number.isNaN(value) ? i : -1)).filter((i) => i >= 0);
  return bad.length > 0 && bad.every((i) => arrived[i] === 0);
}
const ZERO_TIMES_INFINITY =
  ' Hint: 0 times an infinite derivative. A where() that did not take this branch, or a mask, passes a gradient of 0 into ' +
  'it, and 0 times infinity is NaN. Make the input harmless before the op, as in where(ok, log(where(ok, x, 1)), 0).';

/** Where infinities lie that were let pass: an op in place has overwritten what it read. */
const passed = new WeakSet<Storage>();

const observer: Observer = {
  recorded(node, out, inputs) {
    const faults = faultsIn(valuesOf(out));
    if (faults.nan + faults.infinite === 0) return;
    const before = inputs.map((t) => faultsIn(t === null || t === out ? [] : valuesOf(t)));
    const given = before.findIndex(({ nan }) => nan > 0);
    if (given >= 0) {
      throw new AutogradError(
        `detectAnomaly: ${placeOf(node)}: input ${given} came with ${tell(before[given]!)}, from outside of the graph.` +
          describeAll('Input', inputs),
      );
    }
    // Infinity may be put in on purpose, as masks do, and then passed on.
    const infinityGiven =
      node.rule.selects === true ||
      before.some(({ infinite }) => infinite > 0) ||
      (inputs.includes(out) && passed.has(out.storage));
    if (faults.nan === 0 && infinityGiven) {
      passed.add(out.storage);
      return;
    }
    throw new AutogradError(
      `detectAnomaly: ${placeOf(node)}: the forward pass made ${tell(faults)} in a result of shape ${show(out.shape)}.` +
        describeAll('Input', inputs),
    );
  },

  differentiated(node, g, gradients) {
    const arrived = valuesOf(g);
    const before = faultsIn(arrived);
    if (before.nan + before.infinite > 0) {
      throw new AutogradError(
        `detectAnomaly: ${placeOf(node)}: a gradient arrived with ${tell(before)}: backward() was given it, or a hook ` +
          'returned it.',
      );
    }
    for (const [i, gradient] of gradients.entries()) {
      if (gradient === null) continue;
      const values = valuesOf(gradient);
      const faults = faultsIn(values);
      if (faults.nan + faults.infinite === 0) continue;
      const hint = isZeroTimesInfinity(arrived, values) ? ZERO_TIMES_INFINITY : '';
      throw new AutogradError(
        `detectAnomaly: ${placeOf(node)}: the backward pass made ${tell(faults)} in the gradient of input ${i}, shape ` +
          `${show(gradient.shape)}.${describeAll('Saved tensor', node.savedTensors)}${hint}`,
      );
    }
  },
};

/**
 * Runs fn, and throws at the first op, forward or backward, that makes a NaN or an infinity of finite numbers: with the
 * op, the line of your program that called it, statistics of its inputs, and the way out where the pattern is known.
 * Errors about changes in place also tell where the value was saved. Infinities that where(), maskedFill() or pad() put
 * in are not reported. Slow: every value is read. torch.autograd.detect_anomaly
 * @throws AutogradError
 */
export const detectAnomaly = <T>(fn: () => T): T => within('detectAnomaly', { observer }, fn);
