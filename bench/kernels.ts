// Bench layer: what elementwise ops, reductions and optimizers share: cases through the public API beside PyTorch and
// the copies that the machine can do, all in blocks that alternate. Knows no op.
import { setNumThreads } from '../lib/index.ts';
import { geometricMean, measure, merge, printTable, type Sampling, type Timing } from './measure.ts';
import { buildPrograms, Program } from './native.ts';
import type { Options } from './options.ts';
import { PyTorch } from './peers/pytorch.ts';
import { saveCells } from './results.ts';

export interface Case {
  /** As in peers/pytorch_kernels.py. */
  op: string;
  sizes: readonly number[];
  /** The least that the work must read and write, in bytes; figures in GB/s count that. */
  bytes: number;
  /** Makes the operands, and what is timed. */
  prepare(): () => void;
}

export interface KernelCell {
  op: string;
  sizes: string;
  threads: number;
  elements: number;
  bytes: number;
  /** Seconds a call. */
  ours: Timing;
  theirs: Timing | undefined;
  /** GB/s of the best copy of as many bytes. */
  limit: number;
}

const ROUNDS = 3;

/** The faster of two ways to copy that read and write as much in all. */
async function copyLimit(limits: Program, bytes: number, threads: number): Promise<number> {
  const each = Math.max(4096, Math.floor(bytes / 2 / threads));
  let best = 0;
  for (const way of ['copy', 'copy-past-cache']) {
    const timing = await limits.measure(`${threads} ${way} ${each}`, { warmup: 0.01, seconds: 0.03 });
    if (timing) best = Math.max(best, 1 / timing.best / 1e9);
  }
  return best;
}

async function measureCase(part: string, each: Case, options: Options, peers: Peers): Promise<KernelCell[]> {
  const sizes = each.sizes.join('x');
  const fn = each.prepare();
  const cells: KernelCell[] = [];
  for (const threads of options.threads) {
    setNumThreads(threads);
    const sampling: Sampling = { warmup: 0.03, seconds: options.seconds ?? 0.06 };
    const [own, other]: Timing[][] = [[], []];
    let limit = 0;
    for (let round = 0; round < ROUNDS; round++) {
      own!.push(measure(fn, sampling));
      if (peers.torch) other!.push(await peers.torch.measure(`${part}: ${each.op}: ${sizes}`, threads, sampling));
      limit = Math.max(limit, await copyLimit(peers.limits, each.bytes, threads));
    }
    const elements = each.sizes.reduce((product, size) => product * size, 1);
    const theirs = peers.torch && merge(other!);
    cells.push({ op: each.op, sizes, threads, elements, bytes: each.bytes, ours: merge(own!), theirs, limit });
  }
  return cells;
}

interface Peers {
  limits: Program;
  torch: PyTorch | undefined;
}

const micro = (seconds: number): string => (seconds * 1e6).toFixed(1);

function row({ op, sizes, threads, elements, bytes, ours, theirs, limit }: KernelCell): string[] {
  const rate = bytes / ours.best / 1e9;
  return [
    op,
    sizes,
    String(threads),
    micro(ours.best),
    micro(ours.median),
    (elements / ours.best / 1e9).toFixed(2),
    rate.toFixed(1),
    `${((100 * rate) / limit).toFixed(0)} %`,
    ...(theirs
      ? [micro(theirs.best), (theirs.best / ours.best).toFixed(2), (theirs.median / ours.median).toFixed(2)]
      : ['-', '-', '-']),
  ];
}

const HEADER = ['', 'sizes', 'threads', 'µs best', 'median', 'G el/s', 'GB/s', 'of copy'];

export async function runCases(part: string, cases: readonly Case[], options: Options): Promise<void> {
  buildPrograms('limits');
  const limits = await Program.start('limits');
  if (!limits) throw new Error('bench/native/limits.cc does not start');
  const torch = options.rival('PyTorch') ? await PyTorch.start() : undefined;
  const cells: KernelCell[] = [];
  for (const each of cases) {
    if (!options.matches(each.op, each.sizes.join('x'))) continue;
    cells.push(...(await measureCase(part, each, options, { limits, torch })));
  }
  limits.stop();
  torch?.stop();
  printTable([...HEADER, 'PyTorch best', 'ratio', 'of medians'], cells.map(row));
  for (const threads of options.threads) {
    const ratios = cells.flatMap((c) => (c.threads === threads && c.theirs ? [c.theirs.best / c.ours.best] : []));
    if (ratios.length === 0) continue;
    const lowest = Math.min(...ratios).toFixed(2);
    console.log(
      `${threads} thread(s): ${geometricMean(ratios).toFixed(2)} x PyTorch (geometric mean), lowest ${lowest}`,
    );
  }
  console.log();
  saveCells(part, options, { pytorch: torch?.about, cells }, (cell) => [cell.op, cell.sizes, cell.threads].join());
}
