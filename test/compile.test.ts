// compile: whole training steps have the bits of ordinary ones, state is state, memory is planned and stays.
import { describe, expect, it } from 'vitest';
import {
  checkpoint,
  compile,
  crossEntropy,
  dropout,
  Generator,
  grad,
  manualSeed,
  memoryStats,
  nn,
  noGrad,
  optim,
  randint,
  randn,
  type Tensor,
  tensor,
  zeros,
} from '../lib/index.ts';
import { bitsOf, leaf, trainingStep, values } from './support.ts';

interface Job {
  model: nn.Module;
  step: (x: Tensor, y: Tensor) => Tensor;
  /** After each step. */
  after?: (i: number) => void;
}
type Batch = (i: number) => [Tensor, Tensor];

const parametersOf = (model: nn.Module): string[] => [...model.stateDict().values()].map(bitsOf);

/** Runs a job twice, its step as it is and compiled; every loss and every value of the model has the same bits. */
function expectSameTraining(make: () => Job, batch: Batch, steps: number, recordings = 1): void {
  const train = (compiled: boolean): string[] => {
    manualSeed(7);
    const { model, step, after } = make();
    const compiledStep = compile(step);
    const seen: string[] = [];
    for (let i = 0; i < steps; i++) {
      const [x, y] = batch(i);
      seen.push(bitsOf((compiled ? compiledStep : step)(x, y)));
      after?.(i);
    }
    if (compiled) expect(compiledStep.explain().programs.length).toBe(recordings);
    return [...seen, ...parametersOf(model)];
  };
  expect(train(true)).toEqual(train(false));
}

const regression: Batch = () => [randn([8, 6]), randn([8, 3])];
const classification: Batch = () => [randn([8, 6]), randint(0, 3, [8])];
const mlp = (): nn.Module => new nn.Sequential(new nn.Linear(6, 16), new nn.GELU(), new nn.Linear(16, 3));

