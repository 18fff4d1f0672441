// Gradients in float64: <J'u, v> of random u and v against a central difference along v, for every op, sample and
// input; the same of the gradient itself, for second derivatives; the fused pullback against the recorded one; and
// what rows state of kinks.
import { describe, expect, it } from 'vitest';
import { scope, Tensor, tensor } from '../lib/index.ts';
import {
  type Args,
  call,
  gradients,
  isVariable,
  ndsIn,
  replace,
  showArgs,
  smallSamples,
  toNd,
  toTensor,
} from './helpers.ts';
import { type Row, samplesOf } from './op-samples/row.ts';
import { opSamples } from './op-samples.ts';
import { mulberry32 } from './random.ts';
import { map, Nd } from './reference.ts';

// Of the central difference: the step, and how far rounding and the third derivative may lead it astray.
const EPS = 1e-6;
const ATOL = 1e-7;
const RTOL = 1e-6;

/** A function of arrays, all of which it is differentiated for. */
type Fn = (inputs: readonly Tensor[]) => (Tensor | null)[];

const leafOf = (x: Nd): Tensor => tensor(x.data, { shape: x.shape, dtype: 'float64', requiresGrad: true });
const random = mulberry32(5);
const direction = (x: Nd): Nd => map(x, () => 2 * random() - 1);
const dot = (a: Nd, b: Nd): number => a.data.reduce((total, value, i) => total + value * b.data[i]!, 0);
const total = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** The op as a function of the inputs it is differentiated for. */
function asFunction(name: string, args: Args): Fn {
  return (inputs) => {
    let next = 0;
    return call(
      name,
      replace(args, (x) => (isVariable(x) ? inputs[next++] : toTensor(x, 'float64'))),
    );
  };
}

const differentiable = (ts: readonly (Tensor | null)[]): Tensor[] => ts.filter((t) => t?.requiresGrad) as Tensor[];

interface Outcome {
  /** <J'u, v> by the library, and by differences; and what the rounding of the latter is measured by. */
  readonly analytic: number;
  readonly numeric: number;
  readonly scale: number;
}

/** For each input of f at `point`, the derivative along a random direction of the results weighted at random. */
function compare(f: Fn, point: readonly Nd[]): Outcome[] {
  const leaves = point.map(leafOf);
  const results = differentiable(f(leaves));
  const weights = results.map((y) => direction(toNd(y)));
  const pulled = gradients(results, leaves, (_, k) => toTensor(weights[k]!, 'float64'));
  const value = (i: number, step: Nd): number[] => {
    const moved = point.map((x, k) =>
      k === i
        ? new Nd(
            x.shape,
            x.data.map((v, j) => v + step.data[j]!),
          )
        : x,
    );
    return scope(() => differentiable(f(moved.map(leafOf))).map((y, k) => dot(toNd(y), weights[k]!)));
  };
  return point.map((x, i) => {
    const v = direction(x);
    const ahead = value(
      i,
      map(v, (s) => s * EPS),
    );
    const behind = value(
      i,
      map(v, (s) => -s * EPS),
    );
    const g = pulled[i] ?? null;
    return {
      analytic: g === null ? 0 : dot(toNd(g), v),
      numeric: total(ahead.map((y, k) => (y - behind[k]!) / (2 * EPS))),
      scale: g === null ? 0 : Math.sqrt(dot(toNd(g), toNd(g)) * dot(v, v)) + total(ahead.map(Math.abs)) * 1e-3,
    };
  });
}

/** Zero on both sides shows nothing: not all outcomes of an op may be like that, nor all of one input. */
class Coverage {
  readonly #shown = new Map<number, boolean>();

