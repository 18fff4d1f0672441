// `chainrule step`: how steps look, what keys do, and the program with and without a terminal.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { mostBytes, press, START, type State, screen, stepLines, stepText } from '../lib/cli/step-view.ts';
import type { Trace, TraceNode, TraceValues } from '../lib/viz/trace-format.ts';
import { type Outcome, runScript } from './support.ts';

const MAIN = 'lib/cli/main.ts';
const directory = mkdtempSync(path.join(tmpdir(), 'chainrule-step-'));
afterAll(() => rmSync(directory, { recursive: true }));

function file(name: string, text: string): string {
  const where = path.join(directory, name);
  writeFileSync(where, text);
  return where;
}

const values = (...data: (number | 'NaN' | 'Infinity')[]): TraceValues => ({
  data,
  ...{ min: null, max: null, mean: null, std: null, norm: 0, zeros: 0, nan: 0, infinite: 0, histogram: [] },
});
const node = (fields: Partial<TraceNode>): TraceNode => ({
  ...{ kind: 'op', op: '', name: '', inputs: [], shape: [], dtype: 'float64', value: values(0), requiresGrad: true },
  ...{ module: '', at: '', saved: [] },
  ...fields,
});

/** y = (3x)^2 at x = 2, by hand. */
const byHand: Trace = {
  ...{ format: 'chainrule-trace', version: 1, loss: 2, dropped: 0 },
  nodes: [
    node({ kind: 'parameter', name: 'x', value: values(2) }),
    node({ op: 'mul', inputs: [0, null], value: values(6), at: 'demo.ts:1:2', module: 'net.0' }),
    node({ op: 'square', inputs: [1], value: values(36), saved: [1, 2] }),
  ],
  steps: [
    { pass: 'forward', node: 1, bytes: 0 },
    { pass: 'forward', node: 2, bytes: 16 },
    {
      ...{ pass: 'backward', node: 2, bytes: 8, upstream: values(1) },
      edges: [{ to: 1, input: 0, local: values(12), product: values(12), sum: values(12) }],
    },
    {
      ...{ pass: 'backward', node: 1, bytes: 0, upstream: values(12) },
      edges: [{ to: 0, input: 0, local: null, product: values(36), sum: values(36) }],
    },
  ],
};

/** The state after these keys: a character, or the name of a key. */
function keyed(keys: readonly string[], from: State = START, trace = byHand): State | null {
  return keys.reduce<State | null>((state, key) => {
    expect(state, `a key after the end: ${key}`).not.toBeNull();
    const named = /^[a-z]{2,}$/.test(key);
    return press(trace, state!, named ? { name: key } : { name: key, sequence: key });
  }, from);
}

