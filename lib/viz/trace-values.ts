// What a trace says of the values of a tensor: all of them, or what sums them up. Layer viz.

import { to } from '../ops/cast.ts';
import { toTypedArray } from '../ops/read.ts';
import type { Tensor } from '../tensor.ts';
import type { TraceNumber, TraceValues } from './trace-format.ts';

/** Elements up to which all are given. */
const WHOLE = 64;
const BINS = 24;

export function valuesOf(t: Tensor): TraceValues {
  // Inside vmap: all examples.
  const whole = t.physical ?? t;
  const values = toTypedArray(whole.dtype === 'bfloat16' ? to(whole, 'float32') : whole);
  // The shortest digits that still tell one float32 from the next.
  const single = whole.dtype === 'float32' || whole.dtype === 'bfloat16';
  const short = (value: number): number => (single ? Number(value.toPrecision(9)) : value);
  const data = values.length <= WHOLE ? Array.from(values, (value) => encoded(short(Number(value)))) : null;
  return { data, ...summed(values, short, data === null) };
}

/** A sum that overflows is as large as a number can be. */
const held = (value: number): number => Math.max(-Number.MAX_VALUE, Math.min(Number.MAX_VALUE, value));
const encoded = (value: number): TraceNumber => (Number.isFinite(value) ? value : (String(value) as TraceNumber));

function summed(
  values: ArrayLike<number>,
  short: (value: number) => number,
  histogram: boolean,
): Omit<TraceValues, 'data'> {
  let [min, max, sum, squares, count, zeros, nan] = [Infinity, -Infinity, 0, 0, 0, 0, 0];
  for (let i = 0; i < values.length; i++) {
    const value = Number(values[i]);
    if (Number.isNaN(value)) nan++;
    if (!Number.isFinite(value)) continue;
    count++;
    if (value === 0) zeros++;
    min = Math.min(min, value);
    max = Math.max(max, value);
    sum += value;
    squares += value * value;
  }
  const infinite = values.length - count - nan;
  const norm = held(Math.sqrt(squares));
  if (count === 0) return { min: null, max: null, mean: null, std: null, norm, zeros, nan, infinite, histogram: [] };
  const mean = held(sum / count);
  let spread = 0;
  const bins = new Array<number>(histogram ? BINS : 0).fill(0);
  for (let i = 0; i < values.length; i++) {
    const value = Number(values[i]);
    if (!Number.isFinite(value)) continue;
    spread += (value - mean) ** 2;
    if (histogram) bins[max > min ? Math.min(BINS - 1, Math.floor(((value - min) / (max - min)) * BINS)) : 0]!++;
  }
  return {
    min: short(min),
    max: short(max),
    mean,
    std: held(Math.sqrt(spread / count)),
    norm,
    zeros,
    nan,
    infinite,
    histogram: bins,
  };
}
