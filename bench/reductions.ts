// Bench layer: sums, softmax, cross-entropy, layer norm and the transposed copy beside PyTorch.
// Run: `npm run bench reductions`.
import { crossEntropy, grad, layerNorm, ones, randint, randn, softmax, zeros } from '../lib/index.ts';
import { type Case, runCases } from './kernels.ts';
import type { Options } from './options.ts';

const FLOAT = 4;

function crossEntropyBoth([rows, classes]: readonly number[]): () => void {
  const x = randn([rows!, classes!], { requiresGrad: true });
  const y = randint(0, classes!, [rows!]);
  return () => {
    x.grad = null;
    crossEntropy(x, y).backward();
  };
}

function layerNormForward([rows, width]: readonly number[]): () => void {
  const [x, weight, bias] = [randn([rows!, width!]), ones([width!]), zeros([width!])];
  return () => layerNorm(x, [width!], weight, bias).dispose();
}

function layerNormBackward([rows, width]: readonly number[]): () => void {
  const inputs = [randn([rows!, width!]), ones([width!]), zeros([width!])].map((t) => t.requiresGrad_());
  const [x, weight, bias] = inputs;
  const y = layerNorm(x!, [width!], weight, bias);
  const g = randn([rows!, width!]);
  return () => {
    for (const gradient of grad(y, inputs, { gradOutputs: g, retainGraph: true })) gradient.dispose();
  };
}

function ofMatrix(op: string, sizes: readonly [number, number], tensors: number, fn: (x: Matrix) => Matrix): Case {
  const bytes = FLOAT * tensors * sizes[0] * sizes[1];
  return {
    op,
    sizes,
    bytes,
    prepare: () => {
      const x = randn(sizes);
      return () => fn(x).dispose();
    },
  };
}
type Matrix = ReturnType<typeof randn>;

export async function run(options: Options): Promise<void> {
  const square = [4096, 4096] as const;
  const cases: Case[] = [
    ...[
      [128, 10],
      [4096, 1000],
    ].map((sizes) => ({
      op: 'cross-entropy, forward and backward',
      sizes,
      bytes: 2 * FLOAT * sizes[0]! * sizes[1]!,
      prepare: () => crossEntropyBoth(sizes),
    })),
    ofMatrix('softmax', [4096, 1000], 2, (x) => softmax(x, 1)),
    {
      op: 'layer norm',
      sizes: [4096, 1024],
      bytes: 2 * FLOAT * 2 ** 22,
      prepare: () => layerNormForward([4096, 1024]),
    },
    {
      op: 'layer norm, backward',
      sizes: [4096, 1024],
      bytes: 3 * FLOAT * 2 ** 22,
      prepare: () => layerNormBackward([4096, 1024]),
    },
    ofMatrix('sum over axis 0', square, 1, (x) => x.sum(0)),
    ofMatrix('sum over axis 1', square, 1, (x) => x.sum(1)),
    ofMatrix('sum of all', square, 1, (x) => x.sum()),
    ofMatrix('sum over axis 0', [128, 512], 1, (x) => x.sum(0)),
    ofMatrix('transposed copy', square, 2, (x) => x.T.contiguous()),
  ];
  await runCases('reductions', cases, options);
}
