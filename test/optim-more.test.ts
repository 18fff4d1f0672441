// RMSprop, Adagrad and Adadelta against their formulas in plain numbers; gradients added up on purpose, and by accident.
import { setImmediate } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import {
  Generator,
  getNumThreads,
  nn,
  noGrad,
  optim,
  randn,
  setNumThreads,
  type Tensor,
  tensor,
  zeros,
} from '../lib/index.ts';
import { bitsOf, expectClose, f64, gradOf, leaf, values } from './support.ts';

const gradients = (steps: number, n: number): number[][] =>
  Array.from({ length: steps }, (_, seed) => values(randn([n], { dtype: 'float64', generator: new Generator(seed) })));

/** One element of the parameter through all steps. */
type Reference<Options> = (p: number, grads: number[], options: Options) => number;

const rmsprop: Reference<optim.RMSpropOptions> = (start, grads, o) => {
  let [p, square, mean, velocity] = [start, 0, 0, 0];
  for (const grad of grads) {
    const g = (o.maximize ? -grad : grad) + o.weightDecay * p;
    square = o.alpha * square + (1 - o.alpha) * g * g;
    mean = o.alpha * mean + (1 - o.alpha) * g;
    const variance = o.centered ? Math.max(square - mean * mean, 0) : square;
    velocity = o.momentum * velocity + g / (Math.sqrt(variance) + o.eps);
    p -= o.lr * velocity;
  }
  return p;
};

const adagrad: Reference<optim.AdagradOptions> = (start, grads, o) => {
  let [p, sum] = [start, o.initialAccumulatorValue];
  for (const [step, grad] of grads.entries()) {
    const g = (o.maximize ? -grad : grad) + o.weightDecay * p;
    sum += g * g;
    p -= ((o.lr / (1 + step * o.lrDecay)) * g) / (Math.sqrt(sum) + o.eps);
  }
  return p;
};

const adadelta: Reference<optim.AdadeltaOptions> = (start, grads, o) => {
  let [p, square, deltas] = [start, 0, 0];
  for (const grad of grads) {
    const g = (o.maximize ? -grad : grad) + o.weightDecay * p;
    square = o.rho * square + (1 - o.rho) * g * g;
    const delta = (Math.sqrt(deltas + o.eps) / Math.sqrt(square + o.eps)) * g;
    deltas = o.rho * deltas + (1 - o.rho) * delta * delta;
    p -= o.lr * delta;
  }
  return p;
};

const RMSPROP = { lr: 0.01, alpha: 0.99, eps: 1e-8, weightDecay: 0, momentum: 0, centered: false, maximize: false };
const ADAGRAD = { lr: 0.01, lrDecay: 0, weightDecay: 0, initialAccumulatorValue: 0, eps: 1e-10, maximize: false };
const ADADELTA = { lr: 1, rho: 0.9, eps: 1e-6, weightDecay: 0, maximize: false };
const START = [0.5, -2, 0, 1e-3, 30];

type Case = [string, (p: Tensor[]) => optim.Optimizer<object>, (p: number, grads: number[]) => number];
const CASES: Case[] = [
  ...[
    {},
    { alpha: 0.5, eps: 1e-3 },
    { momentum: 0.9, lr: 0.1 },
    { centered: true, alpha: 0.9 },
    { centered: true, momentum: 0.5, weightDecay: 0.1, maximize: true },
  ].map(
    (o): Case => [
      `RMSprop ${JSON.stringify(o)}`,
      (p) => new optim.RMSprop(p, o),
      (p, g) => rmsprop(p, g, { ...RMSPROP, ...o }),
    ],
  ),
  ...[
    {},
    { lr: 0.5, lrDecay: 0.1 },
    { initialAccumulatorValue: 2, weightDecay: 0.3 },
    { maximize: true, eps: 0.01 },
  ].map(
    (o): Case => [
      `Adagrad ${JSON.stringify(o)}`,
      (p) => new optim.Adagrad(p, o),
      (p, g) => adagrad(p, g, { ...ADAGRAD, ...o }),
    ],
  ),
  ...[{}, { lr: 0.5, rho: 0.5, eps: 1e-3 }, { weightDecay: 0.1 }, { maximize: true }].map(
    (o): Case => [
      `Adadelta ${JSON.stringify(o)}`,
      (p) => new optim.Adadelta(p, o),
      (p, g) => adadelta(p, g, { ...ADADELTA, ...o }),
    ],
  ),
];

