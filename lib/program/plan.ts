// Planning of a recorded program: how long each storage is needed, and where in one arena it lies meanwhile. Knows
// storages and commands, no tensors.
import { BYTES } from '../dtype.ts';
import { isElementwise } from '../native.ts';
import { numelOf } from '../shape.ts';
import type { Recorder, Reference } from './recorder.ts';
import type { Storage } from './storage.ts';

const ALIGNMENT = 64;

/** A stretch of the arena over some commands: one storage, or several of which each takes the place of the one before. */
interface Block {
  readonly bytes: number;
  readonly first: number;
  last: number;
  offset: number;
}

export interface Plan {
  /** Bytes of the arena. */
  readonly bytes: number;
  /** The most that is needed at once: no arena can be smaller. */
  readonly lowerBound: number;
  /** The most of the same that is alive at once where each op runs at once; what is left to the collector stays to the end. */
  readonly eagerPeak: number;
  /** Byte offset of each planned storage. */
  readonly offsets: ReadonlyMap<Storage, number>;
}

const rounded = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** All of its storage, in order. */
const isWhole = ({ dense, offset, shape, code, storage }: Reference): boolean =>
  dense && offset === 0 && numelOf(shape) * BYTES[code]! === storage.bytes;

/** Gives every storage that `planned` accepts a place in one arena. */
export function plan(recorder: Recorder, planned: (storage: Storage) => boolean): Plan {
  const blocks = blocksOf(recorder, planned);
  const distinct = [...new Set(blocks.values())];
  const bytes = place(distinct);
  const offsets = new Map([...blocks].map(([storage, { offset }]) => [storage, offset]));
  return { bytes, lowerBound: mostAtOnce(distinct), eagerPeak: eagerPeak(recorder, blocks), offsets };
}

function blocksOf(
  { references, starts, words }: Recorder,
  planned: (storage: Storage) => boolean,
): Map<Storage, Block> {
  const last = new Map<Storage, number>();
  for (const { storage, command } of references) last.set(storage, command);
  const blocks = new Map<Storage, Block>();
  references.forEach((reference, i) => {
    const { storage, command } = reference;
    if (blocks.has(storage) || !planned(storage)) return;
    const heir = inPlaceOf(reference, i);
    const own = { bytes: rounded(storage.bytes), first: command, last: last.get(storage)!, offset: 0 };
    if (heir !== undefined) heir.last = own.last;
    blocks.set(storage, heir ?? own);
  });
  return blocks;

  /** The block of an input that nobody reads after this command, which may write its output there. */
  function inPlaceOf(out: Reference, i: number): Block | undefined {
    if (!isWhole(out) || !isElementwise(words[starts[out.command]!]! & 0xffff)) return undefined;
    let end = i + 1;
    while (references[end]?.command === out.command) end++;
    const inputs = references.slice(i + 1, end);
    return inputs.flatMap(({ storage, shape, code }) => {
      // Element for element: of the same width, and not broadcast.
      const fits = BYTES[code] === BYTES[out.code] && numelOf(shape) === numelOf(out.shape);
      const free = fits && last.get(storage) === out.command;
      const block = blocks.get(storage);
      // A view with other strides would be read where the output has been written.
      return free && block && inputs.every((input) => input.storage !== storage || isWhole(input)) ? [block] : [];
    })[0];
  }
}

/** Largest first, each at the lowest offset that is free for as long as it is needed. Returns the end of the last. */
function place(blocks: readonly Block[]): number {
  const placed: Block[] = [];
  let end = 0;
  for (const block of [...blocks].sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    let offset = 0;
    // `placed` is in order of offsets.
    for (const other of placed) {
      if (other.last < block.first || block.last < other.first) continue;
      if (offset + block.bytes <= other.offset) break;
      offset = Math.max(offset, other.offset + other.bytes);
    }
    block.offset = offset;
    const at = placed.findIndex((other) => other.offset > offset);
    placed.splice(at < 0 ? placed.length : at, 0, block);
    end = Math.max(end, offset + block.bytes);
  }
  return end;
}

interface Span {
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

function mostAtOnce(spans: readonly Span[]): number {
  const changes = spans.flatMap(({ bytes, first, last }) => [
    { at: first, by: bytes },
    { at: last + 1, by: -bytes },
  ]);
  changes.sort((a, b) => a.at - b.at || a.by - b.by);
  let now = 0;
  let most = 0;
  for (const { by } of changes) most = Math.max(most, (now += by));
  return most;
}

function eagerPeak({ references, freed, starts }: Recorder, planned: ReadonlyMap<Storage, Block>): number {
  const first = new Map<Storage, number>();
  for (const { storage, command } of references) {
    if (planned.has(storage) && !first.has(storage)) first.set(storage, command);
  }
  const spans = [...first].map(([storage, command]) => ({
    bytes: rounded(storage.bytes),
    first: command,
    last: (freed.get(storage) ?? starts.length) - 1,
  }));
  return mostAtOnce(spans);
}

/** Writes where each planned storage lies into the words of the program. */
export function relocate(words: Int32Array, { references }: Recorder, { offsets }: Plan, arena: Storage): void {
  for (const { at, storage, offset, code } of references) {
    const place = offsets.get(storage);
    if (place === undefined) continue;
    words[at] = arena.slot;
    words[at + 1] = place / BYTES[code]! + offset;
  }
}
