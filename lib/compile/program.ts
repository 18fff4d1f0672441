// A compiled program: the commands of one recording with their memory planned, and how to run them on other arguments.
// Layer compile.
import { current, Scope, within } from '../context.ts';
import { F64, U8 } from '../dtype.ts';
import { AutogradError, CaptureError } from '../errors.ts';
import { allocate } from '../program/commands.ts';
import { abandonUnwritten, adopt, divert, flush, newStorage, release, runProgram, settle } from '../program/engine.ts';
import { fold } from '../program/fold.ts';
import { fuse, type Group } from '../program/fuse.ts';
import { Layout } from '../program/layout.ts';
import { type Plan, plan } from '../program/plan.ts';
import { print } from '../program/print.ts';
import { submit } from '../program/queue.ts';
import { type Command, type Guard, type Place, point, Recorder } from '../program/recorder.ts';
import { progress, type Storage } from '../program/storage.ts';
import { type Shape, sameShape, show } from '../shape.ts';
import { checkTensor, fresh, Tensor, track, viewOf } from '../tensor.ts';
import { Gradients } from './gradients.ts';
import { matches, putTogether, type Skeleton, takeApart } from './tree.ts';

/** What a program is and takes, for people. */
export interface Explanation {
  /** Commands of one run. */
  commands: number;
  /** Bytes of the arena that all values on the way share, and the least that any arena could have. */
  plannedBytes: number;
  lowerBoundBytes: number;
  /** The most of the same values that is alive at once where each op runs at once. */
  eagerPeakBytes: number;
  /**
   * A command a line, `%7[32,128] = relu %6[32,128]`: as recorded; and as it runs, with places in the arena, set in what
   * runs together with the command before, and marked what has run once for all.
   */
  recorded: string;
  planned: string;
}

/** All of a storage, as bytes; the storage and how many are missing. */
const BYTE_VIEW = { shape: [], strides: [], offset: 0, code: U8, isContiguous: true };

const separate = (commands: readonly Command[]): Group[] => commands.map((command) => [command]);

const describeTensor = (t: Tensor): string => `${t.dtype}${show(t.shape)}`;

export class Program {
  readonly #skeleton: Skeleton;
  /** Stand for the arguments in the recording: same shape and dtype, no elements. */
  readonly #parameters: readonly Tensor[];
  readonly #result: Skeleton;
  readonly #results: readonly Tensor[];
  readonly #recorder: Recorder;
  /** What ran when the program was made, and what each run does. */
  readonly #once: Group;
  readonly #groups: readonly Group[];
  readonly #plan: Plan;
  readonly #layout: Layout;
  readonly #context = { ...current() };
  readonly #guards: readonly Guard[];
  readonly #gradients: Gradients;
  readonly #arena: Tensor;
  /** Where each parameter is named, and each storage of a result. */
  readonly #inputs: readonly (readonly Place[])[];
  readonly #outputs: readonly (readonly Place[])[];
  /** One for each storage that results have for themselves. */
  readonly #outputStorages: readonly Storage[];
  /** What was there before and is used. */
  readonly #captured: readonly { storage: Storage; slot: number; shape: Shape }[];
  readonly #changed: readonly Storage[];
  readonly #changedInputs: readonly number[];
  /** Whether JavaScript has done its part for the run at hand. For the first run, recording has. */
  #repeated = true;

