// Module: a tree of parts with parameters, found by looking at each module's own properties. Layer nn: it uses the
// public tensor API only, and knows no concrete layer.
import { noGrad } from '../autograd/grad-mode.ts';
import { current } from '../context.ts';
import type { DType } from '../dtype.ts';
import { ArgumentError } from '../errors.ts';
import { capturing, type Guard } from '../program/recorder.ts';
import { checkTensor, keep, Tensor } from '../tensor.ts';
import { Parameter } from './parameter.ts';

/** Any module, whatever its inputs and output. */
export type AnyModule = Module<unknown[], unknown>;

/** Names and tensors, as `stateDict` returns them and `loadStateDict` and `io` take them. */
export type StateDict = ReadonlyMap<string, Tensor>;

type Hook = (inputs: unknown[], output: unknown) => unknown;
type Place<T = unknown> = { name: string; value: T; replace(value: Tensor): void };
/** How often a module that is in several places is visited. */
type Visit = 'once' | 'every-path';

/** Base class of everything with a `forward`. `Inputs` and `Output` are forward's; most modules map a tensor to a tensor. */
export abstract class Module<Inputs extends unknown[] = [input: Tensor], Output = Tensor> {
  training = true;
  readonly #hooks = new Set<Hook>();
  /** Name of each buffer, and whether it belongs to the state dict. */
  readonly #buffers = new Map<string, boolean>();

  abstract forward(...inputs: Inputs): Output;

