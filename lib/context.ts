// What is in force where code runs: the grad mode and the open scope. Lowest layer, knows no tensors.
// Synchronous code shares one mutable context; an async function gets one of its own that follows its awaits.
import { AsyncLocalStorage } from 'node:async_hooks';
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

export interface Context {
  /** Whether ops are recorded for differentiation. */
  grad: boolean;
  scope: Scope | null;
}

const root: Context = { grad: true, scope: null };
const storage = new AsyncLocalStorage<Context>();
// Asking AsyncLocalStorage costs more than a small op: only while an async context is alive.
let asyncContexts = 0;

/** The context in force. */
export const current = (): Context => (asyncContexts === 0 ? root : (storage.getStore() ?? root));

const isAsync = (fn: unknown): boolean => Object.prototype.toString.call(fn) === '[object AsyncFunction]';
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
  const { grad, scope } = context;
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
    context.scope = scope;
    leave?.(result);
  }
}
