// Bench layer: what the command line may narrow down.
import { parseArgs } from 'node:util';

export interface Options {
  /** Thread counts to run on. */
  threads: readonly number[];
  /** Seconds of samples in a round; undefined leaves it to the part. */
  seconds: number | undefined;
  /** What a part counts by: steps. */
  count: number | undefined;
  /** Whether missing JavaScript rivals may be installed. */
  install: boolean;
  /** Whether a case of these words is wanted. */
  matches(...words: string[]): boolean;
  /** Whether every rival is. */
  everyRival: boolean;
  /** Whether this rival is wanted. */
  rival(name: string): boolean;
}

export function readOptions(args: readonly string[]): { parts: string[]; options: Options } {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      threads: { type: 'string', default: '1,2' },
      seconds: { type: 'string' },
      only: { type: 'string', default: '' },
      rivals: { type: 'string', default: '' },
      install: { type: 'boolean', default: false },
    },
  });
  const [only, rivals] = [values.only, values.rivals].map((text) => text.toLowerCase().split(' ').filter(Boolean));
  const number = (text: string | undefined): number | undefined => (text === undefined ? undefined : Number(text));
  return {
    parts: positionals.filter((word) => Number.isNaN(Number(word))),
    options: {
      threads: values.threads.split(',').map(Number),
      seconds: number(values.seconds),
      install: values.install,
      count: number(positionals.find((word) => !Number.isNaN(Number(word)))),
      matches: (...words) => only!.every((part) => words.join(' ').toLowerCase().includes(part)),
      everyRival: rivals!.length === 0,
      rival: (name) => rivals!.length === 0 || rivals!.some((part) => name.toLowerCase().includes(part)),
    },
  };
}
