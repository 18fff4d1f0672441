// Bench layer: what an op costs that computes next to nothing, on one thread, in microseconds; beside it PyTorch in
// blocks that alternate with ours. Run: `npm run bench eager`.
import { randn, setNumThreads, type Tensor, tensor, zeros } from '../lib/index.ts';
import { measure, merge, printTable, scaled, type Timing } from './measure.ts';
import type { Options } from './options.ts';
import { PyTorch } from './peers/pytorch.ts';
import { save } from './results.ts';

interface Case {
  fn: () => void;
  /** Ops in one call, of which the cost of one is shown. */
  ops?: number;
}

const CHAIN = 100;

function chain(start: Tensor, step: Tensor): Tensor {
  let y = start;
  for (let i = 0; i < CHAIN; i++) y = y.add(step);
  return y;
}

/** Names as in peers/pytorch.py. */
function cases(): Record<string, Case> {
  const [a, b] = [randn([2]), randn([2])];
  const leaf = randn([2], { requiresGrad: true });
  const [m, n] = [randn([2, 2]), randn([2, 2])];
  const [w, x, bias] = [randn([4, 3], { requiresGrad: true }), randn([3]), randn([4], { requiresGrad: true })];
  const one = tensor(1);
  return {
    add: { fn: () => a.add(b) },
    'add, recorded': { fn: () => leaf.add(b) },
    relu: { fn: () => a.relu() },
    sum: { fn: () => a.sum() },
    'matmul 2x2': { fn: () => m.matmul(n) },
    'sum(relu(Wx+b)), forward and backward': {
      fn: () => {
        w.grad = bias.grad = null;
        w.matmul(x).add(bias).relu().sum().backward();
      },
    },
    'chain of 100 adds': { fn: () => chain(a, b), ops: CHAIN },
    'chain of 100 adds, recorded': { fn: () => chain(leaf, b), ops: CHAIN },
    'chain of 100 adds, forward and backward': {
      fn: () => {
        leaf.grad = null;
        chain(leaf, b).sum().backward();
      },
      ops: CHAIN,
    },
    item: { fn: () => one.item() },
    reshape: { fn: () => m.reshape([4]) },
    transpose: { fn: () => m.T },
    'tensor of an array': { fn: () => tensor([1, 2]) },
    zeros: { fn: () => zeros([2]) },
  };
}

const ROUNDS = 3;

export interface EagerCell {
  name: string;
  /** Seconds an op. */
  ours: Timing;
  theirs: Timing | undefined;
}

export async function run(options: Options): Promise<void> {
  setNumThreads(1);
  const torch = options.rival('PyTorch') ? await PyTorch.start() : undefined;
  const sampling = { warmup: 0.2, seconds: 0.3 };
  const rows: string[][] = [];
  const results: EagerCell[] = [];
  const cells = ({ best, median, mean }: Timing): string[] => [best, median, mean].map((s) => (s * 1e6).toFixed(3));
  for (const [name, { fn, ops = 1 }] of Object.entries(cases())) {
    if (!options.matches(name)) continue;
    const ours: Timing[] = [];
    const theirs: Timing[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      ours.push(measure(fn, sampling));
      if (torch) theirs.push(await torch.measure(name, 1, sampling));
    }
    const own = scaled(merge(ours), 1 / ops);
    const row = [ops > 1 ? `${name}, each` : name, ...cells(own)];
    if (torch) {
      const peer = scaled(merge(theirs), 1 / ops);
      row.push(...cells(peer), `${(peer.median / own.median).toFixed(2)} x`);
    }
    results.push({ name: row[0]!, ours: own, theirs: torch && scaled(merge(theirs), 1 / ops) });
    rows.push(row);
  }
  torch?.stop();
  const header = ['per op, µs', 'best', 'median', 'mean'];
  if (torch) header.push('PyTorch best', 'median', 'mean', 'we are faster');
  printTable(header, rows);
  save('eager', { pytorch: torch?.about, cells: results });
}
