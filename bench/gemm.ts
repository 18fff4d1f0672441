// Bench layer: matrix products, natively: our commands through the executor beside every library that is installed, each
// in a process of its own, in blocks that alternate. The share is of the multiply-add peak that the same rounds reached.
// Run: `npm run bench gemm [--threads 1] [--only 512] [--layout NT] [--seconds 0.1] [--rivals dnn]`.
import { geometricMean, merge, printTable, type Sampling, type Timing } from './measure.ts';
import { buildPrograms, Program } from './native.ts';
import type { Options } from './options.ts';
import { saveCells } from './results.ts';
import { type Started, startMatmulRivals } from './rivals.ts';

/** [batch, m, n, k] */
type Shape = readonly [number, number, number, number];

const SHAPES: readonly Shape[] = [
  [1, 32, 32, 32],
  [1, 64, 64, 64],
  [1, 128, 10, 256],
  [1, 1, 1024, 1024],
  [1, 128, 128, 128],
  [1, 32, 256, 784],
  [1, 256, 256, 256],
  [1, 128, 256, 512],
  [1, 4096, 64, 64],
  [1, 128, 512, 784],
  [1, 512, 512, 512],
  [1, 8, 4096, 4096],
  [1, 1024, 1024, 1024],
  [1, 2048, 2048, 2048],
  [512, 16, 16, 16],
  [64, 64, 64, 64],
  [96, 128, 128, 64],
];
const LAYOUTS = ['NN', 'NT', 'TN'] as const;
/** For the other precisions: where arithmetic dominates. */
const LARGE = SHAPES.filter(([batch, m, n, k]) => batch === 1 && m >= 512 && m === n && n === k);

/** Where arithmetic is the limit, neither memory nor the calls. */
const isArithmetic = ([batch, m, n, k]: Shape): boolean => batch === 1 && m >= 32 && m * n * k > 2 ** 22;

/** What is multiplied, as bench/native/gemm.h names it, and the limit that it is held against. */
const PRECISIONS = [
  { name: 'f32', limit: 'f32', shapes: SHAPES, layouts: LAYOUTS },
  { name: 'f64', limit: 'f64', shapes: LARGE, layouts: LAYOUTS },
] as const;

export interface Cell {
  precision: string;
  threads: number;
  shape: string;
  layout: string;
  /** GFLOP/s, best and median. */
  ours: Rate;
  limit: number;
  rivals: { name: string; rate: Rate }[];
}

interface Rate {
  best: number;
  median: number;
}

const shapeName = ([batch, ...sizes]: Shape): string => `${batch > 1 ? `${batch} × ` : ''}(${sizes.join(',')})`;

interface Bench {
  ours: Program;
  limits: Program;
  rivals: Started[];
  seconds: number;
}

const ROUNDS = 6;
/** Of calls longer than LONG seconds, which are steadier. */
const FEW_ROUNDS = 4;
const LONG = 0.02;
/** Rivals that are worth further rounds, after those in which all run: one may be disturbed. */
const FINALISTS = 2;
const HEATS = 2;
/** How many times as slow as the best one may be and still run in the next heat. */
const HOPELESS = 1.5;

