// Generators of random numbers: the state of a counter-based Philox 4x32-10 stream. The kernels draw from it.
// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
import { F64 } from './dtype.ts';
import { ArgumentError } from './errors.ts';
import { capturing } from './program/recorder.ts';
import { checkInteger, describe } from './shape.ts';

export interface GeneratorState {
  seed: bigint;
  /** Blocks of four 32-bit words that were drawn. */
  counter: bigint;
}

const MASK = (1n << 64n) - 1n;

/** A stream of random numbers that depends on its seed alone: not on threads, nor on what else is drawn elsewhere. */
export class Generator {
  #seed: bigint;
  #counter = 0n;

  /** @throws ArgumentError unless seed is a whole number */
  constructor(seed: number | bigint = 0) {
    this.#seed = toKey('Generator', seed);
    this.#setState(this.stateDict());
  }

  /** Starts the stream of another seed. */
  manualSeed(seed: number | bigint): this {
    this.#setState({ seed: toKey('manualSeed', seed), counter: 0n });
    return this;
  }

  /** Everything needed to continue the stream later. */
  stateDict(): GeneratorState {
    return { seed: this.#seed, counter: this.#counter };
  }

  loadStateDict(state: GeneratorState): void {
    if (typeof state?.seed !== 'bigint' || typeof state.counter !== 'bigint') {
      throw new ArgumentError(
        'Generator.loadStateDict: expected { seed, counter }, both bigint, as stateDict() gives.',
      );
    }
    this.#setState({ seed: state.seed & MASK, counter: state.counter & MASK });
  }

  /** @internal how to come back to where the stream is now; in a compiled function, to where it is in each run */
  bookmark(): () => void {
    let state = this.stateDict();
    capturing()?.repeat(() => {
      state = this.stateDict();
    });
    const back = (): void => this.#goTo(state);
    return () => {
      back();
      capturing()?.repeat(back);
    };
  }

  #goTo({ seed, counter }: GeneratorState): void {
    this.#seed = seed;
    this.#counter = counter;
  }

  /** In a compiled function, in each run. */
  #setState(state: GeneratorState): void {
    const before = this.stateDict();
    this.#goTo(state);
    capturing()?.repeat(() => this.#goTo(state));
    capturing()?.onFailure(() => this.#goTo(before));
  }

  /** @internal takes what n elements of a dtype use up: four words a block, two words an element of float64 */
  take(n: number, code: number): GeneratorState {
    const taken = this.stateDict();
    drawObserver?.(this);
    capturing()?.onFailure(() => this.#goTo(taken));
    this.#counter = (this.#counter + BigInt(Math.ceil(n / (code === F64 ? 2 : 4)))) & MASK;
    return taken;
  }
}

let drawObserver: ((generator: Generator) => void) | null = null;

/** Runs fn, telling the observer of every generator that numbers are drawn from, before they are. */
export function observeDraws<T>(observer: (generator: Generator) => void, fn: () => T): T {
  const outer = drawObserver;
  drawObserver = (generator) => {
    outer?.(generator);
    observer(generator);
  };
  try {
    return fn();
  } finally {
    drawObserver = outer;
  }
}

const toKey = (op: string, seed: number | bigint): bigint =>
  BigInt(typeof seed === 'bigint' ? seed : checkInteger(op, 'the seed', seed)) & MASK;

// Unseeded programs differ from run to run, as in PyTorch.
const fallback = new Generator(BigInt(Date.now()) * 1_000_003n + BigInt(process.pid));

/** The generator that is used where none is given. */
export const defaultGenerator = (): Generator => fallback;

/** Seeds the default generator. torch.manual_seed */
export const manualSeed = (seed: number | bigint): Generator => fallback.manualSeed(seed);

/** @throws ArgumentError unless it is absent or a Generator */
export function generatorOf(op: string, options: { generator?: Generator | undefined }): Generator {
  const generator = options?.generator ?? fallback;
  if (!(generator instanceof Generator)) {
    throw new ArgumentError(`${op}: generator is ${describe(generator)}. Expected a Generator.`);
  }
  return generator;
}