describe('a compiled training step has the bits of an ordinary one', () => {
  const OPTIMIZERS: [string, (p: Iterable<Tensor>) => optim.Optimizer<{ lr: number }>][] = [
    ['SGD', (p) => new optim.SGD(p, { lr: 0.1 })],
    ['SGD with momentum', (p) => new optim.SGD(p, { lr: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.01 })],
    ['Adam', (p) => new optim.Adam(p, { lr: 0.01 })],
    ['AdamW with amsgrad', (p) => new optim.AdamW(p, { lr: 0.01, amsgrad: true })],
    ['RMSprop', (p) => new optim.RMSprop(p, { lr: 0.01, centered: true, momentum: 0.5 })],
    ['Adagrad', (p) => new optim.Adagrad(p, { lr: 0.1, lrDecay: 0.1 })],
    ['Adadelta', (p) => new optim.Adadelta(p)],
    ['Adam with clipping', (p) => new optim.Adam(p, { lr: 0.01, maxGradNorm: 0.1 })],
  ] as [string, (p: Iterable<Tensor>) => optim.Optimizer<{ lr: number }>][];

  it.each(OPTIMIZERS)('%s', (_, optimizerOf) => {
    expectSameTraining(
      () => {
        const model = mlp();
        const optimizer = optimizerOf(model.parameters());
        const loss = new nn.MSELoss();
        return {
          model,
          step: trainingStep(optimizer, (x, y) => loss.call((model as nn.Sequential).call(x), y)),
        };
      },
      regression,
      12,
    );
  });

  it('with a schedule of the rate and of the norm to clip at', () => {
    expectSameTraining(
      () => {
        const model = mlp();
        const optimizer = new optim.Adam(model.parameters(), { lr: 0.1, maxGradNorm: 1 });
        const schedule = new optim.lrScheduler.ExponentialLR(optimizer, { gamma: 0.7 });
        return {
          model,
          step: trainingStep(optimizer, (x, y) => crossEntropy((model as nn.Sequential).call(x), y)),
          after: (i) => {
            schedule.step();
            optimizer.maxGradNorm = 1 / (i + 1);
          },
        };
      },
      classification,
      10,
    );
  });

  it('with dropout, batch normalisation and a generator of its own', () => {
    expectSameTraining(
      () => {
        const generator = new Generator(3);
        const layers = [new nn.Linear(6, 32), new nn.BatchNorm1d(32), new nn.ReLU(), new nn.Dropout(0.4)];
        const model = new nn.Sequential(...layers, new nn.Linear(32, 3));
        const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
        return {
          model,
          step: trainingStep(optimizer, (x, y) =>
            crossEntropy(model.call(x.add(randn(x.shape, { generator }).mul(0.1))), y),
          ),
        };
      },
      classification,
      10,
    );
  });

  it('of a convolutional network with pooling', () => {
    expectSameTraining(
      () => {
        const features = [new nn.Conv2d(1, 4, 3, { padding: 1 }), new nn.ReLU(), new nn.MaxPool2d(2), new nn.Flatten()];
        const model = new nn.Sequential(...features, new nn.Linear(64, 3));
        const optimizer = new optim.SGD(model.parameters(), { lr: 0.1, momentum: 0.9 });
        return {
          model,
          step: trainingStep(optimizer, (x, y) => crossEntropy(model.call(x), y)),
        };
      },
      () => [randn([5, 1, 8, 8]), randint(0, 3, [5])],
      8,
    );
  });

  it('in train and in eval mode, with gradients and without: a recording each', () => {
    expectSameTraining(
      () => {
        const model = new nn.Sequential(new nn.Linear(6, 3), new nn.Dropout(0.5));
        return { model, step: (x, y) => crossEntropy(model.call(x), y), after: (i) => void model.train(i % 3 === 0) };
      },
      classification,
      9,
      2,
    );
    const w = leaf([1, 2]);
    const f = compile((x: Tensor) => x.mul(w).sum());
    const x = tensor([3, 4], { dtype: 'float64' });
    expect([f(x), noGrad(() => f(x)), f(x)].map(values)).toEqual([[11], [11], [11]]);
    expect(f.explain().programs.length).toBe(2);
  });

  it('with the last batch smaller: a recording for each size', () => {
    expectSameTraining(
      () => {
        const model = mlp();
        const optimizer = new optim.Adam(model.parameters(), { lr: 0.01 });
        return {
          model,
          step: trainingStep(optimizer, (x, y) => crossEntropy((model as nn.Sequential).call(x), y)),
        };
      },
      (i) => (i % 4 === 3 ? [randn([3, 6]), randint(0, 3, [3])] : [randn([8, 6]), randint(0, 3, [8])]),
      12,
      2,
    );
  });
});

describe('random numbers', () => {
  it('are drawn again by a checkpoint as they were, in each run', () => {
    const make = (): { step: () => Tensor; w: Tensor } => {
      const w = leaf(Array.from({ length: 64 }, (_, i) => i));
      const step = (): Tensor => {
        w.grad = null;
        const y = checkpoint((t: Tensor) => dropout(dropout(t, 0.5).mul(t), 0.3).sum(), w);
        y.backward();
        return y.add(randn([], { dtype: 'float64' }));
      };
      return { step, w };
    };
    const runs = [false, true].map((compiled) => {
      manualSeed(4);
      const { step, w } = make();
      const run = compiled ? compile(step) : step;
      return Array.from({ length: 5 }, () => [bitsOf(run()), bitsOf(w.grad!)]).concat([[bitsOf(randn([4]))]]);
    });
    expect(runs[1]).toEqual(runs[0]);
  });

  it('start anew in each run where the function seeds them', () => {
    const f = compile(() => {
      manualSeed(3);
      const own = new Generator(5);
      return [randn([4]), randn([4], { generator: own })];
    });
    const first = f().map(bitsOf);
    expect(f().map(bitsOf)).toEqual(first);
    manualSeed(3);
    expect(bitsOf(randn([4]))).toBe(first[0]);
  });
});

