// checkpointSequential: segments, budgets of bytes, what is planned and what is measured.
import { describe, expect, it, vi } from 'vitest';
import {
  ArgumentError,
  autograd,
  type CheckpointPlan,
  checkpointSequential,
  manualSeed,
  memoryStats,
  nn,
  noGrad,
  randn,
  resetPeakMemory,
  type SequentialOptions,
  scope,
  type Tensor,
  trimMemory,
} from '../lib/index.ts';
import { bitsOf, thrownBy } from './support.ts';

const WIDTH = 32;
const BATCH = 256;
const layers = (n: number): nn.Module[] =>
  Array.from({ length: n }, () => [new nn.Linear(WIDTH, WIDTH), new nn.GELU(), new nn.Dropout(0.1)]).flat();

function gradients(modules: readonly nn.Module[], run: (x: Tensor) => Tensor): string[] {
  manualSeed(4);
  const x = randn([BATCH, WIDTH], { requiresGrad: true });
  const parameters = modules.flatMap((m) => [...m.parameters()]);
  for (const p of parameters) p.grad = null;
  const loss = run(x).square().sum();
  loss.backward();
  return [loss, x.grad!, ...parameters.map((p) => p.grad!), randn([2])].map(bitsOf);
}
const chain =
  (modules: readonly nn.Module[]) =>
  (x: Tensor): Tensor =>
    modules.reduce((y, m) => m.call(y), x);

function planOf(modules: nn.Module[], maxBytes: number, x: Tensor): CheckpointPlan[] {
  const plans: CheckpointPlan[] = [];
  checkpointSequential(modules, { maxBytes, onPlan: (plan) => plans.push(plan) }, x)
    .sum()
    .backward();
  return plans;
}

