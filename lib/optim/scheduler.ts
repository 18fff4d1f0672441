// What learning-rate schedulers share: their options, state, and the loop over parameter groups. Layer optim.
import { checkOptions, checkRange } from '../arguments.ts';
import { ArgumentError } from '../errors.ts';
import { checkInteger, describe } from '../shape.ts';
import { Optimizer, type ParamGroup } from './optimizer.ts';

/** Any optimizer whose groups have a rate. */
export type Scheduled = Optimizer<{ lr: number }>;
export type ScheduledGroup = ParamGroup<{ lr: number }>;

/** Plain data: numbers, arrays, options. */
export interface SchedulerState<Options> {
  /** How often step() was called. */
  lastEpoch: number;
  lastLr: number[];
  options: Options;
}

/** Options, where undefined stands for one that has to be given. */
type Defaults<Options> = { [K in keyof Options]: Options[K] | undefined };
/** What a constructor takes: options with a default may be left out. */
export type Given<Options, Needed extends keyof Options> = Partial<Options> & Pick<Options, Needed>;

export abstract class Scheduler<Options extends object> {
  readonly optimizer: Scheduled;
  protected options: Options;
  protected lastEpoch = 0;
  readonly #known: object;
  #lastLr: number[] = [];

  constructor(optimizer: Scheduled, options: Partial<Options>, defaults: Defaults<Options>) {
    const name = this.constructor.name;
    if (!(optimizer instanceof Optimizer)) {
      throw new ArgumentError(`${name}: the optimizer is ${describe(optimizer)}. Expected an Optimizer.`);
    }
    for (const [i, { lr }] of optimizer.paramGroups.entries()) checkRange(name, `lr of parameter group ${i}`, lr);
    checkOptions(name, options, defaults);
    this.optimizer = optimizer;
    this.#known = defaults;
    const given = { ...defaults, ...options } as Options;
    this.check(given);
    this.options = structuredClone(given);
  }

  /** Throws ArgumentError for an option outside its range. */
  protected abstract check(options: Options): void;

  /** The rate of every parameter group, as the last step left it. */
  getLastLr(): number[] {
    return [...this.#lastLr];
  }

  /** The rates themselves are the optimizer's: save and load its state, too. */
  stateDict(): SchedulerState<Options> {
    return { lastEpoch: this.lastEpoch, lastLr: this.getLastLr(), options: structuredClone(this.options) };
  }

  /** @throws ArgumentError for a state that is not of such a scheduler; it then keeps its own */
  loadStateDict({ lastEpoch, lastLr, options }: SchedulerState<Options>): void {
    const name = `${this.constructor.name}: loadStateDict`;
    const epoch = checkInteger(name, 'lastEpoch', lastEpoch, 0);
    const groups = this.optimizer.paramGroups.length;
    if (!Array.isArray(lastLr) || lastLr.length !== groups) {
      throw new ArgumentError(`${name}: lastLr is ${describe(lastLr)}. Expected an array of ${groups}.`);
    }
    for (const lr of lastLr) checkRange(name, 'an entry of lastLr', lr);
    checkOptions(name, options, this.#known);
    this.check(options);
    this.options = structuredClone(options);
    this.lastEpoch = epoch;
    this.#lastLr = [...lastLr];
  }

  protected noteRates(): void {
    this.#lastLr = this.optimizer.paramGroups.map(({ lr }) => lr);
  }

  /** One value per parameter group, given as an array of them or as one for all. */
  protected perGroup(what: string, value: number | readonly number[], check: (v: number) => void): readonly number[] {
    const groups = this.optimizer.paramGroups.length;
    const values = Array.isArray(value)
      ? (value as readonly number[])
      : new Array<number>(groups).fill(value as number);
    if (values.length !== groups) {
      throw new ArgumentError(
        `${this.constructor.name}: ${what} has ${values.length} values. Expected one for each of ${groups} parameter groups.`,
      );
    }
    values.forEach(check);
    return values;
  }
}

/** Sets the rate of every parameter group, when it is made and at each `step()`: call that after the optimizer's. */
export abstract class LRScheduler<Options extends object> extends Scheduler<Options> {
  constructor(optimizer: Scheduled, options: Partial<Options>, defaults: Defaults<Options>) {
    super(optimizer, options, defaults);
    this.start();
    this.#apply();
  }

  /** Prepares the groups. `initialLr` stays what the first scheduler found. */
  protected start(): void {
    for (const group of this.optimizer.paramGroups) group.initialLr ??= group.lr;
  }

  /** The rate of a group at `lastEpoch`. Its `lr` is still the rate before. */
  protected abstract rate(group: ScheduledGroup, index: number): number;

  /** Once per epoch (OneCycleLR: per batch), after the optimizer's step. */
  step(): void {
    this.lastEpoch++;
    this.#apply();
  }

  #apply(): void {
    for (const [i, group] of this.optimizer.paramGroups.entries()) {
      group.initialLr ??= group.lr;
      group.lr = this.rate(group, i);
    }
    this.noteRates();
  }
}