  /** `forward`, then the forward hooks in the order of registration. */
  call(...inputs: Inputs): Output {
    capturing()?.guard(this, () => this.#guard());
    const { observer } = current();
    observer?.entered?.(this);
    try {
      let output = this.forward(...inputs);
      for (const hook of this.#hooks) output = (hook(inputs, output) as Output | undefined) ?? output;
      return output;
    } finally {
      observer?.left?.();
    }
  }

  /** Calls `hook` after every `call`; what it returns, unless undefined, replaces the output. Returns how to remove it. */
  registerForwardHook(hook: (inputs: Inputs, output: Output) => Output | undefined): () => void {
    const entry: Hook = (inputs, output) => hook(inputs as Inputs, output as Output);
    this.#hooks.add(entry);
    return () => void this.#hooks.delete(entry);
  }

  /** Makes `tensor` the property `name`: part of the state (if persistent) and of `to`, but no parameter. */
  registerBuffer(name: string, tensor: Tensor, { persistent = true } = {}): void {
    this.#buffers.set(name, persistent);
    Reflect.set(this, name, tensor);
  }

  /** Every parameter once, under its first name. */
  *namedParameters(): Generator<[string, Parameter]> {
    const seen = new Set<Tensor>();
    for (const { name, value } of this.#places('once')) {
      if (!(value instanceof Parameter) || seen.has(value)) continue;
      seen.add(value);
      yield [name, value];
    }
  }

  *parameters(): Generator<Parameter> {
    for (const [, parameter] of this.namedParameters()) yield parameter;
  }

  /** This module and every one below it, once each, parents first, with dotted names; this module's name is ''. */
  *namedModules(): Generator<[string, AnyModule]> {
    yield* walk(this, 'once');
  }

  *modules(): Generator<AnyModule> {
    for (const [, module] of walk(this, 'once')) yield module;
  }

  /** The modules directly below this one. */
  *namedChildren(): Generator<[string, AnyModule]> {
    yield* childrenOf(this);
  }

  *children(): Generator<AnyModule> {
    for (const [, module] of childrenOf(this)) yield module;
  }

  /** For compiled programs: the mode, hooks, and whatever else the module has as properties. */
  #guard(): Guard {
    const hooks = this.#hooks.size;
    let taken = propertiesOf(this);
    return {
      broken: () => {
        if (this.#hooks.size !== hooks) return `${this.constructor.name} has other hooks`;
        for (const property of taken)
          if (!isSame(this, property)) return `${property.name} of ${this.constructor.name} has changed`;
        return null;
      },
      settle: () => {
        taken = taken.filter((property) => isSame(this, property));
      },
    };
  }

  train(mode = true): this {
    return this.apply((module) => {
      module.training = mode;
    });
  }

  eval(): this {
    return this.train(false);
  }

  /** Calls `fn` with this module and every one below it, children before their parents. */
  apply(fn: (module: AnyModule) => void): this {
    for (const module of [...this.modules()].reverse()) fn(module);
    return this;
  }

  zeroGrad(): void {
    for (const parameter of this.parameters()) parameter.grad = null;
  }

  /** Converts floating-point parameters and buffers. They become new tensors: build the optimizer after this. */
  to(dtype: DType): this {
    // A tensor in two places must stay one tensor.
    const converted = new Map<Tensor, Tensor>();
    for (const { value, replace } of this.#places('once')) {
      if (!value.dtype.includes('float') || value.dtype === dtype) continue;
      if (!converted.has(value)) {
        const data = noGrad(() => value.to(dtype));
        const { requiresGrad } = value;
        converted.set(value, keep(value instanceof Parameter ? new Parameter(data, { requiresGrad }) : data));
      }
      replace(converted.get(value)!);
    }
    return this;
  }

  /** Parameters and persistent buffers under every name they have. The tensors share memory with the module. */
  stateDict(): Map<string, Tensor> {
    const state = new Map<string, Tensor>();
    for (const { name, value, persistent } of this.#places('every-path')) {
      if (persistent) state.set(name, value.detach());
    }
    return state;
  }

  /**
   * Copies `state` into parameters and buffers. Nothing is copied unless every shape and dtype agrees and, if `strict`,
   * the names are exactly this module's.
   */
  loadStateDict(state: StateDict | Readonly<Record<string, Tensor>>, { strict = true } = {}): void {
    const source = new Map(state instanceof Map ? (state as StateDict) : Object.entries(state));
    for (const [name, tensor] of source) checkTensor('loadStateDict', tensor, name);
    const target = this.stateDict();
    const missing = [...target.keys()].filter((name) => !source.has(name));
    const unexpected = [...source.keys()].filter((name) => !target.has(name));
    const shared = [...target.keys()].filter((name) => source.has(name));
    const mismatched = shared
      .map((name) => ({ name, own: layout(target.get(name)!), loaded: layout(source.get(name)!) }))
      .filter(({ own, loaded }) => own !== loaded)
      .map(({ name, own, loaded }) => `${name} (is ${own}, loading ${loaded})`);

    const faults = Object.entries(strict ? { missing, unexpected, mismatched } : { mismatched })
      .filter(([, names]) => names.length > 0)
      .map(([fault, names]) => `${fault}: ${names.join(', ')}`);
    if (faults.length > 0) throw new ArgumentError(`loadStateDict: ${this.constructor.name}: ${faults.join('; ')}.`);
    noGrad(() => {
      for (const name of shared) target.get(name)!.copy_(source.get(name)!);
    });
  }

  /** Where this module and those below it hold parameters and buffers, by full name. */
  *#places(visit: Visit): Generator<Place<Tensor> & { persistent: boolean }> {
    for (const [prefix, module] of walk(this, visit)) {
      for (const { name, value, replace } of placesIn(module)) {
        const persistent = value instanceof Parameter || module.#buffers.get(name);
        if (persistent === undefined || !(value instanceof Tensor)) continue;
        yield { name: join(prefix, name), value, replace, persistent };
      }
    }
  }
}

/** The module's own properties in the order of assignment, and the elements of arrays among them as `name.0`, … */
function* placesIn(module: AnyModule): Generator<Place> {
  for (const [name, value] of Object.entries(module)) {
    if (Array.isArray(value)) {
      for (const [i, element] of value.entries()) {
        yield { name: `${name}.${i}`, value: element, replace: (next) => void (value[i] = next) };
      }
    } else yield { name, value, replace: (next) => void Reflect.set(module, name, next) };
  }
}

function* childrenOf(module: AnyModule): Generator<[string, AnyModule]> {
  for (const { name, value } of placesIn(module)) if (value instanceof Module) yield [name, value];
}

/**
 * Depth first, parents first, with a stack of its own so that depth is no limit. A module within itself is entered once
 * on any path; with 'once', once altogether.
 */
function* walk(root: AnyModule, visit: Visit): Generator<[string, AnyModule]> {
  const entered = new Set([root]);
  const path = [{ name: '', module: root, rest: childrenOf(root) }];
  yield ['', root];
  while (path.length > 0) {
    const top = path[path.length - 1]!;
    const next = top.rest.next();
    if (next.done) {
      path.pop();
      if (visit === 'every-path') entered.delete(top.module);
      continue;
    }
    const module = next.value[1];
    if (entered.has(module)) continue;
    entered.add(module);
    const name = join(top.name, next.value[0]);
    yield [name, module];
    path.push({ name, module, rest: childrenOf(module) });
  }
}

interface Property {
  readonly name: string;
  readonly value: unknown;
  /** Of an array. */
  readonly elements: readonly unknown[] | null;
  /** Of a tensor. */
  readonly requiresGrad: boolean;
}

const propertiesOf = (module: object): Property[] =>
  Object.entries(module).map(([name, value]) => ({
    name,
    value,
    elements: Array.isArray(value) ? [...value] : null,
    requiresGrad: value instanceof Tensor && value.leafRequiresGrad,
  }));

function isSame(module: object, { name, value, elements, requiresGrad }: Property): boolean {
  const now: unknown = (module as Record<string, unknown>)[name];
  if (now !== value) return Number.isNaN(value) && Number.isNaN(now);
  if (now instanceof Tensor) return now.leafRequiresGrad === requiresGrad;
  return (
    elements === null ||
    (elements.length === (now as unknown[]).length && elements.every((e, i) => e === (now as unknown[])[i]))
  );
}

function join(prefix: string, name: string): string {
  return prefix === '' ? name : `${prefix}.${name}`;
}

function layout(tensor: Tensor): string {
  return `${tensor.dtype}[${tensor.shape.join(',')}]`;
}