  note(outcomes: readonly Outcome[]): void {
    outcomes.forEach(({ analytic, numeric }, i) => {
      this.#shown.set(i, this.#shown.get(i) === true || analytic !== 0 || numeric !== 0);
    });
  }
  get inputsThatShowNothing(): number[] {
    return [...this.#shown].filter(([, shown]) => !shown).map(([i]) => i);
  }
}

function expectEqual({ analytic, numeric, scale }: Outcome, what: string): void {
  const within = ATOL + RTOL * Math.max(Math.abs(numeric), scale);
  if (!(Math.abs(analytic - numeric) <= within)) {
    expect.fail(`${what}: the gradient says ${analytic}, differences ${numeric} ± ${within}`);
  }
}

const hasVariables = (args: Args): boolean => ndsIn(args).some(isVariable);
const isEmpty = (args: Args): boolean => ndsIn(args).some((x) => isVariable(x) && x.data.length === 0);

/** Whether the result has elements; without any every gradient is zero. */
function hasResult(name: string, args: Args): boolean {
  return scope(() => asFunction(name, args)(ndsIn(args).filter(isVariable).map(leafOf)).some((y) => y!.numel > 0));
}
const points = (name: string, row: Row): Args[] =>
  smallSamples(name, row).filter((args) => hasVariables(args) && !isEmpty(args) && hasResult(name, args));

/** The gradient of the op as a function of its inputs and of the gradient it starts from. */
function gradientFunction(f: Fn, inputs: number): Fn {
  return (all) => {
    const results = differentiable(f(all.slice(0, inputs)));
    const starts = all.slice(inputs);
    return gradients(results, all.slice(0, inputs), (_, k) => starts[k]!, true);
  };
}

/** Outcomes for what the gradient starts from, in which it is linear. */
function checkSecond(name: string, args: Args, what: string): Outcome[] {
  const f = asFunction(name, args);
  const point = ndsIn(args).filter(isVariable);
  const starts = differentiable(f(point.map(leafOf))).map((y) => direction(toNd(y)));
  const all = [...point, ...starts];
  const outcomes = compare(gradientFunction(f, point.length), all);
  outcomes.forEach((outcome, i) => {
    expectEqual(outcome, `${what}, ${i < point.length ? `input ${i}` : `gradient ${i - point.length}`}`);
  });
  return outcomes.slice(point.length);
}

/** Without recording ops run their fused pullbacks, with it their rules in differentiable ops. */
function checkFused(name: string, args: Args, what: string): void {
  for (const dtype of ['float64', 'float32'] as const) {
    const run = (createGraph: boolean): (Nd | null)[] => {
      const leaves: Tensor[] = [];
      const tensors = replace(args, (x) => {
        const t = toTensor(x, dtype);
        if (isVariable(x)) leaves.push(t.requiresGrad_());
        return t;
      });
      const pulled = gradients(
        call(name, tensors),
        leaves,
        (y) =>
          tensor(
            toNd(y).data.map((_, i) => 1 + (i % 7) / 8),
            { shape: y.shape, dtype: y.dtype },
          ),
        createGraph,
      );
      return pulled.map((g) => g && toNd(g));
    };
    const [fused, recorded] = [run(false), run(true)];
    fused.forEach((g, i) => {
      const other = recorded[i]!;
      expect(g === null, what).toBe(other === null);
      const size = Math.max(...(g?.data ?? []).map(Math.abs), 1);
      g?.data.forEach((value, k) => {
        const within = (dtype === 'float64' ? 1e-13 : 2e-6) * size;
        if (!(Math.abs(value - other.data[k]!) <= within)) {
          expect.fail(`${what} in ${dtype}: input ${i}, element ${k}: fused ${value}, recorded ${other.data[k]}`);
        }
      });
    });
  }
}

const rows = Object.entries(opSamples).filter(([name, row]) => samplesOf(name, row.samples).some(hasVariables));

describe.each(rows)('%s', (name, row) => {
  const each = (check: (args: Args, what: string) => void): void => {
    const all = points(name, row);
    for (const args of all) scope(() => check(args, `${name}(${showArgs(args)})`));
    if (row.gradient !== 'none' && row.gradients === undefined)
      expect(all, 'samples to differentiate').not.toHaveLength(0);
  };

  if (row.gradient === 'none') {
    it('never requires grad', () => {
      for (const args of smallSamples(name, row).filter(hasVariables)) {
        const results = call(
          name,
          replace(args, (x) => (isVariable(x) ? leafOf(x) : toTensor(x, 'float64'))),
        );
        expect(results.map((y) => y.requiresGrad)).toEqual(results.map(() => false));
      }
    });
    return;
  }

  it('has the gradient that differences show', () => {
    const coverage = new Coverage();
    each((args, what) => {
      const outcomes = compare(asFunction(name, args), ndsIn(args).filter(isVariable));
      outcomes.forEach((outcome, i) => void expectEqual(outcome, `${what}, input ${i}`));
      if (row.gradient === 'zero')
        expect(
          outcomes.every(({ analytic, numeric }) => analytic === 0 && numeric === 0),
          what,
        ).toBe(true);
      else coverage.note(outcomes);
    });
    expect(coverage.inputsThatShowNothing, 'inputs with a gradient of zero at all samples').toEqual([]);
  });

  it('has empty gradients for empty inputs', () => {
    for (const args of smallSamples(name, row).filter(isEmpty)) {
      const leaves = ndsIn(args).filter(isVariable).map(leafOf);
      const weights = (y: Tensor): Tensor => toTensor(toNd(y.detach()), 'float64');
      const pulled = gradients(differentiable(asFunction(name, args)(leaves)), leaves, weights, true);
      gradients(differentiable(pulled), leaves, weights);
      pulled.forEach(
        (g, i) => void expect(g?.shape ?? leaves[i]!.shape, `${name}(${showArgs(args)})`).toEqual(leaves[i]!.shape),
      );
    }
  });

  if (row.gradient !== 'zero') {
    it('has second derivatives', () => {
      const coverage = new Coverage();
      each((args, what) => coverage.note(checkSecond(name, args, what)));
      expect(coverage.inputsThatShowNothing, 'results whose gradient does not matter').toEqual([]);
    });
  }
  it('has one gradient, recorded or not', () => each((args, what) => checkFused(name, args, what)));
});

const statedOf = (name: string, row: Row): [Args, Nd][] =>
  row.gradients === undefined ? [] : samplesOf(name, row.gradients);

describe.each(Object.entries(opSamples).filter(([name, row]) => statedOf(name, row).length > 0))('%s', (name, row) => {
  const stated = statedOf(name, row);
  it('has the gradients that its row states', () => {
    for (const [args, expected] of stated) {
      for (const createGraph of [false, true]) {
        const leaves = ndsIn(args).filter(isVariable).map(leafOf);
        const results = differentiable(asFunction(name, args)(leaves));
        const [g] = gradients(
          results,
          leaves,
          (y) =>
            toTensor(
              map(toNd(y), () => 1),
              y.dtype as 'float64',
            ),
          createGraph,
        );
        expect(g, `${name}(${showArgs(args)})`).toBeInstanceOf(Tensor);
        const what = `${name} at [${ndsIn(args)[0]!.data}]${createGraph ? ', recorded' : ''}`;
        toNd(g!).data.forEach((value, i) => {
          const close = Object.is(value + 0, expected.data[i]! + 0) || Math.abs(value - expected.data[i]!) < 1e-12;
          expect(close, `${what}: gradient ${value}, expected ${expected.data[i]}`).toBe(true);
        });
      }
    }
  });
});
