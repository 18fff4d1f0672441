// What the tests of the core share: values out of tensors, comparison, child processes. No assertions on the library.
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { type DType, memoryStats, type optim, type Tensor, type TypedArray, tensor, trimMemory } from '../lib/index.ts';

export type Data = Parameters<typeof tensor>[0];

/** All elements as numbers, in order. */
export const values = (t: Tensor): number[] => Array.from(t.detach().toTypedArray() as ArrayLike<number>);

/** A leaf that requires grad, float64 unless told. */
export const leaf = (data: Data, dtype: DType = 'float64'): Tensor => tensor(data, { dtype, requiresGrad: true });
export const f64 = (data: Data): Tensor => tensor(data, { dtype: 'float64' });

/** The gradient of a tensor; fails when there is none. */
export function gradOf(t: Tensor): number[] {
  expect(t.grad, 'a gradient').not.toBeNull();
  expect(t.grad!.shape).toEqual(t.shape);
  return values(t.grad!);
}

/** |actual - expected| <= tolerance * max(1, |expected|), element by element; NaN and infinities must be the same. */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what = '',
): void {
  expect(actual.length, `${what} length`).toBe(expected.length);
  for (let i = 0; i < actual.length; i++) {
    const [a, e] = [actual[i]!, expected[i]!];
    if (Object.is(a, e) || Math.abs(a - e) <= tolerance * Math.max(1, Math.abs(e))) continue;
    expect.fail(`${what}[${i}]: ${a}, expected ${e} within ${tolerance}`);
  }
}

/** A whole step of training as users write it, which returns the loss. */
export function trainingStep(
  optimizer: Pick<optim.SGD, 'step' | 'zeroGrad'>,
  lossOf: (x: Tensor, y: Tensor) => Tensor,
): (x: Tensor, y: Tensor) => Tensor {
  return (x, y) => {
    optimizer.zeroGrad();
    const loss = lossOf(x, y);
    loss.backward();
    optimizer.step();
    return loss;
  };
}

/** The bits of a tensor, to compare for equality. */
export const bitsOf = (t: Tensor): string => {
  const { buffer, byteOffset, byteLength } = t.toTypedArray() as TypedArray & { buffer: ArrayBuffer };
  return Buffer.from(buffer, byteOffset, byteLength).toString('hex');
};

/** What fn throws; fails when it returns. */
export function thrownBy(fn: () => unknown): unknown {
  try {
    fn();
  } catch (error) {
    return error;
  }
  return expect.fail('expected an error, none was thrown');
}

export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

const ROOT = fileURLToPath(new URL('..', import.meta.url));

export interface RunOptions {
  args?: readonly string[];
  env?: NodeJS.ProcessEnv;
  /** For node itself. */
  flags?: readonly string[];
}

/** Runs a script of the package in a process of its own. */
export function runScript(file: string, { args = [], env = {}, flags = [] }: RunOptions = {}): Promise<Outcome> {
  const loader = file.endsWith('.ts') ? ['--import', 'tsx'] : [];
  const child = spawn(process.execPath, [...flags, ...loader, file, ...args], {
    cwd: ROOT,
    env: { ...process.env, NODE_OPTIONS: '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const outcome = { stdout: '', stderr: '' };
  child.stdout.on('data', (data: Buffer) => {
    outcome.stdout += data;
  });
  child.stderr.on('data', (data: Buffer) => {
    outcome.stderr += data;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, ...outcome }));
  });
}

/** Runs a script of test/fixtures that prints one line of JSON, and returns what it printed. */
export async function runFixture<T>(name: string, options?: RunOptions): Promise<T> {
  const outcome = await runScript(`test/fixtures/${name}`, options);
  expect(outcome, `${name}: ${outcome.stderr}`).toMatchObject({ code: 0, signal: null });
  return JSON.parse(outcome.stdout) as T;
}

function liveTensors(): number {
  for (let i = 0; i < 4; i++) {
    globalThis.gc!();
    trimMemory();
  }
  return memoryStats().liveTensors;
}

/** How many tensors stay behind for each round. The engine's stack may hold a few of the last round, but not of each. */
export function leftBehind(round: () => void, rounds = 10): number {
  round();
  round();
  const before = liveTensors();
  for (let i = 0; i < rounds; i++) round();
  return Math.floor(Math.max(0, liveTensors() - before) / rounds);
}
