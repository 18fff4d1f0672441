// The recorder: what ops emit while a function is being compiled, kept instead of run, and what each further run has to
// do besides. Knows storages, no tensors and no op by name; plan.ts arranges what it kept.
import { CaptureError } from '../errors.ts';
import type { Shape } from '../shape.ts';
import { nextSerial, type Storage, type View } from './storage.ts';

/** An operand of a recorded command. */
export interface Reference {
  /** In the words of the command: the slot, then the offset. */
  readonly at: number;
  readonly storage: Storage;
  readonly shape: Shape;
  readonly code: number;
  readonly offset: number;
  /** Row-major without gaps. */
  readonly dense: boolean;
  /** Whether the command writes it. What is written may be read as well. */
  readonly written: boolean;
}

/** A recorded command. */
export interface Command {
  readonly words: readonly number[];
  readonly references: readonly Reference[];
  /** Its place among those recorded. */
  readonly index: number;
}

/** In the head of a command: the next one runs together with it (kJoined in native/runtime/program.h). */
export const JOINED = 1 << 15;
/** The opcode in the head of a command. */
export const opcodeIn = (head: number): number => head & (JOINED - 1);

/** Where a program names a storage that differs from run to run, and how far from the start of a tensor. */
export interface Place {
  readonly at: number;
  readonly offset: number;
}

/** Points a program at the storage of a tensor. */
export function point(
  words: Int32Array,
  places: readonly Place[],
  { storage, offset }: Pick<View, 'storage' | 'offset'>,
): void {
  for (const place of places) {
    words[place.at] = storage.slot;
    words[place.at + 1] = offset + place.offset;
  }
}

/** What is done again before each further run: to the words of a command from a place on, or, without one, elsewhere. */
export interface Repeat {
  readonly command: Command | null;
  readonly at: number;
  readonly run: (words: Int32Array, at: number) => void;
}

/** What a recording took for granted. */
export interface Guard {
  /** What is no longer so, in words; null while it holds. */
  broken(): string | null;
  /** Takes for granted no more what the function itself has changed. Called when it has been recorded. */
  settle?(): void;
}

export class Recorder {
  readonly commands: Command[] = [];
  /** Made by the recorded commands. */
  readonly made = new Set<Storage>();
  /** When what was made was given back, as the number of commands before that. */
  readonly freed = new Map<Storage, number>();
  /** What was there before and has been given back: to be freed once the commands have run. */
  readonly deferred: Storage[] = [];
  /** What was made at once, for every run to read. */
  readonly constants = new Set<Storage>();
  readonly #since = nextSerial();
  /** What was there before: its versions, and a shape it has, when it was first met. */
  readonly outside = new Map<Storage, { version: number; graphVersion: number; shape: Shape }>();
  /** Before each further run, in this order. */
  readonly repeats: Repeat[] = [];
  readonly guards = new Map<object, Guard>();
  /** How errors of commands [from, to) are told, inner ones first. */
  readonly names: { from: number; to: number; tell: (error: unknown) => unknown }[] = [];
  /** Tensors whose gradient the function used, what it was before, and whether the first use was to set it. */
  readonly gradients = new Map<object, { readonly before: unknown; readonly use: 'read' | 'set' }>();
  /** What takes back what JavaScript did for a run that failed. */
  readonly runUndos: (() => void)[] = [];
  readonly #undos: (() => void)[] = [];
  #pending: Reference[] = [];
  #pendingRepeats: Omit<Repeat, 'command'>[] = [];

  operand(at: number, view: View, written: boolean): void {
    const { storage, shape, code, offset, isContiguous } = view;
    this.#pending.push({ at, storage, shape, code, offset, dense: isContiguous, written });
    if (this.made.has(storage)) return;
    if (storage.serial >= this.#since) this.constants.add(storage);
    if (!this.outside.has(storage)) {
      this.outside.set(storage, { version: storage.version, graphVersion: storage.graphVersion, shape });
    }
  }

  /** Takes a storage that nobody owns any more. */
  release(storage: Storage): void {
    if (this.made.has(storage)) this.freed.set(storage, this.commands.length);
    else if (storage.serial < this.#since) this.deferred.push(storage);
  }

  /** Takes commands in place of the executor. */
  absorb(words: Int32Array, count: number): void {
    const starts: number[] = [];
    for (let at = 0; at < count; at += words[at]! >>> 16) starts.push(at);
    const absorbed = starts.map((start, i): Command => {
      const end = starts[i + 1] ?? count;
      return {
        words: Array.from(words.subarray(start, end)),
        references: this.#pending
          .filter(({ at }) => start <= at && at < end)
          .map((reference) => ({ ...reference, at: reference.at - start })),
        index: this.commands.length + i,
      };
    });
    this.commands.push(...absorbed);
    for (const { at, run } of this.#pendingRepeats) {
      const i = starts.findLastIndex((start) => start <= at);
      this.repeats.push({ command: absorbed[i] ?? null, at: at - (starts[i] ?? 0), run });
    }
    this.#pending = [];
    this.#pendingRepeats = [];
  }

  /** `write(words, at)` is to be called again before each further run, for words that now stand at `at` in the buffer. */
  rewrite(at: number, write: (words: Int32Array, at: number) => void): void {
    this.#pendingRepeats.push({ at, run: write });
  }

  /** What JavaScript did while recording and has to do again before each further run; `undo` if that run fails. */
  repeat(again: () => void, undo?: () => void): void {
    this.#pendingRepeats.push({ at: -1, run: again });
    if (undo !== undefined) this.runUndos.push(undo);
  }

  /** How to take back what JavaScript did, should recording fail. */
  onFailure(undo: () => void): void {
    this.#undos.push(undo);
  }

  undo(): void {
    for (const undo of this.#undos.reverse()) undo();
  }

  /** Runs fn; an error that its commands cause in a run is what `tell` makes of it. */
  named<T>(tell: (error: unknown) => unknown, fn: () => T): T {
    const from = this.commands.length;
    const result = fn();
    this.names.push({ from, to: this.commands.length, tell });
    return result;
  }

  guard(subject: object, make: () => Guard): void {
    if (!this.guards.has(subject)) this.guards.set(subject, make());
  }

  /** The function is about to read, or to set, the gradient of a tensor. */
  gradientOf(tensor: { readonly gradTensor: unknown }, use: 'read' | 'set'): void {
    if (!this.gradients.has(tensor)) this.gradients.set(tensor, { before: tensor.gradTensor, use });
  }
}

let active: Recorder | null = null;
/** The recorder that takes what ops emit; null when it is run. */
export const capturing = (): Recorder | null => active;
/** @internal use `divert` of the engine */
export const setCapturing = (recorder: Recorder | null): void => void (active = recorder);

/** @throws CaptureError while a function is being compiled: nothing has been computed yet */
export function refuseWhileRecording(op: string, way: string): void {
  if (active === null) return;
  throw new CaptureError(`${op}: not inside compile(): the function is recorded before anything is computed. ${way}`);
}
