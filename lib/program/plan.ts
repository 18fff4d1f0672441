// Planning of a recorded program: how long each storage is needed, and where in one arena it lies meanwhile. Knows
// storages and commands, no tensors.
import { BYTES } from '../dtype.ts';
import { isElementwise } from '../native.ts';
import { numelOf } from '../shape.ts';
import { type Group, isWhole } from './fuse.ts';
import { type Command, opcodeIn, type Recorder, type Reference } from './recorder.ts';
import type { Storage } from './storage.ts';

const ALIGNMENT = 64;

/** A stretch of the arena over some groups: one storage, or several of which each takes the place of the one before. */
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

/**
 * Gives every storage that `planned` accepts a place in one arena. What a group needs is there for all of it, and what
 * the commands of `once` make for good.
 */
export function plan(
  once: Group,
  groups: readonly Group[],
  recorder: Recorder,
  planned: (storage: Storage) => boolean,
): Plan {
  const blocks = blocksOf(once, groups, planned);
  const distinct = [...new Set(blocks.values())];
  const bytes = place(distinct);
  const offsets = new Map([...blocks].map(([storage, { offset }]) => [storage, offset]));
  return { bytes, lowerBound: mostAtOnce(distinct), eagerPeak: eagerPeak(recorder, blocks), offsets };
}

function blocksOf(once: Group, groups: readonly Group[], planned: (storage: Storage) => boolean): Map<Storage, Block> {
  const lastUser = new Map<Storage, Command>();
  const lastGroup = new Map<Storage, number>();
  groups.forEach((group, at) => {
    for (const command of group) {
      for (const { storage } of command.references) {
        lastUser.set(storage, command);
        lastGroup.set(storage, at);
      }
    }
  });
  const blocks = new Map<Storage, Block>();
  for (const { references } of once) {
    const { storage } = references[0]!;
    blocks.set(storage, { bytes: rounded(storage.bytes), first: 0, last: groups.length, offset: 0 });
  }
  groups.forEach((group, at) => {
    for (const command of group) {
      for (const reference of command.references) {
        const { storage } = reference;
        if (blocks.has(storage) || !planned(storage)) continue;
        const heir = inPlaceOf(command, reference);
        const own = { bytes: rounded(storage.bytes), first: at, last: lastGroup.get(storage)!, offset: 0 };
        if (heir !== undefined) heir.last = Math.max(heir.last, own.last);
        blocks.set(storage, heir ?? own);
      }
    }
  });
  return blocks;

  /** The block of an input that nobody reads after this command, which may write its output there. */
  function inPlaceOf({ words, references }: Command, out: Reference): Block | undefined {
    if (out !== references[0] || !isWhole(out) || !isElementwise(opcodeIn(words[0]!))) return undefined;
    const inputs = references.slice(1);
    return inputs.flatMap(({ storage, shape, code }) => {
      // Element for element: of the same width, and not broadcast.
      const fits = BYTES[code] === BYTES[out.code] && numelOf(shape) === numelOf(out.shape);
      const free = fits && lastUser.get(storage)?.references === references;
      const block = blocks.get(storage);
      if (!free || block === undefined || block.last === groups.length) return [];
      // A view with other strides would be read where the output has been written.
      return inputs.every((input) => input.storage !== storage || isWhole(input)) ? [block] : [];
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

function eagerPeak({ commands, freed }: Recorder, planned: ReadonlyMap<Storage, Block>): number {
  const first = new Map<Storage, number>();
  for (const { references, index } of commands) {
    for (const { storage } of references) {
      if (planned.has(storage) && !first.has(storage)) first.set(storage, index);
    }
  }
  const spans = [...first].map(([storage, command]) => ({
    bytes: rounded(storage.bytes),
    first: command,
    last: (freed.get(storage) ?? commands.length) - 1,
  }));
  return mostAtOnce(spans);
}
