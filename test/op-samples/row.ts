// What a row of the table of op samples says, the builders of rows, and the random inputs that samples are made of.
// Test layer: knows numbers, no tensors. The walkers (test/ops.*.test.ts) do the rest.
import { mulberry32 } from '../random.ts';
import { build, type Kind, map, Nd, numel, range, type Shape, zip } from '../reference.ts';

export type DType = 'float32' | 'float64' | 'bfloat16' | 'int32' | 'uint8' | 'bool';
export const FLOATS: readonly DType[] = ['float32', 'float64', 'bfloat16'];
export const WHOLE: readonly DType[] = ['int32', 'uint8', 'bool'];
export const ALL: readonly DType[] = [...FLOATS, ...WHOLE];

// ---- rows ---------------------------------------------------------------------------------------------------------------
/**
 * How far a result may be from the reference, which is computed in float64 from inputs that the dtype holds:
 * - `ulp`: units in the last place of the result's dtype; 0: bit for bit (any NaN for NaN). bfloat16 adds one rounding.
 * - `terms`: a sum of so many terms: 4 √terms roundings of what the reference gives for the inputs' absolute values.
 *   Nothing when all inputs are whole numbers: then no partial sum is rounded.
 * - `relative`: of the result, or of 1 where it is smaller.
 */
export type Tolerance<A extends readonly unknown[]> =
  | { ulp: number | { float32: number; float64: number } }
  | { terms: (...args: A) => number }
  | { relative: { float32: number; float64: number } };

export const EXACT = { ulp: 0 };
/** Normalisations, softmax, losses. */
export const COMPOSED = { relative: { float32: 2e-6, float64: 1e-13 } };

export type ErrorName = 'ArgumentError' | 'AutogradError' | 'DTypeError' | 'IndexError' | 'ShapeError';
/** Arguments that are refused, the error's class, and what its message says besides the op's name. */
export type Refusal = readonly [args: readonly unknown[], error: ErrorName, message: RegExp];

export interface Row<A extends readonly unknown[] = readonly unknown[]> {
  /** Argument lists. An Nd stands for a tensor of its values; kind `float` takes every dtype of the row in turn. */
  samples: () => NoInfer<A>[];
  /** The result from the same arguments; null: the op is random, and `check` says what holds of a result. */
  reference: ((...args: A) => Nd | Nd[]) | null;
  check?: (result: Nd, ...args: A) => void;
  /** Default: exact. */
  tolerance?: Tolerance<A>;
  /** Of float inputs. All others are refused with a DTypeError. Default: all. */
  dtypes?: readonly DType[];
  /** The dtype of a float result where it is not that of the inputs (float32 without any). */
  result?: (dtype: DType, ...args: A) => DType;
  /** Default: differentiable. `zero`: the gradient is 0 everywhere; `none`: the result never requires grad. */
  gradient?: 'zero' | 'none';
  /** Gradients (of the sum of the result, in float64) where differences of the function do not give them. */
  gradients?: () => [args: NoInfer<A>, gradient: Nd][];
  refused?: () => Refusal[];
  /** Arguments big enough to be split over threads. */
  large?: () => NoInfer<A>[];
  /** One row of the first argument alone gives the same bits as within the batch. */
  batched?: true;
  /** Elementwise ops: values that the special-value walker visits besides its own, with what is expected of them. */
  special?: {
    arity: 1 | 2;
    values: readonly number[];
    expected: readonly { inputs: readonly number[]; value: number }[];
  };
  /** The error for other dtypes than those. Default: DTypeError. */
  wrongDtype?: ErrorName;
  /** Inputs may differ in dtype. */
  mixed?: true;
  /** A function only, though its first argument may be a tensor. */
  methodless?: true;
  /** An in-place op that leaves the elements, and so the version, as they are. */
  unwritten?: true;
}

/** Only here are argument types forgotten: walkers pass each row its own samples. */
export const row = <A extends readonly unknown[]>(spec: Row<A>): Row => spec as unknown as Row;

// ---- inputs ---------------------------------------------------------------------------------------------------------------
let next: () => number = mulberry32(0);
/** Samples depend on the name alone, not on which were made before. */
export function samplesOf<T>(name: string, make: () => T): T {
  next = mulberry32([...name].reduce((hash, c) => Math.imul(hash, 31) + c.charCodeAt(0), 7));
  return make();
}

export type Domain = readonly [low: number, high: number];

/** Uniform in the domain, at least 0.01 away from every kink. */
export function float(shape: Shape, domain: Domain = [-2, 2], kinks: readonly number[] = []): Nd {
  const [low, high] = domain;
  const draw = (): number => low + (high - low) * next();
  return build(shape, () => {
    let value = draw();
    while (kinks.some((kink) => Math.abs(value - kink) < 0.01)) value = draw();
    return value;
  });
}
/** Small whole numbers, whose products and sums every dtype holds exactly. */
export const whole = (shape: Shape, low = -3, high = 3): Nd =>
  build(shape, () => low + Math.floor((high - low + 1) * next()));
/** Whole numbers in [0, n), int32 in every test. */
export const index = (shape: Shape, n: number): Nd => build(shape, () => Math.floor(n * next()), 'int32');
export const mask = (shape: Shape): Nd => build(shape, () => Number(next() < 0.5), 'bool');
/** Values far apart, from each other and, in size, from each other's negatives: no ties. */
export const distinct = (shape: Shape): Nd => {
  const order = range(numel(shape));
  return build(shape, () => order.splice(Math.floor(next() * order.length), 1)[0]! / 8 - 31 / 32);
};
export const constant = (x: Nd): Nd => new Nd(x.shape, x.data, x.kind, true);
export const given = (shape: Shape, data: readonly number[], kind?: Kind): Nd => new Nd(shape, data, kind);

