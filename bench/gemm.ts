// Bench layer: matmul through the public API, in GFLOP/s, the output's memory reused. The share is of the best that 512³
// reached, measured again before each figure: it stays in cache and runs at 98 % of the multiply-add units' peak.
// Run: `npm run bench gemm`.
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
const SAMPLING = { warmup: 0.04, seconds: 0.12 };

/** A matrix (or a batch of them) that is stored transposed where the layout says T. */
function operand(batch: number, rows: number, columns: number, layout: string): Tensor {
  const lead = batch > 1 ? [batch] : [];
  return layout === 'T' ? randn([...lead, columns, rows]).mT : randn([...lead, rows, columns]);
}

function gflops(shape: readonly [number, number, number, number], layout: string): number {
  const [batch, m, n, k] = shape;
  const a = operand(batch, m, k, layout[0]!);
  const b = operand(batch, k, n, layout[1]!);
  return (2 * batch * m * n * k) / measure(() => a.matmul(b).dispose(), SAMPLING).best / 1e9;
}

export function run(): void {
  const reference = new Map<number, number>();
  const figures = SHAPES.map((shape) =>
    [1, 2].flatMap((threads) => {
      setNumThreads(threads);
      return LAYOUTS.map((layout) => {
        reference.set(threads, Math.max(reference.get(threads) ?? 0, gflops([1, 512, 512, 512], 'NN')));
        return { threads, value: gflops(shape, layout) };
      });
    }),
  );
  const rows = SHAPES.map(([batch, ...sizes], i) => [
    `${batch > 1 ? `${batch} × ` : ''}(${sizes.join(',')})`,
    ...figures[i]!.flatMap(({ threads, value }) => [
      value.toFixed(0),
      `${((100 * value) / reference.get(threads)!).toFixed(0)} %`,
    ]),
  ]);
  const header = [1, 2].flatMap((threads) => LAYOUTS.flatMap((layout) => [`${layout} ${threads}T`, 'share']));
  printTable(['GFLOP/s, best', ...header], rows);
}
