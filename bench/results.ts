// Bench layer: what a part measured, as a file in out/bench, from which docs/performance.md and its plots are made.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { buildInfo } from '../lib/index.ts';
import type { Options } from './options.ts';

const file = (part: string): string => fileURLToPath(new URL(`../out/bench/${part}.json`, import.meta.url));

export interface Machine {
  processor: string;
  cores: number;
  isa: string;
  node: string;
  version: string;
  date: string;
}

export function machine(): Machine {
  const { isa, version } = buildInfo();
  const processor = cpus()[0]?.model ?? 'unknown processor';
  const date = new Date().toISOString().slice(0, 10);
  return { processor, cores: cpus().length, isa, node: process.version, version, date };
}

export function save(part: string, result: object): void {
  mkdirSync(fileURLToPath(new URL('../out/bench', import.meta.url)), { recursive: true });
  writeFileSync(file(part), `${JSON.stringify({ machine: machine(), ...result }, null, 1)}\n`);
}

/**
 * Saves what a run measured that may have been narrowed: cells of before that have no successor stay. Nothing is saved
 * when some rivals were left out, for then the best one may be missing.
 */
export function saveCells<C>(
  part: string,
  { everyRival }: Options,
  result: { cells: readonly C[]; [about: string]: unknown },
  nameOf: (cell: C) => string,
): void {
  if (!everyRival) return;
  const cells = new Map((load<{ cells: C[] }>(part)?.cells ?? []).map((cell) => [nameOf(cell), cell]));
  for (const cell of result.cells) cells.set(nameOf(cell), cell);
  save(part, { ...result, cells: [...cells.values()] });
}

/** What was saved last; undefined when there is nothing. */
export function load<T>(part: string): (T & { machine: Machine }) | undefined {
  try {
    return JSON.parse(readFileSync(file(part), 'utf8'));
  } catch {
    return undefined;
  }
}
