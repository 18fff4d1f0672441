// Bench layer: the programs of bench/native: built when a part needs them, started, and asked. All answer alike:
// seconds per call (best and median), or why there is none.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Sampling, Timing } from './measure.ts';
import { Peer } from './peers/process.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
export const programPath = (name: string): string => `${ROOT}out/bench/bench_${name}`;
export const isBuilt = (name: string): boolean => existsSync(programPath(name));

/** Compiles what is out of date, all programs unless named. A rival that was installed since is found. */
export function buildPrograms(...names: readonly string[]): void {
  const jobs = [
    ['--preset', 'bench'],
    ['--build', '--preset', 'bench', ...names.flatMap((name) => ['--target', `bench_${name}`])],
  ];
  for (const args of jobs) {
    const { status, stdout, stderr } = spawnSync('cmake', args, { cwd: ROOT, encoding: 'utf8' });
    if (status !== 0) throw new Error(`cmake ${args.join(' ')} failed:\n${`${stdout}${stderr}`.slice(0, 4000)}`);
  }
}

export class Program {
  readonly #peer: Peer;

  private constructor(peer: Peer) {
    this.#peer = peer;
  }

  get about(): string {
    return this.#peer.about;
  }

  static async start(
    name: string,
    args: readonly string[] = [],
    environment: Readonly<Record<string, string>> = {},
  ): Promise<Program | undefined> {
    const peer = isBuilt(name) ? await Peer.start(programPath(name), args, environment) : undefined;
    return peer && new Program(peer);
  }

  /** Undefined when the program cannot do what is asked. A wrong result is said, and counts as none. */
  async measure(request: string, { warmup = 0.2, seconds = 0.5 }: Sampling = {}): Promise<Timing | undefined> {
    const answer = await this.#peer.ask(`${request} ${warmup} ${seconds}`);
    const [first, second] = answer.split(' ') as [string, string];
    if (first === 'wrong') console.log(`${this.about} is wrong by ${second}: ${request}`);
    const [best, median] = [Number(first), Number(second)];
    return Number.isNaN(best) ? undefined : { best, median, mean: median };
  }

  stop(): void {
    this.#peer.stop();
  }
}
