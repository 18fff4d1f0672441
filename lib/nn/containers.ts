// Sequential and ModuleList: modules under the names 0, 1, 2, … Layer nn.
import type { Tensor } from '../tensor.ts';
import { type AnyModule, Module } from './module.ts';

abstract class NumberedModules<M extends AnyModule, Inputs extends unknown[], Output> extends Module<Inputs, Output> {
  [index: number]: M;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  append(module: M): this {
    this[this.#length++] = module;
    return this;
  }

  *[Symbol.iterator](): Generator<M> {
    for (let i = 0; i < this.#length; i++) yield this[i]!;
  }
}

/** Calls its modules one after the other, each with the output of the one before. */
export class Sequential extends NumberedModules<Module, [input: Tensor], Tensor> {
  constructor(...modules: Module[]) {
    super();
    for (const module of modules) this.append(module);
  }

  override forward(input: Tensor): Tensor {
    let x = input;
    for (const module of this) x = module.call(x);
    return x;
  }
}

/** A list of modules for a forward written elsewhere. */
export class ModuleList<M extends AnyModule = Module> extends NumberedModules<M, unknown[], never> {
  constructor(modules: Iterable<M> = []) {
    super();
    for (const module of modules) this.append(module);
  }

  override forward(): never {
    throw new TypeError('ModuleList has no forward. Call the modules in it.');
  }
}
