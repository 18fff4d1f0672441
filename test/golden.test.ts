// The ops, optimizers and second derivatives against values computed by PyTorch (test/golden/ops.json), in float64 and,
// from the same numbers rounded, in float32. Errors are relative to max(1, |expected|).
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import * as chainrule from '../lib/index.ts';
import { type DType, grad, optim, type Tensor, tensor } from '../lib/index.ts';
import { expectClose, values } from './support.ts';

interface Golden {
  shape: number[];
  dtype: DType;
  data: (number | boolean)[];
}
interface Case {
  op: string;
  inputs: Golden[];
  args: unknown[];
  outputs: Golden[];
  upstream?: (Golden | null)[];
  grads?: (Golden | null)[];
}
interface Trace {
  optimizer: string;
  options: object;
  param: Golden;
  grads: Golden[];
  after: Golden[];
}
interface Course {
  scheduler: string;
  options: object;
  baseLr: number;
  lrs: number[];
}
interface File {
  cases: Case[];
  optimizers: Trace[];
  schedulers: Course[];
  trainingRun: { x: Golden; y: Golden; params: Golden[]; lr: number; losses: number[]; final: Golden[] };
  secondDerivatives: Record<'x' | 'W' | 'dx' | 'dW_of_dx2' | 'dx_of_dx2', Golden> & { op: string }[];
}
const golden = JSON.parse(readFileSync(new URL('./golden/ops.json', import.meta.url), 'utf8')) as File;

// Its gradient steps between 0 and an input of 1e-300, which float32 rounds to 0.
const FLOAT64_ONLY = new Set(['relu 4']);
const TOLERANCE = { float64: 1e-10, float32: 2e-5 };
type Precision = keyof typeof TOLERANCE;
const PRECISIONS = Object.keys(TOLERANCE) as Precision[];

type Op = (...args: unknown[]) => Tensor | Tensor[];
const ops = chainrule as unknown as Record<string, Op | undefined>;

/** A tensor of the file; its floating numbers in the wanted precision. */
const read = ({ shape, dtype, data }: Golden, precision: Precision): Tensor =>
  tensor(data, { shape, dtype: dtype === 'float64' ? precision : dtype });

/** Arguments with the tensors that `{ $t: i }` stands for, at any depth. */
function withTensors(arg: unknown, inputs: readonly Tensor[]): unknown {
  if (Array.isArray(arg)) return arg.map((entry) => withTensors(entry, inputs));
  if (typeof arg !== 'object') return arg;
  // Null stands for an argument left out.
  if (arg === null) return undefined;
  if ('$t' in arg) return inputs[arg.$t as number];
  return Object.fromEntries(Object.entries(arg).map(([key, value]) => [key, withTensors(value, inputs)]));
}

function expectGolden(actual: Tensor, expected: Golden, precision: Precision, what: string): void {
  expect(actual.shape, `shape of ${what}`).toEqual(expected.shape);
  expect(actual.dtype, `dtype of ${what}`).toBe(expected.dtype === 'float64' ? precision : expected.dtype);
  const numbers =
    precision === 'float32' ? expected.data.map((v) => Math.fround(Number(v))) : expected.data.map(Number);
  expectClose(values(actual), numbers, TOLERANCE[precision], what);
}

function checkCase({ op, inputs, args, outputs, upstream = [], grads = [] }: Case, precision: Precision): void {
  const tensors = inputs.map((input, i) => {
    const t = read(input, precision);
    return grads[i] ? t.requiresGrad_() : t;
  });
  const result = ops[op]!(...args.map((arg) => withTensors(arg, tensors)));
  const results = Array.isArray(result) ? result : [result];
  expect(results.length, 'number of outputs').toBe(outputs.length);
  for (const [i, out] of results.entries()) expectGolden(out, outputs[i]!, precision, `output ${i}`);

  const differentiated = results.filter((_, i) => upstream[i]);
  expect(results.map((out) => out.requiresGrad)).toEqual(results.map((_, i) => upstream[i] != null));
  if (differentiated.length === 0) return;
  const leaves = tensors.filter((_, i) => grads[i]);
  const gradOutputs = upstream.filter((up) => up !== null).map((up) => read(up, precision));
  const gradients = grad(differentiated, leaves, { gradOutputs });
  const expected = grads.filter((g) => g !== null);
  for (const [i, g] of gradients.entries()) expectGolden(g, expected[i]!, precision, `gradient ${i}`);
}

