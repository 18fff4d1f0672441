// Adagrad. Layer optim: the arithmetic is the native command of adagradStep_.
import { checkRange } from '../arguments.ts';
import { adagradStep_, type Clip, type Count } from '../ops/optimizer.ts';
import { type Given, Optimizer, type Params, type UpdateItem } from './optimizer.ts';

export interface AdagradOptions {
  lr: number;
  /** Step t, counted from 0, has the rate lr / (1 + t·lrDecay). */
  lrDecay: number;
  weightDecay: number;
  /** What the sums of squares start as, when a parameter has its first gradient. */
  initialAccumulatorValue: number;
  eps: number;
  maximize: boolean;
}

const DEFAULTS: AdagradOptions = {
  lr: 0.01,
  lrDecay: 0,
  weightDecay: 0,
  initialAccumulatorValue: 0,
  eps: 1e-10,
  maximize: false,
};

/** Divides each gradient by the root of the sum of all its squares so far. torch.optim.Adagrad */
export class Adagrad extends Optimizer<AdagradOptions> {
  constructor(params: Params<AdagradOptions>, options: Given<AdagradOptions> = {}) {
    super(params, options, DEFAULTS);
  }

  protected override checkGroup(options: AdagradOptions): void {
    checkRange('Adagrad', 'lr', options.lr);
    checkRange('Adagrad', 'lrDecay', options.lrDecay);
    checkRange('Adagrad', 'weightDecay', options.weightDecay);
    checkRange('Adagrad', 'initialAccumulatorValue', options.initialAccumulatorValue);
    checkRange('Adagrad', 'eps', options.eps);
  }

  protected override stateNames(): readonly string[] {
    return ['sum'];
  }

  protected override initialState({ initialAccumulatorValue }: AdagradOptions): number {
    return initialAccumulatorValue;
  }

  protected override update(items: UpdateItem[], options: AdagradOptions, count: Count, clip: Clip | null): void {
    adagradStep_(items, options, count, clip);
  }
}