async function measureCell(
  bench: Bench,
  precision: (typeof PRECISIONS)[number],
  threads: number,
  shape: Shape,
  layout: string,
): Promise<Cell | undefined> {
  const work = 2 * shape.reduce((product, size) => product * size, 1);
  const rate = ({ best, median }: Timing): Rate => ({ best: work / best / 1e9, median: work / median / 1e9 });
  const request = `${threads} ${precision.name} ${layout} ${shape.join(' ')}`;
  const sampling: Sampling = { warmup: bench.seconds / 4, seconds: bench.seconds };
  const own: Timing[] = [];
  const theirs = new Map<string, Timing[]>();
  let limit = 0;
  let inRace = bench.rivals;
  let rounds = ROUNDS;
  for (let round = 0; round < rounds; round++) {
    const peak = await bench.limits.measure(`${threads} ${precision.limit} 0`, { warmup: 0.003, seconds: 0.015 });
    if (peak) limit = Math.max(limit, 1 / peak.best / 1e9);
    const timing = await bench.ours.measure(request, sampling);
    if (!timing) return undefined;
    own.push(timing);
    if (timing.best > LONG) rounds = FEW_ROUNDS;
    for (const { name, process } of inRace) {
      const other = await process.measure(request, sampling);
      if (other) theirs.set(name, [...(theirs.get(name) ?? []), other]);
    }
    const best = (name: string): number => merge(theirs.get(name)!).best;
    inRace = inRace.filter(({ name }) => theirs.has(name)).sort((a, b) => best(a.name) - best(b.name));
    const leader = inRace[0] && best(inRace[0].name);
    inRace =
      round + 1 < HEATS ? inRace.filter(({ name }) => best(name) < HOPELESS * leader!) : inRace.slice(0, FINALISTS);
  }
  const rivals = [...theirs].map(([name, timings]) => ({ name, rate: rate(merge(timings)) }));
  rivals.sort((a, b) => b.rate.best - a.rate.best);
  return { precision: precision.name, threads, shape: shapeName(shape), layout, ours: rate(merge(own)), limit, rivals };
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
export const share = ({ ours, limit }: Cell): number => ours.best / limit;
/** Against the best rival, best against best and median against median; undefined when nobody else can. */
export const ratio = ({ ours, rivals }: Cell): number | undefined => rivals[0] && ours.best / rivals[0].rate.best;
const medianRatio = ({ ours, rivals }: Cell): number | undefined =>
  rivals[0] && ours.median / Math.max(...rivals.slice(0, FINALISTS).map(({ rate }) => rate.median));

const times = (value: number | undefined): string => (value === undefined ? '-' : value.toFixed(2));

function row(cell: Cell): string[] {
  const others = cell.rivals.slice(0, 3).map(({ name, rate }) => `${name} ${rate.best.toFixed(1)}`);
  return [
    cell.shape,
    cell.layout,
    String(cell.threads),
    cell.ours.best.toFixed(1),
    cell.ours.median.toFixed(1),
    percent(share(cell)),
    times(ratio(cell)),
    times(medianRatio(cell)),
    others.join(', '),
  ];
}

/** How near those products come to the peak whose limit it is. */
function arithmeticSummary(cells: readonly Cell[]): string {
  const names = SHAPES.filter(isArithmetic).map(shapeName);
  const shares = cells.filter(({ shape }) => names.includes(shape)).sort((a, b) => share(a) - share(b));
  if (shares.length === 0) return '';
  const [least, middle] = [shares[0]!, shares[shares.length >> 1]!];
  return (
    `; of the peak, where arithmetic dominates (${shares.length}): at least ${percent(share(least))} ` +
    `(${least.shape} ${least.layout}), half of them ${percent(share(middle))} or more`
  );
}

/** A line for each precision and number of threads. */
export function summary(cells: readonly Cell[]): string[] {
  return PRECISIONS.flatMap(({ name }) =>
    [...new Set(cells.map((cell) => cell.threads))]
      .map((threads) => {
        const mine = cells.filter((cell) => cell.precision === name && cell.threads === threads);
        const compared = mine.filter((cell) => ratio(cell) !== undefined);
        if (compared.length === 0) return '';
        const lowest = compared.reduce((a, b) => (ratio(a)! < ratio(b)! ? a : b));
        const mean = (of: typeof ratio): string => geometricMean(compared.map((cell) => of(cell)!)).toFixed(3);
        return (
          `${name}, ${threads} thread${threads > 1 ? 's' : ''}: ${mean(ratio)} x the best rival (geometric mean of ` +
          `${compared.length}; ${mean(medianRatio)} by medians), lowest ${ratio(lowest)!.toFixed(2)}: ${lowest.shape} ` +
          `${lowest.layout}, ${lowest.rivals[0]!.name}${arithmeticSummary(mine)}`
        );
      })
      .filter(Boolean),
  );
}

export async function run(options: Options): Promise<void> {
  buildPrograms();
  const [ours, limits] = [await Program.start('gemm_chainrule'), await Program.start('limits')];
  if (!ours || !limits) throw new Error('the programs of bench/native do not start');
  const rivals = (await startMatmulRivals()).filter(({ name }) => options.rival(name));
  const bench: Bench = { ours, limits, rivals, seconds: options.seconds ?? 0.025 };
  console.log(`${ours.about} beside ${rivals.map(({ process }) => process.about).join(', ') || 'nobody'}\n`);
  const cells: Cell[] = [];
  for (const precision of PRECISIONS) {
    const before = cells.length;
    for (const shape of precision.shapes) {
      for (const layout of precision.layouts) {
        for (const threads of options.threads) {
          if (!options.matches(precision.name, shapeName(shape), layout)) continue;
          const cell = await measureCell(bench, precision, threads, shape, layout);
          if (cell) cells.push(cell);
        }
      }
    }
    if (cells.length === before) continue;
    printTable(
      [precision.name, '', 'threads', 'GFLOP/s best', 'median', 'of peak', 'ratio', 'of medians', 'best rivals'],
      cells.slice(before).map(row),
    );
  }
  console.log(`${summary(cells).join('\n')}\n`);
  for (const { process } of [...rivals, { process: ours }, { process: limits }]) process.stop();
  const about = rivals.map(({ name, process }) => ({ name, about: process.about }));
  saveCells('gemm', options, { isa: ours.about, rivals: about, cells }, (cell) =>
    [cell.precision, cell.shape, cell.layout, cell.threads].join(),
  );
}
