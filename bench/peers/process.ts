// Bench layer: a process that is measured. It greets with a line, then answers one line to each. While it is not asked
// it is stopped: the threads of a BLAS spin for milliseconds after a call, and would spin on our cores.
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

type Child = ChildProcessByStdio<Writable, Readable, null>;

const running = new Set<Child>();
const endAll = (): void => {
  // A stopped process would outlive us.
  for (const child of running) child.kill('SIGKILL');
};
process.on('exit', endAll);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));

export class Peer {
  readonly #child: Child;
  readonly #lines: AsyncIterator<string>;
  /** Its first line. */
  readonly about: string;

  private constructor(child: Child, lines: AsyncIterator<string>, about: string) {
    this.#child = child;
    this.#lines = lines;
    this.about = about;
    child.kill('SIGSTOP');
  }

  /** Undefined when there is no such program, or it does not start. */
  static async start(
    command: string,
    args: readonly string[] = [],
    environment: Readonly<Record<string, string>> = {},
  ): Promise<Peer | undefined> {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'ignore'], env: { ...process.env, ...environment } });
    running.add(child);
    child.on('error', () => running.delete(child));
    child.on('exit', () => running.delete(child));
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    const first = await lines.next();
    return first.done ? undefined : new Peer(child, lines, first.value);
  }

  async ask(request: string): Promise<string> {
    this.#child.kill('SIGCONT');
    this.#child.stdin.write(`${request}\n`);
    const answer = await this.#lines.next();
    this.#child.kill('SIGSTOP');
    if (answer.done) throw new Error(`${this.about} ended while it was asked: ${request}`);
    return answer.value;
  }

  stop(): void {
    this.#child.kill('SIGKILL');
    running.delete(this.#child);
  }
}
