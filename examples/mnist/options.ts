// The command line of the MNIST example.
import { accessSync, constants, existsSync, mkdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';

export const USAGE = `Usage: npm start -- [options]

  --epochs N     passes over the training set (default 6)
  --batch N      images per step (default 128)
  --lr X         learning rate of the first epoch (default 0.001)
  --seed N       of the weights and of the order of the images (default 42)
  --threads N    default: what the machine, or the container, has
  --out FILE     where to save the weights (default runs/mnist.safetensors)
  --help         show this`;

export interface Options {
  epochs: number;
  batch: number;
  lr: number;
  seed: number;
  threads: number | null;
  out: string;
  help: boolean;
}

/** A command line that makes no sense. The message is for its author. */
export class UsageError extends Error {}

const text = (fallback: string) => ({ type: 'string', default: fallback }) as const;

export function parseOptions(args: string[]): Options {
  const { values } = parse(args);
  return {
    epochs: integer('epochs', values.epochs, 1, 1000),
    batch: integer('batch', values.batch, 1, 60_000),
    lr: positive('lr', values.lr),
    seed: integer('seed', values.seed, 0, 2 ** 32 - 1),
    threads: values.threads === undefined ? null : integer('threads', values.threads, 1, 1024),
    out: values.out,
    help: values.help,
  };
}

function parse(args: string[]) {
  const options = {
    epochs: text('6'),
    batch: text('128'),
    lr: text('0.001'),
    seed: text('42'),
    threads: { type: 'string' },
    out: text('runs/mnist.safetensors'),
    help: { type: 'boolean', short: 'h', default: false },
  } as const;
  try {
    return parseArgs({ args, options });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/** Finds out before training, not after, that the weights cannot be saved. */
export function prepareOutput(file: string, option = '--out'): void {
  const folder = path.dirname(file);
  try {
    if (!existsSync(folder)) mkdirSync(folder);
    accessSync(folder, constants.W_OK);
    if (file === '' || statSync(file, { throwIfNoEntry: false })?.isDirectory())
      throw new Error('not the name of a file');
  } catch (error) {
    throw new UsageError(`${option} '${file}': ${(error as Error).message}`);
  }
}

export function integer(name: string, value: string, least: number, most: number): number {
  const number = Number(value);
  if (/^\d+$/.test(value) && number >= least && number <= most) return number;
  throw new UsageError(`--${name} takes a whole number from ${least} to ${most}, not '${value}'`);
}

function positive(name: string, value: string): number {
  const number = Number(value);
  if (value.trim() !== '' && number > 0 && Number.isFinite(number)) return number;
  throw new UsageError(`--${name} takes a number above 0, not '${value}'`);
}
