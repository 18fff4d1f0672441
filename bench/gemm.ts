// Bench layer: matmul through the public API, in GFLOP/s, output allocated in each call. The share is of what 512³
// reaches, measured right before each figure: a product that stays in cache and runs at 98 % of the peak of the
// multiply-add units. Run: `npm run bench gemm`.
import { randn, setNumThreads, type Tensor } from '../lib/index.ts';
import { measure, printTable } from './measure.ts';

/** [batch, m, n, k] */
const SHAPES: readonly (readonly [number, number, number, number])[] = [
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
const SAMPLING = { warmup: 0.02, seconds: 0.08 };

/** A matrix (or a batch of them) that is stored transposed where the layout says T. */
function operand(batch: number, rows: number, columns: number, layout: string): Tensor {
  const lead = batch > 1 ? [batch] : [];
  return layout === 'T' ? randn([...lead, columns, rows]).mT : randn([...lead, rows, columns]);
}

function gflops(shape: readonly [number, number, number, number], layout: string): number {
  const [batch, m, n, k] = shape;
  const a = operand(batch, m, k, layout[0]!);
  const b = operand(batch, k, n, layout[1]!);
  return (2 * batch * m * n * k) / measure(() => a.matmul(b), SAMPLING).best / 1e9;
}

export function run(): void {
  const rows = SHAPES.map((shape) => {
    const [batch, ...sizes] = shape;
    const row = [`${batch > 1 ? `${batch} × ` : ''}(${sizes.join(',')})`];
    for (const threads of [1, 2]) {
      setNumThreads(threads);
      for (const layout of LAYOUTS) {
        const full = gflops([1, 512, 512, 512], 'NN');
        const own = gflops(shape, layout);
        row.push(own.toFixed(0), `${((100 * own) / full).toFixed(0)} %`);
      }
    }
    return row;
  });
  const header = [1, 2].flatMap((threads) => LAYOUTS.flatMap((layout) => [`${layout} ${threads}T`, 'share']));
  printTable(['GFLOP/s, best', ...header], rows);
}