// ---- elementwise rows -----------------------------------------------------------------------------------------------------
/** Empty, one, around every vector length, and long enough for several threads. */
const SIZES = [0, 1, 15, 16, 17, 31, 33, 63, 65, 1000, 40_000];
const LARGE = 100_003;

/** Numbers by one or two others, written `x` or `x,y`, since object keys can be -0 and NaN as text only. */
type ByInputs = Readonly<Record<string, number>>;
const entriesOf = (table: ByInputs = {}): { inputs: number[]; value: number }[] =>
  Object.entries(table).map(([inputs, value]) => ({ inputs: inputs.split(',').map(Number), value }));

interface Elementwise {
  /** Inputs are drawn from it. Default: [-2, 2]. */
  domain?: Domain;
  /** Units in the last place, by dtype or for both. Default: 0. */
  ulp?: number | { float32: number; float64: number };
  /** Default: floating dtypes. */
  dtypes?: readonly DType[];
  /** Where the derivative jumps; visited by the special-value walker. */
  kinks?: readonly number[];
  /** Results by their inputs, where the reference would be wrong or the value deserves to be stated: `{ '-0,1': -0 }`. */
  special?: ByInputs;
  gradient?: 'zero' | 'none';
  refused?: () => Refusal[];
}

interface Unary<P extends readonly unknown[]> extends Elementwise {
  reference: (x: number, ...rest: P) => number;
  /** The further arguments of each sample. Default: none. */
  rest?: readonly NoInfer<P>[];
  /** The derivative at kinks and ends. */
  slopes?: ByInputs;
}

/** An elementwise op of one tensor. */
export function unary<P extends readonly unknown[]>(spec: Unary<P>): Row {
  const { reference, domain, kinks = [] } = spec;
  const special = entriesOf(spec.special);
  const variants = spec.rest ?? [[] as unknown as P];
  const input = (...shape: number[]): Nd => float(shape, domain, kinks);
  return row<[x: Nd, ...rest: P]>({
    ...shared(spec),
    samples: () => [
      ...SIZES.map((n): [Nd, ...P] => [input(n), ...variants[0]!]),
      ...variants.flatMap((rest): [Nd, ...P][] => [
        [input(), ...rest],
        [input(3, 5), ...rest],
        [input(2, 0, 3), ...rest],
      ]),
    ],
    reference: (x, ...rest) => map(x, (value) => reference(value, ...rest)),
    gradients: () =>
      entriesOf(spec.slopes).map(({ inputs, value }) => [[given([1], inputs), ...variants[0]!], given([1], [value])]),
    large: () => [[input(LARGE), ...variants[0]!]],
    special: { arity: 1, values: [...kinks, ...special.flatMap(({ inputs }) => inputs)], expected: special },
  });
}

interface Binary extends Elementwise {
  reference: (a: number, b: number) => number;
  /** Of the second input, where it is not that of the first. */
  second?: Domain;
  /** The result's dtype where it is not that of the inputs. */
  result?: (dtype: DType) => DType;
  /** Derivatives with respect to the first input, at ties. */
  slopes?: ByInputs;
}

/** A number that a whole dtype would cut is refused. */
const cut: Refusal = [[index([2], 3), 1.5], 'DTypeError', /1.5 with a tensor of int32/];

/** An elementwise op of two tensors, broadcast, or of a tensor and a number. */
export function binary(spec: Binary): Row {
  const { reference, domain, second = domain } = spec;
  const special = entriesOf(spec.special);
  const a = (...shape: number[]): Nd => float(shape, domain);
  const b = (...shape: number[]): Nd => float(shape, second);
  return row<[a: Nd | number, b: Nd | number]>({
    ...shared(spec),
    samples: () => [
      ...SIZES.map((n): [Nd, Nd] => [a(n), b(n)]),
      [a(), b()],
      [a(2, 3, 4), b(4)],
      [a(3, 1), b(1, 4)],
      [a(), b(3, 2)],
      [a(2, 1, 3), b(4, 1)],
      [a(0, 3), b(1, 3)],
      [a(1), b(0)],
      [a(3, 4), 1],
      [2, b(3, 4)],
    ],
    reference: (x, y) => zip(x, y, reference),
    gradients: () =>
      entriesOf(spec.slopes).map(({ inputs: [x, y], value }) => [
        [given([1], [x!]), constant(given([1], [y!]))],
        given([1], [value]),
      ]),
    large: () => [
      [a(LARGE), b(LARGE)],
      [a(500, 211), b(211)],
    ],
    special: { arity: 2, values: special.flatMap(({ inputs }) => inputs), expected: special },
    ...(spec.result && { result: spec.result }),
    refused: () => [
      [[a(2, 3), b(2, 4)], 'ShapeError', /\[2,3\] and \[2,4\] do not broadcast/],
      [[1, 2], 'ArgumentError', /both operands are numbers/],
      [[a(2), '1'], 'ArgumentError', /second operand is "1"/],
      [[null, b(2)], 'ArgumentError', /first operand is null/],
      ...(spec.dtypes?.includes('int32') ? [cut] : []),
      ...(spec.refused?.() ?? []),
    ],
  });
}

function shared(spec: Elementwise) {
  const { ulp = 0, dtypes = FLOATS, gradient, refused } = spec;
  return { tolerance: { ulp }, dtypes, ...(gradient && { gradient }), ...(refused && { refused }) };
}
