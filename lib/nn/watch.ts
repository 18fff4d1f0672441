// Watching the modules of a model while it runs: who was called, and what came out. Layer nn.
import { ArgumentError } from '../errors.ts';
import { describe } from '../shape.ts';
import { Tensor } from '../tensor.ts';
import { type AnyModule, Module } from './module.ts';

export interface Seen {
  /** The module's dotted name; `name#2` for its second call in one forward pass. */
  readonly name: string;
  readonly module: AnyModule;
  /** The tensors that it returned; a layer may return its state as well, after its output. */
  readonly outputs: readonly Tensor[];
}

export function checkModel(op: string, model: unknown): asserts model is AnyModule {
  if (!(model instanceof Module)) throw new ArgumentError(`${op}: the model is ${describe(model)}. Expected a module.`);
}

/** Names each call of a module in one forward pass. */
export class CallNames {
  readonly #paths: ReadonlyMap<AnyModule, string>;
  readonly #calls = new Map<AnyModule, number>();

  constructor(model: AnyModule) {
    this.#paths = new Map([...model.namedModules()].map(([path, module]) => [module, path]));
  }

  knows(module: AnyModule): boolean {
    return this.#paths.has(module);
  }

  next(module: AnyModule): string {
    const call = (this.#calls.get(module) ?? 0) + 1;
    this.#calls.set(module, call);
    const name = this.#paths.get(module) || module.constructor.name;
    return call === 1 ? name : `${name}#${call}`;
  }

  /** Another forward pass begins. */
  forget(): void {
    this.#calls.clear();
  }
}

/** Runs fn, and calls `see` after every call of a module that is `wanted`. */
export function watching<T>(
  model: AnyModule,
  wanted: (module: AnyModule) => boolean,
  see: (seen: Seen) => void,
  fn: (forget: () => void) => T,
): T {
  const names = new CallNames(model);
  const removers: (() => void)[] = [];
  for (const module of model.modules()) {
    if (!wanted(module)) continue;
    removers.push(
      module.registerForwardHook((_, output) => {
        see({ name: names.next(module), module, outputs: [output].flat(4).filter((t) => t instanceof Tensor) });
        return undefined;
      }),
    );
  }
  try {
    return fn(() => names.forget());
  } finally {
    for (const remove of removers) remove();
  }
}

/** Runs fn with the model in eval mode, and puts every module back into the mode that it was in. */
export function inEvalMode<T>(model: AnyModule, fn: () => T): T {
  const modes = [...model.modules()].map((module) => [module, module.training] as const);
  model.eval();
  try {
    return fn();
  } finally {
    for (const [module, training] of modes) module.training = training;
  }
}
