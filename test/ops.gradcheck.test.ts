// Every derivative of every op, one by one: the full Jacobian by gradcheck, that of the gradient by gradgradcheck, at
// the smallest samples. No row may pass by showing nothing. Directions through all samples, large ones too, are
// in ops.gradients.test.ts.
import { describe, expect, it, vi } from 'vitest';
import { type Checkable, gradcheck, gradgradcheck, scope, type Tensor } from '../lib/index.ts';
import { type Args, call, isVariable, ndsIn, replace, showArgs, smallSamples, toTensor } from './helpers.ts';
import { type Row, samplesOf } from './op-samples/row.ts';
import { opSamples } from './op-samples.ts';

/** What is spent on a row: elements of inputs, each moved twice, and of results, each pulled back. */
const BUDGET = 150;

// Vacuous samples are expected (a product with a row of zeros); vacuous rows are what is looked for.
vi.spyOn(process, 'emitWarning').mockImplementation(() => {});

/** The op as a function of its variables, and these. */
function problem(name: string, args: Args): { fn: Checkable; inputs: Tensor[] } {
  const inputs = ndsIn(args)
    .filter(isVariable)
    .map((x) => toTensor(x, 'float64').requiresGrad_());
  const fn: Checkable = (...variables) => {
    let next = 0;
    return call(
      name,
      replace(args, (x) => (isVariable(x) ? variables[next++] : toTensor(x, 'float64'))),
    );
  };
  return { fn, inputs };
}

const hasVariables = (args: Args): boolean => ndsIn(args).some(isVariable);
const count = (ts: readonly Tensor[]): number => ts.reduce((n, t) => n + t.numel, 0);

/** Calls `use` with the samples of a row, the cheap ones first, until the budget is spent. */
function eachPoint(name: string, row: Row, use: (args: Args) => void): void {
  const cost = (args: Args): number =>
    scope(() => {
      const { fn, inputs } = problem(name, args);
      const [moved, pulled] = [count(inputs), count(fn(...inputs) as Tensor[])];
      return moved * pulled === 0 ? 0 : moved + pulled;
    });
  const priced = smallSamples(name, row)
    .filter(hasVariables)
    .map((args) => ({ args, price: cost(args) }))
    .filter(({ price }) => price > 0)
    .sort((a, b) => a.price - b.price);
  let spent = 0;
  for (const { args, price } of priced) {
    if (spent > 0 && spent + price > BUDGET) break;
    spent += price;
    scope(() => use(args));
  }
}

/** How many derivatives were checked, and how many of them showed something, over the samples of a row. */
function outcome(name: string, row: Row, check: typeof gradcheck): { checked: number; shown: number } {
  const total = { checked: 0, shown: 0 };
  eachPoint(name, row, (args) => {
    const { fn, inputs } = problem(name, args);
    try {
      const { checked, vacuous } = check(fn, inputs);
      total.checked += checked;
      total.shown += checked - vacuous;
    } catch (error) {
      expect.fail(`${name}(${showArgs(args)}): ${(error as Error).message}`);
    }
  });
  return total;
}

const rows = Object.entries(opSamples).filter(
  ([name, row]) => row.gradient !== 'none' && samplesOf(name, row.samples).some(hasVariables),
);

describe.each(rows.filter(([, row]) => row.gradient !== 'zero'))('%s', (name, row) => {
  it('passes gradcheck, and shows something', () => {
    expect(outcome(name, row, gradcheck).shown).toBeGreaterThan(0);
  });

  it('passes gradgradcheck, and shows something', () => {
    expect(outcome(name, row, gradgradcheck).shown).toBeGreaterThan(0);
  });
});

describe.each(rows.filter(([, row]) => row.gradient === 'zero'))('%s', (name, row) => {
  it('passes gradcheck with a gradient of 0 everywhere', () => {
    const { checked, shown } = outcome(name, row, gradcheck);
    expect(checked).toBeGreaterThan(0);
    expect(shown).toBe(0);
  });
});
