// `chainrule playground`: checks its arguments and says where the page is. Layer cli.
import path from 'node:path';
import { type Command, parseCommand, readTrace, UsageError } from './command.ts';
import { serve } from './server.ts';

export const playground: Command = {
  usage: '[trace.json] [--port n]     steps through a backward pass, in the browser',
  async run(args) {
    const { options, file } = parseCommand(args, { port: { type: 'string', default: '0' } });
    const port = Number(options.port);
    if (!/^\d+$/.test(options.port) || port > 65_535) {
      throw new UsageError(`--port takes a number from 0 (any that is free) to 65535, not '${options.port}'`);
    }
    const named = file === undefined ? null : { name: path.basename(file), trace: readTrace(file) };
    const { address } = await serve({ port, trace: named });
    console.log(`${address}\nCtrl+C ends it.`);
  },
};
