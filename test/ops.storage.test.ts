// Storage: a result that is changed in place changes no input, but of ops that say so.
import { describe, expect, it } from 'vitest';
import { scope } from '../lib/index.ts';
import { call, replace, showArgs, smallSamples, tensorsIn, toTensor } from './helpers.ts';
import { opSamples } from './op-samples.ts';

// Ops whose result may share storage with an input: views, and what has nothing to do.
const SHARING = new Set(
  [
    'view reshape flatten squeeze unsqueeze transpose permute expand detach narrow slice select split chunk diagonal',
    'to float double contiguous einsum dropout',
  ].flatMap((names) => names.split(' ')),
);

describe.each(Object.entries(opSamples).filter(([name]) => !SHARING.has(name)))('%s', (name, row) => {
  it('has results of its own', () => {
    for (const sample of smallSamples(name, row)) {
      scope(() => {
        const args = replace(sample, (x) => toTensor(x, 'float32'));
        for (const y of call(name, args)) {
          const shared = y.numel > 0 && tensorsIn(args).some((x) => x.storage === y.storage);
          if (shared) expect.fail(`${name}(${showArgs(sample)}) shares storage with an input`);
        }
      });
    }
  });
});
