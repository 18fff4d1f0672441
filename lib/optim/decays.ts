// Schedulers of one formula each. Layer optim. As in PyTorch a rate is computed from the rate before, so that a change
// made from outside, or by another scheduler, stays in force.
import { checkRange } from '../arguments.ts';
import { ArgumentError } from '../errors.ts';
import { checkInteger, describe } from '../shape.ts';
import { type Given, LRScheduler, type Scheduled, type ScheduledGroup } from './scheduler.ts';

export interface StepLROptions {
  stepSize: number;
  gamma: number;
}

/** Multiplies the rate by gamma, 0.1 unless told, every `stepSize` epochs. */
export class StepLR extends LRScheduler<StepLROptions> {
  constructor(optimizer: Scheduled, options: Given<StepLROptions, 'stepSize'>) {
    super(optimizer, options, { stepSize: undefined, gamma: 0.1 });
  }

  protected override check({ stepSize, gamma }: StepLROptions): void {
    checkInteger('StepLR', 'stepSize', stepSize, 1);
    checkRange('StepLR', 'gamma', gamma);
  }

  protected override rate({ lr }: ScheduledGroup): number {
    const { stepSize, gamma } = this.options;
    return this.lastEpoch > 0 && this.lastEpoch % stepSize === 0 ? lr * gamma : lr;
  }
}

export interface MultiStepLROptions {
  milestones: readonly number[];
  gamma: number;
}

/** Multiplies the rate by gamma, 0.1 unless told, at each of the epochs `milestones`; twice at one named twice. */
export class MultiStepLR extends LRScheduler<MultiStepLROptions> {
  constructor(optimizer: Scheduled, options: Given<MultiStepLROptions, 'milestones'>) {
    super(optimizer, options, { milestones: undefined, gamma: 0.1 });
  }

  protected override check({ milestones, gamma }: MultiStepLROptions): void {
    if (!Array.isArray(milestones)) {
      throw new ArgumentError(`MultiStepLR: milestones is ${describe(milestones)}. Expected an array of epochs.`);
    }
    for (const epoch of milestones) checkInteger('MultiStepLR', 'a milestone', epoch, 0);
    checkRange('MultiStepLR', 'gamma', gamma);
  }

  protected override rate({ lr }: ScheduledGroup): number {
    const { milestones, gamma } = this.options;
    return lr * gamma ** milestones.filter((epoch) => epoch === this.lastEpoch).length;
  }
}

export interface ExponentialLROptions {
  gamma: number;
}

/** Multiplies the rate by gamma every epoch. */
export class ExponentialLR extends LRScheduler<ExponentialLROptions> {
  constructor(optimizer: Scheduled, options: ExponentialLROptions) {
    super(optimizer, options, { gamma: undefined });
  }

  protected override check({ gamma }: ExponentialLROptions): void {
    checkRange('ExponentialLR', 'gamma', gamma);
  }

  protected override rate({ lr }: ScheduledGroup): number {
    return this.lastEpoch === 0 ? lr : lr * this.options.gamma;
  }
}

export interface CosineAnnealingLROptions {
  /** Epochs from the first rate down to `etaMin`. */
  tMax: number;
  etaMin: number;
}

/** From the initial rate down to `etaMin`, 0 unless told, along half a cosine of `tMax` epochs, and up again. */
export class CosineAnnealingLR extends LRScheduler<CosineAnnealingLROptions> {
  constructor(optimizer: Scheduled, options: Given<CosineAnnealingLROptions, 'tMax'>) {
    super(optimizer, options, { tMax: undefined, etaMin: 0 });
  }

  protected override check({ tMax, etaMin }: CosineAnnealingLROptions): void {
    checkInteger('CosineAnnealingLR', 'tMax', tMax, 1);
    checkRange('CosineAnnealingLR', 'etaMin', etaMin);
  }

  protected override rate({ lr, initialLr }: ScheduledGroup): number {
    const { tMax, etaMin } = this.options;
    const epoch = this.lastEpoch;
    if (epoch === 0) return lr;
    // From the bottom no factor leads up again.
    if ((epoch - 1 - tMax) % (2 * tMax) === 0) return lr + ((initialLr! - etaMin) * (1 - Math.cos(Math.PI / tMax))) / 2;
    const height = (at: number): number => 1 + Math.cos((Math.PI * at) / tMax);
    return (height(epoch) / height(epoch - 1)) * (lr - etaMin) + etaMin;
  }
}

export interface LinearLROptions {
  startFactor: number;
  endFactor: number;
  totalIters: number;
}

/** Warms up: the rate times a factor that goes from `startFactor` (1/3) to `endFactor` (1) in `totalIters` (5) epochs. */
export class LinearLR extends LRScheduler<LinearLROptions> {
  constructor(optimizer: Scheduled, options: Partial<LinearLROptions> = {}) {
    super(optimizer, options, { startFactor: 1 / 3, endFactor: 1, totalIters: 5 });
  }

  protected override check({ startFactor, endFactor, totalIters }: LinearLROptions): void {
    // Each factor is a multiple of the one before: 0 leads nowhere.
    checkRange('LinearLR', 'startFactor', startFactor, Number.MIN_VALUE, 1);
    checkRange('LinearLR', 'endFactor', endFactor, 0, 1);
    checkInteger('LinearLR', 'totalIters', totalIters, 1);
  }

  protected override rate({ lr }: ScheduledGroup): number {
    const { startFactor, endFactor, totalIters } = this.options;
    const epoch = this.lastEpoch;
    if (epoch === 0) return lr * startFactor;
    if (epoch > totalIters) return lr;
    const slope = endFactor - startFactor;
    return lr * (1 + slope / (totalIters * startFactor + (epoch - 1) * slope));
  }
}
