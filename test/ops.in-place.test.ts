// In-place ops: the bits of their twins, the version raised, views written through, gradients kept right, and refusals
// before anything is written.
import { describe, expect, it } from 'vitest';
import { AutogradError, noGrad, scope, slice, type Tensor, tensor } from '../lib/index.ts';
import * as inPlace from '../lib/ops/in-place.ts';
import * as ops from '../lib/ops/index.ts';
import {
  type Args,
  bits,
  call,
  dtypeOf,
  expectSameBits,
  gradients,
  isVariable,
  ndsIn,
  referenceOf,
  replace,
  samples,
  showArgs,
  smallSamples,
  toNd,
  toTensor,
  toTensors,
} from './helpers.ts';
import { ALL, type DType, type Row } from './op-samples/row.ts';
import { inPlaceRow, twinOf } from './op-samples.ts';
import { broadcast, map, Nd } from './reference.ts';

type InPlace = (x: Tensor, ...rest: unknown[]) => Tensor;

/** Whether the result has the shape of the first input, which can then take it. */
function fits(args: Args): args is [Nd, ...unknown[]] {
  const [x] = args;
  return x instanceof Nd && String(broadcast(...ndsIn(args).map((y) => y.shape))) === String(x.shape);
}

/** What x shall hold afterwards: the twin's result, or the reference. Null where chance decides. */
function expectedBits(name: string, row: Row, args: Args, dtype: DType): string[] | null {
  const twin = twinOf(name);
  if (twin !== undefined) return bits(call(twin, toTensors(args, dtype)));
  return row.reference === null
    ? null
    : bits(
        referenceOf(row, toNdArgs(args, dtype)).map((y) =>
          tensor(y.data, { shape: y.shape, dtype: dtypeOf(y, dtype) }),
        ),
      );
}
const toNdArgs = (args: Args, dtype: DType): unknown[] => replace(args, (x) => toNd(toTensor(x, dtype), x));

describe.each(Object.entries(inPlace as unknown as Record<string, InPlace>))('%s', (name, op) => {
  const row = inPlaceRow(name)!;
  const fitting = (all: Args[]): Args[] => all.filter(fits);

  it('writes what its twin returns, and raises the version', () => {
    for (const args of fitting(samples(name, row))) {
      for (const dtype of row.dtypes ?? ALL) {
        scope(() => {
          const what = `${name}(${showArgs(args)}) in ${dtype}`;
          const [x, ...rest] = toTensors(args, dtype) as [Tensor, ...unknown[]];
          const { version } = x.storage;
          expect(op(x, ...rest), what).toBe(x);
          const expected = expectedBits(name, row, args, dtype);
          if (expected !== null) expectSameBits(bits([x]), expected, what);
          expect(x.storage.version, what).toBe(version + (row.unwritten ? 0 : 1));
        });
      }
    }
  });

  it('is a method, too', () => {
    const args = fitting(smallSamples(name, row))[0]!;
    const [x, ...rest] = toTensors(args, 'float32') as [Tensor, ...unknown[]];
    expect((x as unknown as Record<string, (...rest: unknown[]) => Tensor>)[name]!(...rest)).toBe(x);
  });

  if (row.unwritten) return;

  it('writes through a view, and nothing beside it', () => {
    for (const args of fitting(smallSamples(name, row)).filter(([x]) => (x as Nd).ndim > 0)) {
      scope(() => {
        const [x, ...rest] = args as [Nd, ...unknown[]];
        const n = x.shape.at(-1)!;
        const base = ops.full([...x.shape.slice(0, -1), 2 * n + 1], 77);
        const view = slice(base, -1, 1, 2 * n + 1, 2);
        view.copy_(toTensor(x, 'float32'));
        op(view, ...replace(rest, (y) => toTensor(y, 'float32')));
        const what = `${name}(${showArgs(args)})`;
        const expected = expectedBits(name, row, args, 'float32');
        if (expected !== null) expectSameBits(bits([view]), expected, what);
        expect(
          [...slice(base, -1, 0, 2 * n + 1, 2).toTypedArray()].every((v) => v === 77),
          `${what} wrote beside the view`,
        ).toBe(true);
      });
    }
  });

  it('refuses a leaf that requires grad before it writes, except without recording', () => {
    for (const args of fitting(smallSamples(name, row))) {
      scope(() => {
        const [x, ...rest] = toTensors(args, 'float32') as [Tensor, ...unknown[]];
        x.requiresGrad_();
        const [before, { version }] = [bits([x]), x.storage];
        expect(() => op(x, ...rest)).toThrow(AutogradError);
        expect(() => op(x, ...rest)).toThrow(new RegExp(`^${name}: .*leaf that requires grad`));
        expectSameBits(bits([x]), before, `${name}(${showArgs(args)})`);
        expect(x.storage.version).toBe(version);
        noGrad(() => op(x, ...rest));
        expect(x.storage.version).toBe(version + 1);
      });
    }
  });

  it('refuses an expanded view, and a result that does not fit', () => {
    const args = fitting(smallSamples(name, row)).find(([x]) => (x as Nd).ndim > 0)!;
    const rest = toTensors(args, 'float32').slice(1);
    const expanded = tensor([1, 2]).expand([...(args[0] as Nd).shape, 2]);
    const restFits = rest.map((y) => (typeof y === 'object' && y !== null && 'numel' in y ? (y as Tensor).sum() : y));
    const scalars = name === 'maskedFill_' ? [tensor(true), ...rest.slice(1)] : restFits;
    if ((args[0] as Nd).shape.every((size) => size > 1))
      expect(() => op(expanded, ...scalars)).toThrow(/expanded view/);
    expect([...tensor([1, 2]).toTypedArray()]).toEqual([1, 2]);
  });

  if (row.gradient === 'none') return;
  it('passes on the gradient of its twin', () => {
    for (const args of fitting(smallSamples(name, row)).filter((all) => ndsIn(all).some(isVariable))) {
      scope(() => {
        const run = (f: InPlace): { result: Tensor; pulled: (Tensor | null)[] } => {
          const leaves: Tensor[] = [];
          const [x, ...rest] = replace(args, (y) => {
            const t = toTensor(y, 'float64');
            if (isVariable(y)) leaves.push(t.requiresGrad_());
            return t;
          }) as [Tensor, ...unknown[]];
          const result = f(x, ...rest);
          return {
            result,
            pulled: gradients([result], leaves, (y) =>
              toTensor(
                map(toNd(y), () => 1.5),
                'float64',
              ),
            ),
          };
        };
        const inPlaceRun = run((x, ...rest) => op(x.clone(), ...rest));
        const twin = twinOf(name);
        const expected = twin === undefined ? null : run((ops as unknown as Record<string, InPlace>)[twin]!);
        const what = `${name}(${showArgs(args)})`;
        if (expected !== null) {
          expectSameBits(bits(inPlaceRun.pulled), bits(expected.pulled), what);
        } else {
          // What was overwritten has no gradient; what was written from has one for each of its elements.
          const [first] = inPlaceRun.pulled;
          const sum = first === null || first === undefined ? 0 : first.sum().item();
          expect(sum, what).toBe(row.gradient === 'zero' ? 0 : 1.5 * inPlaceRun.result.numel);
        }
      });
    }
  });
});