describe('gradients', () => {
  it('of micro-batches add up in a compiled backward pass; the update is outside', () => {
    const results = [false, true].map((compiled) => {
      const w = leaf([1, 2, 3]);
      const optimizer = new optim.SGD([w], { lr: 0.1 });
      const backward = compile((x: Tensor) => w.mul(x).sum().backward());
      const plain = (x: Tensor): void => w.mul(x).sum().backward();
      for (let i = 0; i < 12; i++) {
        (compiled ? backward : plain)(tensor([i, 1, i * i], { dtype: 'float64' }));
        if (i % 3 === 2) {
          optimizer.step();
          optimizer.zeroGrad();
        }
      }
      if (compiled) expect(backward.explain().programs).toHaveLength(2);
      return values(w);
    });
    expect(results[1]).toEqual(results[0]);
  });

  it('of ordinary passes are taken by a compiled update', () => {
    const w = leaf([1, 2, 3]);
    const optimizer = new optim.SGD([w], { lr: 0.5 });
    const update = compile(() => optimizer.step());
    for (let i = 0; i < 4; i++) {
      optimizer.zeroGrad();
      w.sum().backward();
      update();
    }
    expect(values(w)).toEqual([-1, 0, 1]);
    expect(update.explain().programs).toHaveLength(1);
  });

  it('are left in grad as without compile, and those that were read stay as they are', () => {
    const w = leaf([1, 2, 3]);
    const step = compile((x: Tensor) => {
      w.grad = null;
      w.mul(x).sum().backward();
    });
    step(tensor([1, 2, 3], { dtype: 'float64' }));
    const first = w.grad!;
    expect(values(first)).toEqual([1, 2, 3]);
    step(tensor([4, 5, 6], { dtype: 'float64' }));
    expect(values(w.grad!)).toEqual([4, 5, 6]);
    expect(values(first)).toEqual([1, 2, 3]);
    expect(w.grad).not.toBe(first);
  });

  it('add up where nobody sets them to null', () => {
    const w = leaf([1, 2]);
    const step = compile((x: Tensor) => w.mul(x).sum().backward());
    const x = tensor([1, 10], { dtype: 'float64' });
    for (let i = 1; i <= 4; i++) {
      step(x);
      expect(values(w.grad!)).toEqual([i, 10 * i]);
    }
    w.grad = null;
    step(x);
    expect(values(w.grad!)).toEqual([1, 10]);
    // None, some, and a tensor that is another one.
    expect(step.explain().retraces.length).toBeGreaterThan(0);
  });

  it('of arguments can be had with grad()', () => {
    const f = compile((x: Tensor) => grad(x.pow(3).sum(), x));
    const x = leaf([1, 2]);
    for (let i = 0; i < 3; i++) expect(values(f(x)[0]!)).toEqual([3, 12]);
    expect(x.grad).toBeNull();
  });

  it('of higher order are recorded too', () => {
    const f = compile((x: Tensor) => {
      const [first] = grad(x.pow(4).sum(), x, { createGraph: true });
      return grad(first!.sum(), x)[0]!;
    });
    for (let i = 0; i < 3; i++) expect(values(f(leaf([1, 2])))).toEqual([12, 48]);
  });
});

