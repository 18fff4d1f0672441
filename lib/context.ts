// What is in force where code runs: grad mode, open scope, hooks on saved tensors. Lowest layer, knows no tensors.
// Synchronous code shares one mutable context; an async function gets one of its own that follows its awaits.
import { AsyncLocalStorage } from 'node:async_hooks';
import type { Observer } from './autograd/observer.ts';
import { ArgumentError } from './errors.ts';

/** What was made while a scope is open, and what of it shall outlive the scope. */
export class Scope<T = unknown> {
  readonly made: T[] = [];
  readonly kept = new Set<T>();
  readonly outer: Scope<T> | null;

  constructor(outer: Scope<T> | null = null) {
    this.outer = outer;
  }
}

/** What happens to tensors that ops save for the backward pass: `pack` when saved, `unpack` when needed again. */
export interface SavedHooks<T = unknown> {
  readonly pack: (tensor: T) => unknown;
  readonly unpack: (packed: unknown) => T;
  /** Sees every input of an op that is recorded. */
  readonly input?: (tensor: T) => void;
  /** Called when the graph lets go of what was packed. */
  readonly free?: (packed: unknown) => void;
}

export interface Context {
  /** Whether ops are recorded for differentiation. */
  grad: boolean;
  /** The user's noGrad is in force: not even the tensors that a vmap works on behind the scenes are recorded. */
  stopped: boolean;
  scope: Scope | null;
  savedHooks: SavedHooks | null;
  /** Sees every op that is recorded, and every gradient on its way back. */
  observer: Observer | null;
}

const root: Context = { grad: true, stopped: false, scope: null, savedHooks: null, observer: null };
const storage = new AsyncLocalStorage<Context>();
// Asking AsyncLocalStorage costs more than a small op: only while an async context is alive.
let asyncContexts = 0;

/** The context in force. */
export const current = (): Context => (asyncContexts === 0 ? root : (storage.getStore() ?? root));

const isAsync = (fn: object): boolean => Reflect.get(fn, Symbol.toStringTag) === 'AsyncFunction';
const isPromise = (value: unknown): value is PromiseLike<unknown> =>
  typeof value === 'object' && value !== null && typeof (value as PromiseLike<unknown>).then === 'function';

/**
 * Runs fn with changes to the context, taken back when fn returns, throws or, if fn is an async function, settles;
 * then calls `leave` with fn's result (undefined after a throw).
 */
export function within<T>(op: string, change: Partial<Context>, fn: () => T, leave?: (result: unknown) => void): T {
  if (typeof fn !== 'function') throw new ArgumentError(`${op}: got ${typeof fn}. Expected a function.`);
  if (isAsync(fn)) {
    asyncContexts++;
    const settle = (result: unknown): void => {
      asyncContexts--;
      leave?.(result);
    };
    const run = async (): Promise<unknown> => {
      let result: unknown;
      try {
        return (result = await fn());
      } finally {
        settle(result);
      }
    };
    return storage.run({ ...current(), ...change }, run) as T;
  }
  const context = current();
  const { grad, stopped, scope, savedHooks, observer } = context;
  let result: T | undefined;
  Object.assign(context, change);
  try {
    result = fn();
    if (isPromise(result)) {
      result.then(undefined, () => {});
      throw new ArgumentError(
        `${op}: the function returned a promise but is not async: what it does after its first await would run outside. ` +
          'Declare it async.',
      );
    }
    return result;
  } finally {
    context.grad = grad;
    context.stopped = stopped;
    context.scope = scope;
    context.savedHooks = savedHooks;
    context.observer = observer;
    leave?.(result);
  }
}
