// OneCycleLR: one rise and fall of the rate over a whole training, momentum the other way round. Layer optim.
import { checkRange } from '../arguments.ts';
import { ArgumentError } from '../errors.ts';
import { checkInteger, describe } from '../shape.ts';
import { type Given, LRScheduler, type Scheduled, type ScheduledGroup } from './scheduler.ts';

/** Where there may be several values, they are one per parameter group. */
export interface OneCycleLROptions {
  maxLr: number | readonly number[];
  /** Batches of the training: one step() each. */
  totalSteps: number;
  /** The part of them that the rise takes. */
  pctStart: number;
  annealStrategy: 'cos' | 'linear';
  /** The rate starts at maxLr / divFactor and ends at that / finalDivFactor. */
  divFactor: number;
  finalDivFactor: number;
  /** Moves `momentum`, or the first of `betas`, from maxMomentum to baseMomentum while the rate rises, and back. */
  cycleMomentum: boolean;
  baseMomentum: number | readonly number[];
  maxMomentum: number | readonly number[];
  /** Falls as fast as it rose, and to the end in a third phase. */
  threePhase: boolean;
}

const DEFAULTS = {
  maxLr: undefined,
  totalSteps: undefined,
  pctStart: 0.3,
  annealStrategy: 'cos',
  divFactor: 25,
  finalDivFactor: 1e4,
  cycleMomentum: true,
  baseMomentum: 0.85,
  maxMomentum: 0.95,
  threePhase: false,
} as const;

/** The momentum of a group, under either of its names. */
type Momentum = ScheduledGroup & { momentum?: number; betas?: readonly [number, number] };

/** One phase ends at step `end`, fractions included. Rates and momenta are named by what they are in the cycle. */
interface Phase {
  end: number;
  lr: readonly [from: Rate, to: Rate];
  momentum: readonly [from: Extreme, to: Extreme];
}
type Rate = 'initial' | 'max' | 'min';
type Extreme = 'max' | 'base';

const of = (value: number | readonly number[], index: number): number =>
  typeof value === 'number' ? value : value[index]!;

/** Takes the rate from maxLr / divFactor up to maxLr and down to next to nothing. One step() per batch. */
export class OneCycleLR extends LRScheduler<OneCycleLROptions> {
  constructor(optimizer: Scheduled, options: Given<OneCycleLROptions, 'maxLr' | 'totalSteps'>) {
    super(optimizer, options, DEFAULTS);
  }

  protected override check(options: OneCycleLROptions): void {
    const { annealStrategy, baseMomentum, maxMomentum } = options;
    this.perGroup('maxLr', options.maxLr, (lr) => void checkRange('OneCycleLR', 'maxLr', lr));
    checkInteger('OneCycleLR', 'totalSteps', options.totalSteps, 1);
    checkRange('OneCycleLR', 'pctStart', options.pctStart, 0, 1);
    checkRange('OneCycleLR', 'divFactor', options.divFactor, Number.MIN_VALUE);
    checkRange('OneCycleLR', 'finalDivFactor', options.finalDivFactor, Number.MIN_VALUE);
    if (annealStrategy !== 'cos' && annealStrategy !== 'linear') {
      throw new ArgumentError(`OneCycleLR: annealStrategy is ${describe(annealStrategy)}. Expected 'cos' or 'linear'.`);
    }
    if (!options.cycleMomentum) return;
    for (const [what, values] of Object.entries({ baseMomentum, maxMomentum })) {
      this.perGroup(what, values, (momentum) => {
        // 1 as the first of betas would divide by zero.
        if (checkRange('OneCycleLR', what, momentum, 0, 1) === 1) {
          throw new ArgumentError(`OneCycleLR: ${what} is 1. Expected less.`);
        }
      });
    }
    for (const group of this.optimizer.paramGroups as Momentum[]) {
      if (group.momentum !== undefined || group.betas !== undefined) continue;
      const { name } = this.optimizer.constructor;
      throw new ArgumentError(`OneCycleLR: ${name} has no momentum to cycle. Pass { cycleMomentum: false }.`);
    }
  }

  protected override start(): void {
    for (const [i, group] of this.optimizer.paramGroups.entries()) {
      group.initialLr = of(this.options.maxLr, i) / this.options.divFactor;
    }
  }

  /** @throws ArgumentError after totalSteps steps */
  override step(): void {
    const { totalSteps } = this.options;
    if (this.lastEpoch >= totalSteps) {
      throw new ArgumentError(`OneCycleLR: step ${this.lastEpoch + 1} of ${totalSteps}. Make it with more totalSteps.`);
    }
    super.step();
  }

  protected override rate(group: ScheduledGroup, i: number): number {
    const { maxLr, divFactor, finalDivFactor, annealStrategy, cycleMomentum, maxMomentum, baseMomentum } = this.options;
    const initial = of(maxLr, i) / divFactor;
    const rates = { initial, max: of(maxLr, i), min: initial / finalDivFactor };
    const { phase, part } = position(this.lastEpoch, this.options);
    if (cycleMomentum) {
      const [from, to] = phase.momentum;
      const momenta = { max: of(maxMomentum, i), base: of(baseMomentum, i) };
      setMomentum(group, anneal(momenta[from], momenta[to], part, annealStrategy));
    }
    return anneal(rates[phase.lr[0]], rates[phase.lr[1]], part, annealStrategy);
  }
}

/**
 * The phase that a step lies in, and how much of it is over. A phase that takes no time is over at once; the
 * last one lasts, for loops call step() after their last batch, too, where the formula would go below zero.
 */
function position(step: number, options: OneCycleLROptions): { phase: Phase; part: number } {
  const { pctStart, totalSteps, threePhase } = options;
  const rise: Phase = { end: pctStart * totalSteps - 1, lr: ['initial', 'max'], momentum: ['max', 'base'] };
  const fall: Phase = { end: 2 * pctStart * totalSteps - 2, lr: ['max', 'initial'], momentum: ['base', 'max'] };
  const last: Phase = threePhase
    ? { end: totalSteps - 1, lr: ['initial', 'min'], momentum: ['max', 'max'] }
    : { end: totalSteps - 1, lr: ['max', 'min'], momentum: ['base', 'max'] };
  let begin = 0;
  let phase = last;
  for (const earlier of threePhase ? [rise, fall] : [rise]) {
    if (step <= earlier.end) {
      phase = earlier;
      break;
    }
    begin = earlier.end;
  }
  const length = phase.end - begin;
  return { phase, part: length === 0 ? 1 : Math.min(1, (step - begin) / length) };
}

function anneal(from: number, to: number, part: number, strategy: OneCycleLROptions['annealStrategy']): number {
  if (strategy === 'linear') return (to - from) * part + from;
  return to + ((from - to) / 2) * (1 + Math.cos(Math.PI * part));
}

function setMomentum(group: Momentum, momentum: number): void {
  if (group.betas === undefined) group.momentum = momentum;
  else group.betas = [momentum, group.betas[1]];
}
