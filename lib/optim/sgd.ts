// SGD with momentum, Nesterov's too. Layer optim: the arithmetic is the native command of sgdStep_.
import { checkRange } from '../arguments.ts';
import { ArgumentError } from '../errors.ts';
import { type Clip, type Count, sgdStep_ } from '../ops/optimizer.ts';
import { type Given, Optimizer, type Params, type UpdateItem } from './optimizer.ts';

export interface SGDOptions {
  lr: number;
  momentum: number;
  dampening: number;
  weightDecay: number;
  nesterov: boolean;
  maximize: boolean;
}

const DEFAULTS: SGDOptions = { lr: 0.01, momentum: 0, dampening: 0, weightDecay: 0, nesterov: false, maximize: false };

export class SGD extends Optimizer<SGDOptions> {
  constructor(params: Params<SGDOptions>, options: Given<SGDOptions> = {}) {
    super(params, options, DEFAULTS);
  }

  protected override checkGroup({ lr, momentum, dampening, weightDecay, nesterov }: SGDOptions): void {
    checkRange('SGD', 'lr', lr);
    checkRange('SGD', 'momentum', momentum);
    checkRange('SGD', 'dampening', dampening, -Number.MAX_VALUE);
    checkRange('SGD', 'weightDecay', weightDecay);
    if (nesterov && (momentum === 0 || dampening !== 0)) {
      throw new ArgumentError(`SGD: nesterov with momentum ${momentum}, dampening ${dampening}. Expected > 0 and 0.`);
    }
  }

  protected override stateNames({ momentum }: SGDOptions): readonly string[] {
    return momentum === 0 ? [] : ['momentumBuffer'];
  }

  protected override update(items: UpdateItem[], options: SGDOptions, count: Count, clip: Clip | null): void {
    sgdStep_(items, options, count, clip);
  }
}
