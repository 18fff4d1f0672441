// Turns a function of one or two tensors into a class of modules. Layer nn.
import type { Tensor } from '../tensor.ts';
import { Module } from './module.ts';

export class FunctionModule<Inputs extends unknown[], Args extends unknown[]> extends Module<Inputs> {
  readonly fn: (...inputsAndArgs: [...Inputs, ...Args]) => Tensor;
  readonly args: Args;

  constructor(fn: (...inputsAndArgs: [...Inputs, ...Args]) => Tensor, args: Args) {
    super();
    this.fn = fn;
    this.args = args;
  }

  override forward(...inputs: Inputs): Tensor {
    return this.fn(...inputs, ...this.args);
  }
}

/** `new (...args)` gives a module whose forward is the function, with `args` after the inputs. */
export type FunctionModuleClass<Inputs extends unknown[], Args extends unknown[]> = new (
  ...args: Args
) => FunctionModule<Inputs, Args>;

export function unaryModule<Args extends unknown[]>(
  fn: (input: Tensor, ...args: Args) => Tensor,
): FunctionModuleClass<[input: Tensor], Args> {
  return class extends FunctionModule<[input: Tensor], Args> {
    constructor(...args: Args) {
      super(fn, args);
    }
  };
}

export function binaryModule<Args extends unknown[]>(
  fn: (input: Tensor, target: Tensor, ...args: Args) => Tensor,
): FunctionModuleClass<[input: Tensor, target: Tensor], Args> {
  return class extends FunctionModule<[input: Tensor, target: Tensor], Args> {
    constructor(...args: Args) {
      super(fn, args);
    }
  };
}
