// Bench layer: PyTorch, as Debian's python3-torch brings it, in a process of its own that idles while we measure. It is
// as fast as its BLAS, which it names: install libopenblas0 rather than compare with the reference BLAS.
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Sampling, Timing } from '../measure.ts';

const PYTHON = '/usr/bin/python3';
const SCRIPT = fileURLToPath(new URL('./pytorch.py', import.meta.url));
/** Threads of a BLAS spin for 26 ms after a call. */
const QUIET_MS = 50;

type Python = ChildProcessByStdio<Writable, Readable, null>;

export class PyTorch {
  readonly #process: Python;
  readonly #lines: AsyncIterator<string>;

  private constructor(process: Python, lines: AsyncIterator<string>) {
    this.#process = process;
    this.#lines = lines;
  }

  /** Undefined, after saying so, when it is not installed. */
  static async start(): Promise<PyTorch | undefined> {
    const process = spawn(PYTHON, [SCRIPT], { stdio: ['pipe', 'pipe', 'ignore'] });
    process.on('error', () => {});
    const lines = createInterface(process.stdout)[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done) {
      console.log(
        `PyTorch: not installed for ${PYTHON} (package python3-torch), so there is nothing to compare with.\n`,
      );
      return undefined;
    }
    const { version, blas } = JSON.parse(first.value) as { version: string; blas: string };
    console.log(`PyTorch ${version} over ${blas}\n`);
    return new PyTorch(process, lines);
  }

  async measure(name: string, threads: number, { warmup = 0.2, seconds = 0.5 }: Sampling = {}): Promise<Timing> {
    this.#process.stdin.write(`${JSON.stringify({ case: name, threads, warmup, seconds })}\n`);
    const answer = await this.#lines.next();
    if (answer.done) throw new Error(`PyTorch ended while measuring ${name}`);
    await sleep(QUIET_MS);
    return JSON.parse(answer.value) as Timing;
  }

  stop(): void {
    this.#process.stdin.end();
  }
}
