// One path through a deep network: a gradient as a product of one number per layer. What such products show, and what
// they do not: networks.ts has the layers that paths are only parts of.
import { Generator, randn, type Tensor, tensor } from '../../lib/index.ts';

/** The derivative of the sigmoid, at most 1/4, at 0. */
export function sigmoidSlope(x: Tensor): Tensor {
  const y = x.sigmoid();
  return y.mul(y.neg().add(1));
}

const numbers = (t: Tensor): number[] => Array.from(t.toTypedArray());

export interface PathRow {
  readonly layer: number;
  /** Product of sigmoid slopes at inputs from N(0, 1). */
  readonly sigmoid: number;
  /** Product of ReLU slopes, each 0 or 1 with chance 1/2. */
  readonly relu: number;
}

/** The lesson's table: the gradient along one path, after each layer. */
export function pathTable(layers: number, seed: number): PathRow[] {
  const generator = new Generator(seed);
  const sigmoid = numbers(sigmoidSlope(randn([layers], { generator, dtype: 'float64' })));
  // The slope of a ReLU at an input from N(0, 1).
  const relu = numbers(randn([layers], { generator, dtype: 'float64' }).gt(0));
  const product = (slopes: readonly number[], layer: number): number => slopes.slice(0, layer).reduce((a, b) => a * b);
  return Array.from({ length: layers }, (_, i) => ({
    layer: i + 1,
    sigmoid: product(sigmoid, i + 1),
    relu: product(relu, i + 1),
  }));
}

/** The chance that a path of ReLUs is blocked after k layers. */
export const blocked = (k: number): number => 1 - 2 ** -k;

/** A mean over N(0, 1), by the trapezoidal rule, which is exact to rounding here. */
export function normalMean(f: (x: Tensor) => Tensor): number {
  const step = 1 / 64;
  const x = tensor(
    Array.from({ length: 24 / step + 1 }, (_, i) => i * step - 12),
    { dtype: 'float64' },
  );
  const density = x
    .square()
    .mul(-0.5)
    .exp()
    .mul(step / Math.sqrt(2 * Math.PI));
  return f(x).mul(density).sum().item();
}

/** The mean of the sigmoid's slope over N(0, 1), and its geometric mean, which is what a product of slopes follows. */
export const meanSlope = (): number => normalMean(sigmoidSlope);
export const geometricMeanSlope = (): number => Math.exp(normalMean((x) => sigmoidSlope(x).log()));

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
};

/** The products of `length` factors f(N(0, 1)), for `paths` paths. */
export function products(f: (x: Tensor) => Tensor, length: number, paths: number, seed: number): number[] {
  const x = randn([paths, length], { generator: new Generator(seed), dtype: 'float64' });
  return numbers(f(x).prod(1));
}

/** The lesson's factor for exploding gradients: its mean is above 1, and half of the products of ten are below 2.4. */
export const explodingFactor = (x: Tensor): Tensor => x.abs().mul(2);
