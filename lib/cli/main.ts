#!/usr/bin/env node
// The program `chainrule`: a table of subcommands, and how each of them fails. Layer cli.
import { ChainruleError } from '../errors.ts';
import { plain } from '../text.ts';
import { type Command, UsageError } from './command.ts';
import { playground } from './playground.ts';
import { step } from './step.ts';

const COMMANDS: Readonly<Record<string, Command>> = { playground, step };

const usage = (): string =>
  `Usage:\n${Object.entries(COMMANDS)
    .map(([name, command]) => `  chainrule ${name} ${command.usage}`)
    .join('\n')}`;

async function main([name = '', ...args]: string[]): Promise<void> {
  if (['', 'help', '--help', '-h'].includes(name)) {
    console.log(usage());
    return;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) throw new UsageError(`there is no command '${name}'`);
  await command.run(args);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof UsageError) {
    console.error(`chainrule: ${error.message}\n\n${usage()}`);
    process.exitCode = 2;
  } else if (error instanceof ChainruleError) {
    // It may quote a file, which may be anything.
    console.error(`chainrule: ${plain(error.message)}`);
    process.exitCode = 1;
  } else throw error;
}