describe('a step', () => {
  it('shows where a value comes from, and what is saved', () => {
    expect(stepText(byHand, 0, 16)).toBe(`step 1 of 4  forward
  holds     |                        | 0 B of 16 B at most
#1 mul  [] float64
  module    net.0
  line      demo.ts:1:2
  input     #0 x = 2
  input     a number
  value     6
  saves     nothing`);
    expect(stepText(byHand, 1, 16).split('\n').slice(1)).toEqual([
      '  holds     |########################| 16 B of 16 B at most',
      '#2 square  [] float64  (the loss)',
      '  input     #1 mul = 6',
      '  value     36',
      '  saves     #1 mul, its value',
    ]);
  });

  it('shows upstream, local derivative, product and sum of each edge', () => {
    expect(stepText(byHand, 2, 16)).toBe(`step 3 of 4  backward
  holds     |############            | 8 B of 16 B at most
#2 square  [] float64  (the loss)
  input     #1 mul = 6
  value     36
  upstream  1
  to #1 mul
    local   12
    product 12
    sum     12`);
    expect(stepLines(byHand, 3)).toContain('    local   not one for each element');
  });

  const valueLine = (value: TraceValues, shape: number[]): string =>
    stepLines(
      {
        ...byHand,
        nodes: [node({ op: 'a', value, shape })],
        steps: [byHand.steps[0]!].map((s) => ({ ...s, node: 0 })),
      },
      0,
    ).find((line) => line.startsWith('  value'))!;

  it('prints numbers as the lesson does, nested as their shape', () => {
    expect(valueLine(values(14), [])).toBe('  value     14');
    expect(valueLine(values(0.19661193, 1.22e-10, -0, 'NaN', 'Infinity', 2e9), [2, 3])).toBe(
      '  value     [[0.1966, 1.22e-10, -0], [NaN, Infinity, 2.00e+9]]',
    );
    // Of all examples inside vmap there are more than the shape says; and a size is not believed.
    expect(valueLine(values(1, 2, 3), [])).toBe('  value     [1, 2, 3]');
    expect(valueLine(values(), [2 ** 40, 0])).toBe('  value     []');
  });

  it('sums up what was too much to give', () => {
    const many: TraceValues = {
      ...{ data: null, min: -1, max: 2.5, mean: 0.25, std: 1, norm: 33, zeros: 3, nan: 1, infinite: 0 },
      histogram: [1, 0, 8, 4],
    };
    expect(valueLine(many, [100])).toBe(
      '  value     -1 to 2.5000, mean 0.2500, std 1, norm 33, 3 zeros, 1 NaN  |▁·█▄|',
    );
    const none: TraceValues = { ...many, min: null, max: null, mean: null, std: null, nan: 100, histogram: [] };
    expect(valueLine(none, [100])).toBe('  value     norm 33, 3 zeros, 100 NaN');
  });

  it('lets nothing of a trace speak to the terminal', () => {
    const evil = '\x1b[2J\x9b\u202e\u2028\r\n\x07';
    const hostile: Trace = {
      ...byHand,
      nodes: byHand.nodes.map((n) => ({
        ...n,
        op: `op${evil}`,
        name: evil,
        module: `m${evil}`,
        at: evil,
        dtype: evil,
      })),
    };
    for (const i of hostile.steps.keys()) {
      for (const line of stepText(hostile, i, 1).split('\n')) expect(line).toMatch(/^[\P{C}]*$/u);
      expect(screen(hostile, { ...START, step: i }, 80, 24).lines.join('')).not.toMatch(/[\p{Cc}\p{Cf}\u2028]/u);
    }
  });
});

describe('the screen', () => {
  it('fills its size exactly, whatever it is', () => {
    const states = [START, { ...START, step: 2 }, { ...START, help: true }, { ...START, asking: 'text', typed: 'abc' }];
    for (const state of states as State[]) {
      for (const height of [1, 2, 3, 4, 5, 8, 24, 60]) {
        for (const width of [1, 2, 7, 20, 31, 80, 200]) {
          const { lines } = screen(byHand, state, width, height);
          expect(lines).toHaveLength(height);
          for (const line of lines) expect(Array.from(line).length).toBeLessThanOrEqual(width);
        }
      }
    }
  });

  it('shows all lines in order when they fit', () => {
    const { lines } = screen(byHand, { ...START, step: 2 }, 80, 24);
    expect(lines.slice(0, 10).join('\n')).toBe(stepText(byHand, 2, 16));
    expect(lines.at(-1)).toBe('n next  p back  g go to  / search  ? help  q quit');
  });

  it('scrolls where they do not, and never beyond the end', () => {
    const first = screen(byHand, { ...START, step: 2 }, 80, 7);
    expect(first.lines.slice(2, 6)).toEqual([
      '#2 square  [] float64  (the loss)',
      '  input     #1 mul = 6',
      '  value     36',
      '… 5 more lines: down',
    ]);
    const scrolled = screen(byHand, { ...START, step: 2, top: 1 }, 80, 7);
    expect(scrolled.lines[2]).toBe('  input     #1 mul = 6');
    const end = screen(byHand, { ...START, step: 2, top: 99 }, 80, 7);
    expect(end.top).toBe(4);
    expect(end.lines[5]).toBe('    sum     12');
  });

  it('wraps a long line and loses nothing of it', () => {
    const long = Array.from({ length: 64 }, (_, i) => i + 0.5);
    const trace = {
      ...byHand,
      nodes: [node({ op: 'a', value: values(...long), shape: [64] })],
      loss: 0,
      steps: [{ pass: 'forward', node: 0, bytes: 0 }],
    } as Trace;
    const body = screen(trace, START, 40, 60).lines.slice(2, -1);
    const text = body.join(' ').replace(/\s+/g, ' ');
    for (const value of long) expect(text).toContain(value.toFixed(4));
    expect(body[3]).toMatch(/^ {12}\d/);
  });
});