describe('an optimizer', () => {
  const threads = getNumThreads();
  afterEach(() => setNumThreads(threads));

  it.each(CASES)('computes its formula: %s', (_, make, reference) => {
    const params = [leaf(START), leaf(START, 'float32')];
    const optimizer = make(params);
    const steps = gradients(12, START.length);
    for (const grad of steps) {
      params[0]!.grad = f64(grad);
      params[1]!.grad = tensor(grad);
      optimizer.step();
    }
    const expected = START.map((start, i) =>
      reference(
        start,
        steps.map((grad) => grad[i]!),
      ),
    );
    expectClose(values(params[0]!), expected, 1e-12, 'float64');
    expectClose(values(params[1]!), expected, 2e-5, 'float32');
  });

  it.each(CASES)('has the same bits for every number of threads: %s', (_, make) => {
    const run = (count: number): string => {
      setNumThreads(count);
      const generator = new Generator(3);
      const param = randn([100_003], { generator }).requiresGrad_();
      const optimizer = make([param]);
      for (let step = 0; step < 3; step++) {
        param.grad = randn([100_003], { generator });
        optimizer.step();
      }
      return bitsOf(param.detach());
    };
    expect(run(4)).toBe(run(1));
  });

  it.each(CASES)('resumes from its state: %s', (_, make) => {
    const [straight, resumed] = [leaf(START), leaf([0, 0, 0, 0, 0])];
    const [first, second] = [make([straight]), make([resumed])];
    for (const [i, grad] of gradients(6, START.length).entries()) {
      if (i === 3) {
        noGrad(() => resumed.copy_(straight));
        second.loadStateDict(first.stateDict());
      }
      straight.grad = f64(grad);
      resumed.grad = f64(grad);
      first.step();
      second.step();
    }
    expect(values(resumed)).toEqual(values(straight));
  });

  it('takes a variance below zero, which rounding makes of equal gradients, for zero', () => {
    const param = zeros([1000], { requiresGrad: true });
    const optimizer = new optim.RMSprop([param], { centered: true, alpha: 0, eps: 1, lr: 1 });
    const grad = randn([1000], { generator: new Generator(1) });
    param.grad = grad;
    optimizer.step();
    // With alpha 0 the variance is that of one number.
    expectClose(values(param), values(grad.neg()), 1e-3, 'step');
  });

  it('starts the sums of each group where its options say', () => {
    const [a, b] = [leaf([0]), leaf([0])];
    const optimizer = new optim.Adagrad([{ params: [a] }, { params: [b], initialAccumulatorValue: 3 }], {
      lr: 1,
      eps: 0,
    });
    a.grad = f64([1]);
    b.grad = f64([1]);
    optimizer.step();
    expect([values(a), values(b)]).toEqual([[-1], [-0.5]]);
  });

  const wrong: [string, new (params: Tensor[], options: object) => unknown, object][] = [
    ['RMSprop: lr is -1', optim.RMSprop, { lr: -1 }],
    ['RMSprop: alpha is 1.5. Expected a number in [0, 1]', optim.RMSprop, { alpha: 1.5 }],
    ['RMSprop: eps is NaN', optim.RMSprop, { eps: Number.NaN }],
    ['RMSprop: weightDecay is -1', optim.RMSprop, { weightDecay: -1 }],
    ['RMSprop: momentum is -0.1', optim.RMSprop, { momentum: -0.1 }],
    ['RMSprop: unknown option "rho". Expected one of lr, alpha', optim.RMSprop, { rho: 0.9 }],
    ['Adagrad: lr is "1"', optim.Adagrad, { lr: '1' }],
    ['Adagrad: lrDecay is -1', optim.Adagrad, { lrDecay: -1 }],
    ['Adagrad: weightDecay is -1', optim.Adagrad, { weightDecay: -1 }],
    ['Adagrad: initialAccumulatorValue is -1', optim.Adagrad, { initialAccumulatorValue: -1 }],
    ['Adagrad: eps is -1', optim.Adagrad, { eps: -1 }],
    ['Adadelta: lr is Infinity', optim.Adadelta, { lr: Infinity }],
    ['Adadelta: rho is 1.1', optim.Adadelta, { rho: 1.1 }],
    ['Adadelta: eps is -1', optim.Adadelta, { eps: -1 }],
    ['Adadelta: weightDecay is -1', optim.Adadelta, { weightDecay: -1 }],
  ];
  it.each(wrong)('%s', (message, Class, options) => {
    expect(() => new Class([leaf([1])], options)).toThrow(message);
  });
});

/** A model, a batch of 10 examples, and its mean loss. */
function problem(dtype: 'float32' | 'float64') {
  const generator = new Generator(7);
  const model = new nn.Linear(4, 2, { dtype });
  const x = randn([10, 4], { dtype, generator });
  const y = randn([10, 2], { dtype, generator });
  const lossOf = (input: Tensor, target: Tensor): Tensor => new nn.MSELoss().call(model.call(input).tanh(), target);
  const part = (from: number, size: number): [Tensor, Tensor] => [x.narrow(0, from, size), y.narrow(0, from, size)];
  return { model, x, y, lossOf, part, grads: () => [...model.parameters()].flatMap(gradOf) };
}

