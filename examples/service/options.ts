// The command line of the service.
import { integer, parse, text } from '../command-line.ts';

export const USAGE = `Usage: npm run service -- [options]

  --port N         where to listen (default 3000)
  --host NAME      on which address (default 127.0.0.1)
  --checkpoint F   where the state is kept, and taken up again (default runs/service.safetensors)
  --every S        seconds between two saves of it (default 30)
  --no-train       learn from requests only, not in the background
  --seed N         of the first weights and of the digits drawn (default 42)
  --help           show this`;

export interface Options {
  port: number;
  host: string;
  checkpoint: string;
  every: number;
  train: boolean;
  seed: number;
  help: boolean;
}

const OPTIONS = {
  port: text('3000'),
  host: text('127.0.0.1'),
  checkpoint: text('runs/service.safetensors'),
  every: text('30'),
  'no-train': { type: 'boolean', default: false },
  seed: text('42'),
  help: { type: 'boolean', short: 'h', default: false },
} as const;

export function parseOptions(args: string[]): Options {
  const values = parse(args, OPTIONS);
  return {
    port: integer('port', values.port, 0, 65_535),
    host: values.host,
    checkpoint: values.checkpoint,
    every: integer('every', values.every, 1, 86_400),
    train: !values['no-train'],
    seed: integer('seed', values.seed, 0, 2 ** 32 - 1),
    help: values.help,
  };
}
