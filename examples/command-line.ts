// What the examples' command lines share: how options are parsed and checked, and how a wrong one is told.
import { accessSync, constants, existsSync, mkdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** A command line that makes no sense. The message is for its author. */
export class UsageError extends Error {}

export const text = (fallback: string) => ({ type: 'string', default: fallback }) as const;

/** @throws UsageError for an option that there is not, or one without its value */
export function parse<O extends NonNullable<ParseArgsConfig['options']>>(args: string[], options: O) {
  try {
    return parseArgs({ args, options }).values;
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

export function positive(name: string, value: string): number {
  const number = Number(value);
  if (value.trim() !== '' && number > 0 && Number.isFinite(number)) return number;
  throw new UsageError(`--${name} takes a number above 0, not '${value}'`);
}

/** Runs a program with its arguments; a wrong one is told with the usage, and exit code 2. */
export async function runMain(main: (args: string[]) => Promise<void>, usage: string): Promise<void> {
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`${error.message}\n\n${usage}`);
    process.exitCode = 2;
  }
}
