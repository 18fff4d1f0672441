// Arrays of float64 in plain JavaScript, and the few tools that the reference results of ops are written with.
// Test layer; imports nothing of the library.

export type Shape = readonly number[];
/** `float`: whatever dtype is under test. */
export type Kind = 'float' | 'int32' | 'bool';

/** An array of any number of dimensions, row-major: what references take and give. */
export class Nd {
  readonly shape: Shape;
  readonly data: Float64Array;
  readonly kind: Kind;
  /** A float input that is not differentiated. */
  readonly constant: boolean;

  constructor(shape: Shape, data: ArrayLike<number>, kind: Kind = 'float', constant = false) {
    this.shape = shape;
    this.data = Float64Array.from(data);
    this.kind = kind;
    this.constant = constant;
  }
  get ndim(): number {
    return this.shape.length;
  }
}

export const numel = (shape: Shape): number => shape.reduce((n, size) => n * size, 1);
export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
export const scalar = (value: number): Nd => new Nd([], [value]);
/** One dimension of the given numbers. */
export const vector = (...values: number[]): Nd => new Nd([values.length], values);

// ---- by index -----------------------------------------------------------------------------------------------------------
/** An array of f(index), f called in row-major order. */
export function build(shape: Shape, f: (index: number[]) => number, kind?: Kind): Nd {
  const index = new Array<number>(shape.length).fill(0);
  const data = new Float64Array(numel(shape));
  for (let i = 0; i < data.length; i++) {
    data[i] = f(index);
    for (let d = shape.length - 1; d >= 0 && ++index[d]! === shape[d]; d--) index[d] = 0;
  }
  return new Nd(shape, data, kind);
}

/** The element at an index, aligned at the last dimension; dimensions of size 1 broadcast. */
export function at(x: Nd | number, index: Shape): number {
  if (typeof x === 'number') return x;
  const skip = index.length - x.ndim;
  return x.data[x.shape.reduce((offset, size, d) => offset * size + (size === 1 ? 0 : index[d + skip]!), 0)]!;
}

export const replaced = (shape: Shape, dim: number, ...by: number[]): number[] => shape.toSpliced(dim, 1, ...by);

// ---- elementwise --------------------------------------------------------------------------------------------------------
export const map = (x: Nd, f: (value: number) => number, kind: Kind = x.kind): Nd =>
  new Nd(
    x.shape,
    x.data.map((value) => f(value)),
    kind,
    x.constant,
  );

export function broadcast(...shapes: Shape[]): number[] {
  const length = Math.max(...shapes.map((shape) => shape.length));
  return range(length).map((d) => {
    const sizes = shapes.map((shape) => shape[d - length + shape.length] ?? 1);
    return sizes.find((size) => size !== 1) ?? 1;
  });
}

/** f of two arrays or numbers, broadcast. */
export function zip(a: Nd | number, b: Nd | number, f: (a: number, b: number) => number, kind?: Kind): Nd {
  if (typeof b === 'number') return map(a as Nd, (x) => f(x, b), kind);
  if (typeof a === 'number') return map(b, (x) => f(a, x), kind);
  if (String(a.shape) === String(b.shape))
    return new Nd(
      a.shape,
      a.data.map((x, i) => f(x, b.data[i]!)),
      kind,
    );
  return build(broadcast(a.shape, b.shape), (i) => f(at(a, i), at(b, i)), kind);
}
export const add = (a: Nd | number, b: Nd | number): Nd => zip(a, b, (x, y) => x + y);
export const sub = (a: Nd | number, b: Nd | number): Nd => zip(a, b, (x, y) => x - y);
export const mul = (a: Nd | number, b: Nd | number): Nd => zip(a, b, (x, y) => x * y);
export const div = (a: Nd | number, b: Nd | number): Nd => zip(a, b, (x, y) => x / y);

// ---- along dimensions ---------------------------------------------------------------------------------------------------
export type Dims = number | readonly number[] | undefined;

const positive = (dim: number, ndim: number): number => (dim < 0 ? dim + Math.max(ndim, 1) : dim);
export const dimsOf = (dims: Dims, ndim: number): number[] =>
  dims === undefined ? range(ndim) : (typeof dims === 'number' ? [dims] : [...dims]).map((d) => positive(d, ndim));

/** f of the values along dims (all when undefined), in row-major order. */
export function reduce(
  x: Nd,
  dims: Dims,
  keepdim: boolean | undefined,
  f: (values: number[]) => number,
  kind?: Kind,
): Nd {
  const over = x.ndim === 0 ? [] : dimsOf(dims, x.ndim);
  const kept = x.shape.map((size, d) => (over.includes(d) ? 1 : size));
  const inner = x.shape.map((size, d) => (over.includes(d) ? size : 1));
  const out = build(
    kept,
    (i) =>
      f([
        ...build(inner, (j) =>
          at(
            x,
            i.map((n, d) => n + j[d]!),
          ),
        ).data,
      ]),
    kind,
  );
  return keepdim
    ? out
    : new Nd(
        x.shape.filter((_, d) => !over.includes(d)),
        out.data,
        kind,
      );
}