describe('keys', () => {
  it('go forward and back, and stop at the ends', () => {
    expect(keyed(['n', 'right'])!.step).toBe(2);
    expect(keyed(['n', 'n', 'p', 'left'])!.step).toBe(0);
    expect(keyed(['p'])).toMatchObject({ step: 0, message: 'This is the first step.' });
    expect(keyed(['end', 'n'])).toMatchObject({ step: 3, message: 'This is the last step.' });
    expect(keyed(['end', 'n', 'p'])).toMatchObject({ step: 2, message: '' });
    expect(keyed(['end', 'home'])!.step).toBe(0);
    expect(keyed(['down', 'down', 'up'])!.top).toBe(1);
    expect(keyed(['down', 'n'])!.top).toBe(0);
  });

  it('jump to a number, or say that there is none', () => {
    expect(keyed(['g', '3', 'return'])).toMatchObject({ step: 2, asking: null });
    expect(keyed(['g', '9', 'backspace', '4', 'return'])!.step).toBe(3);
    for (const typed of ['0', '5', 'x', '']) {
      expect(keyed(['n', 'g', ...typed, 'return'])).toMatchObject({
        step: 1,
        message: `There is no step "${typed}". Steps are 1 to 4.`,
      });
    }
    expect(keyed(['n', 'g', '3', 'escape'])).toMatchObject({ step: 1, asking: null });
  });

  it('search on from here and around, in ops, names, modules and lines', () => {
    expect(keyed(['/', ...'MUL', 'return'])!.step).toBe(3);
    expect(keyed(['/', ...'square', 'return'])!.step).toBe(1);
    expect(keyed(['/', ...'square', 'return', '/', 'return'])!.step).toBe(2);
    expect(keyed(['/', ...'net.0', 'return', '/', 'return'])!.step).toBe(0);
    expect(keyed(['/', ...'demo.ts:1', 'return'])!.step).toBe(3);
    expect(keyed(['n', '/', 'return'])!.step).toBe(1);
    expect(keyed(['n', '/', ...'q?', 'return'])).toMatchObject({ step: 1, message: 'No step has "q?".' });
  });

  it('quit by q and Ctrl+C, but not by a q that is typed', () => {
    expect(keyed(['q'])).toBeNull();
    expect(keyed(['/', 'q'])).toMatchObject({ typed: 'q' });
    expect(press(byHand, keyed(['/', 'q'])!, { name: 'c', ctrl: true })).toBeNull();
    expect(keyed(['?'])!.help).toBe(true);
    expect(keyed(['?', '?'])!.help).toBe(false);
    expect(keyed(['?', 'escape'])!.help).toBe(false);
    expect(keyed(['z', '\x1b[200~'])).toEqual(START);
  });
});

