// Special values of the elementwise ops, at every place of a vector: NaN, zeros of both signs, infinities, subnormals,
// the largest numbers, kinks and their neighbours, and what rows state. Float to integer conversion.
import { describe, expect, it } from 'vitest';
import { scope, tensor } from '../lib/index.ts';
import { call, mismatch, roundTo, samples, toNd, ulpOf } from './helpers.ts';
import { type DType, EXACT, type Row } from './op-samples/row.ts';
import { opSamples } from './op-samples.ts';
import { type Nd, vector } from './reference.ts';

const { NaN: NAN, POSITIVE_INFINITY: HIGH } = Number;
const LIMITS = {
  float32: { tiny: 2 ** -149, normal: 2 ** -126, largest: (2 - 2 ** -23) * 2 ** 127 },
  float64: { tiny: Number.MIN_VALUE, normal: 2 ** -1022, largest: Number.MAX_VALUE },
};
type Wide = keyof typeof LIMITS;
const LENGTH = 17;

function specialValues({ special }: Row, dtype: Wide): number[] {
  const { tiny, normal, largest } = LIMITS[dtype];
  const both = [0, 1, HIGH, tiny, normal - tiny, normal, largest].flatMap((v) => [v, -v]);
  const near = special!.values.flatMap((v) =>
    Number.isFinite(v) && v !== 0 ? [v, v + ulpOf(v, dtype), v - ulpOf(v, dtype)] : [v],
  );
  return [...new Set([NAN, ...both, ...near.map((v) => roundTo(dtype, v))])];
}

/** What a row says of some inputs, else its reference. */
function expectedOf(row: Row, inputs: readonly number[], rest: readonly unknown[], first: boolean): number {
  const stated = row.special!.expected.find((entry) => entry.inputs.every((v, i) => Object.is(v, inputs[i])));
  if (stated !== undefined && first) return stated.value;
  return (row.reference!(...inputs.map((v) => vector(v)), ...rest) as Nd).data[0]!;
}

/** Beside an ulp: near the smallest numbers a unit in the last place is worth a rounding more. */
const allowed = (row: Row, expected: number, dtype: Wide): number => {
  const { ulp } = (row.tolerance ?? EXACT) as { ulp: number | Record<Wide, number> };
  const bound = typeof ulp === 'number' ? ulp : ulp[dtype];
  return Number.isFinite(expected) ? bound * ulpOf(expected, dtype) : 0;
};

function check(
  name: string,
  row: Row,
  inputs: readonly number[],
  rest: readonly unknown[],
  first: boolean,
  dtype: Wide,
): void {
  const expected = expectedOf(row, inputs, rest, first);
  const neutral = 0.5;
  const type: DType = row.result?.(dtype, ...inputs) ?? dtype;
  const bound = type === dtype ? allowed(row, expected, dtype) : 0;
  // A zero has its sign, and is no neighbour of it, except where something tiny was rounded to it.
  const exact = expected === 0 && inputs.every((v) => v === 0 || Math.abs(v) >= LIMITS[dtype].normal);
  for (const [length, at] of [[1, 0], ...Array.from({ length: LENGTH }, (_, i) => [LENGTH, i])] as [number, number][]) {
    scope(() => {
      const tensors = inputs.map((value) => tensor(new Float64Array(length).fill(neutral).with(at, value), { dtype }));
      const values = call(name, [...tensors, ...rest])[0]!.toTypedArray();
      const what = `${name}(${inputs.map((v) => (Object.is(v, -0) ? '-0' : v))}) in ${dtype} at ${at} of ${length}`;
      const wrong = mismatch(values[at]!, expected, exact ? 0 : bound, type);
      if (wrong !== null) expect.fail(`${what} is ${wrong}`);
      const others = new Set(values.filter((_, i) => i !== at));
      expect(others.size, `${what} changes its neighbours`).toBeLessThan(2);
    });
  }
}

const elementwise = Object.entries(opSamples).filter(([, row]) => row.special !== undefined);
describe.each(elementwise)('%s', (name, row) => {
  it.each(['float32', 'float64'] as const)('treats special values of %s as stated, in every lane', (dtype) => {
    const values = specialValues(row, dtype);
    if (row.special!.arity === 1) {
      const variants = [...new Map(samples(name, row).map(([, ...rest]) => [JSON.stringify(rest), rest])).values()];
      variants.forEach((rest, k) => {
        for (const value of values) check(name, row, [value], rest, k === 0, dtype);
      });
    } else {
      const few = values.filter(
        (v) => Number.isNaN(v) || [0, 1, HIGH, LIMITS[dtype].tiny, LIMITS[dtype].largest].includes(Math.abs(v)),
      );
      for (const a of few) for (const b of few) check(name, row, [a, b], [], true, dtype);
      for (const entry of row.special!.expected) check(name, row, entry.inputs, [], true, dtype);
    }
  });
});

describe('to', () => {
  const wild = [NAN, 1e30, -1e30, HIGH, -HIGH, 300.7, -1.5, 0.9, -0.9, 2 ** 31, -(2 ** 31) - 1];
  it.each([
    ['int32', [0, 2147483647, -2147483648, 2147483647, -2147483648, 300, -1, 0, 0, 2147483647, -2147483648]],
    ['uint8', [0, 255, 0, 255, 0, 255, 0, 0, 0, 255, 0]],
    ['bool', [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]],
  ] as const)('cuts and saturates floats to %s, NaN to 0', (dtype, expected) => {
    for (const from of ['float32', 'float64'] as const) {
      const x = tensor(wild, { dtype: from });
      expect([...toNd(x.to(dtype)).data]).toEqual(expected);
    }
  });
});
