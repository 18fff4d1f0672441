// Bench layer: steps per second of plain training loops, eager: no scope, no dispose, no compile. Beside them PyTorch in
// blocks that alternate with ours, on as many threads. Run: `npm run bench training`.
import { nn, optim, randint, randn, setNumThreads, type Tensor } from '../lib/index.ts';
import { measure, merge, printTable, type Timing } from './measure.ts';
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

function trainingStep(name: string): () => void {
  const [shape, batchSize, activation, lossName, optimizerName] = name.split(' ') as [
    string,
    string,
    string,
    string,
    string,
  ];
  const sizes = shape.split('-').map(Number);
  const batch = Number(batchSize);
  const model = mlp(sizes, () => (activation === 'gelu' ? new nn.GELU() : new nn.ReLU()));
  const optimizer = new (optimizerName === 'adam' ? optim.Adam : optim.SGD)(model.parameters(), { lr: 1e-3 });
  const x = randn([batch, sizes[0]!]);
  const classes = lossName === 'ce';
  const y: Tensor = classes ? randint(0, sizes.at(-1)!, [batch]) : randn([batch, sizes.at(-1)!]);
  const loss = classes ? new nn.CrossEntropyLoss() : new nn.MSELoss();
  return () => {
    optimizer.zeroGrad();
    loss.call(model.call(x), y).backward();
    optimizer.step();
  };
}

const ROUNDS = 3;

export interface TrainingCell {
  name: string;
  threads: number;
  ours: Timing;
  theirs: Timing | undefined;
}

export async function run(options: Options): Promise<void> {
  const torch = options.rival('PyTorch') ? await PyTorch.start() : undefined;
  const sampling = { warmup: 0.2, seconds: 0.5 };
  const rows: string[][] = [];
  const results: TrainingCell[] = [];
  const cells = ({ best, median }: Timing): string[] => [best, median].map((s) => (1 / s).toFixed(1));
  for (const name of CASES.filter((each) => options.matches(each))) {
    const step = trainingStep(name);
    for (const threads of options.threads) {
      setNumThreads(threads);
      const ours: Timing[] = [];
      const theirs: Timing[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        ours.push(measure(step, sampling));
        if (torch) theirs.push(await torch.measure(name, threads, sampling));
      }
      const own = merge(ours);
      results.push({ name, threads, ours: own, theirs: torch && merge(theirs) });
      const row = [name, String(threads), ...cells(own)];
      if (torch) {
        const peer = merge(theirs);
        row.push(
          ...cells(peer),
          `${(peer.best / own.best).toFixed(2)} x`,
          `${(peer.median / own.median).toFixed(2)} x`,
        );
      }
      rows.push(row);
    }
  }
  torch?.stop();
  const header = ['steps/s', 'threads', 'best', 'median'];
  if (torch) header.push('PyTorch best', 'median', 'ratio of best', 'of medians');
  printTable(header, rows);
  saveCells('training', options, { pytorch: torch?.about, cells: results }, (cell) => `${cell.name},${cell.threads}`);
}
