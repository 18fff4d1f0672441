// Optimizers against the formulas written out in plain numbers, their state, their errors.
import { describe, expect, it } from 'vitest';
import { data, Generator, manualSeed, nn, optim, randn, scope, type Tensor, tensor, zeros } from '../lib/index.ts';

const values = (t: Tensor): number[] => Array.from(t.detach().to('float64').toTypedArray());
const leaf = (x: number[], dtype: 'float32' | 'float64' = 'float64'): Tensor =>
  tensor(x, { dtype, requiresGrad: true });
const gradients = (steps: number, n: number): number[][] =>
  Array.from({ length: steps }, (_, step) => values(randn([n], { dtype: 'float64', generator: new Generator(step) })));

/** One element of the parameter through all steps. */
type Reference<Options> = (p: number, grads: number[], options: Options) => number;

const sgd: Reference<optim.SGDOptions> = (
  start,
  grads,
  { lr, momentum, dampening, weightDecay, nesterov, maximize },
) => {
  let [p, buffer] = [start, 0];
  for (const [i, grad] of grads.entries()) {
    let g = (maximize ? -grad : grad) + weightDecay * p;
    buffer = i === 0 ? g : momentum * buffer + (1 - dampening) * g;
    if (momentum !== 0) g = nesterov ? g + momentum * buffer : buffer;
    p -= lr * g;
  }
  return p;
};

const adam =
  (decoupled: boolean): Reference<optim.AdamOptions> =>
  (start, grads, options) => {
    const { lr, betas, eps, weightDecay, amsgrad, maximize } = options;
    let [p, m, v, vMax] = [start, 0, 0, 0];
    for (const [i, grad] of grads.entries()) {
      let g = maximize ? -grad : grad;
      if (decoupled) p -= lr * weightDecay * p;
      else g += weightDecay * p;
      m = betas[0] * m + (1 - betas[0]) * g;
      v = betas[1] * v + (1 - betas[1]) * g * g;
      vMax = amsgrad ? Math.max(vMax, v) : v;
      const denominator = Math.sqrt(vMax) / Math.sqrt(1 - betas[1] ** (i + 1)) + eps;
      p -= ((lr / (1 - betas[0] ** (i + 1))) * m) / denominator;
    }
    return p;
  };

const SGD = { lr: 0.01, momentum: 0, dampening: 0, weightDecay: 0, nesterov: false, maximize: false };
const ADAM = { lr: 0.001, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, amsgrad: false, maximize: false } as const;
const START = [0.5, -2, 0, 1e-3, 30];

describe('an optimizer computes its formula', () => {
  const cases: [string, (p: Tensor[]) => optim.Optimizer<object>, (p: number, grads: number[]) => number][] = [];
  for (const options of [
    {},
    { lr: 0.1 },
    { momentum: 0.9 },
    { momentum: 0.9, dampening: 0.3 },
    { momentum: 0.8, nesterov: true, weightDecay: 0.1 },
    { weightDecay: 0.2, maximize: true },
  ]) {
    cases.push([
      `SGD ${JSON.stringify(options)}`,
      (p) => new optim.SGD(p, options),
      (p, g) => sgd(p, g, { ...SGD, ...options }),
    ]);
  }
  for (const options of [
    {},
    { lr: 0.1, betas: [0.5, 0.9] as const },
    { weightDecay: 0.3 },
    { amsgrad: true, eps: 1e-3 },
    { maximize: true, lr: 0.05 },
  ]) {
    cases.push([
      `Adam ${JSON.stringify(options)}`,
      (p) => new optim.Adam(p, options),
      (p, g) => adam(false)(p, g, { ...ADAM, ...options }),
    ]);
    const decayed = { ...ADAM, weightDecay: 0.01, ...options };
    cases.push([
      `AdamW ${JSON.stringify(options)}`,
      (p) => new optim.AdamW(p, options),
      (p, g) => adam(true)(p, g, decayed),
    ]);
  }

  it.each(cases)('%s', (_, make, reference) => {
    const params = [leaf(START), leaf(START, 'float32'), leaf([7])];
    const optimizer = make(params);
    const steps = gradients(12, START.length);
    for (const grad of steps) {
      params[0]!.grad = tensor(grad, { dtype: 'float64' });
      params[1]!.grad = tensor(grad);
      params[2]!.grad = tensor([grad[0]!], { dtype: 'float64' });
      optimizer.step();
    }
    for (const [i, start] of START.entries()) {
      const expected = reference(
        start,
        steps.map((grad) => grad[i]!),
      );
      expect(values(params[0]!)[i]).toBeCloseTo(expected, 11);
      expect(Math.abs(values(params[1]!)[i]! - expected)).toBeLessThan(1e-5 * Math.max(1, Math.abs(expected)));
    }
    expect(values(params[2]!)[0]).toBeCloseTo(
      reference(
        7,
        steps.map((grad) => grad[0]!),
      ),
      11,
    );
  });

  it('with a step of its own for a parameter whose gradients come late', () => {
    const [early, late, never] = [leaf([1]), leaf([1]), leaf([1])];
    const optimizer = new optim.Adam([early, late, never]);
    const grads = gradients(6, 1).flat();
    for (const [i, g] of grads.entries()) {
      early.grad = tensor([g], { dtype: 'float64' });
      late.grad = i < 3 ? null : tensor([g], { dtype: 'float64' });
      optimizer.step();
    }
    expect(values(early)[0]).toBeCloseTo(adam(false)(1, grads, ADAM), 12);
    expect(values(late)[0]).toBeCloseTo(adam(false)(1, grads.slice(3), ADAM), 12);
    expect(values(never)).toEqual([1]);
  });
});

