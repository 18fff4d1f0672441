// The log of metrics: lines that are whole whatever happens, and files that are not the log's.
import { spawn, spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { ArgumentError, DisposedError, FormatError, io, tensor } from '../lib/index.ts';
import { thrownBy } from './support.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'metrics-'));
afterAll(() => rmSync(directory, { recursive: true }));
let count = 0;
const newFile = (content?: string): string => {
  const file = path.join(directory, `${count++}.jsonl`);
  if (content !== undefined) writeFileSync(file, content);
  return file;
};
const text = (file: string): string => readFileSync(file, 'utf8');
const read = (file: string): unknown[] => [...io.readMetrics(file)];

function logged(file: string, ...lines: Parameters<io.MetricsLog['log']>[0][]): void {
  using log = new io.MetricsLog(file);
  for (const line of lines) log.log(line);
}

describe('what is logged is what is read', () => {
  it('a line for each object, in the file at once', () => {
    const file = path.join(directory, 'new', 'folder', 'metrics.jsonl');
    const log = new io.MetricsLog(file);
    expect(log.path).toBe(file);
    log.log({ step: 1, loss: 0.5, phase: 'train', best: true, note: null });
    expect(text(file)).toBe('{"step":1,"loss":0.5,"phase":"train","best":true,"note":null}\n');
    log.log({ step: 2, 'line\nbreak "🔥': 1e-300 });
    expect(read(file)).toEqual([
      { step: 1, loss: 0.5, phase: 'train', best: true, note: null },
      { step: 2, 'line\nbreak "🔥': 1e-300 },
    ]);
    expect(text(file).split('\n')).toHaveLength(3);
    log.close();
  });

  it('numbers that JSON has not', () => {
    const file = newFile();
    logged(file, { a: Number.NaN, b: Number.POSITIVE_INFINITY, c: Number.NEGATIVE_INFINITY, d: 'NaN or so' });
    expect(text(file)).toBe('{"a":"NaN","b":"Infinity","c":"-Infinity","d":"NaN or so"}\n');
    expect(read(file)).toEqual([
      { a: Number.NaN, b: Number.POSITIVE_INFINITY, c: Number.NEGATIVE_INFINITY, d: 'NaN or so' },
    ]);
  });

  it('for any names and values', () => {
    const number = fc.double().map((x) => (x === 0 ? 0 : x));
    const string = fc.string({ unit: 'binary' }).filter((s) => Number.isFinite(Number(s)) || !/^(NaN|-?Inf)/.test(s));
    const value = fc.oneof(number, string, fc.boolean(), fc.constant(null));
    const metrics = fc.dictionary(fc.string({ unit: 'binary', minLength: 1 }), value, { minKeys: 1 });
    fc.assert(
      fc.property(fc.array(metrics, { maxLength: 5 }), (lines) => {
        const file = newFile();
        logged(file, ...lines);
        expect(read(file).map((line) => Object.entries(line as object))).toEqual(lines.map((l) => Object.entries(l)));
      }),
      { numRuns: 100 },
    );
  });

  it('also where lines are longer than what is read at once', () => {
    const file = newFile();
    const lines = [1000, 65_520, 70_000, 1, 500_000].map((length, i) => ({ i, text: 'ж'.repeat(length) }));
    logged(file, ...lines);
    expect(read(file)).toEqual(lines);
    logged(file, { i: 5 });
    expect(read(file)).toEqual([...lines, { i: 5 }]);
  });
});

describe('a log that is opened again', () => {
  const whole = '{"step":1}\n{"step":2}\n';

  it('goes on where it ended', () => {
    const file = newFile();
    logged(file, { step: 1 });
    logged(file, { step: 2 });
    logged(file);
    expect(text(file)).toBe(whole);
  });

  it.each(['{', '{"step', '{"step":3', '{"step":3,"loss":', `{"text":"${'x'.repeat(200_000)}`])(
    'is cut behind its last whole line: %#',
    (torn) => {
      for (const content of [whole + torn, torn]) {
        const file = newFile(content);
        expect(read(file)).toEqual(content === torn ? [] : [{ step: 1 }, { step: 2 }]);
        logged(file);
        expect(text(file)).toBe(content === torn ? '' : whole);
        logged(file, { step: 3 });
        expect(read(file)).toEqual(content === torn ? [{ step: 3 }] : [{ step: 1 }, { step: 2 }, { step: 3 }]);
      }
    },
  );

  it('keeps a last line that lacks its end only', () => {
    const file = newFile(`${whole}{"step":3}`);
    expect(read(file)).toEqual([{ step: 1 }, { step: 2 }, { step: 3 }]);
    logged(file, { step: 4 });
    expect(text(file)).toBe(`${whole}{"step":3}\n{"step":4}\n`);
  });

  it.each<[string, string | Uint8Array]>([
    ['text', 'Dear diary'],
    ['text with lines', 'one\ntwo\n'],
    ['an array', '[1, 2'],
    ['an object over several lines', '{\n  "name": "x"\n}'],
    ['bytes', Uint8Array.of(16, 0, 0, 0, 0, 0, 0, 0, 123)],
    ['zeros', new Uint8Array(100_000)],
    ['a line of 2 MiB', `{${'x'.repeat(2 ** 21)}`],
  ])('refuses another file, and leaves it as it is: %s', (_, content) => {
    const file = newFile();
    writeFileSync(file, content);
    expect(() => new io.MetricsLog(file)).toThrow(FormatError);
    expect(() => new io.MetricsLog(file)).toThrow(`MetricsLog: ${file} exists and is no metrics log`);
    expect(readFileSync(file).equals(Buffer.from(content as string))).toBe(true);
  });

  it('has whole lines after its process was killed', async () => {
    const file = newFile();
    const script =
      "import { io } from './lib/index.ts'; const log = new io.MetricsLog(process.argv[1]);" +
      "for (let step = 0; ; step++) log.log({ step, text: 'x'.repeat(step % 5000) });";
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script, file]);
    const ended = new Promise((resolve) => child.on('close', resolve));
    while (!existsSync(file) || readFileSync(file).length < 2 ** 20) await new Promise((r) => setTimeout(r, 20));
    child.kill('SIGKILL');
    await ended;
    logged(file, { step: -1 });
    const steps = [...io.readMetrics(file)].map(({ step }) => step);
    expect(steps.length).toBeGreaterThan(100);
    expect(steps).toEqual([...steps.slice(0, -1).keys(), -1]);
  });

  it('has whole lines after the disk was full', () => {
    const file = newFile();
    const script =
      "import { io } from './lib/index.ts'; const log = new io.MetricsLog(process.argv[1]); let step = 0;" +
      "try { for (;;) log.log({ step: step++, text: 'x'.repeat(100) }); } catch (error) { console.log(error.code); }" +
      'log.close();';
    const command = 'ulimit -f 16 && exec "$0" --import tsx --input-type=module -e "$1" "$2"';
    const { stdout, stderr } = spawnSync('sh', ['-c', command, process.execPath, script, file], { encoding: 'utf8' });
    expect([stdout.trim(), stderr]).toEqual(['EFBIG', '']);
    expect(text(file).endsWith('}\n')).toBe(true);
    expect(read(file).length).toBeGreaterThan(50);
  });
});

