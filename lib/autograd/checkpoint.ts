// Checkpointing: what a part of the model saves for its backward pass is dropped, and computed again when it is needed.
// Chen et al., "Training deep nets with sublinear memory cost", 2016. Built on saved-tensor hooks, so every kind of
// backward pass goes through it: createGraph, several outputs, parameters that fn closes over.
import { current, type SavedHooks, within } from '../context.ts';
import { AutogradError } from '../errors.ts';
import { nextSerial, type Storage } from '../program/storage.ts';
import { type Generator, observeDraws } from '../random.ts';
import { sameShape, show } from '../shape.ts';
import { checkTensor, scope, Tensor } from '../tensor.ts';
import { checkFunction, levelsNow, withLevels } from './forward.ts';
import { freed, handleInGraph, hold, letGo, restore, type Saved, save } from './tape.ts';

/** Thrown by the second run when it has saved everything that the first did. */
const ENOUGH = Symbol('enough');
const CHECKPOINT = { name: 'checkpoint', madeAt: '' };
/** Regions made since the last one was computed again. */
let created = 0;

export const sumOf = (bytes: ReadonlyMap<number, number>): number => [...bytes.values()].reduce((a, b) => a + b, 0);

/** Bytes that regions hold at a time, each storage once. */
export class Ledger {
  readonly #held = new Map<Storage, number>();
  bytes = 0;
  peak = 0;

  add(storage: Storage): void {
    const count = this.#held.get(storage) ?? 0;
    this.#held.set(storage, count + 1);
    if (count === 0) this.bytes += storage.bytes;
    this.peak = Math.max(this.peak, this.bytes);
  }

  remove(storage: Storage): void {
    const count = this.#held.get(storage);
    if (count === undefined) return;
    if (count > 1) this.#held.set(storage, count - 1);
    else if (this.#held.delete(storage)) this.bytes -= storage.bytes;
  }
}

/** One call of fn whose saved tensors are computed again. */
export class Region {
  readonly #fn: (...args: unknown[]) => unknown;
  /** Tensors among the arguments are saved as those of an op are. */
  readonly #args: readonly ({ readonly value: unknown } | { readonly saved: Saved; readonly storage: Storage })[];
  readonly #ledger: Ledger;
  readonly #generators = new Map<Generator, () => void>();
  /** Of what the first run saved: shapes, and the tensors that are not computed but used, which must not change. */
  readonly #entries: { readonly shape: readonly number[]; readonly code: number }[] = [];
  readonly #unchanged = new Map<Storage, { readonly version: number; readonly what: string }>();
  /** Computes the argument again, where it is not kept. */
  #before: Region | null = null;
  /** What is at hand; null where it has been taken. Null when nothing is. */
  #values: (Tensor | null)[] | null = null;
  #freedBefore = 0;
  #start = 0;
  #freed = 0;
  #ran = false;
  #levels: readonly number[] = [];
  #spent: () => void = () => {};
  /** Bytes of what the arguments and the saved tensors lie in, by the serial of the storage; parameters left out. */
  readonly inputs = new Map<number, number>();
  readonly saved = new Map<number, number>();

