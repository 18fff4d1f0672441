// DataLoader: a dataset in batches, epoch after epoch, resumable at any batch. Layer data.
import { setImmediate } from 'node:timers/promises';
import { checkOptions } from '../arguments.ts';
import { ArgumentError } from '../errors.ts';
import { arange, randint, randperm } from '../ops/index.ts';
import { refuseWhileRecording } from '../program/recorder.ts';
import { defaultGenerator, Generator } from '../random.ts';
import { checkInteger } from '../shape.ts';
import { keep, type Tensor } from '../tensor.ts';
import { collate } from './collate.ts';
import type { Collated, Dataset } from './dataset.ts';

export interface DataLoaderOptions<Sample, Batch> {
  batchSize?: number;
  /** A new order each epoch. */
  shuffle?: boolean;
  /** Gives the seed of all orders, once, when the loader is made. */
  generator?: Generator;
  /** Leave out a last batch that is smaller than the others. */
  dropLast?: boolean;
  /** Samples to batch, for a dataset without `getBatch`. */
  collate?: (samples: readonly Sample[]) => Batch;
}

/** Plain numbers: JSON keeps it. */
export interface DataLoaderState {
  /** Epoch e is in the order that `seed + e` gives; null without shuffle. */
  seed: number | null;
  epoch: number;
  /** Samples handed out in this epoch. */
  position: number;
  length: number;
}

/** `for (const batch of loader)` is one epoch. So is `for await`, which lets the event loop turn after each batch. */
export class DataLoader<Sample, Batch = Collated<Sample>> implements Iterable<Batch>, AsyncIterable<Batch> {
  readonly dataset: Dataset<Sample, Batch>;
  readonly batchSize: number;
  readonly dropLast: boolean;
  readonly #collate: (samples: readonly Sample[]) => Batch;
  #seed: number | null;
  #epoch = 0;
  #position = 0;
  #resuming = false;

  constructor(dataset: Dataset<Sample, Batch>, options: DataLoaderOptions<Sample, Batch> = {}) {
    const { batchSize = 1, shuffle = false, generator = defaultGenerator(), dropLast = false } = options;
    checkOptions('DataLoader', options, { batchSize, shuffle, generator, dropLast, collate });
    this.dataset = dataset;
    this.batchSize = checkInteger('DataLoader', 'batchSize', batchSize, 1);
    this.dropLast = dropLast;
    this.#collate = options.collate ?? (collate as (samples: readonly Sample[]) => Batch);
    this.#seed = shuffle ? randint(0, 2 ** 31 - 1, [], { generator }).item() : null;
  }

  /** Batches in an epoch. */
  get length(): number {
    const batches = this.dataset.length / this.batchSize;
    return this.dropLast ? Math.floor(batches) : Math.ceil(batches);
  }

  *[Symbol.iterator](): IterableIterator<Batch> {
    // A loop that ended by `break` has left its epoch; only a loaded state continues in the middle of one.
    if (this.#position > 0 && !this.#resuming) this.#nextEpoch();
    this.#resuming = false;
    const order = this.#order();
    const end = Math.min(this.length * this.batchSize, this.dataset.length);
    while (this.#position < end) {
      refuseWhileRecording('DataLoader', 'Take the batch outside, and make it an argument.');
      const start = this.#position;
      const size = Math.min(this.batchSize, end - start);
      const batch = this.#batch(order.narrow(0, start, size));
      this.#position = start + size;
      yield batch;
    }
    this.#nextEpoch();
  }

  async *[Symbol.asyncIterator](): AsyncIterableIterator<Batch> {
    for (const batch of this) {
      yield batch;
      await setImmediate();
    }
  }

  /** Where the loader is: a loader with this state hands out the batches that would follow here, also in later epochs. */
  stateDict(): DataLoaderState {
    return { seed: this.#seed, epoch: this.#epoch, position: this.#position, length: this.dataset.length };
  }

  loadStateDict({ seed, epoch, position, length }: DataLoaderState): void {
    const name = 'DataLoader: loadStateDict';
    if (length !== this.dataset.length) {
      throw new ArgumentError(`${name}: state of a dataset of ${length} samples. Expected ${this.dataset.length}.`);
    }
    if ((seed === null) !== (this.#seed === null)) {
      throw new ArgumentError(
        `${name}: state of a loader ${seed === null ? 'without' : 'with'} shuffle. Expected the other.`,
      );
    }
    checkInteger(name, 'epoch', epoch, 0);
    if (checkInteger(name, 'position', position, 0) > length) {
      throw new ArgumentError(`${name}: position ${position} is behind the last of ${length} samples.`);
    }
    this.#seed = seed === null ? null : checkInteger(name, 'seed', seed, 0);
    this.#epoch = epoch;
    this.#position = position;
    this.#resuming = true;
  }

  #nextEpoch(): void {
    this.#epoch++;
    this.#position = 0;
  }

  /** Depends on seed and epoch alone, so that resuming needs no state of a generator. */
  #order(): Tensor {
    const { length } = this.dataset;
    if (this.#seed === null) return keep(arange(length, { dtype: 'int32' }));
    return keep(randperm(length, { generator: new Generator(this.#seed + this.#epoch) }));
  }

  #batch(indices: Tensor): Batch {
    if (this.dataset.getBatch) return this.dataset.getBatch(indices);
    return this.#collate(Array.from(indices.toTypedArray(), (index) => this.dataset.get(index)));
  }
}