describe('Optimizer', () => {
  const step = (optimizer: optim.Optimizer<object>, params: Tensor[], grad: number) => {
    for (const p of params) p.grad = tensor(new Array(p.numel).fill(grad), { dtype: p.dtype });
    optimizer.step();
  };

  it('keeps leaves, records nothing, and changes no gradient', () => {
    const p = leaf([1, 2]);
    const optimizer = new optim.SGD([p], { lr: 0.5 });
    p.mul(p).sum().backward();
    const grad = p.grad!;
    optimizer.step();
    expect(values(p)).toEqual([0, 0]);
    expect(values(grad)).toEqual([2, 4]);
    expect(p.isLeaf && p.requiresGrad).toBe(true);
    optimizer.zeroGrad();
    expect(p.grad).toBeNull();
  });

  it('has options for each group, which may be changed between steps', () => {
    const [a, b] = [leaf([1]), leaf([1])];
    const optimizer = new optim.SGD([{ params: [a] }, { params: [b], lr: 0.25 }], { lr: 0.5 });
    step(optimizer, [a, b], 1);
    expect([values(a), values(b)]).toEqual([[0.5], [0.75]]);
    optimizer.paramGroups[0]!.lr = 0;
    step(optimizer, [a, b], 1);
    expect([values(a), values(b)]).toEqual([[0.5], [0.5]]);
    expect(optimizer.paramGroups.map(({ lr, momentum }) => [lr, momentum])).toEqual([
      [0, 0],
      [0.25, 0],
    ]);
  });

  it('takes the parameters of a module as they come', () => {
    const model = new nn.Linear(3, 2);
    expect(new optim.AdamW(model.parameters()).paramGroups[0]!.params).toEqual([model.weight, model.bias]);
  });

  it('resumes from its state as if it had not stopped', () => {
    const options = { lr: 0.1, amsgrad: true };
    const straight = [leaf(START), leaf([4])];
    const first = new optim.Adam([{ params: [straight[0]!] }, { params: [straight[1]!], lr: 1 }], options);
    for (const grad of [1, -2, 3]) step(first, straight, grad);

    const resumed = straight.map((p) => leaf(values(p)));
    const second = new optim.Adam([{ params: [resumed[0]!] }, { params: [resumed[1]!] }]);
    second.loadStateDict(first.stateDict());
    for (const grad of [0.5, -4]) {
      step(first, straight, grad);
      step(second, resumed, grad);
    }
    expect(resumed.map(values)).toEqual(straight.map(values));
    expect(second.paramGroups.map(({ lr, amsgrad }) => [lr, amsgrad])).toEqual([
      [0.1, true],
      [1, true],
    ]);
  });

  it('refuses a state that is not for its parameters, and keeps its own', () => {
    const p = leaf([1, 2]);
    const optimizer = new optim.Adam([p]);
    step(optimizer, [p], 1);
    const other = [leaf([1]), leaf([1, 2], 'float32')];
    for (const [i, message] of [
      'expAvg of parameter 0 is float64[1]. Expected float64[2]',
      'is float32[2]',
    ].entries()) {
      const wrong = new optim.Adam([other[i]!]);
      step(wrong, [other[i]!], 1);
      expect(() => optimizer.loadStateDict(wrong.stateDict())).toThrow(message);
    }
    expect(() => optimizer.loadStateDict(new optim.Adam(other).stateDict())).toThrow(
      'groups of 2 parameters. Expected 1.',
    );
    const negative = optimizer.stateDict();
    negative.paramGroups[0]!.lr = -1;
    expect(() => optimizer.loadStateDict(negative)).toThrow('lr is -1');
    expect(optimizer.stateDict().state.get(0)!.step).toBe(1);
    expect(optimizer.paramGroups[0]!.lr).toBe(0.001);
  });

  it('starts its state anew when momentum is turned on later', () => {
    const p = leaf([1]);
    const optimizer = new optim.SGD([p], { lr: 1, dampening: 0.5 });
    step(optimizer, [p], 1);
    optimizer.paramGroups[0]!.momentum = 0.9;
    step(optimizer, [p], 1);
    expect(values(p)).toEqual([-1]);
  });

  it('keeps its state when the step is in a scope', () => {
    const [inside, outside] = [leaf([1]), leaf([1])];
    const optimizers = [new optim.Adam([inside]), new optim.Adam([outside])];
    for (const grad of [1, 2, 3]) {
      scope(() => step(optimizers[0]!, [inside], grad));
      step(optimizers[1]!, [outside], grad);
    }
    expect(values(inside)).toEqual(values(outside));
  });

  it.each<[string, () => unknown]>([
    ['SGD: got no parameters', () => new optim.SGD([])],
    ['Adam: got a group without parameters', () => new optim.Adam([{ params: [] }])],
    ['SGD: lr is -1', () => new optim.SGD([leaf([1])], { lr: -1 })],
    ['SGD: lr is NaN', () => new optim.SGD([leaf([1])], { lr: Number.NaN })],
    ['SGD: lr is "0.1"', () => new optim.SGD([leaf([1])], { lr: '0.1' as unknown as number })],
    ['SGD: momentum is -0.5', () => new optim.SGD([{ params: [leaf([1])], momentum: -0.5 }])],
    ['SGD: nesterov with momentum 0', () => new optim.SGD([leaf([1])], { nesterov: true })],
    ['AdamW: betas are [0.9,1]', () => new optim.AdamW([leaf([1])], { betas: [0.9, 1] })],
    ['Adam: betas are 0.9', () => new optim.Adam([leaf([1])], { betas: 0.9 as unknown as [number, number] })],
    ['Adam: eps is -1', () => new optim.Adam([leaf([1])], { eps: -1 })],
    [
      'Adam: unknown option "beta". Expected one of lr, betas',
      () => new optim.Adam([leaf([1])], { beta: 1 } as object),
    ],
    ['SGD: a tensor of shape [1] is the result of an op', () => new optim.SGD([leaf([1]).mul(2)])],
    ['SGD: got 3. Expected tensors', () => new optim.SGD([{ params: [3 as unknown as Tensor] }])],
    ['SGD: a parameter of shape [1] appears twice', () => ((p) => new optim.SGD([p, p]))(leaf([1]))],
    ['appears twice', () => ((p) => new optim.SGD([{ params: [p] }, { params: [p] }]))(leaf([1]))],
  ])('%s', (message, fn) => {
    expect(fn).toThrow(message);
    expect(fn).toThrow(expect.objectContaining({ code: 'ERR_ARG' }));
  });
});

