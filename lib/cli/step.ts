// `chainrule step`: walks a trace in the terminal, or prints it where there is none. Layer cli.
import { on } from 'node:events';
import { emitKeypressEvents } from 'node:readline';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { FormatError } from '../errors.ts';
import type { Trace } from '../viz/trace-format.ts';
import { type Command, parseCommand, readTrace } from './command.ts';
import { type Key, mostBytes, press, START, screen, stepText } from './step-view.ts';

export const step: Command = {
  usage: '[trace.json]                      steps through a backward pass, in the terminal',
  async run(args) {
    const { file } = parseCommand(args, {});
    const trace = file === undefined ? await example() : readTrace(file);
    if (trace.steps.length === 0) throw new FormatError(`${file}: the trace has no steps`);
    if (process.stdin.isTTY && process.stdout.isTTY) await walk(trace);
    else await print(trace);
  },
};

/** y = (xw + b)² at x = 2, w = 3, b = 1. */
async function example(): Promise<Trace> {
  const { runExample } = await import('./examples.ts');
  return runExample({ example: 'square', inputs: { x: 2, w: 3, b: 1 } }).trace;
}

async function print(trace: Trace): Promise<void> {
  const most = mostBytes(trace);
  const texts = (function* () {
    for (const index of trace.steps.keys()) yield `${stepText(trace, index, most)}\n\n`;
  })();
  try {
    await pipeline(Readable.from(texts), process.stdout, { end: false });
  } catch (error) {
    // The reader has seen enough: `chainrule step | head`.
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  }
}

// Another screen, no cursor, lines that are cut rather than wrapped: a wide character takes two columns.
const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l';
const LEAVE = '\x1b[?7h\x1b[?25h\x1b[?1049l';
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Ends when the user quits. The terminal is as before then, and also after an error or a signal. */
async function walk(trace: Trace): Promise<void> {
  const { stdin, stdout } = process;
  let state = START;
  const draw = (): void => {
    const { lines, top } = screen(trace, state, stdout.columns || 80, stdout.rows || 24);
    state = { ...state, top };
    stdout.write(`\x1b[H${lines.map((line) => `${line}\x1b[K`).join('\r\n')}\x1b[J`);
  };
  const leave = enter();
  stdout.on('resize', draw);
  try {
    draw();
    for await (const [, key] of on(stdin, 'keypress', { close: ['end'] }) as AsyncIterable<[string, Key]>) {
      const next = press(trace, state, key);
      if (next === null) return;
      state = next;
      draw();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EIO') throw error;
  } finally {
    stdout.off('resize', draw);
    leave();
  }
  // The keys ended: the terminal is gone, and Node.js would fail to reset it on the way out.
  process.kill(process.pid, 'SIGHUP');
}

/** Takes the terminal. Returns how to give it back, which a signal and the end of the process do by themselves. */
function enter(): () => void {
  const { stdin, stdout } = process;
  const leave = (): void => {
    process.off('exit', leave);
    for (const signal of SIGNALS) process.off(signal, killed);
    // A terminal that is gone has no mode.
    stdin
      .on('error', () => {})
      .setRawMode(false)
      .pause();
    stdout.write(LEAVE);
  };
  const killed = (signal: NodeJS.Signals): void => {
    leave();
    // No handler is left: this ends the program, as whoever sent it expects.
    process.kill(process.pid, signal);
  };
  process.on('exit', leave);
  for (const signal of SIGNALS) process.on(signal, killed);
  emitKeypressEvents(stdin);
  stdin.setRawMode(true);
  stdout.write(ENTER);
  return leave;
}
