// How a recorded program reads: a command a line, `%7[32,128] = relu %6[32,128]`, those that run together with the one
// before set in. Knows no op by name.
import { DTYPES } from '../dtype.ts';
import { nameOf } from '../native.ts';
import type { Group } from './fuse.ts';
import { opcodeIn, type Reference } from './recorder.ts';
import type { Storage } from './storage.ts';

/**
 * `where` tells of a storage where it lies, such as `@1024` for a place in the arena; '' for nothing. The first `once`
 * groups are marked: they do not run again.
 */
export function print(groups: readonly Group[], where: (storage: Storage) => string, once = 0): string {
  const numbers = new Map<Storage, number>();
  const operand = ({ storage, shape, code }: Reference): string => {
    if (!numbers.has(storage)) numbers.set(storage, numbers.size);
    const dtype = DTYPES[code] === 'float32' ? '' : ` ${DTYPES[code]}`;
    return `%${numbers.get(storage)}[${shape.join(',')}]${dtype}${where(storage)}`;
  };
  return groups
    .flatMap((group, at) =>
      group.map(({ words, references }, i) => {
        const [out = '', ...inputs] = references.map(operand);
        return `${at < once ? 'once: ' : i > 0 ? '  ' : ''}${out} = ${[nameOf(opcodeIn(words[0]!)), ...inputs].join(' ')}`;
      }),
    )
    .join('\n');
}
