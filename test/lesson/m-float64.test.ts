// The lesson, M: float64 throughout, and mixed second derivatives. R112 and R113 of the requirements.
import { describe, expect, it } from 'vitest';
import { type DType, grad, scope, type Tensor, tensor } from '../../lib/index.ts';
import {
  type Args,
  call,
  gradients,
  isVariable,
  ndsIn,
  referenceOf,
  replace,
  samples,
  showArgs,
  toTensor,
  toTensors,
} from '../helpers.ts';
import { ALL, FLOATS, type Row } from '../op-samples/row.ts';
import { opSamples } from '../op-samples.ts';
import { map } from '../reference.ts';
import { expectClose, f64, leaf, values } from '../support.ts';
import { numericGradient, TIGHT } from './lesson.ts';

// ---- R112 ---------------------------------------------------------------------------------------------------------------
/** Ops of floats that answer in another dtype. */
const ANSWERS: Readonly<Record<string, DType>> = {
  ...Object.fromEntries(
    ['eq', 'ne', 'gt', 'ge', 'lt', 'le', 'all', 'any', 'equal', 'allClose'].map((n) => [n, 'bool']),
  ),
  ...Object.fromEntries(['argmax', 'argmin'].map((name) => [name, 'int32'])),
  float: 'float32',
};
/** Ops whose results are whole numbers, which float32 holds as well. */
const WHOLE_RESULTS = ['sign', 'floor', 'ceil', 'round', 'zerosLike', 'onesLike', 'fullLike', 'bernoulli'];
/** Ops without an input of floats, as they are asked for float64. */
const CREATION: Readonly<Record<string, Args>> = {
  zeros: [[2], { dtype: 'float64' }],
  ones: [[2], { dtype: 'float64' }],
  empty: [[2], { dtype: 'float64' }],
  full: [[2], 0.1, { dtype: 'float64' }],
  eye: [2, { dtype: 'float64' }],
  arange: [0, 1, 0.1, { dtype: 'float64' }],
  linspace: [0, 1, 7, { dtype: 'float64' }],
  tensor: [[0.1], { dtype: 'float64' }],
  rand: [[9], { dtype: 'float64' }],
  randn: [[9], { dtype: 'float64' }],
  normal: [0, 1, [9], { dtype: 'float64' }],
  randint: [0, 9, [9], { dtype: 'float64' }],
};
const WHOLE_ONLY = ['randperm', 'oneHot'];

const isFloating = (name: string, row: Row): boolean =>
  (row.dtypes ?? FLOATS).some((dtype) => FLOATS.includes(dtype)) &&
  samples(name, row).some((args) => ndsIn(args).some((x) => x.kind === 'float'));
const rows = Object.entries(opSamples);
const floating = rows.filter(([name, row]) => isFloating(name, row));

const OTHERS: readonly DType[] = ALL.filter((dtype) => dtype !== 'float64');
/** Samples of floats that do not ask for another dtype, moved by so little that float32 could not tell. */
const samplesOf = (name: string, row: Row): Args[] =>
  samples(name, row)
    .filter(
      (args) =>
        ndsIn(args).some((x) => x.kind === 'float') &&
        ndsIn(args).every((x) => x.data.length <= 1000) &&
        !args.some((arg) => OTHERS.includes(arg as DType) || (arg as { dtype?: DType })?.dtype),
    )
    .map((args) => replace(args, (x) => (x.kind === 'float' ? map(x, (v) => v * (1 - 1e-9)) : x)));
const isWide = (value: number): boolean => Number.isFinite(value) && Math.fround(value) !== value;

/** Checks the results of one sample. Returns whether any has more digits than float32 holds. */
function checkResults(name: string, row: Row, args: Args): boolean {
  const what = `${name}(${showArgs(args)})`;
  const results = call(name, toTensors(args, 'float64'));
  expect(results[0]!.dtype, what).toBe(ANSWERS[name] ?? 'float64');
  // An index beside values is int32, and nothing else is not float64.
  for (const { dtype } of results.slice(1)) expect(['float64', 'int32'], what).toContain(dtype);
  if (row.reference !== null) {
    const references = referenceOf(row, args);
    results.forEach((result, k) => {
      if (result.dtype === 'float64') expectClose(values(result), references[k]!.data, TIGHT, what);
    });
  }
  return values(results[0]!).some(isWide);
}

