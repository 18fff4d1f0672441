// Adam, and AdamW with decoupled weight decay. Layer optim: the arithmetic is the native command of adamStep_.
import { checkRange } from '../arguments.ts';
import { ArgumentError } from '../errors.ts';
import { adamStep_, type Clip, type Count } from '../ops/optimizer.ts';
import { describe } from '../shape.ts';
import { type Given, Optimizer, type Params, type UpdateItem } from './optimizer.ts';

export interface AdamOptions {
  lr: number;
  betas: readonly [number, number];
  eps: number;
  weightDecay: number;
  amsgrad: boolean;
  maximize: boolean;
}

const DEFAULTS: AdamOptions = {
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0,
  amsgrad: false,
  maximize: false,
};

abstract class AdamBase extends Optimizer<AdamOptions> {
  protected abstract readonly decoupled: boolean;

  protected override checkGroup({ lr, betas, eps, weightDecay }: AdamOptions): void {
    const name = this.constructor.name;
    checkRange(name, 'lr', lr);
    checkRange(name, 'eps', eps);
    checkRange(name, 'weightDecay', weightDecay);
    if (!Array.isArray(betas) || betas.length !== 2 || !betas.every((beta) => beta >= 0 && beta < 1)) {
      throw new ArgumentError(
        `${name}: betas are ${Array.isArray(betas) ? `[${betas}]` : describe(betas)}. Expected two numbers in [0, 1).`,
      );
    }
  }

  protected override stateNames({ amsgrad }: AdamOptions): readonly string[] {
    return amsgrad ? ['expAvg', 'expAvgSq', 'maxExpAvgSq'] : ['expAvg', 'expAvgSq'];
  }

  protected override update(items: UpdateItem[], options: AdamOptions, count: Count, clip: Clip | null): void {
    adamStep_(items, options, count, clip, this.decoupled);
  }
}

/** Weight decay is added to the gradient. */
export class Adam extends AdamBase {
  protected override readonly decoupled = false;

  constructor(params: Params<AdamOptions>, options: Given<AdamOptions> = {}) {
    super(params, options, DEFAULTS);
  }
}

/** Weight decay shrinks the parameter itself by lr·weightDecay, 0.01 unless told otherwise. */
export class AdamW extends AdamBase {
  protected override readonly decoupled = true;

  constructor(params: Params<AdamOptions>, options: Given<AdamOptions> = {}) {
    super(params, options, { ...DEFAULTS, weightDecay: 0.01 });
  }
}