describe('the training loop', () => {
  const train = (options: { zero: boolean; seed: number }): number[] => {
    manualSeed(options.seed);
    const x = randn([64, 3]);
    const y = x.matmul(tensor([[1], [-2], [0.5]])).add(3);
    const model = new nn.Linear(3, 1);
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
    const losses: number[] = [];
    for (let epoch = 0; epoch < 10; epoch++) {
      for (const [input, target] of new data.DataLoader(new data.TensorDataset(x, y), {
        batchSize: 16,
        shuffle: true,
      })) {
        if (options.zero) optimizer.zeroGrad();
        const loss = new nn.MSELoss().call(model.call(input), target);
        loss.backward();
        optimizer.step();
        losses.push(loss.item());
      }
    }
    return losses;
  };

  it('converges with zeroGrad, and measurably not without', () => {
    const [right, wrong] = [train({ zero: true, seed: 1 }), train({ zero: false, seed: 1 })];
    expect(right[0]).toBe(wrong[0]);
    expect(right.at(-1)).toBeLessThan(1e-3);
    expect(wrong.at(-1)).toBeGreaterThan(100 * right.at(-1)!);
  });

  it('repeats to the bit with a seed', () => {
    expect(train({ zero: true, seed: 2 })).toEqual(train({ zero: true, seed: 2 }));
    expect(train({ zero: true, seed: 2 })).not.toEqual(train({ zero: true, seed: 3 }));
  });

  it('accumulates micro-batches to the gradient of the batch, with the divisor of the whole', () => {
    const model = new nn.Linear(4, 2, { dtype: 'float64' });
    const x = randn([10, 4], { dtype: 'float64' });
    const y = randn([10, 2], { dtype: 'float64' });
    const loss = (from: number, size: number) =>
      new nn.MSELoss().call(model.call(x.narrow(0, from, size)), y.narrow(0, from, size)).mul(size / 10);
    loss(0, 10).backward();
    const whole = [...model.parameters()].flatMap(({ grad }) => values(grad!));
    model.zeroGrad();
    for (const [from, size] of [
      [0, 3],
      [3, 6],
      [9, 1],
    ] as const)
      loss(from, size).backward();
    const parts = [...model.parameters()].flatMap(({ grad }) => values(grad!));
    for (const [i, v] of whole.entries()) expect(parts[i]).toBeCloseTo(v, 12);
  });

  it('state tensors have the shape and dtype of their parameter', () => {
    const p = zeros([2, 3], { requiresGrad: true });
    const optimizer = new optim.SGD([p], { momentum: 0.5 });
    p.grad = zeros([2, 3]);
    optimizer.step();
    const { step, tensors } = optimizer.stateDict().state.get(0)!;
    expect(step).toBe(1);
    expect(tensors.momentumBuffer!.shape).toEqual([2, 3]);
  });
});
