// The random numbers of numpy's legacy RandomState, so that examples seeded there have the same numbers here.
// Matsumoto and Nishimura, "Mersenne Twister", 1998; normal numbers by Marsaglia's polar method.
import { ArgumentError } from '../errors.ts';
import { tensor } from '../ops/create.ts';
import { checkInteger, checkShape, numelOf } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { log } from './log.ts';

export interface NumpyLegacy {
  /** Uniform in [0, 1), 53 bits each, float64. */
  rand(...shape: number[]): Tensor;
  /** Normal, mean 0 and deviation 1, float64. */
  randn(...shape: number[]): Tensor;
}

/**
 * numpy.random.RandomState(seed). Uniform numbers have the same bits as numpy's. Normal ones, too, wherever the
 * logarithm of numpy's C library is rounded correctly; with glibc the last bit of one in 3000 differs.
 * @throws ArgumentError unless seed is a whole number below 2^32
 */
export function numpyLegacy(seed: number): NumpyLegacy {
  const key = checkInteger('numpyLegacy', 'the seed', seed, 0);
  if (key >= 2 ** 32) throw new ArgumentError(`numpyLegacy: the seed is ${key}. Expected less than 2^32.`);
  const state = new RandomState(key);
  const draw = (op: string, shape: number[], next: () => number): Tensor => {
    const checked = checkShape(op, shape);
    return tensor(Float64Array.from({ length: numelOf(checked) }, next), { shape: checked });
  };
  return {
    rand: (...shape) => draw('rand', shape, () => state.uniform()),
    randn: (...shape) => draw('randn', shape, () => state.normal()),
  };
}

const WORDS = 624;
const MIDDLE = 397;

class RandomState {
  readonly #words = new Uint32Array(WORDS);
  #used = WORDS;
  /** The second number of a pair, until it is asked for. */
  #spare: number | null = null;

  constructor(seed: number) {
    const words = this.#words;
    words[0] = seed;
    for (let i = 1; i < WORDS; i++) {
      const before = words[i - 1]!;
      words[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
    }
  }

  uniform(): number {
    const high = this.#word() >>> 5;
    const low = this.#word() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  normal(): number {
    if (this.#spare !== null) {
      const spare = this.#spare;
      this.#spare = null;
      return spare;
    }
    // A point in the unit disc, without its centre.
    let x: number;
    let y: number;
    let square: number;
    do {
      x = 2 * this.uniform() - 1;
      y = 2 * this.uniform() - 1;
      square = x * x + y * y;
    } while (square >= 1 || square === 0);
    const factor = Math.sqrt((-2 * log(square)) / square);
    this.#spare = factor * x;
    return factor * y;
  }

  #word(): number {
    if (this.#used === WORDS) this.#twist();
    let y = this.#words[this.#used++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return y ^ (y >>> 18);
  }

  #twist(): void {
    const words = this.#words;
    for (let i = 0; i < WORDS; i++) {
      const y = (words[i]! & 0x80000000) | (words[(i + 1) % WORDS]! & 0x7fffffff);
      words[i] = words[(i + MIDDLE) % WORDS]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#used = 0;
  }
}
