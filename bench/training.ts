// Bench layer: steps per second of a plain training loop (no scope, no dispose): eager, the same function compiled, and
// PyTorch's, each with a model of its own, in blocks that alternate, on as many threads. The share is of the
// multiply-add peak that the same rounds reached, and counts matrix products only. Run: `npm run bench training`.
import { compile, nn, optim, randint, randn, setNumThreads, type Tensor } from '../lib/index.ts';
import { measure, merge, printTable, type Timing } from './measure.ts';
import { buildPrograms, Program } from './native.ts';
import type { Options } from './options.ts';
import { PyTorch } from './peers/pytorch.ts';
import { saveCells } from './results.ts';

/** Layer sizes, batch, activation, loss, optimizer; peers/pytorch.py reads the same words. */
const CASES = [
  '784-512-256-10 128 relu ce sgd',
  '784-512-256-10 128 relu ce adam',
  '784-128-10 32 relu ce sgd',
  '4-16-1 32 relu mse sgd',
  '1024-4096-1024 256 gelu mse sgd',
];

export function mlp(sizes: readonly number[], activation: () => nn.Module): nn.Sequential {
  const layers = sizes.slice(1).flatMap((out, i) => [new nn.Linear(sizes[i]!, out), activation()]);
  return new nn.Sequential(...layers.slice(0, -1));
}

function readCase(name: string): { sizes: number[]; batch: number; words: string[] } {
  const [shape, batch, ...words] = name.split(' ') as [string, string, ...string[]];
  return { sizes: shape.split('-').map(Number), batch: Number(batch), words };
}

export interface Job {
  x: Tensor;
  y: Tensor;
  optimizer: optim.SGD | optim.Adam;
  step(x: Tensor, y: Tensor): void;
}

/** A model, an optimizer and a batch of its own, and what a training loop does with them. */
export function trainingJob(name: string): Job {
  const { sizes, batch, words } = readCase(name);
  const [activation, lossName, optimizerName] = words;
  const model = mlp(sizes, () => (activation === 'gelu' ? new nn.GELU() : new nn.ReLU()));
  const optimizer = new (optimizerName === 'adam' ? optim.Adam : optim.SGD)(model.parameters(), { lr: 1e-3 });
  const classes = lossName === 'ce';
  const loss = classes ? new nn.CrossEntropyLoss() : new nn.MSELoss();
  return {
    x: randn([batch, sizes[0]!]),
    y: classes ? randint(0, sizes.at(-1)!, [batch]) : randn([batch, sizes.at(-1)!]),
    optimizer,
    step(x, y) {
      optimizer.zeroGrad();
      loss.call(model.call(x), y).backward();
      optimizer.step();
    },
  };
}

/** Of a step: 2mnk forward for each layer, as much for the gradient of its weights, and of its input but the first's. */
function matmulFlops(name: string): number {
  const { sizes, batch } = readCase(name);
  const products = sizes.slice(1).map((out, i) => 2 * batch * sizes[i]! * out);
  return 3 * products.reduce((sum, flops) => sum + flops, 0) - products[0]!;
}

export interface TrainingCell {
  name: string;
  threads: number;
  /** Seconds a step, eager. */
  ours: Timing;
  /** This and the limit: not in results of before they were measured. */
  compiled?: Timing;
  theirs: Timing | undefined;
  /** GFLOP/s of float32 multiply-adds. */
  limit?: number;
}

/** What part of the peak the matrix products of a step come to. */
export const peakShare = ({ name, limit }: TrainingCell, { best }: Timing): number | undefined =>
  limit && matmulFlops(name) / best / 1e9 / limit;

/** How many times as fast as the other. */
export const speedup = (
  own: Timing | undefined,
  other: Timing | undefined,
  by: 'best' | 'median' = 'best',
): number | undefined => own && other && other[by] / own[by];

const ROUNDS = 3;

interface Peers {
  limits: Program;
  torch: PyTorch | undefined;
}

async function measureCase(name: string, options: Options, { limits, torch }: Peers): Promise<TrainingCell[]> {
  const [eager, other] = [trainingJob(name), trainingJob(name)];
  const compiled = compile(other.step);
  const sampling = { warmup: 0.2, seconds: options.seconds ?? 0.5 };
  const cells: TrainingCell[] = [];
  for (const threads of options.threads) {
    setNumThreads(threads);
    const rounds = { ours: [] as Timing[], compiled: [] as Timing[], theirs: [] as Timing[] };
    let limit = 0;
    for (let round = 0; round < ROUNDS; round++) {
      rounds.ours.push(measure(() => eager.step(eager.x, eager.y), sampling));
      rounds.compiled.push(measure(() => compiled(other.x, other.y), sampling));
      if (torch) rounds.theirs.push(await torch.measure(name, threads, sampling));
      const peak = await limits.measure(`${threads} f32 0`, { warmup: 0.01, seconds: 0.05 });
      if (peak) limit = Math.max(limit, 1 / peak.best / 1e9);
    }
    const theirs = torch && merge(rounds.theirs);
    cells.push({ name, threads, ours: merge(rounds.ours), compiled: merge(rounds.compiled), theirs, limit });
  }
  return cells;
}

const HEADER = [
  'steps/s',
  'threads',
  'eager best',
  'median',
  'compiled best',
  'median',
  '/ eager',
  'of medians',
  'of peak',
];
const TORCH_HEADER = ['PyTorch best', 'median', 'eager / it', 'of medians', 'compiled / it', 'of medians'];

function row(cell: TrainingCell): string[] {
  const { name, threads, ours, compiled, theirs } = cell;
  const rates = (timing: Timing): string[] => [timing.best, timing.median].map((s) => (1 / s).toFixed(1));
  const ratios = (own: Timing, other: Timing): string[] => [
    `${speedup(own, other)!.toFixed(2)} x`,
    `${speedup(own, other, 'median')!.toFixed(2)} x`,
  ];
  const share = `${(100 * peakShare(cell, compiled!)!).toFixed(1)} %`;
  const cells = [name, String(threads), ...rates(ours), ...rates(compiled!), ...ratios(compiled!, ours), share];
  if (theirs) cells.push(...rates(theirs), ...ratios(ours, theirs), ...ratios(compiled!, theirs));
  return cells;
}

export async function run(options: Options): Promise<void> {
  buildPrograms('limits');
  const limits = await Program.start('limits');
  if (!limits) throw new Error('bench/native/limits.cc does not start');
  const torch = options.rival('PyTorch') ? await PyTorch.start() : undefined;
  const cells: TrainingCell[] = [];
  for (const name of CASES.filter((each) => options.matches(each))) {
    cells.push(...(await measureCase(name, options, { limits, torch })));
  }
  limits.stop();
  torch?.stop();
  printTable(torch ? [...HEADER, ...TORCH_HEADER] : HEADER, cells.map(row));
  saveCells('training', options, { pytorch: torch?.about, cells }, (cell) => `${cell.name},${cell.threads}`);
}
