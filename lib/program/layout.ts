// A recorded program laid out: the words of its commands one after the other, in the order in which they run.
import { BYTES } from '../dtype.ts';
import { COMMAND_WORDS } from './engine.ts';
import type { Group } from './fuse.ts';
import { type Command, JOINED, type Place, type Repeat } from './recorder.ts';
import type { Storage, View } from './storage.ts';

export class Layout {
  readonly words: Int32Array;
  /** In parts that fit the command buffer. */
  readonly parts: readonly Int32Array[];
  readonly #commands: readonly Command[];
  readonly #starts: readonly number[];
  readonly #repeats: readonly ((words: Int32Array) => void)[];

  constructor(groups: readonly Group[], repeats: readonly Repeat[]) {
    this.#commands = groups.flat();
    const starts: number[] = [];
    const ends: number[] = [];
    const words: number[] = [];
    for (const group of groups) {
      group.forEach((command, i) => {
        starts.push(words.length);
        words.push(...command.words);
        if (i < group.length - 1) words[starts.at(-1)!]! |= JOINED;
      });
      ends.push(words.length);
    }
    this.#starts = starts;
    this.words = Int32Array.from(words);
    this.parts = partsOf(this.words, ends);
    const startOf = new Map(this.#commands.map((command, i) => [command, starts[i]!]));
    this.#repeats = repeats.map(({ command, at, run }) => {
      const place = command === null ? 0 : startOf.get(command)! + at;
      return (to) => run(to, place);
    });
  }

  /** Where operands are of the storage of a tensor. */
  placesOf(t: Pick<View, 'storage' | 'offset'>): Place[] {
    return this.#commands.flatMap(({ references }, i) =>
      references.flatMap(({ storage, at, offset }) =>
        storage === t.storage ? [{ at: this.#starts[i]! + at, offset: offset - t.offset }] : [],
      ),
    );
  }

  /** Writes where in the arena each planned storage lies. */
  relocate(offsets: ReadonlyMap<Storage, number>, arena: Storage): void {
    this.#commands.forEach(({ references }, i) => {
      for (const { at, storage, offset, code } of references) {
        const place = offsets.get(storage);
        if (place === undefined) continue;
        this.words[this.#starts[i]! + at] = arena.slot;
        this.words[this.#starts[i]! + at + 1] = place / BYTES[code]! + offset;
      }
    });
  }

  /** What is done again before each further run. */
  repeat(): void {
    for (const again of this.#repeats) again(this.words);
  }

  /** Which of the recorded commands one of these was. */
  indexOf(command: number): number {
    return this.#commands[command]!.index;
  }
}

/** Cut where groups end. */
function partsOf(words: Int32Array, ends: readonly number[]): Int32Array[] {
  const parts: Int32Array[] = [];
  let begin = 0;
  ends.forEach((end, i) => {
    if (end - begin <= COMMAND_WORDS) return;
    const cut = ends[i - 1]!;
    parts.push(words.subarray(begin, cut));
    begin = cut;
  });
  if (begin < words.length) parts.push(words.subarray(begin));
  return parts;
}
