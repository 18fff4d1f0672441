// Bench layer: what the thread pool adds to the work that it shares out. Run: `npm run bench pool`.
import { availableParallelism } from 'node:os';
import { printTable } from './measure.ts';
import { buildPrograms, Program } from './native.ts';
import type { Options } from './options.ts';
import { save } from './results.ts';

export interface PoolCell {
  name: string;
  /** Seconds beyond those of the chunks, spread over the cores that there are. */
  best: number;
  median: number;
}

export async function run({ matches, seconds = 0.3 }: Options): Promise<void> {
  buildPrograms('pool');
  const program = await Program.start('pool');
  if (!program) throw new Error('bench/native/pool.cc does not start');
  const cores = availableParallelism();
  const cells: PoolCell[] = [];
  for (const { threads, chunks, micros } of [
    { threads: 1, chunks: 1, micros: 2 },
    { threads: 2, chunks: 2, micros: 2 },
    { threads: 2, chunks: 2, micros: 20 },
    { threads: 7, chunks: 14, micros: 20 },
  ]) {
    const name = `${chunks} chunks of ${micros} us on ${threads} threads`;
    if (!matches(name)) continue;
    const timing = await program.measure(`${threads} ${chunks} ${micros}`, { warmup: 0.05, seconds });
    if (!timing) continue;
    const ideal = (Math.ceil(chunks / Math.min(threads, cores)) * micros) / 1e6;
    cells.push({ name, best: timing.best - ideal, median: timing.median - ideal });
  }
  program.stop();
  const micro = (value: number): string => (value * 1e6).toFixed(2);
  printTable(
    ['us beyond the work', 'best', 'median'],
    cells.map((cell) => [cell.name, micro(cell.best), micro(cell.median)]),
  );
  save('pool', { cells });
}
