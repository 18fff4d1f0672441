// Bench layer: a step of an optimizer over one parameter of a million elements, beside PyTorch.
// Run: `npm run bench optimizers`.
import { nn, optim, randn } from '../lib/index.ts';
import { type Case, runCases } from './kernels.ts';
import type { Options } from './options.ts';

const COUNT = 2 ** 20;

/** Tensors that a step reads or writes. */
const STEPS: Record<string, { tensors: number; make: (parameters: nn.Parameter[]) => { step(): void } }> = {
  SGD: { tensors: 3, make: (parameters) => new optim.SGD(parameters, { lr: 1e-9 }) },
  'SGD with momentum': { tensors: 5, make: (parameters) => new optim.SGD(parameters, { lr: 1e-9, momentum: 0.9 }) },
  Adam: { tensors: 7, make: (parameters) => new optim.Adam(parameters, { lr: 1e-9 }) },
};

export async function run(options: Options): Promise<void> {
  const cases: Case[] = Object.entries(STEPS).map(([op, { tensors, make }]) => ({
    op,
    sizes: [COUNT],
    bytes: 4 * tensors * COUNT,
    prepare: () => {
      const parameter = new nn.Parameter(randn([COUNT]));
      parameter.grad = randn([COUNT]);
      const optimizer = make([parameter]);
      return () => optimizer.step();
    },
  }));
  await runCases('optimizers', cases, options);
}