describe('nn.utils.accumulateGradients', () => {
  it.each([
    ['float64', 1e-14],
    ['float32', 1e-6],
  ] as const)('has the gradient and the loss of the whole batch in %s, parts of any size', (dtype, tolerance) => {
    const { model, x, y, lossOf, part, grads } = problem(dtype);
    const loss = lossOf(x, y);
    loss.backward();
    const expected = grads();
    for (const sizes of [[10], [5, 5], [3, 6, 1], [0, 9, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]]) {
      model.zeroGrad();
      let from = 0;
      const batches = sizes.map((size) => {
        from += size;
        return part(from - size, size);
      });
      const mean = nn.utils.accumulateGradients(batches, lossOf);
      expect(Math.abs(mean - loss.item()), `loss of ${sizes}`).toBeLessThan(tolerance);
      expectClose(grads(), expected, tolerance, `gradient of ${sizes}`);
    }
  });

  it('takes tensors, adds to the gradients there are, and frees each graph before the next', () => {
    const w = leaf([2]);
    w.grad = f64([100]);
    const losses: Tensor[] = [];
    const mean = nn.utils.accumulateGradients([f64([1, 2, 3]), f64([4])], (x) => {
      for (const loss of losses) expect(() => loss.backward()).toThrow('retainGraph');
      losses.push(x.mul(w).square().mean());
      return losses.at(-1)!;
    });
    expect(mean).toBeCloseTo((4 * (1 + 4 + 9 + 16)) / 4, 12);
    expect(gradOf(w)[0]).toBeCloseTo(100 + (2 * 2 * 30) / 4, 12);
    expect(losses).toHaveLength(2);
  });

  it.each<[string, () => unknown]>([
    ['0 micro-batches without examples', () => nn.utils.accumulateGradients([], () => leaf([1]).sum())],
    ['1 micro-batches without examples', () => nn.utils.accumulateGradients([zeros([0, 2])], (x) => x.sum())],
    ['a micro-batch starts with a scalar', () => nn.utils.accumulateGradients([zeros([2]), tensor(1)], (x) => x.sum())],
    ['starts with 3', () => nn.utils.accumulateGradients([[3]] as never, () => leaf([1]).sum())],
    ['is not a scalar', () => nn.utils.accumulateGradients([leaf([1, 2])], (x) => x.mul(2))],
    ['loss is 5', () => nn.utils.accumulateGradients([leaf([1, 2])], () => 5 as unknown as Tensor)],
  ])('%s', (message, call) => {
    expect(call).toThrow(message);
  });

  it('computes nothing when a later part is wrong', () => {
    let calls = 0;
    const batches = [zeros([2]), tensor(1)];
    const lossOf = (x: Tensor): Tensor => {
      calls++;
      return x.sum();
    };
    expect(() => nn.utils.accumulateGradients(batches, lossOf)).toThrow('a scalar');
    expect(calls).toBe(0);
  });
});

describe('warnOnAccumulation', () => {
  /** What process.emitWarning was called with while fn ran. */
  async function warningsOf(fn: () => void): Promise<string[]> {
    const seen: (Error & { code?: string })[] = [];
    const listen = (warning: Error): number => seen.push(warning);
    process.on('warning', listen);
    fn();
    await setImmediate();
    process.off('warning', listen);
    return seen.filter(({ code }) => code === 'CHAINRULE_GRAD_ACCUMULATION').map(({ message }) => message);
  }
  const make = (on = true): { w: Tensor; optimizer: optim.SGD; pass: () => void } => {
    const w = leaf([1, 2]);
    const optimizer = new optim.SGD([leaf([0]), w], { lr: 0.1 });
    optimizer.warnOnAccumulation = on;
    return { w, optimizer, pass: () => w.square().sum().backward() };
  };

  it('warns once of a forgotten zeroGrad, with the way out', async () => {
    const { optimizer, pass } = make();
    const warnings = await warningsOf(() => {
      for (let i = 0; i < 4; i++) {
        pass();
        optimizer.step();
      }
    });
    expect(warnings).toEqual([
      'SGD: step: the gradient of a parameter of shape [2] is the sum of 2 backward passes. Call zeroGrad() after each ' +
        'step; to add up micro-batches on purpose, use nn.utils.accumulateGradients.',
    ]);
  });

  it('says nothing unless asked, nor of a loop that removes its gradients', async () => {
    const silent = make(false);
    const right = make();
    const warnings = await warningsOf(() => {
      for (let i = 0; i < 3; i++) {
        silent.pass();
        silent.optimizer.step();
        right.optimizer.zeroGrad();
        right.pass();
        right.optimizer.step();
      }
    });
    expect(warnings).toEqual([]);
  });

  it('counts micro-batches that were added up on purpose as one pass', async () => {
    const { w, optimizer, pass } = make();
    const accumulate = (): number =>
      nn.utils.accumulateGradients([f64([[1, 2]]), f64([[3, 4]]), f64([[5, 6]])], (x) => x.mul(w).sum());
    expect(
      await warningsOf(() => {
        accumulate();
        optimizer.step();
      }),
    ).toEqual([]);
    const warnings = await warningsOf(() => {
      pass();
      optimizer.step();
    });
    expect(warnings).toEqual([expect.stringContaining('the sum of 2 backward passes')]);
  });

  it("takes a gradient set by hand for the user's own", async () => {
    const { w, optimizer, pass } = make();
    const warnings = await warningsOf(() => {
      pass();
      pass();
      w.grad = w.grad!.div(2);
      optimizer.step();
    });
    expect(warnings).toEqual([]);
  });
});
