// vmap of every op: what it gives for a batch is what a loop over the batch gives, forward, backward through it, and
// gradient by gradient inside it.
import { describe, expect, it } from 'vitest';
import { grad, manualSeed, scope, stack, type Tensor, vmap } from '../lib/index.ts';
import { type Args, call, isVariable, ndsIn, replace, showArgs, smallSamples, toNd, toTensor } from './helpers.ts';
import { type Row, samplesOf } from './op-samples/row.ts';
import { opSamples } from './op-samples.ts';
import { Nd } from './reference.ts';

const EXAMPLES = 3;

/** The k-th example: the sample's numbers, moved along by k. They stay in the op's domain, and apart where they were. */
const example = (x: Nd, k: number): Nd =>
  new Nd(
    x.shape,
    x.data.map((_, i) => x.data[(i + k) % x.data.length]!),
    x.kind,
    x.constant,
  );
const isFloat = (t: Tensor): boolean => t.dtype.startsWith('float');
const weights = (t: Tensor): Tensor => {
  const { shape, data } = toNd(t.detach());
  return toTensor(
    new Nd(
      shape,
      Array.from(data, (_, i) => 1 + (i % 5) / 4),
    ),
    'float64',
  );
};

/** Results of the op as a function of all its tensors. */
const asFunction =
  (name: string, args: Args) =>
  (...tensors: Tensor[]): Tensor[] => {
    let next = 0;
    return call(
      name,
      replace(args, () => tensors[next++]),
    );
  };

/** Which tensors differ between examples: all of them, and each alone. */
function choices(count: number): boolean[][] {
  const all = new Array<boolean>(count).fill(true);
  return count < 2 ? [all] : [all, ...all.map((_, i) => all.map((_, j) => i === j))];
}

function expectSame(got: Tensor, expected: Tensor, what: string): void {
  expect(got.dtype, what).toBe(expected.dtype);
  expect(got.shape, what).toEqual(expected.shape);
  const [a, b] = [got.detach().toTypedArray(), expected.detach().toTypedArray()];
  for (let i = 0; i < a.length; i++) {
    const close = Object.is(a[i], b[i]) || Math.abs(a[i]! - b[i]!) <= 1e-12 * Math.max(1, Math.abs(b[i]!));
    if (!close) expect.fail(`${what}: element ${i} is ${a[i]}, in a loop ${b[i]}`);
  }
}

interface Case {
  f: (...tensors: Tensor[]) => Tensor[];
  inDims: (number | null)[];
  /** What vmap gets; leaves where a gradient is wanted. */
  inputs: Tensor[];
  variables: number[];
  examples: Tensor[][];
}

function caseOf(name: string, args: Args, batched: readonly boolean[]): Case {
  const nds = ndsIn(args);
  const examples = Array.from({ length: EXAMPLES }, (_, k) =>
    nds.map((x, i) => toTensor(batched[i] ? example(x, k) : x, 'float64')),
  );
  const inputs = nds.map((_, i) => (batched[i] ? stack(examples.map((one) => one[i]!)) : examples[0]![i]!.clone()));
  const variables = nds.flatMap((x, i) => (isVariable(x) ? [i] : []));
  for (const i of variables) inputs[i]!.requiresGrad_();
  return { f: asFunction(name, args), inDims: batched.map((b) => (b ? 0 : null)), inputs, variables, examples };
}

const total = (ys: readonly Tensor[]): Tensor | undefined =>
  ys
    .filter((y) => isFloat(y) && y.requiresGrad)
    .map((y) => y.mul(weights(y)).sum())
    .reduce((a: Tensor | undefined, b) => (a ? a.add(b) : b), undefined);

function checkOutside({ f, inDims, inputs, variables, examples }: Case, what: string): void {
  const results = vmap(f, inDims)(...inputs);
  const loop = examples.map((one) => f(...one));
  results.forEach((y, r) => void expectSame(y, stack(loop.map((one) => one[r]!)), what));
  // A gradient through vmap is the gradient of the loop.
  const leaves = variables.map((i) => inputs[i]!);
  const looped = Array.from({ length: EXAMPLES }, (_, k) =>
    f(...inputs.map((x, i) => (inDims[i] === null ? x : x.select(0, k)))),
  );
  const losses = [total(results), total(results.map((_, r) => stack(looped.map((one) => one[r]!))))];
  expect(losses[0] === undefined, `${what}: requires grad`).toBe(losses[1] === undefined);
  if (losses[0] === undefined || leaves.length === 0) return;
  const [got, expected] = losses.map((loss) => grad(loss!, leaves, { allowUnused: true }));
  leaves.forEach((x, i) => {
    if (expected![i] === null) expect(got![i]?.abs().sum().item() ?? 0, what).toBe(0);
    else expectSame(got![i] ?? x.mul(0), expected![i]!, `${what}, gradient ${i}`);
  });
}

/** Gradients inside vmap: one for each example, also of what is the same for all. */
function checkInside({ f, inDims, inputs, variables, examples }: Case, what: string): void {
  const gradients = (...tensors: Tensor[]): Tensor[] => {
    const leaves = variables.map((i) => tensors[i]!.detach().requiresGrad_());
    const all = tensors.map((t, i) => (variables.includes(i) ? leaves[variables.indexOf(i)]! : t));
    const ys = f(...all).filter((y) => isFloat(y) && y.requiresGrad);
    if (ys.length === 0) return [];
    const found = grad(
      ys.map((y) => y.sum()),
      leaves,
      { allowUnused: true },
    );
    return leaves.map((x, i) => found[i] ?? x.detach().mul(0));
  };
  const got = vmap(gradients, inDims)(...inputs.map((x) => x.detach()));
  const loop = examples.map((one) => gradients(...one));
  got.forEach((g, i) => void expectSame(g, stack(loop.map((one) => one[i]!)), `${what}, gradient ${i} per example`));
}

// A random op draws other numbers for each example; and truth values have no batch.
const NOT_MAPPED = ['equal', 'allClose'];
const rows = Object.entries(opSamples).filter(
  ([name, row]) =>
    row.reference !== null &&
    !NOT_MAPPED.includes(name) &&
    samplesOf(name, row.samples).some((args) => ndsIn(args).length > 0),
);
const usable = (name: string, row: Row): Args[] =>
  smallSamples(name, row, 100).filter(
    (args) => ndsIn(args).length > 0 && ndsIn(args).every((x) => x.data.length > 0) && isDefined(row, args),
  );
const isDefined = (row: Row, args: Args): boolean =>
  (row.dtypes ?? ['float64']).includes('float64') || !ndsIn(args).some(isVariable);

describe.each(rows)('%s', (name, row) => {
  const each = (check: (c: Case, what: string) => void): void => {
    for (const args of usable(name, row)) {
      for (const batched of choices(ndsIn(args).length)) {
        manualSeed(1);
        scope(() => check(caseOf(name, args, batched), `${name}(${showArgs(args)}) over [${batched}]`));
      }
    }
  };
  it('gives for a batch what a loop gives', () => each(checkOutside));
  if (row.gradient === undefined) it('has gradients for each example', () => each(checkInside));
});