/** Checks the gradients of one sample from float64 numbers. Returns whether any has more digits than float32 holds. */
function checkGradients(name: string, args: Args): boolean {
  const leaves: Tensor[] = [];
  const tensors = replace(args, (x) => {
    const t = toTensor(x, 'float64');
    if (isVariable(x)) leaves.push(t.requiresGrad_());
    return t;
  });
  const start = (y: Tensor): Tensor =>
    tensor(
      values(y).map((_, i) => Math.sin(i + 1) / 3),
      { shape: y.shape, dtype: 'float64' },
    );
  const pulled = gradients(call(name, tensors), leaves, start).filter((g) => g !== null);
  for (const g of pulled) expect(g.dtype, `the gradient of ${name}`).toBe('float64');
  return pulled.some((g) => values(g).some(isWide));
}

describe('float64', () => {
  it.each(floating)('R112: %s takes float64 and returns it', (name, row) => {
    expect(row.dtypes ?? FLOATS).toContain('float64');
    const all = samplesOf(name, row);
    expect(all.length).toBeGreaterThan(0);
    const wide = all.map((args) => scope(() => checkResults(name, row, args)));
    // Computed in float64, not in float32 and widened.
    if (!WHOLE_RESULTS.includes(name) && ANSWERS[name] === undefined) expect(wide).toContain(true);
    const hasVariables = all.some((args) => ndsIn(args).some((x) => isVariable(x) && x.data.length > 0));
    if (row.gradient === undefined && hasVariables) {
      expect(all.map((args) => scope(() => checkGradients(name, args)))).toContain(true);
    }
  });

  it('R112: what takes no floats makes float64 where asked to', () => {
    const others = rows.filter(([name, row]) => !isFloating(name, row)).map(([name]) => name);
    expect(others.sort()).toEqual([...Object.keys(CREATION), ...WHOLE_ONLY].sort());
    for (const [name, args] of Object.entries(CREATION)) {
      const [made] = call(name, args);
      expect(made!.dtype, name).toBe('float64');
      if (['zeros', 'ones', 'empty', 'eye', 'randint'].includes(name)) continue;
      expect(values(made!).some(isWide), name).toBe(true);
    }
  });
});

// ---- R113 ---------------------------------------------------------------------------------------------------------------
describe('mixed second derivatives', () => {
  const X = [[1, 2]];
  const W = [
    [0.1, 0.2],
    [0.3, 0.4],
  ];
  // As the requirement gives them, to about eight decimals; and by PyTorch.
  const TABLE = [-0.00041096, -0.0972888, 0.07975698, -0.14126273];
  const EXPECTED = [-0.00041094601073269, -0.09728880652703226, 0.07975697739675452, -0.14126274477421658];
  /** Σ(∂/∂x Σ tanh(xW))² as a function of W. */
  const penalty = (w: Tensor, dtype: DType = 'float64'): Tensor => {
    const x = leaf(X, dtype);
    const [dx] = grad(x.matmul(w).tanh().sum(), x, { createGraph: true });
    return dx!.square().sum();
  };

  it('R113: ∂/∂W Σ(∂/∂x Σ tanh(xW))² is right', () => {
    const w = leaf(W);
    const loss = penalty(w);
    loss.backward();
    expectClose(values(w.grad!), TABLE, 2e-8);
    expectClose(values(w.grad!), EXPECTED, TIGHT);
    // Finite differences of the first gradient agree.
    expectClose(values(w.grad!), numericGradient(penalty, f64(W)), 1e-9);
    // The penalty itself, by hand: dx = W (1 - tanh²(xW)).
    const slopes = [0.1 + 0.6, 0.2 + 0.8].map((z) => 1 - Math.tanh(z) ** 2);
    const dx = W.map((row) => row.reduce((sum, v, j) => sum + v * slopes[j]!, 0));
    expectClose([loss.item()], [dx.reduce((sum, v) => sum + v * v, 0)], TIGHT);
    const single = leaf(W, 'float32');
    penalty(single, 'float32').backward();
    expectClose(values(single.grad!), EXPECTED, 1e-6);
  });
});
