// compile: ordinary code recorded once for each kind of arguments, and run again without it. Layer compile.
import { checkOptions } from '../arguments.ts';
import { ArgumentError, CaptureError } from '../errors.ts';
import { turn } from '../program/queue.ts';
import { capturing, refuseWhileRecording } from '../program/recorder.ts';
import { checkInteger, describe } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { type Explanation, Program } from './program.ts';

export type { Explanation } from './program.ts';

export interface CompileOptions {
  /** So many recordings are kept; one more replaces the oldest, with a warning. Default 16. */
  maxRecordings?: number;
}

export interface Compiled<A extends unknown[], R> {
  (...args: A): R;
  /**
   * The same beside the event loop, on a thread of this environment's own. Calls run in the order in which they are made.
   * A tensor that a call uses is in flight until its promise is settled: touching it from JavaScript waits. Beyond 64 calls
   * in flight the next starts when there is room. An abort takes effect between two commands of a run.
   */
  async(...given: [...args: A, options?: AsyncOptions]): Promise<R>;
  /** What was recorded, newest last, and why there is more than one. */
  explain(): { programs: Explanation[]; retraces: string[] };
}

export interface AsyncOptions {
  signal?: AbortSignal | undefined;
}

const DEFAULTS = { maxRecordings: 16 };

/**
 * A function that does what `fn` does, bit for bit, without running its JavaScript: the first call with arguments of a
 * kind (shapes, dtypes, numbers, grad mode, train or eval mode of modules) records the ops of fn, `backward()` and
 * `optimizer.step()` included; later calls run them again in one native call, in memory planned for the whole.
 *
 * Arguments and results are trees of arrays and plain objects with tensors in them. Tensors that fn finds outside, with
 * their gradients, optimizer state and generators, are state: each call reads and changes them. What else JavaScript does
 * happens while recording only. Results are outside the graph.
 * @throws CaptureError where fn does what cannot be repeated, such as reading a value
 */
export function compile<A extends unknown[], R>(fn: (...args: A) => R, options: CompileOptions = {}): Compiled<A, R> {
  if (typeof fn !== 'function') throw new ArgumentError(`compile: got ${describe(fn)}. Expected a function.`);
  if (Reflect.get(fn, Symbol.toStringTag) === 'AsyncFunction') {
    throw new CaptureError(
      'compile: an async function cannot be recorded. Await outside, and compile what is between.',
    );
  }
  checkOptions('compile', options, DEFAULTS);
  const most = checkInteger('compile', 'maxRecordings', options.maxRecordings ?? DEFAULTS.maxRecordings, 1);
  const programs: Program[] = [];
  const retraces: string[] = [];
  let warned = false;

  /** The program for these arguments, recorded if there is none, ready to run. */
  function programFor(args: readonly unknown[]): { program: Program; tensors: readonly Tensor[] } {
    let reason = '';
    for (let i = programs.length - 1; i >= 0; i--) {
      const tensors: Tensor[] = [];
      const program = programs[i]!;
      const mismatch = program.mismatch(args, tensors);
      if (mismatch === null) return { program, tensors };
      reason ||= mismatch;
    }
    const { program, tensors } = Program.record(fn, args);
    if (programs.length > 0) retraces.push(reason);
    if (retraces.length > most) retraces.shift();
    programs.push(program);
    if (programs.length > most) {
      programs.shift();
      if (!warned) warnOfRecordings(most + 1, reason);
      warned = true;
    }
    return { program, tensors };
  }

  const run = (...args: A): R => {
    // Inside another compiled function it is a part of that.
    if (capturing() !== null) return fn(...args);
    const { program, tensors } = programFor(args);
    try {
      return program.run(tensors) as R;
    } finally {
      program.releaseDeferred();
    }
  };

  const runAsync = async (...given: [...A, options?: AsyncOptions]): Promise<R> => {
    const { args, signal } = splitOptions(given);
    refuseWhileRecording('async', 'Call the function itself: inside a compiled function it is a part of that.');
    const waiting = turn();
    if (waiting !== null) await waiting;
    signal?.throwIfAborted();
    const { program, tensors } = programFor(args);
    try {
      const { finished, result } = program.start(tensors, signal);
      return finished.then(() => result as R);
    } finally {
      program.releaseDeferred();
    }
  };

  return Object.assign(run, {
    async: runAsync,
    explain: () => ({ programs: programs.map((program) => program.explain()), retraces: [...retraces] }),
  });
}

function warnOfRecordings(count: number, reason: string): void {
  process.emitWarning(
    `compile: recorded ${count} times, the last because: ${reason}. Each recording runs the function's own code: pass ` +
      'what varies as tensors of one shape.',
    { code: 'CHAINRULE_RECORDINGS' },
  );
}

/** A last argument of the form { signal } is not the function's. */
function splitOptions(given: readonly unknown[]): { args: readonly unknown[]; signal?: AbortSignal } {
  const last = given.at(-1);
  if (typeof last !== 'object' || last === null || Object.keys(last).join() !== 'signal') return { args: given };
  const { signal } = last as { signal: unknown };
  if (signal === undefined) return { args: given.slice(0, -1) };
  if (!(signal instanceof AbortSignal)) {
    throw new ArgumentError(`async: signal is ${describe(signal)}. Expected an AbortSignal.`);
  }
  return { args: given.slice(0, -1), signal };
}

/**
 * Runs the ops of fn beside the event loop: as `compile(fn).async()`, for what is done once. Results are outside the
 * graph. @throws CaptureError where fn does what cannot be recorded, such as reading a value
 */
export const run = <R>(fn: () => R, options: AsyncOptions = {}): Promise<R> =>
  compile(fn).async({ signal: options.signal });