describe('segments', () => {
  it('of any number give the same bits', () => {
    manualSeed(2);
    const modules = layers(3);
    const plain = gradients(modules, chain(modules));
    for (const segments of [2, 3, 4, 9]) {
      expect(
        gradients(modules, (x) => checkpointSequential(modules, { segments }, x)),
        `${segments}`,
      ).toEqual(plain);
    }
    const model = new nn.Sequential(...modules);
    expect(gradients(modules, (x) => checkpointSequential(model, { segments: 3 }, x))).toEqual(plain);
    const functions = modules.map((m) => (x: Tensor) => m.call(x));
    expect(gradients(modules, (x) => checkpointSequential(functions, { segments: 3 }, x))).toEqual(plain);
  });

  it('run each module once, and once more in the backward pass', () => {
    const runs: number[] = [];
    const stages = [0, 1, 2, 3, 4].map((i) => (x: Tensor) => {
      runs.push(i);
      return x.exp();
    });
    const y = checkpointSequential(stages, { segments: 2 }, randn([2], { requiresGrad: true }));
    expect(runs).toEqual([0, 1, 2, 3, 4]);
    y.sum().backward();
    expect([...runs].sort()).toEqual([0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    runs.length = 0;
    noGrad(() => checkpointSequential(stages, { segments: 2 }, randn([2], { requiresGrad: true })));
    noGrad(() => checkpointSequential(stages, { maxBytes: 1 }, randn([2], { requiresGrad: true })));
    expect(runs).toEqual([0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
  });
});

describe('a budget', () => {
  const bytes = BATCH * WIDTH * 4;

  it('gives the same bits, whatever it is', () => {
    manualSeed(2);
    const modules = layers(3);
    const plain = gradients(modules, chain(modules));
    for (const maxBytes of [1, bytes, 4 * bytes, 7 * bytes, 100 * bytes]) {
      const plans: CheckpointPlan[] = [];
      const options: SequentialOptions = { maxBytes, onPlan: (plan) => plans.push(plan) };
      expect(
        gradients(modules, (x) => checkpointSequential(modules, options, x)),
        `${maxBytes}`,
      ).toEqual(plain);
      expect(plans).toHaveLength(1);
    }
  });

  it('is met where segments would meet it, by computing again as little as it takes', () => {
    manualSeed(2);
    const modules = layers(6);
    const x = randn([BATCH, WIDTH], { requiresGrad: true });
    // All of them save 24 activations; three segments need about 11: three inputs, and the 8 of one segment.
    let before = modules.length + 1;
    for (const maxBytes of [12, 16, 20, 24].map((n) => n * bytes)) {
      const [plan] = planOf(modules, maxBytes, x);
      expect(plan).toMatchObject({ modules: 18, maxBytes, plainBytes: 24 * bytes });
      expect(plan!.measuredBytes).toBe(plan!.predictedBytes);
      expect(plan!.measuredBytes).toBeLessThanOrEqual(maxBytes);
      expect(plan!.recomputed).toBeLessThan(before);
      before = plan!.recomputed;
    }
    expect(before).toBe(0);
  });

  it('that no choice meets is said to be so by the prediction', () => {
    manualSeed(2);
    const [plan] = planOf(layers(6), 1, randn([BATCH, WIDTH], { requiresGrad: true }));
    expect(plan!.predictedBytes).toBeGreaterThan(1);
    expect(plan!.measuredBytes).toBe(plan!.predictedBytes);
    expect(plan!.recomputed).toBe(18);
  });

  it('lowers what is live as it says', () => {
    manualSeed(2);
    const modules = layers(6);
    const x = randn([BATCH, WIDTH], { requiresGrad: true });
    const peak = (run: () => Tensor): number => {
      const pass = (): void => scope(() => run().sum().backward());
      pass();
      globalThis.gc!();
      trimMemory();
      const before = memoryStats().liveBytes;
      resetPeakMemory();
      pass();
      return memoryStats().peakBytes - before;
    };
    const plain = peak(() => chain(modules)(x));
    const plans: CheckpointPlan[] = [];
    const budgeted = peak(() =>
      checkpointSequential(modules, { maxBytes: 12 * bytes, onPlan: (plan) => plans.push(plan) }, x),
    );
    const saved = plans[1]!.plainBytes - plans[1]!.measuredBytes;
    expect(saved).toBeGreaterThan(4 * bytes);
    expect(plain - budgeted).toBeGreaterThan(saved - 3 * bytes);
  });

  it('reports when the first module saves nothing, has no parameters, or nothing is differentiated before it', () => {
    const model = [new nn.Flatten(), new nn.Linear(WIDTH, 4), new nn.ReLU()];
    for (const x of [randn([3, WIDTH / 2, 2]), randn([3, WIDTH / 2, 2], { requiresGrad: true })]) {
      for (const maxBytes of [1, 1 << 20]) expect(planOf(model, maxBytes, x)).toHaveLength(1);
    }
    expect(planOf([new nn.Linear(WIDTH, 4), new nn.Flatten()], 1 << 20, randn([3, WIDTH]))).toHaveLength(1);
  });

  it('is told once for each plan', () => {
    const log = vi.spyOn(console, 'log').mockImplementation(() => {});
    try {
      const model = [new nn.Linear(WIDTH, WIDTH), new nn.GELU(), new nn.Linear(WIDTH, 1)];
      for (let i = 0; i < 3; i++)
        checkpointSequential(model, { maxBytes: 1000 }, randn([8, WIDTH]))
          .sum()
          .backward();
      expect(log.mock.calls).toHaveLength(1);
      expect(String(log.mock.calls[0])).toMatch(/of 3 modules.*predicted.*measured.*No choice of modules/);
    } finally {
      log.mockRestore();
    }
  });

  it('holds for retained graphs and leaves no bytes behind', () => {
    manualSeed(2);
    const modules = layers(3);
    const x = randn([BATCH, WIDTH]);
    const live = (): number => {
      for (let i = 0; i < 4; i++) {
        globalThis.gc!();
        trimMemory();
      }
      return memoryStats().liveBytes;
    };
    const rounds = (): void => {
      for (let i = 0; i < 10; i++) {
        const y = checkpointSequential(modules, { maxBytes: 3 * bytes, onPlan: () => {} }, x).sum();
        if (i % 2 === 0) y.backward(null, { retainGraph: true });
        if (i % 3 === 0) y.backward();
        for (const m of modules) m.zeroGrad();
      }
    };
    rounds();
    const before = live();
    rounds();
    expect(live()).toBe(before);
  });

  it('works with Functions of the user’s among the modules', () => {
    class Double extends autograd.Function {
      static forward(ctx: autograd.FunctionContext, x: Tensor): Tensor {
        ctx.saveForBackward(x);
        return x.square();
      }
      static backward(ctx: autograd.FunctionContext, g: Tensor): Tensor {
        return g.mul(ctx.savedTensors[0]!).mul(2);
      }
    }
    const linear = new nn.Linear(WIDTH, WIDTH);
    const stages = [linear, { call: (x: Tensor) => Double.apply(x) }, new nn.Tanh()];
    const plain = gradients([linear], (x) => stages.reduce((y, stage) => stage.call(y), x));
    for (const options of [{ segments: 3 }, { maxBytes: 1, onPlan: () => {} }]) {
      expect(gradients([linear], (x) => checkpointSequential(stages, options, x))).toEqual(plain);
    }
  });
});

describe('wrong calls', () => {
  const x = randn([2, WIDTH]);
  const model = [new nn.ReLU(), new nn.Tanh()];
  it.each<[string, () => unknown, RegExp]>([
    ['neither', () => checkpointSequential(model, {}, x), /either \{ segments \} or \{ maxBytes \}/],
    ['both', () => checkpointSequential(model, { segments: 2, maxBytes: 3 }, x), /either/],
    ['no segment', () => checkpointSequential(model, { segments: 0 }, x), /segments/],
    ['half a segment', () => checkpointSequential(model, { segments: 1.5 }, x), /segments/],
    ['more than modules', () => checkpointSequential(model, { segments: 3 }, x), /3 segments of 2 modules/],
    ['no bytes', () => checkpointSequential(model, { maxBytes: 0 }, x), /maxBytes/],
    ['no modules', () => checkpointSequential([], { segments: 1 }, x), /no modules/],
    ['no list', () => checkpointSequential(5 as never, { segments: 1 }, x), /the modules are 5/],
    ['no module', () => checkpointSequential([3 as never], { segments: 1 }, x), /entry 0 is 3/],
    ['no tensor', () => checkpointSequential(model, { segments: 2 }, 3 as never), /checkpointSequential/],
    ['an unknown option', () => checkpointSequential(model, { segment: 2 } as never, x), /segment/],
    ['onPlan that is none', () => checkpointSequential(model, { maxBytes: 9, onPlan: 3 as never }, x), /onPlan/],
  ])('%s', (_, call, message) => {
    const error = thrownBy(call) as Error;
    expect(error).toBeInstanceOf(ArgumentError);
    expect(error.message).toMatch(message);
  });
});
