// The same bits for any number of threads, in every run, forward and backward; and for a row alone as in its batch.
import { afterAll, describe, expect, it } from 'vitest';
import { getNumThreads, narrow, scope, setNumThreads, type Tensor } from '../lib/index.ts';
import {
  type Args,
  bits,
  call,
  expectSameBits,
  gradients,
  isVariable,
  ndsIn,
  replace,
  samples,
  showArgs,
  smallSamples,
  toTensor,
} from './helpers.ts';
import { type DType, type Row, samplesOf } from './op-samples/row.ts';
import { opSamples } from './op-samples.ts';
import { Nd } from './reference.ts';

const before = getNumThreads();
afterAll(() => setNumThreads(before));

/** What computes results and gradients, and gives their bits. */
function runner(name: string, args: Args, dtype: DType): () => string[] {
  const leaves: Tensor[] = [];
  const tensors = replace(args, (x) => {
    const t = toTensor(x, dtype);
    if (isVariable(x)) leaves.push(t.requiresGrad_());
    return t;
  });
  return () =>
    scope(() => {
      const results = call(name, tensors);
      return bits([...results, ...gradients(results, leaves, (y) => y.detach())]);
    });
}

const large = (name: string, row: Row): Args[] => (row.large === undefined ? [] : samplesOf(name, row.large));

describe.each(Object.entries(opSamples))('%s', (name, row) => {
  it('gives the same bits on 1, 2 and 4 threads, twice', () => {
    const dtypes = (row.dtypes ?? ['float32', 'float64']).filter((dtype) => dtype === 'float32' || dtype === 'float64');
    const all = [
      ...smallSamples(name, row)
        .slice(0, 12)
        .map((args) => [args, dtypes] as const),
      ...large(name, row).map((args) => [args, ['float32']] as const),
    ];
    for (const [args, types] of all) {
      for (const dtype of types) {
        scope(() => {
          const run = runner(name, args, dtype);
          setNumThreads(1);
          const first = run();
          for (const threads of [2, 4, 4]) {
            setNumThreads(threads);
            expectSameBits(run(), first, `${name}(${showArgs(args)}) in ${dtype} on ${threads} threads`);
          }
        });
      }
    }
  });

  if (row.batched)
    it('gives a row alone the bits that it has in its batch', () => {
      let rows = 0;
      for (const args of [...samples(name, row), ...large(name, row)]) {
        const [x] = args;
        // Of two dimensions: the first counts rows, which the op must not mix.
        if (!(x instanceof Nd) || x.ndim < 2 || x.shape[0] === 0 || acrossRows(args)) continue;
        rows++;
        for (const dtype of ['float32', 'float64'] as const) {
          scope(() => {
            const tensors = replace(args, (y) => toTensor(y, dtype)) as [Tensor, ...unknown[]];
            const whole = call(name, tensors)[0]!;
            for (const i of new Set(
              [0, 1, Math.floor(x.shape[0]! / 2), x.shape[0]! - 1].filter((r) => r < x.shape[0]!),
            )) {
              const [alone] = call(name, [narrow(tensors[0], 0, i, 1), ...tensors.slice(1)]);
              expectSameBits(
                bits([alone!]),
                bits([narrow(whole, 0, i, 1)]),
                `${name}(${showArgs(args)}) in ${dtype}, row ${i}`,
              );
            }
          });
        }
      }
      expect(rows, 'samples of several rows').toBeGreaterThan(1);
    });
});

/** Whether the op works along the first dimension, or pairs it with that of another input. */
function acrossRows([x, ...rest]: Args): boolean {
  const { ndim } = x as Nd;
  const [dim] = rest;
  if (typeof dim === 'number') return dim === 0 || dim === -ndim;
  return ndsIn(rest).some((y) => y.ndim > 2);
}