describe('a log that is closed', () => {
  it('is closed once, and takes nothing more', () => {
    const file = newFile();
    const log = new io.MetricsLog(file);
    log.close();
    log.close();
    expect(() => log.log({ a: 1 })).toThrow(DisposedError);
    expect(() => log.log({ a: 1 })).toThrow(`the metrics log ${file} is closed`);
    expect(text(file)).toBe('');
  });
});

describe('arguments', () => {
  it.each<[string, unknown]>([
    ['the metrics are undefined', undefined],
    ['the metrics are null', null],
    ['the metrics are 5', 5],
    ['the metrics are "ab"', 'ab'],
    ['the metrics are an array of 1', [1]],
    ['the metrics are a Map', new Map([['a', 1]])],
    ['the metrics are a Date', new Date()],
    ['the metrics are a Object', {}],
    ["'a' is undefined", { a: undefined }],
    ["'a' is 1n", { a: 1n }],
    ["'a' is an array of 1", { a: [1] }],
    ["'a' is a Object", { a: { b: 1 } }],
    [
      "'loss' is a Tensor. Expected a number, a string, a boolean or null; of a tensor, its item()",
      { loss: tensor(1) },
    ],
    ['a line of 1048585 bytes', { a: 'x'.repeat(2 ** 20) }],
  ])('are refused: %s', (message, metrics) => {
    const file = newFile();
    const log = new io.MetricsLog(file);
    expect(() => log.log(metrics as never)).toThrow(ArgumentError);
    expect(() => log.log(metrics as never)).toThrow(message);
    log.close();
    expect(text(file)).toBe('');
  });

  it('of the log and the reader too', () => {
    expect(() => new io.MetricsLog('')).toThrow(ArgumentError);
    expect(thrownBy(() => new io.MetricsLog(directory))).toMatchObject({ code: 'EISDIR' });
    expect(thrownBy(() => read(path.join(directory, 'none')))).toMatchObject({ code: 'ENOENT' });
  });
});

describe('the reader', () => {
  it.each<[string, number]>([
    ['{"a":1}\n{"a":\n{"a":2}\n', 2],
    ['5\n', 1],
    ['"NaN"\n', 1],
    ['null\n', 1],
    ['[1]\n', 1],
    ['{"a":1}\n\n', 2],
    ['{"a":{"b":1}}\n', 1],
    ['{"a":[1]}\n', 1],
  ])('says which line is none: %j', (content, line) => {
    const file = newFile(content);
    expect(() => read(file)).toThrow(FormatError);
    expect(() => read(file)).toThrow(`readMetrics: ${file}: line ${line} is no metrics: `);
  });

  it('gives what comes before, and refuses endless lines', () => {
    const file = newFile('{"a":1}\nnot JSON\n');
    const metrics = io.readMetrics(file);
    expect(metrics.next().value).toEqual({ a: 1 });
    expect(() => metrics.next()).toThrow(FormatError);
    expect(() => read(newFile('x'.repeat(2 ** 21)))).toThrow('a line of more than 1048576 bytes');
  });

  it('follows a file that is being written', () => {
    const file = newFile('{"a":1}\n');
    const metrics = io.readMetrics(file);
    expect(metrics.next().value).toEqual({ a: 1 });
    appendFileSync(file, '{"a":2}\n');
    expect(metrics.next().value).toEqual({ a: 2 });
    expect(metrics.next().done).toBe(true);
  });

  it('keeps names out of prototypes', () => {
    const [metrics] = read(newFile('{"__proto__":1,"constructor":2}\n')) as [object];
    expect(Object.entries(metrics)).toEqual([
      ['__proto__', 1],
      ['constructor', 2],
    ]);
    expect(Object.getPrototypeOf(metrics)).toBe(Object.prototype);
  });
});
