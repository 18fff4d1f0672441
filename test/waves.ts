// What the tests of modules against PyTorch share: weights and inputs by formula, which PyTorch was given, too.
import { expect } from 'vitest';
import { grad, type nn, type Tensor, tensor } from '../lib/index.ts';
import { expectClose, values } from './support.ts';

const TOLERANCE = 1e-11;

const numbers = (shape: readonly number[], f: (i: number) => number): Tensor => {
  const length = shape.reduce((n, size) => n * size, 1);
  return tensor(
    Float64Array.from({ length }, (_, i) => f(i)),
    { shape },
  );
};
/** 0.8 sin(1.3 i + phase) */
export const wave = (shape: readonly number[], phase: number): Tensor =>
  numbers(shape, (i) => 0.8 * Math.sin(1.3 * i + phase));

/** Gives the parameters their waves: the phase counts from `phase`, one more for each. */
export function fill<M extends nn.AnyModule>(module: M, phase = 1): M {
  const waves = [...module.namedParameters()].map(([name, { shape }], i) => [name, wave(shape, phase + i)] as const);
  module.loadStateDict(Object.fromEntries(waves), { strict: false });
  return module;
}

/** Σ y cos(i), the loss that gradients are of. */
export const weighted = (y: Tensor): Tensor => y.mul(numbers(y.shape, Math.cos)).sum();

interface Expected<M> {
  phase?: number;
  inputs: Tensor[];
  call: (module: M, ...inputs: [Tensor, Tensor, Tensor]) => (Tensor | null)[];
  outputs: readonly number[][];
  /** Gradients of the inputs, then of these parameters. */
  parameters: string[];
  gradients: readonly number[][];
}

/** Fills the module, calls it, and compares outputs and gradients. */
export function checkAgainst<M extends nn.AnyModule>(module: M, expected: Expected<M>): void {
  fill(module, expected.phase);
  const inputs = expected.inputs.map((x) => x.requiresGrad_());
  const outputs = expected.call(module, ...(inputs as [Tensor, Tensor, Tensor])) as Tensor[];
  expect(outputs.length).toBe(expected.outputs.length);
  outputs.forEach((y, i) => void expectClose(values(y), expected.outputs[i]!, TOLERANCE, `output ${i}`));
  const named = Object.fromEntries(module.namedParameters());
  const leaves = [...inputs, ...expected.parameters.map((name) => named[name]!)];
  const loss = outputs.map(weighted).reduce((a, b) => a.add(b));
  const gradients = grad(loss, leaves);
  expect(gradients.length).toBe(expected.gradients.length);
  gradients.forEach((g, i) => void expectClose(values(g), expected.gradients[i]!, TOLERANCE, `gradient ${i}`));
}
