// Forward mode of every op, against reverse mode: <w, J v> and <J'w, v> are one number, and so are the derivatives of
// that number along u, taken forward over reverse and reverse over forward.
import { describe, expect, it } from 'vitest';
import { grad, jvp, scope, type Tensor, tensor } from '../lib/index.ts';
import { type Args, call, isVariable, ndsIn, replace, showArgs, smallSamples, toNd, toTensor } from './helpers.ts';
import { type Row, samplesOf } from './op-samples/row.ts';
import { opSamples } from './op-samples.ts';
import { mulberry32 } from './random.ts';
import { map, type Nd } from './reference.ts';

const random = mulberry32(11);
const direction = (x: Nd): Tensor =>
  toTensor(
    map(x, () => 2 * random() - 1),
    'float64',
  );
const isFloat = (t: Tensor): boolean => t.dtype.startsWith('float');
const hasVariables = (args: Args): boolean => ndsIn(args).some(isVariable);

/** The results of floating dtype, as a function of the inputs that are differentiated for. */
const asFunction =
  (name: string, args: Args) =>
  (...inputs: Tensor[]): Tensor[] => {
    let next = 0;
    return call(
      name,
      replace(args, (x) => (isVariable(x) ? inputs[next++] : toTensor(x, 'float64'))),
    ).filter(isFloat);
  };

/** Σ ys · weights, a scalar. */
const weighted = (ys: readonly Tensor[], weights: readonly Tensor[]): Tensor =>
  ys.reduce((total, y, i) => total.add(y.mul(weights[i]!).sum()), tensor(0, { dtype: 'float64' }));

function expectSame(a: number, b: number, scale: number, what: string): void {
  if (!(Math.abs(a - b) <= 1e-11 * Math.max(1, Math.abs(b), scale))) expect.fail(`${what}: ${a} and ${b}`);
}
const size = (ts: readonly Tensor[]): number => ts.reduce((total, t) => total + t.abs().sum().item(), 0);

interface Point {
  f: (...inputs: Tensor[]) => Tensor[];
  xs: Tensor[];
  vs: Tensor[];
  us: Tensor[];
  ws: Tensor[];
}

function pointOf(name: string, args: Args): Point {
  const point = ndsIn(args).filter(isVariable);
  const f = asFunction(name, args);
  const xs = point.map((x) => toTensor(x, 'float64'));
  const ws = f(...xs).map((y) => direction(toNd(y)));
  return { f, xs, ws, vs: point.map(direction), us: point.map(direction) };
}

/** <J'w, v>, a function of x; recorded where x is. */
function reverse({ f, vs, ws }: Point, inputs: readonly Tensor[]): Tensor {
  const leaves = inputs.map((x) => (x.requiresGrad ? x : x.clone().requiresGrad_()));
  const y = weighted(f(...leaves), ws);
  const pulled = y.requiresGrad ? grad(y, leaves, { createGraph: true, allowUnused: true }) : [];
  return pulled.reduce(
    (sum: Tensor, g, i) => (g ? sum.add(g.mul(vs[i]!).sum()) : sum),
    tensor(0, { dtype: 'float64' }),
  );
}

const forward = ({ f, vs, ws }: Point, inputs: readonly Tensor[]): Tensor => weighted(jvp(f, inputs, vs)[1], ws);

const usable = (name: string, row: Row): Args[] =>
  smallSamples(name, row).filter((args) => hasVariables(args) && ndsIn(args).every((x) => x.data.length > 0));

const rows = Object.entries(opSamples).filter(
  ([name, row]) => row.gradient !== 'none' && samplesOf(name, row.samples).some(hasVariables),
);

describe.each(rows)('%s', (name, row) => {
  it('has the derivative forward that it has backward', () => {
    for (const args of usable(name, row)) {
      scope(() => {
        const point = pointOf(name, args);
        const [out, tangent] = jvp(point.f, point.xs, point.vs);
        const plain = point.f(...point.xs);
        out.forEach((y, i) => void expect(y.toTypedArray(), 'the value').toEqual(plain[i]!.toTypedArray()));
        const scale = size(tangent) + size(point.vs);
        const both = [forward(point, point.xs).item(), reverse(point, point.xs).item()] as const;
        expectSame(...both, scale, `${name}(${showArgs(args)})`);
      });
    }
  });

  if (row.gradient !== 'zero') {
    it('has second derivatives forward over reverse and reverse over forward', () => {
      for (const args of usable(name, row)) {
        scope(() => {
          const point = pointOf(name, args);
          const overReverse = jvp((...xs: Tensor[]) => reverse(point, xs), point.xs, point.us)[1].item();
          const leaves = point.xs.map((x) => x.clone().requiresGrad_());
          const y = forward(point, leaves);
          const pulled = y.requiresGrad ? grad(y, leaves, { allowUnused: true }) : [];
          const overForward = pulled.reduce((sum, g, i) => sum + (g ? g.mul(point.us[i]!).sum().item() : 0), 0);
          expectSame(overReverse, overForward, size(point.us) * 10, `${name}(${showArgs(args)})`);
        });
      }
    });
  }
});
