// Forward: every op on every sample, in every dtype, against its reference in float64; as function and as method.
import { describe, expect, it } from 'vitest';
import { scope } from '../lib/index.ts';
import {
  type Args,
  allowances,
  bits,
  call,
  callMethod,
  dtypeOf,
  expectClose,
  expectSameBits,
  referenceOf,
  rounded,
  samples,
  showArgs,
  tensorsIn,
  toNd,
  toTensors,
} from './helpers.ts';
import type { DType, Row } from './op-samples/row.ts';
import { opSamples } from './op-samples.ts';
import { dtypesOf, dtypesOfRow } from './op-table.ts';
import { Nd } from './reference.ts';

function checkResult(name: string, row: Row, args: Args, dtype: DType): void {
  const what = `${name}(${showArgs(args)}) in ${dtype}`;
  const tensors = toTensors(args, dtype);
  const before = bits(tensorsIn(tensors));
  const results = call(name, tensors);
  const seen = rounded(args, dtype);
  const resultDtype = row.result?.(dtype, ...args) ?? dtype;
  if (row.reference === null) {
    expect(results[0]!.dtype, what).toBe(resultDtype);
    row.check!(toNd(results[0]!), ...seen);
  } else {
    const references = referenceOf(row, seen);
    expect(results, what).toHaveLength(references.length);
    results.forEach((result, k) => {
      const expected = references[k]!;
      const type = dtypeOf(expected, resultDtype);
      const allowed = MANTISSAS.includes(type)
        ? allowances(row, seen, references, type)[k]!
        : expected.data.map(() => 0);
      expectClose(result, expected, type, [...allowed], `${what}, result ${k}`);
    });
  }
  expectSameBits(bits(tensorsIn(tensors)), before, `${what} changed its input`);
  if (args[0] instanceof Nd && !row.methodless) {
    expectSameBits(bits(callMethod(name, tensors)), bits(results), `${what}: function and method`);
  }
}
const MANTISSAS: readonly DType[] = ['float32', 'float64', 'bfloat16'];

describe.each(Object.entries(opSamples))('%s', (name, row) => {
  it.each(dtypesOfRow(name, row))('is as its reference in %s', (dtype) => {
    for (const args of samples(name, row)) {
      if (dtypesOf(row, args).includes(dtype)) scope(() => checkResult(name, row, args, dtype));
    }
  });
});
