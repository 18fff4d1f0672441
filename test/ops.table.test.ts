// Every op has its row in the table of samples, and every row its op.
import { describe, expect, it } from 'vitest';
import { Tensor } from '../lib/index.ts';
import * as inPlace from '../lib/ops/in-place.ts';
import * as ops from '../lib/ops/index.ts';
import { ndsIn, samples } from './helpers.ts';
import { ALL } from './op-samples/row.ts';
import { inPlaceOnlyNames, inPlaceRow, opSamples } from './op-samples.ts';
import { Nd } from './reference.ts';

describe('the table of op samples', () => {
  it('has a row for every op, and for no other name', () => {
    const exported = Object.entries(ops).filter(([, op]) => typeof op === 'function');
    expect(Object.keys(opSamples).sort()).toEqual(exported.map(([name]) => name).sort());
  });

  it('has a row or a twin for every in-place op, and for no other name', () => {
    const names = Object.keys(inPlace);
    expect(names.filter((name) => inPlaceRow(name) === undefined)).toEqual([]);
    expect(inPlaceOnlyNames.filter((name) => !names.includes(name))).toEqual([]);
  });

  it('has samples for every dtype and an emptiness for every op that takes tensors', () => {
    for (const [name, row] of Object.entries(opSamples)) {
      const inputs = samples(name, row).flatMap(ndsIn);
      expect(samples(name, row), name).not.toHaveLength(0);
      expect(
        (row.dtypes ?? ALL).every((dtype) => ALL.includes(dtype)),
        name,
      ).toBe(true);
      if (inputs.length > 0)
        expect(
          inputs.some((x) => x.data.length === 0),
          `${name}: no empty input`,
        ).toBe(true);
    }
  });

  it('names a method for every op whose first argument is a tensor', () => {
    for (const [name, row] of Object.entries(opSamples)) {
      const takesTensor = samples(name, row)[0]![0] instanceof Nd && !row.methodless;
      expect(name in Tensor.prototype, name).toBe(takesTensor);
    }
  });
});
