// A histogram as TensorBoard takes it. Layer io: numbers in, a message out.
import { double, doubles } from './protobuf.ts';

const SMALLEST = 1e-12;
const LARGEST = 1e20;
const GROWTH = 1.1;

/** Ascending: 0, powers of 1.1 from 1e-12 to 1e20 and the largest double, with either sign. */
const LIMITS = (() => {
  const positive: number[] = [];
  for (let limit = SMALLEST; limit < LARGEST; limit *= GROWTH) positive.push(limit);
  positive.push(Number.MAX_VALUE);
  return Float64Array.from([...positive.map((limit) => -limit).reverse(), 0, ...positive]);
})();

export interface Histogram {
  /** The fields of a HistogramProto: of the finite values. Null when there are none. */
  readonly fields: Buffer[] | null;
  /** NaN and infinities: they belong in no bucket, and would take minimum, maximum and sums with them. */
  readonly nonFinite: number;
}

export function histogramOf(values: ArrayLike<number>): Histogram {
  // counts[i]: at least LIMITS[i - 1], and less than LIMITS[i].
  const counts = new Float64Array(LIMITS.length);
  let [min, max, sum, squares, nonFinite] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, 0, 0];
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (!Number.isFinite(value)) {
      nonFinite++;
      continue;
    }
    if (value < min) min = value;
    if (value > max) max = value;
    sum += value;
    squares += value * value;
    counts[bucketOf(value)]!++;
  }
  const num = values.length - nonFinite;
  if (num === 0) return { fields: null, nonFinite };
  const { limits, buckets } = occupied(counts);
  const moments = [min, max, num, sum, squares].map((value, i) => double(i + 1, value));
  return { fields: [...moments, doubles(6, limits), doubles(7, buckets)], nonFinite };
}

/** The first limit above a value; for the largest double, the last limit. */
function bucketOf(value: number): number {
  let [low, high] = [1, LIMITS.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (LIMITS[middle]! > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * The buckets from the first to the last that is not empty, runs of empty ones as one. The message has upper limits only:
 * the first bucket begins at the minimum.
 */
function occupied(counts: Float64Array): { limits: number[]; buckets: number[] } {
  const first = counts.findIndex((count) => count > 0);
  const last = counts.findLastIndex((count) => count > 0);
  const limits: number[] = [];
  const buckets: number[] = [];
  for (let i = first; i <= last; i++) {
    if (counts[i] === 0 && buckets.at(-1) === 0) limits.pop();
    else buckets.push(counts[i]!);
    limits.push(LIMITS[i]!);
  }
  return { limits, buckets };
}