/** f of the values along one dimension, which gives as many. */
export function along(x: Nd, dim: number, f: (values: number[]) => number[], kind?: Kind): Nd {
  const d = positive(dim, x.ndim);
  const inner = numel(x.shape.slice(d + 1));
  const steps = range(x.shape[d] ?? 1).map((i) => i * inner);
  const data = new Float64Array(x.data.length);
  for (let start = 0; start < data.length; start++) {
    if (Math.floor(start / inner) % steps.length !== 0) continue;
    const values = f(steps.map((step) => x.data[start + step]!));
    steps.forEach((step, i) => void (data[start + step] = values[i]!));
  }
  return new Nd(x.shape, data, kind);
}

/** Compensated, so that it is exact to the last place or two. Neumaier 1974 */
export function sumOf(values: readonly number[]): number {
  let sum = 0;
  let lost = 0;
  for (const value of values) {
    const next = sum + value;
    if (Number.isFinite(next)) lost += Math.abs(sum) >= Math.abs(value) ? sum - next + value : value - next + sum;
    sum = next;
  }
  return sum + lost;
}
export const sum = (x: Nd, dims?: Dims, keepdim?: boolean): Nd => reduce(x, dims, keepdim, sumOf);
export const mean = (x: Nd, dims?: Dims, keepdim?: boolean): Nd =>
  reduce(x, dims, keepdim, (values) => sumOf(values) / values.length);

/** Math.max and Math.min of any number of values; NaN if any is. */
export const largest = (values: readonly number[]): number =>
  values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
export const smallest = (values: readonly number[]): number =>
  values.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);

export function logSumExp(values: readonly number[]): number {
  const top = largest(values);
  return Math.abs(top) === Number.POSITIVE_INFINITY ? top : top + Math.log(sumOf(values.map((v) => Math.exp(v - top))));
}
/** NaN of nothing but -Infinity, and beside an Infinity, as in PyTorch. */
export function logSoftmax(values: readonly number[]): number[] {
  const top = largest(values);
  const total = Math.log(sumOf(values.map((v) => Math.exp(v - top))));
  return values.map((v) => v - top - total);
}

// ---- products -----------------------------------------------------------------------------------------------------------
/** Vectors, matrices and broadcast batches, as torch.matmul. */
export function matmul(a: Nd, b: Nd): Nd {
  if (a.ndim === 1) return dropDim(matmul(new Nd([1, ...a.shape], a.data), b), b.ndim === 1 ? -1 : -2);
  if (b.ndim === 1) return dropDim(matmul(a, new Nd([...b.shape, 1], b.data)), -1);
  const k = range(a.shape.at(-1)!);
  const batch = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2));
  return build([...batch, a.shape.at(-2)!, b.shape.at(-1)!], (index) => {
    const rest = index.slice(0, -2);
    return sumOf(k.map((j) => at(a, [...rest, index.at(-2)!, j]) * at(b, [...rest, j, index.at(-1)!])));
  });
}
const dropDim = (x: Nd, dim: number): Nd => new Nd(x.shape.toSpliced(dim, 1), x.data);

export const permute = (x: Nd, dims: Shape): Nd =>
  build(
    dims.map((d) => x.shape[d]!),
    (index) =>
      at(
        x,
        x.shape.map((_, d) => index[dims.indexOf(d)]!),
      ),
    x.kind,
  );
export const transpose = (x: Nd, d0: number, d1: number): Nd => {
  const dims = range(x.ndim);
  const [a, b] = [positive(d0, x.ndim), positive(d1, x.ndim)];
  if (x.ndim > 0) [dims[a], dims[b]] = [b, a];
  return permute(x, dims);
};

// ---- functions that Math lacks ------------------------------------------------------------------------------------------
/** e^(-x² scale) for scale 1 or 1/2: rounding x² would cost x² units in the last place. */
function expOfMinusSquare(x: number, scale: number): number {
  const head = Math.fround(x);
  return Math.exp(-head * head * scale) * Math.exp(-(x - head) * (x + head) * scale);
}

/** x + step/(x + 2 step/(x + 3 step/(x + …))), from as far out as the smallest x needs. Laplace's continued fraction. */
function laplace(x: number, step: number): number {
  let fraction = x;
  for (let n = Math.ceil((400 * step) / (x * x)) + 10; n > 0; n--) fraction = x + (n * step) / fraction;
  return fraction;
}

/** The error function: its power series up to 1/2, beyond it 1 less the tail. */
export function erf(x: number): number {
  if (Math.abs(x) >= 0.5) {
    const tail = x > 40 || x < -40 ? 0 : expOfMinusSquare(x, 1) / laplace(Math.abs(x), 0.5) / Math.sqrt(Math.PI);
    return x > 0 ? 1 - tail : tail - 1;
  }
  let power = x;
  let total = x;
  for (let n = 1; Math.abs(power) > Math.abs(total) * 1e-18; n++) {
    power *= (-x * x) / n;
    total += power / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * total;
}

/** The normal distribution function, precise in its lower tail. */
export function normalCdf(x: number): number {
  if (x > 0.7) return 1 - normalCdf(-x);
  if (!(x < -0.7)) return 0.5 + erf(x * Math.SQRT1_2) / 2;
  return x < -40 ? 0 : expOfMinusSquare(x, 0.5) / laplace(-x, 1) / Math.sqrt(2 * Math.PI);
}

export const sigmoid = (x: number): number => (x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x)));
export const softplus = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

/** To the nearest whole number, ties to even. */
export function roundToEven(x: number): number {
  const nearest = Math.round(x);
  return Math.abs(x % 1) === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
}
