// Bench layer: how long a process, or a worker, takes to end with work in flight, and whether each end is clean. Runs the
// built package. Run: `npm run bench teardown`.
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { printTable } from './measure.ts';
import type { Options } from './options.ts';

const ENDS = [
  ['exit', '3'],
  ['throw', '1'],
  ['term', 'SIGTERM'],
  ['terminate', '0'],
] as const;
const TIMES = 200;
const FIXTURE = fileURLToPath(new URL('../test/fixtures/in-flight.mjs', import.meta.url));

/** Milliseconds from the call that ends it to the end, and the code or signal. */
function end(mode: string): Promise<{ took: number; how: string }> {
  const child = spawn(process.execPath, [FIXTURE, mode], { stdio: ['ignore', 'pipe', 'ignore'] });
  let printed = '';
  child.stdout.on('data', (data: Buffer) => {
    printed += data;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    let at = 0;
    child.on('exit', () => {
      at = Date.now();
    });
    child.on('close', (code, signal) => {
      const told: number | { took: number } = JSON.parse(printed);
      resolve({ took: typeof told === 'number' ? at - told : told.took, how: signal ?? String(code) });
    });
  });
}

export async function run(options: Options): Promise<void> {
  const rows: string[][] = [];
  for (const [mode, expected] of ENDS.filter(([each]) => options.matches(each))) {
    const took: number[] = [];
    let wrong = 0;
    for (let i = 0; i < TIMES; i++) {
      const outcome = await end(mode);
      took.push(outcome.took);
      if (outcome.how !== expected) wrong++;
    }
    took.sort((a, b) => a - b);
    rows.push([
      mode,
      String(TIMES),
      String(wrong),
      ...[0.5, 0.99, 1].map((q) => String(took[Math.ceil(q * TIMES) - 1])),
    ]);
  }
  printTable(['ended by', 'times', 'wrong', 'ms median', 'p99', 'most'], rows);
}
