// Adadelta. Layer optim: the arithmetic is the native command of adadeltaStep_.
import { checkRange } from '../arguments.ts';
import { adadeltaStep_, type Clip, type Count } from '../ops/optimizer.ts';
import { type Given, Optimizer, type Params, type UpdateItem } from './optimizer.ts';

export interface AdadeltaOptions {
  /** Factor on the step that the averages give. */
  lr: number;
  /** How much of both averages each step keeps. */
  rho: number;
  eps: number;
  weightDecay: number;
  maximize: boolean;
}

const DEFAULTS: AdadeltaOptions = { lr: 1, rho: 0.9, eps: 1e-6, weightDecay: 0, maximize: false };

/** Scales each gradient by the ratio of two running root mean squares: of past steps and of gradients. torch.optim.Adadelta */
export class Adadelta extends Optimizer<AdadeltaOptions> {
  constructor(params: Params<AdadeltaOptions>, options: Given<AdadeltaOptions> = {}) {
    super(params, options, DEFAULTS);
  }

  protected override checkGroup({ lr, rho, eps, weightDecay }: AdadeltaOptions): void {
    checkRange('Adadelta', 'lr', lr);
    checkRange('Adadelta', 'rho', rho, 0, 1);
    checkRange('Adadelta', 'eps', eps);
    checkRange('Adadelta', 'weightDecay', weightDecay);
  }

  protected override stateNames(): readonly string[] {
    return ['squareAvg', 'accDelta'];
  }

  protected override update(items: UpdateItem[], options: AdadeltaOptions, _count: Count, clip: Clip | null): void {
    adadeltaStep_(items, options, clip);
  }
}