describe.each(PRECISIONS)('ops in %s', (precision) => {
  const counts = new Map<string, number>();
  for (const entry of golden.cases) {
    const { op } = entry;
    counts.set(op, (counts.get(op) ?? 0) + 1);
    const name = `${op} ${counts.get(op)}`;
    if (precision === 'float32' && FLOAT64_ONLY.has(name)) it.skip(`${name}: below float32's range`, () => {});
    else it(name, () => checkCase(entry, precision));
  }
});

describe.each(PRECISIONS)('optimizers in %s', (precision) => {
  const optimizers = optim as unknown as Record<
    string,
    new (
      params: Tensor[],
      options: object,
    ) => { step(): void; zeroGrad(): void }
  >;
  golden.optimizers.forEach(({ optimizer, options, param, grads, after }, n) => {
    it(`${optimizer} ${n} ${JSON.stringify(options)}`, () => {
      const p = read(param, precision).requiresGrad_();
      const subject = new optimizers[optimizer]!([p], options);
      grads.forEach((g, step) => {
        p.grad = read(g, precision);
        subject.step();
        expectGolden(p, after[step]!, precision, `after step ${step + 1}`);
      });
    });
  });
});

describe('schedulers', () => {
  type Scheduler = new (optimizer: optim.SGD, options: object) => { step(): void; getLastLr(): number[] };
  const schedulers = optim.lrScheduler as unknown as Record<string, Scheduler>;
  it.each(golden.schedulers)('$scheduler $options', ({ scheduler, options, baseLr, lrs }) => {
    const optimizer = new optim.SGD([tensor([0], { requiresGrad: true })], { lr: baseLr });
    const subject = new schedulers[scheduler]!(optimizer, options);
    const seen = lrs.map((_, epoch) => {
      if (epoch > 0) subject.step();
      expect(subject.getLastLr()).toEqual([optimizer.paramGroups[0]!.lr]);
      return optimizer.paramGroups[0]!.lr;
    });
    expectClose(seen, lrs, 1e-12, 'rate');
  });
});

describe.each(PRECISIONS)('a training run in %s', (precision) => {
  it('has the losses and the final parameters of a relu network with cross-entropy and SGD', () => {
    const { x, y, params, lr, losses, final } = golden.trainingRun;
    const [input, target] = [read(x, precision), read(y, precision)];
    const parameters = params.map((p) => read(p, precision).requiresGrad_());
    const [w1, b1, w2, b2] = parameters as [Tensor, Tensor, Tensor, Tensor];
    const optimizer = new optim.SGD(parameters, { lr });
    const seen = losses.map(() => {
      const hidden = chainrule.linear(input, w1, b1).relu();
      const loss = chainrule.linear(hidden, w2, b2).crossEntropy(target);
      optimizer.zeroGrad();
      loss.backward();
      optimizer.step();
      return loss.item();
    });
    expectClose(seen, losses, TOLERANCE[precision], 'loss');
    for (const [i, p] of parameters.entries()) expectGolden(p, final[i]!, precision, `parameter ${i}`);
  });
});

describe('second derivatives', () => {
  // With f = Σ op(x @ W) (the logarithm of the square plus 1): df/dx, and the gradients of Σ (df/dx)² for W and x, where errors of mixed terms show.
  it.each(golden.secondDerivatives as unknown as (Record<string, Golden> & { op: string })[])('$op', (entry) => {
    const [x, w] = [read(entry.x!, 'float64').requiresGrad_(), read(entry.W!, 'float64').requiresGrad_()];
    const z = x.matmul(w);
    const f = (ops[entry.op]!(entry.op === 'log' ? z.square().add(1) : z) as Tensor).sum();
    const [dx] = grad(f, x, { createGraph: true });
    expectGolden(dx!.detach(), entry.dx!, 'float64', 'df/dx');
    const [dxOfSquares, dwOfSquares] = grad(dx!.square().sum(), [x, w]);
    expectGolden(dxOfSquares!, entry.dx_of_dx2!, 'float64', 'for x');
    expectGolden(dwOfSquares!, entry.dW_of_dx2!, 'float64', 'for W');
  });
});
