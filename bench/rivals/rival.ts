// Bench layer: what an adapter of a JavaScript library states. Its package is looked for in bench/rivals/node_modules,
// where only `npm run bench:rivals -- --install` puts anything.
import { createRequire } from 'node:module';

/** b matrices of m x k times k x n, row-major. */
export interface Sizes {
  batch: number;
  m: number;
  n: number;
  k: number;
}

export interface Multiplication {
  /** One product, whose result is thrown away. */
  run(): void | Promise<void>;
  /** The result, once. */
  result(): Promise<ArrayLike<number>>;
}

/** A perceptron with ReLU in between, softmax and cross-entropy or the mean squared error, and SGD. */
export interface Training {
  sizes: readonly number[];
  batch: number;
  loss: 'ce' | 'mse';
  rate: number;
  x: Float32Array;
  /** One row a row of x: one-hot for ce. */
  target: Float32Array;
  /** Of each layer, [in, out]. */
  weights: readonly Float32Array[];
}

export interface Rival {
  name: string;
  /** A product costs so much that sizes above this many multiply-adds are left out. */
  largest: number;
  /** Before each of its turns. */
  ready?(): Promise<unknown>;
  multiply?(sizes: Sizes, a: Float32Array, b: Float32Array): Multiplication | Promise<Multiplication>;
  train?(training: Training): Promise<Trainer>;
}

/** Steps of SGD, and the loss that they have brought it to. */
export interface Trainer {
  run(): void | Promise<void>;
  loss(): number | Promise<number>;
}

const require = createRequire(import.meta.url);

/** A package of bench/rivals: its exports by name, untyped since it may not be there. */
export async function optional<T>(name: string): Promise<T | undefined> {
  try {
    return require(name) as T;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'MODULE_NOT_FOUND') return undefined;
    if (code !== 'ERR_REQUIRE_ESM' && code !== 'ERR_PACKAGE_PATH_NOT_EXPORTED') throw error;
  }
  return (await import(name)) as T;
}
