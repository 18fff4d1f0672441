// How a recorded program reads: a command a line, `%7[32,128] = relu %6[32,128]`. Knows no op by name.
import { DTYPES } from '../dtype.ts';
import { nameOf } from '../native.ts';
import type { Recorder, Reference } from './recorder.ts';
import type { Storage } from './storage.ts';

/** `where` tells of a storage where it lies, such as `@1024` for a place in the arena; '' for nothing. */
export function print({ words, starts, references }: Recorder, where: (storage: Storage) => string): string {
  const numbers = new Map<Storage, number>();
  const operand = ({ storage, shape, code }: Reference): string => {
    if (!numbers.has(storage)) numbers.set(storage, numbers.size);
    const dtype = DTYPES[code] === 'float32' ? '' : ` ${DTYPES[code]}`;
    return `%${numbers.get(storage)}[${shape.join(',')}]${dtype}${where(storage)}`;
  };
  let next = 0;
  return starts
    .map((start, command) => {
      const operands: string[] = [];
      for (; references[next]?.command === command; next++) operands.push(operand(references[next]!));
      const [out = '', ...inputs] = operands;
      return `${out} = ${[nameOf(words[start]! & 0xffff), ...inputs].join(' ')}`;
    })
    .join('\n');
}
