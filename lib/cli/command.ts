// What the subcommands of `chainrule` share: a wrong command line, and a file that is no trace. Layer cli.
import { readFileSync, statSync } from 'node:fs';
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { FormatError } from '../errors.ts';
import { MOST_CHARACTERS, parseTrace, type Trace } from '../viz/trace-format.ts';

export interface Command {
  /** One line: what comes after its name, and what it does. */
  readonly usage: string;
  run(args: string[]): Promise<void>;
}

/** A command line that makes no sense. The message is for its author. */
export class UsageError extends Error {}

type Options = NonNullable<ParseArgsConfig['options']>;
type Parsed<O extends Options> = ReturnType<typeof parseArgs<{ args: string[]; options: O; allowPositionals: true }>>;

/** @throws UsageError for an option that there is not, one without its value, and a second file */
export function parseCommand<O extends Options>(
  args: string[],
  options: O,
): { options: Parsed<O>['values']; file: string | undefined } {
  const parsed = parsedArgs(args, options);
  if (parsed.positionals.length > 1) throw new UsageError(`one trace at a time, not ${parsed.positionals.length}`);
  return { options: parsed.values, file: parsed.positionals[0] };
}

function parsedArgs<O extends Options>(args: string[], options: O): Parsed<O> {
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/** The trace in a file. @throws FormatError when there is none, or it is no trace */
export function readTrace(file: string): Trace {
  let text: string;
  try {
    // Before it fills the memory: UTF-8 has at most four bytes for a character, and a trace is ASCII but for names.
    const { size } = statSync(file);
    if (size > 2 * MOST_CHARACTERS) throw new FormatError(`${size} bytes are more than a trace may have`);
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new FormatError(`${file}: ${(error as Error).message}`);
  }
  try {
    return parseTrace(text);
  } catch (error) {
    throw new FormatError(`${file}: ${(error as Error).message}`);
  }
}