describe('arguments and results', () => {
  it('are trees; numbers among the arguments are part of what is recorded', () => {
    const f = compile(({ x, by }: { x: Tensor; by: number }, [y]: [Tensor]) => ({
      sum: x.mul(by).add(y),
      list: [x.neg(), 'text', null],
    }));
    const x = tensor([1, 2]);
    const y = tensor([10, 20]);
    for (const by of [2, 2, 3, 2]) {
      const { sum, list } = f({ x, by }, [y]);
      expect(values(sum)).toEqual([10 + by, 20 + 2 * by]);
      expect(values(list[0] as Tensor)).toEqual([-1, -2]);
      expect(list.slice(1)).toEqual(['text', null]);
    }
    expect(f.explain().programs.length).toBe(2);
  });

  it('of one call are not changed by the next', () => {
    const f = compile((x: Tensor) => x.mul(2));
    const [a, b] = [f(tensor([1, 2])), f(tensor([3, 4]))];
    expect([a, b].map(values)).toEqual([
      [2, 4],
      [6, 8],
    ]);
  });

  it('may be arguments, views of them, views of each other, and tensors from outside', () => {
    const w = tensor([5, 6]);
    const f = compile((x: Tensor) => {
      const y = x.mul(2);
      return [x, x.narrow(0, 1, 1), y, y.reshape([1, 2]), w] as const;
    });
    f(tensor([0, 0]));
    const x = tensor([1, 2]);
    const [same, part, y, z, outside] = f(x);
    expect(same).toBe(x);
    expect(outside).toBe(w);
    expect([part, y, z].map((t) => [t.shape, values(t)])).toEqual([
      [[1], [2]],
      [[2], [2, 4]],
      [
        [1, 2],
        [2, 4],
      ],
    ]);
    x.fill_(7);
    expect(values(part)).toEqual([7]);
    y.fill_(1);
    expect(values(z)).toEqual([1, 1]);
  });

  it('may be views with strides and offsets of their own', () => {
    const f = compile((x: Tensor) => x.add(1));
    const base = tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect(values(f(base.select(1, 0)))).toEqual([2, 5]);
    expect(values(f(base.select(1, 2)))).toEqual([4, 7]);
    expect(values(f(base.select(0, 1).narrow(0, 0, 2)))).toEqual([5, 6]);
    expect(f.explain().retraces).toEqual(['argument 0 is float32[2], and was float32[2] with other strides']);
  });

  it('are changed in place as without compile', () => {
    const f = compile((x: Tensor) => x.add_(1).mul_(2));
    for (let i = 0; i < 3; i++) {
      const x = tensor([1, 2]);
      expect(f(x)).toBe(x);
      expect(values(x)).toEqual([4, 6]);
    }
  });
});

describe('memory', () => {
  const step = (): ((x: Tensor, y: Tensor) => void) & { explain(): { programs: { plannedBytes: number }[] } } => {
    const model = mlp() as nn.Sequential;
    const optimizer = new optim.Adam(model.parameters());
    return compile((x: Tensor, y: Tensor) => {
      optimizer.zeroGrad();
      crossEntropy(model.call(x), y).backward();
      optimizer.step();
    });
  };

  it('is one arena: no run takes more', () => {
    const train = step();
    const [x, y] = classification(0);
    train(x, y);
    const { liveBytes, liveTensors, arenaCalls } = memoryStats();
    for (let i = 0; i < 1000; i++) train(x, y);
    expect(memoryStats()).toMatchObject({ liveBytes, liveTensors, arenaCalls });
  });

  it('is planned close to the least that is possible, and below that of ordinary steps', () => {
    const model = new nn.Sequential(new nn.Linear(784, 512), new nn.ReLU(), new nn.Linear(512, 256), new nn.ReLU());
    const head = new nn.Linear(256, 10);
    const optimizer = new optim.SGD([...model.parameters(), ...head.parameters()], { lr: 0.1 });
    const train = compile((x: Tensor, y: Tensor) => {
      optimizer.zeroGrad();
      crossEntropy(head.call(model.call(x)), y).backward();
      optimizer.step();
    });
    train(randn([128, 784]), zeros([128], { dtype: 'int32' }));
    const { plannedBytes, lowerBoundBytes, eagerPeakBytes, planned } = train.explain().programs[0]!;
    expect(plannedBytes).toBeLessThanOrEqual(1.05 * lowerBoundBytes);
    expect(plannedBytes).toBeLessThanOrEqual(eagerPeakBytes);
    expect(planned).toMatch(/^%1\[128,512\]@\d+ = matmul %2\[128,784\] %3\[512,784\] %4\[512\]$/m);
  });
});
