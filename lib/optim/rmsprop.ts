// RMSprop, with momentum and centered too. Layer optim: the arithmetic is the native command of rmspropStep_.
import { checkRange } from '../arguments.ts';
import { type Clip, type Count, rmspropStep_ } from '../ops/optimizer.ts';
import { type Given, Optimizer, type Params, type UpdateItem } from './optimizer.ts';

export interface RMSpropOptions {
  lr: number;
  /** How much of the averages of squares and gradients each step keeps. */
  alpha: number;
  eps: number;
  weightDecay: number;
  momentum: number;
  /** Divides by the standard deviation of the gradient instead of its root mean square. */
  centered: boolean;
  maximize: boolean;
}

const DEFAULTS: RMSpropOptions = {
  lr: 0.01,
  alpha: 0.99,
  eps: 1e-8,
  weightDecay: 0,
  momentum: 0,
  centered: false,
  maximize: false,
};

/** Divides each gradient by a running root mean square of those before it. torch.optim.RMSprop */
export class RMSprop extends Optimizer<RMSpropOptions> {
  constructor(params: Params<RMSpropOptions>, options: Given<RMSpropOptions> = {}) {
    super(params, options, DEFAULTS);
  }

  protected override checkGroup({ lr, alpha, eps, weightDecay, momentum }: RMSpropOptions): void {
    checkRange('RMSprop', 'lr', lr);
    checkRange('RMSprop', 'alpha', alpha, 0, 1);
    checkRange('RMSprop', 'eps', eps);
    checkRange('RMSprop', 'weightDecay', weightDecay);
    checkRange('RMSprop', 'momentum', momentum);
  }

  protected override stateNames({ momentum, centered }: RMSpropOptions): readonly string[] {
    return ['squareAvg', ...(centered ? ['gradAvg'] : []), ...(momentum === 0 ? [] : ['momentumBuffer'])];
  }

  protected override update(items: UpdateItem[], options: RMSpropOptions, _count: Count, clip: Clip | null): void {
    rmspropStep_(items, options, clip);
  }
}
