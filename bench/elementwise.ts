// Bench layer: elementwise ops in cache, past it, and in memory, beside PyTorch. Run: `npm run bench elementwise`.
import { grad, randn, type Tensor } from '../lib/index.ts';
import { type Case, runCases } from './kernels.ts';
import type { Options } from './options.ts';

const SIZES = [
  [128, 512],
  [4096, 1024],
  [8192, 8192],
] as const;

const forward = (fn: (x: Tensor) => Tensor) => (shape: readonly number[]) => {
  const x = randn(shape);
  return () => fn(x).dispose();
};

/** The pullback alone: of one output, again and again. */
const backward = (fn: (x: Tensor) => Tensor) => (shape: readonly number[]) => {
  const x = randn(shape, { requiresGrad: true });
  const y = fn(x);
  const g = randn(shape);
  return () => grad(y, x, { gradOutputs: g, retainGraph: true })[0]!.dispose();
};

/** Tensors that are read or written, and what is timed. */
const OPS: Record<string, { tensors: number; prepare: (shape: readonly number[]) => () => void }> = {
  relu: { tensors: 2, prepare: forward((x) => x.relu()) },
  'relu backward': { tensors: 3, prepare: backward((x) => x.relu()) },
  'bias add': {
    tensors: 2,
    prepare: (shape) => {
      const bias = randn([shape[1]!]);
      return forward((x) => x.add(bias))(shape);
    },
  },
  add: {
    tensors: 3,
    prepare: (shape) => {
      const other = randn(shape);
      return forward((x) => x.add(other))(shape);
    },
  },
  gelu: { tensors: 2, prepare: forward((x) => x.gelu()) },
  'gelu backward': { tensors: 3, prepare: backward((x) => x.gelu()) },
  tanh: { tensors: 2, prepare: forward((x) => x.tanh()) },
  sigmoid: { tensors: 2, prepare: forward((x) => x.sigmoid()) },
  exp: { tensors: 2, prepare: forward((x) => x.exp()) },
};

export async function run(options: Options): Promise<void> {
  const cases: Case[] = SIZES.flatMap((sizes) =>
    Object.entries(OPS).map(([op, { tensors, prepare }]) => {
      return { op, sizes, bytes: 4 * tensors * sizes[0] * sizes[1], prepare: () => prepare(sizes) };
    }),
  );
  await runCases('elementwise', cases, options);
}
