// ReduceLROnPlateau: reduces the rate when a metric has stopped improving. Layer optim.
import { checkRange } from '../arguments.ts';
import { ArgumentError } from '../errors.ts';
import { checkInteger, describe } from '../shape.ts';
import { Tensor } from '../tensor.ts';
import { type Scheduled, Scheduler, type SchedulerState } from './scheduler.ts';

export interface ReduceLROnPlateauOptions {
  /** Whether the metric shall become small or large. */
  mode: 'min' | 'max';
  factor: number;
  /** Epochs without improvement that are let pass. */
  patience: number;
  /** What counts as an improvement: by this part of the best ('rel'), or by this much ('abs'). */
  threshold: number;
  thresholdMode: 'rel' | 'abs';
  /** Epochs after a reduction in which nothing is counted. */
  cooldown: number;
  /** Lower bound, for all groups or for each. */
  minLr: number | readonly number[];
  /** A change of the rate that is not larger is not made. */
  eps: number;
}

export interface ReduceLROnPlateauState extends SchedulerState<ReduceLROnPlateauOptions> {
  /** Null before the first metric that is one. */
  best: number | null;
  badEpochs: number;
  cooldownLeft: number;
}

const DEFAULTS: ReduceLROnPlateauOptions = {
  mode: 'min',
  factor: 0.1,
  patience: 10,
  threshold: 1e-4,
  thresholdMode: 'rel',
  cooldown: 0,
  minLr: 0,
  eps: 1e-8,
};

/** Multiplies the rate by `factor` after more than `patience` epochs in which the metric did not improve. */
export class ReduceLROnPlateau extends Scheduler<ReduceLROnPlateauOptions> {
  #best: number | null = null;
  #badEpochs = 0;
  #cooldownLeft = 0;

  constructor(optimizer: Scheduled, options: Partial<ReduceLROnPlateauOptions> = {}) {
    super(optimizer, options, DEFAULTS);
    this.noteRates();
  }

  protected override check(options: ReduceLROnPlateauOptions): void {
    const name = 'ReduceLROnPlateau';
    const { mode, thresholdMode, factor } = options;
    if (mode !== 'min' && mode !== 'max') {
      throw new ArgumentError(`${name}: mode is ${describe(mode)}. Expected 'min' or 'max'.`);
    }
    if (thresholdMode !== 'rel' && thresholdMode !== 'abs') {
      throw new ArgumentError(`${name}: thresholdMode is ${describe(thresholdMode)}. Expected 'rel' or 'abs'.`);
    }
    if (checkRange(name, 'factor', factor, 0, 1) === 1) {
      throw new ArgumentError(`${name}: factor is 1. Expected less, or nothing is reduced.`);
    }
    checkInteger(name, 'patience', options.patience, 0);
    checkRange(name, 'threshold', options.threshold);
    checkInteger(name, 'cooldown', options.cooldown, 0);
    this.perGroup('minLr', options.minLr, (lr) => void checkRange(name, 'minLr', lr));
    checkRange(name, 'eps', options.eps);
  }

  /** After each epoch, with what was measured: a number, or a tensor of one. NaN is no improvement. */
  step(metric: number | Tensor): void {
    const value = metric instanceof Tensor ? Number(metric.item()) : metric;
    if (typeof value !== 'number') {
      throw new ArgumentError(`ReduceLROnPlateau: step: the metric is ${describe(value)}. Expected a number.`);
    }
    this.lastEpoch++;
    if (this.#improves(value)) {
      this.#best = value;
      this.#badEpochs = 0;
    } else {
      this.#badEpochs++;
    }
    if (this.#cooldownLeft > 0) {
      this.#cooldownLeft--;
      this.#badEpochs = 0;
    }
    if (this.#badEpochs > this.options.patience) {
      this.#reduce();
      this.#cooldownLeft = this.options.cooldown;
      this.#badEpochs = 0;
    }
    this.noteRates();
  }

  override stateDict(): ReduceLROnPlateauState {
    const [best, badEpochs, cooldownLeft] = [this.#best, this.#badEpochs, this.#cooldownLeft];
    return { ...super.stateDict(), best, badEpochs, cooldownLeft };
  }

  override loadStateDict(state: ReduceLROnPlateauState): void {
    const name = 'ReduceLROnPlateau: loadStateDict';
    if (state.best !== null && typeof state.best !== 'number') {
      throw new ArgumentError(`${name}: best is ${describe(state.best)}. Expected a number or null.`);
    }
    const badEpochs = checkInteger(name, 'badEpochs', state.badEpochs, 0);
    const cooldownLeft = checkInteger(name, 'cooldownLeft', state.cooldownLeft, 0);
    super.loadStateDict(state);
    this.#best = state.best;
    this.#badEpochs = badEpochs;
    this.#cooldownLeft = cooldownLeft;
  }

  #improves(value: number): boolean {
    const { mode, threshold, thresholdMode } = this.options;
    const sign = mode === 'min' ? -1 : 1;
    const best = this.#best ?? -sign * Infinity;
    const bound = thresholdMode === 'rel' ? best * (1 + sign * threshold) : best + sign * threshold;
    return mode === 'min' ? value < bound : value > bound;
  }

  #reduce(): void {
    const { factor, minLr, eps } = this.options;
    for (const [i, group] of this.optimizer.paramGroups.entries()) {
      const least = typeof minLr === 'number' ? minLr : minLr[i]!;
      const lr = Math.max(group.lr * factor, least);
      if (group.lr - lr > eps) group.lr = lr;
    }
  }
}