  private constructor(skeleton: Skeleton, parameters: readonly Tensor[], recorder: Recorder, result: unknown) {
    const results: Tensor[] = [];
    this.#skeleton = skeleton;
    this.#parameters = parameters;
    this.#recorder = recorder;
    this.#result = takeApart(result, results, 'the result');
    this.#results = results;
    for (const t of results) checkTensor('compile', t, 'result');
    const { made, outside } = recorder;
    const inputs = parameters.map(({ storage }) => storage);
    this.#gradients = new Gradients(recorder, parameters);
    const given = (storage: Storage): boolean => inputs.includes(storage) || this.#gradients.takes(storage);
    const own = new Set(results.map(({ storage }) => storage).filter((s) => made.has(s) && !this.#gradients.has(s)));
    this.#outputStorages = [...own];
    const planned = (s: Storage): boolean => made.has(s) && !own.has(s) && !this.#gradients.has(s);
    this.#once = fold(recorder, planned);
    this.#groups = fuse(recorder.commands.filter((command) => !this.#once.includes(command)));
    this.#plan = plan(this.#once, this.#groups, recorder, planned);
    this.#arena = fresh([this.#plan.bytes / 8], F64);
    allocate(this.#arena);
    flush();
    adopt(this.#arena.storage);

    const once = new Layout(separate(this.#once), []);
    once.relocate(this.#plan.offsets, this.#arena.storage);
    runProgram(once.parts, [], (error) => error);
    this.#layout = new Layout(this.#groups, recorder.repeats);
    this.#layout.relocate(this.#plan.offsets, this.#arena.storage);
    this.#gradients.locate(this.#layout);
    this.#inputs = parameters.map((p) => this.#layout.placesOf(p));
    this.#outputs = this.#outputStorages.map((storage) => this.#layout.placesOf({ storage, offset: 0 }));

    const changed = [...outside].filter(([storage, { version }]) => storage.version !== version).map(([s]) => s);
    this.#changed = changed.filter((storage) => !given(storage));
    this.#changedInputs = inputs.flatMap((storage, i) => (changed.includes(storage) ? [i] : []));
    this.#captured = [...outside]
      .filter(([storage]) => !given(storage))
      .map(([storage, { shape }]) => ({ storage, slot: storage.slot, shape }));
    this.#check();
    this.#guards = [...recorder.guards.values()];
    for (const guard of this.#guards) guard.settle?.();
  }

  /** Records what fn does with arguments like these, and finds the tensors in them. Nothing is computed. @throws CaptureError, and whatever fn throws */
  static record(
    fn: (...args: never[]) => unknown,
    args: readonly unknown[],
  ): { program: Program; tensors: readonly Tensor[] } {
    const tensors: Tensor[] = [];
    const skeleton = takeApart(args, tensors, 'an argument');
    const parameters = tensors.map(standIn);
    const recorder = new Recorder();
    const scope = new Scope<Tensor>();
    try {
      const result = divert(recorder, () =>
        within('compile', { scope }, () => {
          const value = fn(...(putTogether(skeleton, parameters) as never[]));
          if (typeof (value as PromiseLike<unknown> | null)?.then !== 'function') return value;
          void (value as PromiseLike<unknown>).then(undefined, () => {});
          throw new CaptureError(
            'compile: the function returned a promise. Await outside, and compile what is between.',
          );
        }),
      );
      return { program: new Program(skeleton, parameters, recorder, result), tensors };
    } catch (error) {
      recorder.undo();
      for (const [t, { before }] of recorder.gradients) restoreGradient(t as Tensor, before as Tensor | null);
      throw error;
    } finally {
      for (const t of scope.made) if (t.viewVersion < 0) adoptOutside(recorder, t.storage);
      for (const storage of recorder.constants) adoptOutside(recorder, storage);
      // The recording's own slots were never written; runs have slots of their own.
      for (const storage of recorder.made) abandonUnwritten(storage);
      for (const { storage } of parameters) abandonUnwritten(storage);
    }
  }

  #check(): void {
    const { outside, deferred } = this.#recorder;
    for (const [storage, { graphVersion }] of outside) {
      if (storage.graphVersion === graphVersion) continue;
      throw new CaptureError(
        'compile: a tensor from outside was changed in place by a recorded op: its gradient would flow out of the ' +
          'program. Change it inside noGrad(() => ...), or change a clone().',
      );
    }
    if (this.#parameters.some(({ storage }) => deferred.includes(storage))) {
      throw new CaptureError('compile: the function disposes an argument. Dispose it outside, after the call.');
    }
  }

  /** Why the program is not the one for these arguments, here and now; null when it is, and `tensors` has them. */
  mismatch(args: readonly unknown[], tensors: Tensor[]): string | null {
    if (!matches(this.#skeleton, args, tensors)) return 'arguments of another form, or other numbers among them';
    for (let i = 0; i < tensors.length; i++) {
      const t = tensors[i]!;
      const p = this.#parameters[i]!;
      checkArgument(t, i);
      if (t.code !== p.code || !sameShape(t.shape, p.shape) || !sameShape(t.strides, p.strides)) {
        const strides = t.code === p.code && sameShape(t.shape, p.shape) ? ' with other strides' : '';
        return `argument ${i} is ${describeTensor(t)}, and was ${describeTensor(p)}${strides}`;
      }
      if (t.requiresGrad !== p.leafRequiresGrad) return `argument ${i} requires grad, or no longer does`;
    }
    const { grad, observer, savedHooks } = current();
    if (grad !== this.#context.grad) return `grad mode is ${grad ? 'on' : 'off'}`;
    if (observer !== this.#context.observer || savedHooks !== this.#context.savedHooks) {
      return 'hooks on saved tensors, or a look for NaN, are others';
    }
    for (let i = 0; i < this.#guards.length; i++) {
      const reason = this.#guards[i]!.broken();
      if (reason !== null) return reason;
    }
    return this.#gradients.mismatch();
  }

  /** @throws CaptureError when a captured tensor is gone, MemoryError, IndexError */
  run(tensors: readonly Tensor[]): unknown {
    return this.#undoing(() => {
      const outputs = this.#prepare(tensors);
      if (progress.finished < progress.handedIn) for (const storage of this.#used(tensors)) settle(storage);
      const { fresh } = this.#gradients;
      runProgram(this.#layout.parts, outputs.length === 0 ? fresh : outputs.concat(fresh), this.#tell);
      return this.#finish(tensors, outputs);
    });
  }

  /** As run, beside the event loop: what is used is in flight until the promise is settled. */
  start(tensors: readonly Tensor[], signal?: AbortSignal): { finished: Promise<void>; result: unknown } {
    return this.#undoing(() => {
      const outputs = this.#prepare(tensors);
      const made = [...outputs, ...this.#gradients.fresh];
      for (const storage of made) allocate({ ...BYTE_VIEW, storage, numel: storage.bytes });
      flush();
      const finished = submit(this.#layout.parts, [...this.#used(tensors), ...made], this.#tell, signal);
      return { finished, result: this.#finish(tensors, outputs) };
    });
  }

  /** An error of a command, under the name of its op. */
  readonly #tell = (error: unknown, command: number): unknown => {
    const index = this.#layout.indexOf(command);
    return this.#recorder.names
      .filter(({ from, to }) => from <= index && index < to)
      .reduce((told, { tell }) => tell(told), error);
  };

  /** What JavaScript did for a run that fails is taken back. */
  #undoing<T>(run: () => T): T {
    try {
      return run();
    } catch (error) {
      if (this.#repeated) for (const undo of this.#recorder.runUndos) undo();
      throw error;
    } finally {
      this.#repeated = false;
    }
  }

  *#used(tensors: readonly Tensor[]): Generator<Storage> {
    yield this.#arena.storage;
    for (const { storage } of this.#captured) yield storage;
    for (const { storage } of tensors) yield storage;
    yield* this.#gradients.storages();
  }

  /** Writes what differs from run to run into the words; returns the storages of results. */
  #prepare(tensors: readonly Tensor[]): Storage[] {
    for (const { storage, slot, shape } of this.#captured) {
      if (storage.slot === slot) continue;
      throw new CaptureError(
        `compile: a tensor of shape ${show(shape)} that the function uses was disposed since it was recorded. ` +
          'Keep what it uses, or make it an argument.',
      );
    }
    this.#refuseSharing(tensors);
    const { words } = this.#layout;
    if (!this.#repeated) this.#layout.repeat();
    this.#repeated = true;
    for (let i = 0; i < tensors.length; i++) point(words, this.#inputs[i]!, tensors[i]!);
    const outputs = this.#outputStorages.map(({ bytes }) => newStorage(bytes));
    for (let i = 0; i < outputs.length; i++) point(words, this.#outputs[i]!, { storage: outputs[i]!, offset: 0 });
    this.#gradients.prepare(words);
    return outputs;
  }

  /** What is so after a run, or will be: gradients, versions, results. */
  #finish(tensors: readonly Tensor[], outputs: readonly Storage[]): unknown {
    this.#gradients.publish();
    for (const storage of this.#changed) storage.changed();
    for (const i of this.#changedInputs) tensors[i]!.storage.changed();
    if (this.#results.length === 0) return putTogether(this.#result, []);
    const given = new Map<Storage, Tensor>();
    return putTogether(
      this.#result,
      this.#results.map((t) => this.#resultOf(t, tensors, outputs, given)),
    );
  }

  /** Frees what the function has let go, once it has run. */
  releaseDeferred(): void {
    for (const storage of this.#recorder.deferred.splice(0)) release(storage);
  }

  explain(): Explanation {
    const { bytes, lowerBound, eagerPeak, offsets } = this.#plan;
    const place = (storage: Storage): string => (offsets.has(storage) ? `@${offsets.get(storage)}` : '');
    return {
      commands: this.#groups.flat().length,
      plannedBytes: bytes,
      lowerBoundBytes: lowerBound,
      eagerPeakBytes: eagerPeak,
      recorded: print(separate(this.#recorder.commands), () => ''),
      planned: print([...separate(this.#once), ...this.#groups], place, this.#once.length),
    };
  }

  /** Each argument is a tensor of its own to the recording: two that share memory must not be written. */
  #refuseSharing(tensors: readonly Tensor[]): void {
    for (const i of this.#changedInputs) {
      const other = tensors.findIndex((t, j) => j !== i && t.storage === tensors[i]!.storage);
      if (other < 0) continue;
      throw new CaptureError(
        `compile: arguments ${Math.min(i, other)} and ${Math.max(i, other)} share memory, and the function changes it ` +
          'in place. Pass a clone().',
      );
    }
  }

  /** `made`: the results of this run so far that have storages of their own. */
  #resultOf(t: Tensor, tensors: readonly Tensor[], outputs: readonly Storage[], made: Map<Storage, Tensor>): Tensor {
    const { shape, strides, offset, numel, code, isContiguous, storage } = t;
    const parameter = this.#parameters.findIndex((p) => p.storage === storage);
    if (parameter >= 0) {
      const given = tensors[parameter]!;
      const expected = this.#parameters[parameter]!;
      return t === expected ? given : viewOf(given, shape, strides, given.offset + offset - expected.offset);
    }
    const gradient = this.#gradients.tensorOf(storage);
    if (gradient !== null) return viewOf(gradient, shape, strides, offset);
    const own = this.#outputStorages.indexOf(storage);
    if (own < 0) return t;
    const base = made.get(storage);
    if (base !== undefined) return viewOf(base, shape, strides, offset);
    const result = track(new Tensor(outputs[own]!, shape, strides, offset, numel, code, isContiguous, -1));
    made.set(storage, result);
    return result;
  }
}

function checkArgument(t: Tensor, i: number): void {
  checkTensor('compile', t, `argument ${i}`);
  if (t.physical !== null || t.dual !== null) {
    throw new AutogradError(`compile: argument ${i} is of a vmap or a jvp: call the compiled function outside of it.`);
  }
  if (!t.isLeaf) {
    throw new CaptureError(
      `compile: argument ${i} of shape ${show(t.shape)} was computed from what requires grad: its gradient would have ` +
        'to leave the program. Compute it inside, or pass .detach().',
    );
  }
}

/** What stands for an argument while recording. */
function standIn(t: Tensor, i: number): Tensor {
  checkArgument(t, i);
  const { storage, shape, strides, offset, numel, code, isContiguous } = t;
  const p = new Tensor(newStorage(storage.bytes), shape, strides, offset, numel, code, isContiguous, -1);
  p.leafRequiresGrad = t.leafRequiresGrad;
  return p;
}

function restoreGradient(t: Tensor, before: Tensor | null): void {
  t.gradTensor = before?.disposed ? null : before;
}

function adoptOutside({ made }: Recorder, storage: Storage): void {
  if (!made.has(storage) && storage.slot >= 0) adopt(storage);
}
