// What a compiled program does to the `grad` of tensors from outside. Layer compile.
import { CaptureError } from '../errors.ts';
import { adopt, newStorage } from '../program/engine.ts';
import type { Layout } from '../program/layout.ts';
import { type Place, point, type Recorder } from '../program/recorder.ts';
import type { Storage } from '../program/storage.ts';
import { sameShape, show } from '../shape.ts';
import { Tensor } from '../tensor.ts';

interface Gradient {
  readonly leaf: Tensor;
  /** What the recording found, and whether it looked. */
  readonly before: Tensor | null;
  readonly looked: boolean;
  /** Where its elements are read, and whether they are changed in place. */
  taken: readonly Place[];
  readonly changed: boolean;
  /** What the recording left: null, `before`, or a tensor of its own. */
  readonly after: Tensor | null;
  readonly passes: number;
  readonly unseen: boolean;
  /** Where that is written. */
  left: readonly Place[];
  /** What runs have put into its place. */
  current: Tensor | null;
}

export class Gradients {
  readonly #all: Gradient[] = [];
  readonly #made = new Map<Storage, Gradient>();
  readonly #taken = new Map<Storage, Gradient>();
  /** Storages that the run at hand has for itself. */
  readonly fresh: Storage[] = [];

  constructor(recorder: Recorder, parameters: readonly Tensor[]) {
    const { gradients, made, outside } = recorder;
    for (const [subject, { before, use }] of gradients) {
      const leaf = subject as Tensor;
      if (made.has(leaf.storage)) continue;
      if (parameters.includes(leaf)) {
        throw new CaptureError(
          `compile: backward() adds to the grad of an argument of shape ${show(leaf.shape)}, which is another tensor in ` +
            'each call. Use grad(loss, x) and return it, or pass .detach().',
        );
      }
      const after = leaf.gradTensor;
      const found = before as Tensor | null;
      const met = found === null ? undefined : outside.get(found.storage);
      const gradient: Gradient = {
        leaf,
        before: found,
        looked: use === 'read',
        taken: [],
        changed: met !== undefined && met.version !== found!.storage.version,
        after,
        passes: leaf.gradPasses,
        unseen: leaf.gradUnseen,
        left: [],
        current: null,
      };
      this.#all.push(gradient);
      if (after !== null && made.has(after.storage)) this.#made.set(after.storage, gradient);
      if (met !== undefined) this.#taken.set(found!.storage, gradient);
      // Until the first run there is none.
      leaf.gradTensor = found?.disposed ? null : found;
    }
  }

  /** Finds where they are named. */
  locate(layout: Layout): void {
    for (const gradient of this.#all) {
      const { before, after } = gradient;
      if (before !== null) gradient.taken = layout.placesOf(before);
      if (after !== null && after !== before) gradient.left = layout.placesOf(after);
    }
  }

  /** Whether a storage is a gradient that the program leaves. */
  has(storage: Storage): boolean {
    return this.#made.has(storage);
  }

  /** Whether a storage is a gradient that it finds: each run takes the one that is there. */
  takes(storage: Storage): boolean {
    return this.#taken.has(storage);
  }

  /** Why the gradients that are there now are not such as the program takes. */
  mismatch(): string | null {
    for (const { leaf, before, looked, taken } of this.#all) {
      const now = leaf.gradTensor;
      if (!leaf.leafRequiresGrad) return `a tensor of shape ${show(leaf.shape)} no longer requires grad`;
      if (looked && (now === null) !== (before === null)) {
        return `the grad of a tensor of shape ${show(leaf.shape)} is ${now === null ? 'null' : 'set'}`;
      }
      if (taken.length > 0 && (now === null || !sameShape(now.strides, before!.strides))) {
        return `the grad of a tensor of shape ${show(leaf.shape)} lies otherwise in memory`;
      }
    }
    return null;
  }

  /** Gives the program the gradients that are there, and storages to leave others in. */
  prepare(words: Int32Array): void {
    this.fresh.length = 0;
    for (const { leaf, taken } of this.#all) {
      if (taken.length > 0) point(words, taken, leaf.gradTensor!);
    }
    for (const gradient of this.#made.values()) {
      const { leaf, left, taken, current } = gradient;
      // What nobody has seen, and the program does not read, may be overwritten.
      const spent = taken.length === 0 && leaf.gradTensor === current && leaf.gradUnseen;
      if (current !== null && spent && !current.disposed) continue;
      const { shape, strides, offset, numel, code, isContiguous, storage } = gradient.after!;
      const own = newStorage(storage.bytes);
      gradient.current = new Tensor(own, shape, strides, offset, numel, code, isContiguous, -1);
      point(words, left, gradient.current);
      this.fresh.push(own);
    }
  }

  /** What the run at hand reads and leaves. */
  *storages(): Generator<Storage> {
    for (const { leaf, taken, current } of this.#all) {
      if (taken.length > 0) yield leaf.gradTensor!.storage;
      if (current !== null) yield current.storage;
    }
  }

  /** After a run. */
  publish(): void {
    for (const { leaf, before, changed, after, passes, unseen, current } of this.#all) {
      if (changed) leaf.gradTensor!.storage.changed();
      if (after !== null && after === before) {
        leaf.gradPasses++;
        continue;
      }
      const next = after === null ? null : (current ?? after);
      if (leaf.gradTensor !== next) {
        leaf.grad = next;
        if (next !== null) adopt(next.storage);
      }
      leaf.gradPasses = passes;
      leaf.gradUnseen = unseen;
    }
  }

  /** The gradient that the last run left in place of a recorded storage. */
  tensorOf(storage: Storage): Tensor | null {
    return this.#made.get(storage)?.current ?? null;
  }
}
