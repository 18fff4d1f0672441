// The same bits for any number of threads, in every run, forward and backward; for a row alone as in its batch; and on
// every instruction set with fused multiply-adds.
import { afterAll, describe, expect, it } from 'vitest';
import { buildInfo, getNumThreads, narrow, scope, setNumThreads, type Tensor } from '../lib/index.ts';
import {
  type Args,
  bits,
  call,
  expectSameBits,
  largeSamples,
  ndsIn,
  replace,
  runner,
  samples,
  showArgs,
  sized,
  toTensor,
} from './helpers.ts';
import { opSamples } from './op-samples.ts';
import { Nd } from './reference.ts';
import { runFixture } from './support.ts';

const before = getNumThreads();
afterAll(() => setNumThreads(before));

describe.each(Object.entries(opSamples))('%s', (name, row) => {
  it('gives the same bits on 1, 2, 3, 4 and 7 threads', () => {
    for (const [args, types] of sized(name, row)) {
      for (const dtype of types) {
        scope(() => {
          const run = runner(name, args, dtype);
          setNumThreads(1);
          const first = run();
          for (const threads of [2, 3, 4, 7, 1]) {
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
      for (const args of [...samples(name, row), ...largeSamples(name, row)]) {
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

/** Ops whose bits differ between AVX2 and AVX-512, each with its reason in docs/numerics.md. */
const APART: readonly string[] = [];

it.skipIf(!buildInfo().isaAvailable.includes('avx512'))(
  'every op gives the same bits on AVX2 and AVX-512',
  async () => {
    type Hashes = { isa: string; hashes: Record<string, string> };
    const run = (isa: string) => runFixture<Hashes>('op-hashes.ts', { env: { CHAINRULE_ISA: isa } });
    const [avx2, avx512] = await Promise.all([run('avx2'), run('avx512')]);
    expect([avx2.isa, avx512.isa]).toEqual(['avx2', 'avx512']);
    expect(Object.keys(avx2.hashes)).toEqual(Object.keys(opSamples));
    expect(Object.keys(opSamples).filter((name) => avx2.hashes[name] !== avx512.hashes[name])).toEqual(APART);
  },
);
