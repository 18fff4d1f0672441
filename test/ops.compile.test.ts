// Every op inside a compiled function has the bits that it has outside, results and gradients, on the arguments that it
// was recorded with and on others, at once and beside the event loop.
import { describe, expect, it } from 'vitest';
import { CaptureError, compile, manualSeed, scope, type Tensor } from '../lib/index.ts';
import * as ops from '../lib/ops/index.ts';
import {
  type Args,
  bits,
  expectSameBits,
  gradients,
  isVariable,
  list,
  replace,
  showArgs,
  sized,
  toTensor,
} from './helpers.ts';
import type { DType } from './op-samples/row.ts';
import { opSamples } from './op-samples.ts';
import { Nd } from './reference.ts';

/** Ops that read values, or take them from JavaScript: a recording has none. */
const READING = new Set(['allClose', 'equal', 'randperm', 'tensor']);

const reversed = (x: Nd): Nd => new Nd(x.shape, Array.from(x.data).reverse(), x.kind, x.constant);

describe.each(Object.entries(opSamples))('%s', (name, row) => {
  const op = (ops as unknown as Record<string, (...args: unknown[]) => Tensor>)[name]!;

  if (READING.has(name)) {
    it('is refused in a compiled function', () => {
      const [args] = sized(name, row)[0]!;
      const tensors = replace(args, (x) => toTensor(x, 'float32'));
      expect(() => compile(() => op(...tensors))()).toThrow(CaptureError);
    });
    return;
  }

  it('has the same bits in a compiled function, and beside the event loop', async () => {
    for (const [args, dtypes] of sized(name, row)) {
      for (const dtype of dtypes) await scope(async () => check(args, dtype));
    }
  });

  async function check(args: Args, dtype: DType): Promise<void> {
    const differentiable: boolean[] = [];
    replace(args, (x) => differentiable.push(isVariable(x)));
    /** Results, and gradients of those of the tensors that have some. */
    const run = (tensors: Tensor[]): unknown => {
      let next = 0;
      const leaves = tensors.filter((_, i) => differentiable[i]);
      const results = list(op(...replace(args, () => tensors[next++]!)));
      return [results.map((t) => t.detach()), gradients(results, leaves, (y) => y.detach())];
    };
    const compiled = compile(run);
    for (const [i, version] of [args, args, replace(args, reversed), args].entries()) {
      const tensors: Tensor[] = [];
      replace(version, (x) => tensors.push(toTensor(x, dtype).requiresGrad_(isVariable(x))));
      const bitsBy = async (fn: (tensors: Tensor[]) => unknown): Promise<string[]> => {
        manualSeed(1);
        return bits(((await fn(tensors)) as Tensor[][]).flat());
      };
      const expected = await bitsBy(run);
      expectSameBits(
        await bitsBy(i === 3 ? compiled.async : compiled),
        expected,
        `${name}(${showArgs(version)}) in ${dtype}`,
      );
    }
    expect(compiled.explain().retraces).toEqual([]);
  }
});