describe('the program without a terminal', () => {
  it('prints every step of y = (xw + b)^2, which ends in 14, 28 and 42', async () => {
    const { code, stdout, stderr } = await runScript(MAIN, { args: ['step'] });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.match(/^step \d of 6 {2}(for|back)ward$/gm)).toHaveLength(6);
    const sums = [...stdout.matchAll(/^ {2}to #\d (\w+)\n.*\n.*\n {4}sum {5}(.*)$/gm)].map(([, name, sum]) => [
      name,
      sum,
    ]);
    expect(Object.fromEntries(sums)).toEqual({ add: '14', mul: '14', b: '14', w: '28', x: '42' });
  });

  it('reads a file, and says what is wrong with one', async () => {
    const good = await runScript(MAIN, { args: ['step', file('good.json', JSON.stringify(byHand))] });
    expect(good).toMatchObject({
      code: 0,
      stdout: byHand.steps.map((_, i) => `${stepText(byHand, i, mostBytes(byHand))}\n\n`).join(''),
    });
    const bad: [string, RegExp][] = [
      [file('cut.json', JSON.stringify(byHand).slice(0, 99)), /cut\.json: trace: not JSON, or cut off/],
      [file('evil.json', '\x1b[2J\x9b31m'), /evil\.json: trace: not JSON.* \[2J 31m/],
      [file('other.json', '{"a":1}'), /is no trace: it does not say format/],
      [file('empty.json', JSON.stringify({ ...byHand, steps: [] })), /empty\.json: the trace has no steps/],
      [path.join(directory, 'missing.json'), /missing\.json: ENOENT/],
      [directory, /EISDIR/],
    ];
    for (const [name, message] of bad) {
      const outcome = await runScript(MAIN, { args: ['step', name] });
      expect(outcome).toMatchObject({ code: 1, stdout: '' });
      expect(outcome.stderr).toMatch(message);
      expect(outcome.stderr).toMatch(/^\P{Cc}+\n$/u);
    }
  });

  it('ends quietly when its reader does', () => {
    const steps = Array.from({ length: 20_000 }, (_, i) => ({ pass: 'forward', node: 1, bytes: i }));
    const long = file('long.json', JSON.stringify({ ...byHand, steps }));
    const { stdout, stderr } = spawnSync(
      'sh',
      ['-c', `"${process.execPath}" --import tsx ${MAIN} step ${long} | head -n 1`],
      {
        encoding: 'utf8',
      },
    );
    expect({ stdout, stderr }).toEqual({ stdout: 'step 1 of 20000  forward\n', stderr: '' });
  });
});

describe('the program in a terminal', { timeout: 60_000 }, () => {
  type Act = [text: string, act: { send?: string; resize?: [number, number]; signal?: string; hangup?: true }];
  interface Seen {
    output: string;
    code: number;
    restored: boolean;
  }

  function play(acts: readonly Act[], columns = 80, rows = 24): Seen {
    const trace = file('played.json', JSON.stringify(byHand));
    const command = [process.execPath, '--import', 'tsx', MAIN, 'step', trace];
    const { status, stdout, stderr } = spawnSync(
      'python3',
      ['test/fixtures/terminal.py', JSON.stringify({ command, columns, rows, acts })],
      { encoding: 'utf8' },
    ) as { status: number } & Pick<Outcome, 'stdout' | 'stderr'>;
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    return JSON.parse(stdout) as Seen;
  }
  const ENTERED = '\x1b[?1049h\x1b[?25l';
  const LEFT = '\x1b[?25h\x1b[?1049l';

  it('walks by keys, follows a resize, and leaves the terminal as it was', () => {
    const { output, ...end } = play([
      ['step 1 of 4', { send: 'n' }],
      ['step 2 of 4', { send: '\x1b[C' }],
      ['step 3 of 4', { send: '/mul\r' }],
      ['step 4 of 4', { send: 'g1\r' }],
      ['step 1 of 4', { resize: [30, 3] }],
      ['/ se…', { send: '?' }],
      ['chainrule step', { send: 'q' }],
    ]);
    expect(end).toEqual({ code: 0, restored: true });
    expect(output.startsWith(ENTERED)).toBe(true);
    expect(output.endsWith(LEFT)).toBe(true);
  });

  it('leaves it as it was after a signal, of which it dies', () => {
    for (const [signal, number] of [
      ['SIGINT', 2],
      ['SIGTERM', 15],
    ] as const) {
      const { output, ...end } = play([['step 1 of 4', { signal }]]);
      expect(end).toEqual({ code: -number, restored: true });
      expect(output.endsWith(LEFT)).toBe(true);
    }
    // SIGHUP, or the end of the keys, whichever is first; not the failed assertion that Node.js ends in by itself.
    expect(play([['step 1 of 4', { hangup: true }]])).toEqual({ code: -1 });
    expect(play([['step 1 of 4', { send: '\x03' }]])).toMatchObject({ code: 0, restored: true });
  });
});
