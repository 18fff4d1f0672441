// Bench layer: what the machine can do at most, now: multiply-adds of its widest registers, and copies, with as many
// threads. Run: `npm run bench limits`.
import { printTable } from './measure.ts';
import { buildPrograms, Program } from './native.ts';
import type { Options } from './options.ts';
import { save } from './results.ts';

const MIB = 2 ** 20;
/** Bytes that each thread copies; read and write both count. */
const LIMITS = [
  { name: 'float32 multiply-add', request: 'f32 0', unit: 'GFLOP/s' },
  { name: 'float64 multiply-add', request: 'f64 0', unit: 'GFLOP/s' },
  { name: 'bfloat16 dot', request: 'bf16 0', unit: 'GFLOP/s' },
  { name: 'copy in L1', request: `copy ${12 * 1024}`, unit: 'GB/s' },
  { name: 'copy in L2', request: `copy ${MIB / 4}`, unit: 'GB/s' },
  { name: 'copy in memory', request: `copy ${128 * MIB}`, unit: 'GB/s' },
  { name: 'copy in memory, past the cache', request: `copy-past-cache ${128 * MIB}`, unit: 'GB/s' },
];

export interface Limit {
  name: string;
  unit: string;
  threads: number;
  best: number;
  median: number;
}

export async function run({ threads, matches, seconds = 0.2 }: Options): Promise<void> {
  buildPrograms('limits');
  const program = await Program.start('limits');
  if (!program) throw new Error('bench/native/limits.cc does not start');
  const found: Limit[] = [];
  for (const { name, request, unit } of LIMITS) {
    for (const count of threads) {
      if (!matches(name)) continue;
      const timing = await program.measure(`${count} ${request}`, { warmup: 0.05, seconds });
      if (!timing) continue;
      found.push({ name, unit, threads: count, best: 1 / timing.best / 1e9, median: 1 / timing.median / 1e9 });
    }
  }
  program.stop();
  const rows = found.map((l) => [l.name, String(l.threads), l.best.toFixed(1), l.median.toFixed(1), l.unit]);
  printTable([program.about, 'threads', 'best', 'median', ''], rows);
  save('limits', { limits: found });
}