  constructor(fn: (...args: never[]) => unknown, args: readonly unknown[], ledger = new Ledger()) {
    this.#fn = fn as (...args: unknown[]) => unknown;
    this.#ledger = ledger;
    this.#args = args.map((value) => {
      if (!(value instanceof Tensor)) return { value };
      checkTensor('checkpoint', value);
      const { storage } = value;
      this.#watch(value, 'input');
      this.inputs.set(storage.serial, storage.bytes);
      ledger.add(storage);
      return { saved: save(value), storage };
    });
  }

  #watch({ storage, shape }: Tensor, what: string): void {
    if (!this.#unchanged.has(storage)) {
      storage.savers++;
      this.#unchanged.set(storage, { version: storage.version, what: `${what} of shape ${show(shape)}` });
    }
  }

  /** Runs fn on `args`. `retain`: keep what is saved until it is used, or `drop` is called. */
  first<T>(args: readonly unknown[], retain: boolean): T {
    created++;
    this.#levels = levelsNow();
    const start = nextSerial();
    this.#start = start;
    if (retain) this.#values = [];
    const hooks: SavedHooks<Tensor> = {
      pack: (t) => {
        const { serial, bytes } = t.storage;
        if (serial >= start || this.inputs.has(serial)) this.saved.set(serial, bytes);
        this.#keep(t);
        return this.#entries.push({ shape: t.shape, code: t.code }) - 1;
      },
      unpack: (index) => this.#take(index as number),
      input: (t) => {
        if (t.storage.serial < start) this.#watch(t, 'tensor');
      },
      free: (index) => this.#free(index as number),
    };
    const note = (generator: Generator): void => {
      if (!this.#generators.has(generator)) this.#generators.set(generator, generator.bookmark());
    };
    // Not as a method: it would be named so where errors tell of the place.
    const fn = this.#fn;
    const run = (): T => scope(() => fn(...args) as T);
    const result = observeDraws(note, () => within('checkpoint', { savedHooks: hooks as SavedHooks }, run));
    this.#freedBefore = freed.bytes;
    this.#ran = true;
    this.#releaseWhenFreed();
    return result;
  }

  /** Whether the backward pass will ask for something. */
  get saves(): boolean {
    return this.#entries.length > 0;
  }

  /** Calls `spent` when the backward pass has let go of everything. */
  whenSpent(spent: () => void): void {
    this.#spent = spent;
  }

  #free(index: number): void {
    const held = this.#values?.[index];
    if (held) {
      this.#letGo(held);
      this.#values![index] = null;
    }
    this.#freed++;
    this.#releaseWhenFreed();
  }

  /**
   * Joins the region that made this one's argument: both are computed again together, from the other's argument, and
   * this one's is not kept.
   */
  follow(before: Region): void {
    this.#letGoOfArguments();
    this.#before = before;
  }

  #letGoOfArguments(): void {
    if (this.#before !== null) return;
    for (const arg of this.#args) {
      if (!('saved' in arg)) continue;
      this.#ledger.remove(arg.storage);
      letGo(arg.saved);
    }
  }

  #releaseWhenFreed(): void {
    if (!this.#ran || this.#freed < this.#entries.length) return;
    for (const [storage, { version }] of this.#unchanged) storage.letGo(version);
    this.#letGoOfArguments();
    this.#spent();
  }

  #keep(t: Tensor): void {
    if (this.#values === null) return;
    const held = hold(t);
    if (this.#counts(t)) this.#ledger.add(t.storage);
    this.#values.push(held);
  }

  /** Not inputs, which are counted as such, nor parameters, which are there anyway. */
  #counts({ storage }: Tensor): boolean {
    return storage.serial >= this.#start;
  }

  #letGo(held: Tensor): void {
    if (this.#counts(held)) this.#ledger.remove(held.storage);
    held.dispose();
  }

  /** Forgets what is at hand: it will be computed again. */
  drop(): void {
    for (const held of this.#values ?? []) if (held !== null) this.#letGo(held);
    this.#values = null;
  }

  #take(index: number): Tensor {
    this.#values ??= this.#recompute();
    // Whoever asks a second time, of a graph that is retained, waits for a second computation.
    if (this.#values[index] === null) this.#values = this.#recompute();
    const held = this.#values[index]!;
    // The caller's scope frees it.
    const t = handleInGraph(held);
    this.#letGo(held);
    this.#values[index] = null;
    freed.bytes += t.nbytes;
    if (this.#values.every((entry) => entry === null)) this.#values = null;
    return t;
  }

  #recompute(): (Tensor | null)[] {
    this.#advise();
    this.#runAgain(true);
    if (this.#values!.length === this.#entries.length) return this.#values!;
    const count = this.#values!.length;
    this.drop();
    throw new AutogradError(
      `checkpoint: run again, the function saved ${count} tensors instead of ${this.#entries.length}. It must compute ` +
        'the same each time: no branches on what it changes itself.',
    );
  }

  /** Runs fn once more, from the same random numbers, keeping what it saves. `stop`: as soon as that is all. */
  #runAgain(stop: boolean): unknown {
    this.#checkUnchanged();
    this.drop();
    const args =
      this.#before === null
        ? this.#args.map((arg) => ('saved' in arg ? restore(arg.saved, CHECKPOINT) : arg.value))
        : [this.#before.#runAgain(false)];
    this.#values = [];
    const fn = this.#fn;
    const present = [...this.#generators.keys()].map((generator) => generator.bookmark());
    for (const rewind of this.#generators.values()) rewind();
    const hooks = { pack: (t: Tensor) => this.#keepAgain(t, stop), unpack: (i: number) => this.#values![i]! };
    const observer = current().observer?.again ?? null;
    const change = { grad: true, stopped: false, savedHooks: hooks as unknown as SavedHooks, observer };
    try {
      return withLevels(this.#levels, () => within('checkpoint', change, () => scope(() => fn(...args))));
    } catch (error) {
      if (error === ENOUGH) return null;
      this.drop();
      throw error;
    } finally {
      for (const back of present) back();
    }
  }

  #keepAgain(t: Tensor, stop: boolean): number {
    const index = this.#values!.length;
    // fn has caught what was thrown to stop it.
    if (stop && index === this.#entries.length) throw ENOUGH;
    const { shape, code } = this.#entries[index] ?? t;
    if (code !== t.code || !sameShape(shape, t.shape)) {
      throw new AutogradError(
        `checkpoint: run again, the function saved a tensor of shape ${show(t.shape)} instead of ${show(shape)}. It must ` +
          'compute the same each time.',
      );
    }
    this.#keep(t);
    if (stop && index + 1 === this.#entries.length) throw ENOUGH;
    return index;
  }

  #checkUnchanged(): void {
    for (const [storage, { version, what }] of this.#unchanged) {
      if (storage.version === version) continue;
      const where = storage.changedAt === '' ? '' : ` at ${storage.changedAt}`;
      throw new AutogradError(
        `checkpoint: ${what} was changed in place${where} between the forward pass and the backward pass: it was at ` +
          `version ${version} and is at ${storage.version}. What is computed again would differ.`,
      );
    }
  }

  /** The only region, recomputed before anything else was let go: all that it dropped is needed at once. */
  #advise(): void {
    const alone = created === 1 && (freed.bytes - this.#freedBefore) * 10 < sumOf(this.saved);
    created = 0;
    if (alone && this.#values === null) adviseOnce('checkpoint');
  }
}

const advised = new Set<string>();

/** Says once that memory is freed only to be needed again all at once. */
export function adviseOnce(op: string): void {
  if (advised.has(op)) return;
  // Once told of the sequence, nobody wants to hear of its parts.
  advised.add(op).add('checkpoint');
  process.emitWarning(
    `${op}: one checkpoint round everything does not lower the peak of memory: what it saves is all computed again ` +
      'before the first of it is let go. Checkpoint several parts, each on its own: checkpointSequential(modules, ' +
      '{ segments }, x).',
    { code: 'CHAINRULE_CHECKPOINT_PEAK' },
  );
}

/**
 * fn(...inputs), without keeping what fn saves for the backward pass: when backward() comes to it, fn runs again. Costs
 * one more forward pass; gradients are the same bits. Random numbers are drawn again as they were. Tensors that fn makes
 * and does not return are freed at once, as by scope(). A checkpoint that cannot lower the peak says so in a warning.
 * torch.utils.checkpoint.checkpoint(use_reentrant=False)
 * @throws AutogradError from backward() when a parameter or input has been changed in place, or fn computes otherwise
 */
export function checkpoint<A extends unknown[], R>(fn: (...inputs: A) => R, ...inputs: A): R {
  checkFunction('checkpoint', fn);
  if (!current().grad) return fn(...inputs);
  return new Region(fn as (...args: never[]) => unknown, inputs).first(inputs, false);
}
