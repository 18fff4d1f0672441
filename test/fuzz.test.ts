// Random calls of random ops: whatever the arguments, an op works or throws an error of the library, and what it records
// can be differentiated. Failures shrink to the smallest call.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ChainruleError, type DType, Generator, rand, randint, scope, Tensor } from '../lib/index.ts';
import * as inPlace from '../lib/ops/in-place.ts';
import * as ops from '../lib/ops/index.ts';
import * as reading from '../lib/ops/read.ts';

type Op = (...args: unknown[]) => unknown;
// Methods of tensors alone: their first argument is a tensor.
const METHODS = { ...inPlace, item: reading.item, toArray: reading.toArray, toTypedArray: reading.toTypedArray };
const OPS = { ...ops, ...METHODS } as unknown as Record<string, Op>;
// What the library's other files use, without checks of their own.
const INTERNAL = ['cast', 'castLike', 'powNumber'];
const name = fc.constantFrom(...Object.keys(OPS).filter((op) => !INTERNAL.includes(op)));

interface Recipe {
  shape: number[];
  dtype: DType;
  layout: 'dense' | 'transposed' | 'strided' | 'expanded';
  leaf: boolean;
}
const shape = fc.array(fc.constantFrom(0, 1, 2, 3, 3, 5), { maxLength: 4 });
const recipe = (dtypes: DType[]): fc.Arbitrary<Recipe> =>
  fc.record({
    shape,
    dtype: fc.constantFrom(...dtypes),
    layout: fc.constantFrom('dense', 'dense', 'transposed', 'strided', 'expanded'),
    leaf: fc.boolean(),
  });

function make({ shape, dtype, layout, leaf }: Recipe): Tensor {
  const generator = new Generator(shape.length);
  const whole = dtype === 'int32' || dtype === 'uint8' || dtype === 'bool';
  const of = (sizes: number[]): Tensor =>
    whole ? randint(0, 3, sizes, { dtype, generator }) : rand(sizes, { dtype, generator, requiresGrad: leaf });
  const n = shape.length;
  if (n === 0 || layout === 'dense') return of(shape);
  if (layout === 'transposed') return of([...shape].reverse()).permute(Array.from(shape, (_, d) => n - 1 - d));
  if (layout === 'strided') return of([2 * shape[0]! + 1, ...shape.slice(1)]).slice(0, 1, undefined, 2);
  return of([1, ...shape.slice(1)]).expand(shape);
}

const build = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(build);
  return typeof value === 'object' && value !== null && 'layout' in value ? make(value as Recipe) : value;
};

/** Calls an op, and goes back through what it recorded. Every error must be one that the library means to throw. */
function call(name: string, args: readonly unknown[]): void {
  scope(() => {
    try {
      const built = args.map(build);
      if (name in METHODS && !(built[0] instanceof Tensor)) return;
      const result = OPS[name]!(...built);
      for (const out of Array.isArray(result) ? result : [result]) {
        if (!(out instanceof Tensor)) continue;
        expect(out.shape.every(Number.isSafeInteger)).toBe(true);
        expect(out.toTypedArray()).toHaveLength(out.numel);
        if (out.requiresGrad && !out.isLeaf) out.sum().backward();
      }
    } catch (error) {
      if (error instanceof ChainruleError && error.code !== 'ERR_INTERNAL') return;
      throw new Error(`${name}: ${String(error)}`, { cause: error });
    }
  });
}

const FLOATS: DType[] = ['float32', 'float64', 'bfloat16'];
const ALL: DType[] = [...FLOATS, 'int32', 'uint8', 'bool'];
const small = fc.integer({ min: -4, max: 4 });
const hostile = fc.constantFrom(
  ...[
    Number.NaN,
    -0,
    0.5,
    2 ** 31,
    2 ** 53,
    Number.POSITIVE_INFINITY,
    2n,
    '',
    'mean',
    null,
    undefined,
    Symbol('s'),
    true,
  ],
);
const options = fc.constantFrom(
  {},
  { dim: 0 },
  { keepdim: true },
  { min: 0 },
  { correction: 0 },
  { reduction: 'sum' },
  { p: 3 },
);
const anything = fc.oneof(
  { weight: 6, arbitrary: recipe(ALL) },
  { weight: 3, arbitrary: small },
  { weight: 2, arbitrary: fc.array(small, { maxLength: 4 }) },
  { weight: 1, arbitrary: fc.array(recipe(ALL), { maxLength: 3 }) },
  { weight: 1, arbitrary: options },
  { weight: 2, arbitrary: hostile },
  { weight: 1, arbitrary: fc.array(hostile, { maxLength: 2 }) },
);
// Mostly one dtype and one shape, so that most calls get past the checks.
const plausible = fc
  .record({
    recipe: recipe(FLOATS),
    count: fc.integer({ min: 1, max: 3 }),
    rest: fc.array(fc.oneof(small, options), { maxLength: 2 }),
  })
  .chain(({ recipe, count, rest }) =>
    fc
      .array(
        fc.record({
          layout: fc.constantFrom('dense' as const, 'transposed' as const, 'expanded' as const),
          leaf: fc.boolean(),
        }),
        {
          minLength: count,
          maxLength: count,
        },
      )
      .map((variants) => [...variants.map((variant) => ({ ...recipe, ...variant })), ...rest]),
  );

const RUNS = Number(process.env.CHAINRULE_FUZZ_RUNS ?? 3000);
const seed = Number(process.env.CHAINRULE_FUZZ_SEED ?? 1);

describe('a random call', () => {
  it('of anything works, or throws an error of the library', () => {
    fc.assert(fc.property(name, fc.array(anything, { maxLength: 4 }), call), { numRuns: RUNS, seed });
  });

  it('that fits works and is differentiated, or throws an error of the library', () => {
    fc.assert(fc.property(name, plausible, call), { numRuns: RUNS, seed });
  });

  it('gets through often enough to prove something', () => {
    let worked = 0;
    const count = (name: string, args: unknown[]): void => {
      try {
        scope(() => OPS[name]!(...args.map(build)));
        worked++;
      } catch (error) {
        expect(error, name).toBeInstanceOf(ChainruleError);
      }
    };
    fc.assert(fc.property(name, plausible, count), { numRuns: 1000, seed });
    expect(worked).toBeGreaterThan(300);
  });
});
