// Views: every op gives the same bits, forward and backward, when its inputs are views. Between their elements stand
// values that would show in the result, or be refused as an index, if a kernel read them.
import { describe, it } from 'vitest';
import { narrow, permute, reshape, scope, slice, type Tensor, tensor } from '../lib/index.ts';
import {
  bits,
  call,
  dtypeOf,
  expectSameBits,
  gradients,
  isVariable,
  ndsIn,
  replace,
  showArgs,
  smallSamples,
  toNd,
  toTensor,
} from './helpers.ts';
import { ALL, type DType } from './op-samples/row.ts';
import { opSamples } from './op-samples.ts';
import { map, Nd, permute as permuted, range } from './reference.ts';

const POISON: Record<DType, number> = {
  float32: Number.NaN,
  float64: Number.NaN,
  bfloat16: Number.NaN,
  int32: 2 ** 31 - 1,
  uint8: 255,
  bool: 1,
};

/** A view that holds what x holds. */
type Make = (x: Nd, dtype: DType) => Tensor;

const transposed: Make = (x, dtype) => {
  const order = range(x.ndim).reverse();
  return permute(toTensor(permuted(x, order), dtype), order);
};
const stepped: Make = (x, dtype) => {
  if (x.ndim === 0) return offset(x, dtype);
  const n = x.shape.at(-1)!;
  const data = new Float64Array(x.data.length * 2 + x.data.length / Math.max(n, 1)).fill(POISON[dtypeOf(x, dtype)]);
  x.data.forEach((value, i) => void (data[Math.floor(i / n) * (2 * n + 1) + 1 + 2 * (i % n)] = value));
  const whole = tensor(n === 0 ? [] : data, {
    shape: x.shape.with(-1, n === 0 ? 0 : 2 * n + 1),
    dtype: dtypeOf(x, dtype),
  });
  return slice(whole, -1, 1, 2 * n + 1, 2);
};
const offset: Make = (x, dtype) => {
  const poison = POISON[dtypeOf(x, dtype)];
  const whole = tensor([poison, poison, poison, ...x.data, poison, poison], { dtype: dtypeOf(x, dtype) });
  return reshape(narrow(whole, 0, 3, x.data.length), x.shape);
};
/** The first slice of x along the first dimension for all the others. */
const repeatedRow = (x: Nd): Nd => {
  const inner = x.data.length / x.shape[0]!;
  return new Nd(
    x.shape,
    x.data.map((_, i) => x.data[i % inner]!),
    x.kind,
    x.constant,
  );
};
const canRepeat = (x: Nd): boolean => x.ndim > 0 && x.data.length > 0;
const expanded: Make = (x, dtype) => {
  if (!canRepeat(x)) return toTensor(x, dtype);
  const first = new Nd([1, ...x.shape.slice(1)], x.data.slice(0, x.data.length / x.shape[0]!), x.kind);
  return toTensor(first, dtype).expand(x.shape);
};

const VIEWS: readonly [name: string, make: Make, values: (x: Nd) => Nd][] = [
  ['transposed', transposed, (x) => x],
  ['every second element', stepped, (x) => x],
  ['behind an offset', offset, (x) => x],
  ['expanded', expanded, (x) => (canRepeat(x) ? repeatedRow(x) : x)],
];

describe.each(Object.entries(opSamples).filter(([name, row]) => ndsIn(smallSamples(name, row)).length > 0))(
  '%s',
  (name, row) => {
    it.each(VIEWS)('takes inputs that are %s', (view, make, values) => {
      for (const sample of smallSamples(name, row)) {
        const args = replace(sample, values);
        for (const dtype of row.dtypes ?? ALL) {
          scope(() => {
            const what = `${name}(${showArgs(args)}) in ${dtype}, ${view}`;
            // `view` refuses strides that it cannot express: a copy of the view is no less a test of the others.
            const build: Make = name === 'view' ? (x, d) => make(x, d).clone() : make;
            const results = call(
              name,
              replace(args, (x) => build(x, dtype)),
            );
            expectSameBits(
              bits(results),
              bits(
                call(
                  name,
                  replace(args, (x) => toTensor(x, dtype)),
                ),
              ),
              what,
            );
          });
        }
      }
    });

    if (row.gradient === 'none') return;
    it.each(VIEWS)('has the same gradient for inputs and gradients that are %s', (view, make, values) => {
      for (const sample of smallSamples(name, row)) {
        const args = replace(sample, values);
        scope(() => {
          const viewed = name === 'view' ? toTensor : make;
          const run = (input: Make, output: Make): (Tensor | null)[] => {
            const leaves: Tensor[] = [];
            const tensors = replace(args, (x) => {
              const t = input(x, 'float32');
              if (isVariable(x)) leaves.push(t.requiresGrad_());
              return t;
            });
            return gradients(call(name, tensors), leaves, (y) =>
              output(
                map(toNd(y), () => 1.5),
                y.dtype,
              ),
            );
          };
          const what = `gradient of ${name}(${showArgs(args)}), ${view}`;
          expectSameBits(bits(run(viewed, viewed)), bits(run(toTensor, toTensor)), what);
        });
      }
    });
  },
);
