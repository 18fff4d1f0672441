// Checkpointing: the same bits as without, less memory, and an error where what is computed again would differ.
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  checkpoint,
  Generator,
  grad,
  hessian,
  hvp,
  jvp,
  manualSeed,
  memoryStats,
  nn,
  noGrad,
  randn,
  resetPeakMemory,
  scope,
  type Tensor,
  trimMemory,
  vjp,
} from '../lib/index.ts';
import { bitsOf, f64, gradOf, leaf, leftBehind, runFixture, thrownBy, values } from './support.ts';

/** Gradients of the parameters and of x for run(x), from one seed; and the next random numbers. */
function gradients(model: nn.Module, run: (x: Tensor) => Tensor): string[] {
  manualSeed(11);
  model.zeroGrad();
  const x = randn([8, 6], { requiresGrad: true });
  const loss = run(x).square().sum();
  loss.backward();
  return [loss, x.grad!, ...[...model.parameters()].map((p) => p.grad!), randn([3])].map(bitsOf);
}
const collected = (): number => {
  for (let i = 0; i < 4; i++) {
    globalThis.gc!();
    trimMemory();
  }
  return memoryStats().liveBytes;
};

describe('gradients are the same bits', () => {
  const generator = new Generator(5);
  const models: [string, () => nn.Sequential][] = [
    ['an MLP', () => new nn.Sequential(new nn.Linear(6, 9), new nn.GELU(), new nn.Linear(9, 6), new nn.Tanh())],
    [
      'dropout',
      () => new nn.Sequential(new nn.Linear(6, 9), new nn.Dropout(0.4), new nn.Linear(9, 6), new nn.Dropout(0.2)),
    ],
    [
      'batch norm',
      () => new nn.Sequential(new nn.Linear(6, 9), new nn.BatchNorm1d(9), new nn.ReLU(), new nn.Linear(9, 6)),
    ],
    ['layer norm', () => new nn.Sequential(new nn.LayerNorm([6]), new nn.Linear(6, 6), new nn.SiLU())],
  ];
  it.each(models)('%s, whole, in parts, and nested', (_, make) => {
    manualSeed(3);
    const model = make();
    const parts = [...model];
    const plain = gradients(model, (x) => model.call(x));
    expect(gradients(model, (x) => checkpoint((a: Tensor) => model.call(a), x))).toEqual(plain);
    const inParts = (x: Tensor): Tensor => parts.reduce((y, part) => checkpoint((a: Tensor) => part.call(a), y), x);
    expect(gradients(model, inParts)).toEqual(plain);
    expect(gradients(model, (x) => checkpoint(inParts, x))).toEqual(plain);
    expect(gradients(model, (x) => checkpoint((a: Tensor) => checkpoint(inParts, a), x))).toEqual(plain);
    expect(gradients(model, (x) => scope(() => checkpoint((a: Tensor) => scope(() => model.call(a)), x)))).toEqual(
      plain,
    );
  });

  it('with generators of one’s own, whose streams go on as without', () => {
    const draw = (run: (f: (x: Tensor) => Tensor, x: Tensor) => Tensor): string[] => {
      generator.manualSeed(9);
      manualSeed(2);
      const x = randn([32], { requiresGrad: true });
      const noisy = (a: Tensor): Tensor => {
        const noise = randn([32], { generator }).mul(a.exp());
        return noise
          .mul(randn([32]))
          .mul(a)
          .dropout(0.5, { training: true });
      };
      const y = run(noisy, run(noisy, x));
      randn([5], { generator });
      y.sum().backward();
      return [x.grad!, y, randn([4], { generator }), randn([4])].map(bitsOf);
    };
    expect(draw((f, x) => checkpoint(f, x))).toEqual(draw((f, x) => f(x)));
  });

  it('of several inputs and outputs, with other arguments between', () => {
    const fn = (a: Tensor, k: number, b: Tensor, o: { shift: number } | null): { sum: Tensor; parts: Tensor[] } => ({
      sum: a
        .mul(b)
        .exp()
        .add(o?.shift ?? 0),
      parts: [a.tanh().mul(k), b.detach(), b],
    });
    const run = (f: typeof fn): number[][] => {
      const [a, b] = [leaf([0.1, 0.2]), leaf([0.3, -0.4])];
      const { sum, parts } = f(a, 3, b, { shift: 2 });
      expect(parts.map((t) => t.requiresGrad)).toEqual([true, false, true]);
      sum.mul(parts[0]!).add(parts[2]!.square()).sum().backward();
      return [a, b].map(gradOf);
    };
    expect(run((...args) => checkpoint(fn, ...args))).toEqual(run(fn));
  });

  it('of a part that only parameters need', () => {
    const w = leaf([2, 3]);
    const f = (x: Tensor): Tensor => x.mul(w).exp();
    const run = (y: Tensor): number[] => values(grad(y.sum(), w)[0]!);
    expect(run(checkpoint(f, f64([1, -1])))).toEqual(run(f(f64([1, -1]))));
  });

  it('walked twice, recorded, and of second derivatives', () => {
    const f = (x: Tensor): Tensor => x.exp().mul(x).sin();
    const x = leaf([0.5, -0.3]);
    const [y, z] = [checkpoint(f, x), f(x)];
    for (let i = 0; i < 3; i++) {
      const of = (t: Tensor): number[] => values(grad(t.square().sum(), x, { retainGraph: true })[0]!);
      expect(of(y)).toEqual(of(z));
    }
    const second = (t: Tensor): number[] => {
      const [g] = grad(t.sum(), x, { createGraph: true });
      return values(grad(g!.square().sum(), x)[0]!);
    };
    expect(second(checkpoint(f, x))).toEqual(second(f(x)));
    const total = (a: Tensor): Tensor => f(a).sum();
    const [p, v] = [f64([0.5, -0.3]), f64([1, 2])];
    expect(values(hessian((a) => checkpoint(total, a), p))).toEqual(values(hessian(total, p)));
    expect(values(hvp((a) => checkpoint(total, a), p, v))).toEqual(values(hvp(total, p, v)));
  });

  it('of a function that takes gradients itself', () => {
    const x = leaf([0.5, -0.3]);
    const pulls = (a: Tensor): Tensor => {
      const b = a.exp();
      const [out, pull] = vjp((t: Tensor) => t.sin().mul(t), b);
      return pull(out)
        .mul(b)
        .sin()
        .mul(hessian((t) => t.pow(3).sum(), a).sum(0));
    };
    const of = (y: Tensor): number[] => values(grad(y.square().sum(), x)[0]!);
    expect(of(checkpoint(pulls, x))).toEqual(of(pulls(x)));
    expect(of(checkpoint((a: Tensor) => checkpoint(pulls, a), x))).toEqual(of(pulls(x)));
  });

  it('of products with the hessian, where vjps are themselves differentiated', () => {
    const [x, v] = [f64([0.5, -0.3, 2]), f64([1, 2, -1])];
    for (const f of [
      (a: Tensor) => a.max(0)[0]!.mul(a).sum(),
      (a: Tensor) => a.std().mul(a.cumsum(0)).sum(),
      (a: Tensor) => a.norm().mul(a.softmax(0)).sum(),
    ]) {
      expect(values(hvp((a) => checkpoint(f, a), x, v))).toEqual(values(hvp(f, x, v)));
    }
  });

  it('of tangents: jvp through a checkpoint, and its gradient', () => {
    const w = leaf([0.5, 0.7]);
    const f = (x: Tensor): Tensor => x.mul(w).exp().mul(x).sin();
    const [x, v] = [f64([0.1, 0.2]), f64([1, 2])];
    const [plain, again] = [jvp(f, x, v), jvp((a) => checkpoint(f, a), x, v)];
    expect(again.map(values)).toEqual(plain.map(values));
    expect(values(grad(again[1].sum(), w)[0]!)).toEqual(values(grad(plain[1].sum(), w)[0]!));
    expect(noGrad(() => jvp((a) => checkpoint(f, a), x, v))[1].toArray()).toEqual(plain[1].toArray());
  });
});

describe('what cannot be computed again', () => {
  /** The error of a backward pass through checkpoint(fn, x), after `between`. */
  const error = (fn: (x: Tensor) => Tensor, between: () => void = () => {}, x = leaf([1, 2])): Error => {
    const y = checkpoint(fn, x);
    noGrad(between);
    const thrown = thrownBy(() => y.sum().backward()) as Error;
    expect(thrown).toBeInstanceOf(AutogradError);
    return thrown;
  };
  const w = leaf([1, 2]);

  it('because a parameter or an input was changed in place is noticed, with the place', () => {
    const weight = error(
      (x) => x.mul(w).exp(),
      () => w.add_(1),
    );
    expect(weight.message).toMatch(/^checkpoint: .*\[2\].*changed in place.*checkpoint\.test\.ts:\d+.*version/s);
    const x = leaf([1, 2]);
    expect(
      error(
        (a) => a.exp(),
        () => x.add_(1),
        x,
      ).message,
    ).toMatch(/changed in place/);
    // Also where no op saves it.
    expect(
      error(
        (a) => a.add(w).exp(),
        () => w.add_(1),
      ).message,
    ).toMatch(/changed in place/);
    const frozen = f64([1, 2]);
    expect(
      error(
        (a) => a.mul(frozen).exp(),
        () => frozen.add_(1),
      ).message,
    ).toMatch(/changed in place/);
    const layer = new nn.Linear(2, 2).to('float64');
    expect(
      error(
        (a) => layer.call(a).exp(),
        () => layer.bias!.zero_(),
      ).message,
    ).toMatch(/changed in place/);
  });

  it('but what was changed and is not used may be', () => {
    const [x, other] = [leaf([1, 2]), leaf([1, 2])];
    const y = checkpoint((a: Tensor) => a.exp(), x);
    noGrad(() => other.add_(1));
    y.sum().backward();
    expect(gradOf(x)).toEqual(values(x.exp()));
  });

  it('because the function does something else is noticed', () => {
    let runs = 0;
    expect(error((x) => (runs++ === 0 ? x.exp() : x.mul(2))).message).toMatch(/saved 0 tensors instead of 1/);
    runs = 0;
    expect(error((x) => (runs++ === 0 ? x.exp().sin() : x.narrow(0, 0, 1).exp().sin())).message).toMatch(
      /checkpoint: .*\[1\] instead of \[2\]/,
    );
    runs = 0;
    expect(error((x) => (runs++ === 0 ? x.exp() : x.float().exp())).message).toMatch(/checkpoint/);
  });

  it('because it throws comes through, and the graph can be walked once it does not', () => {
    let failing = false;
    const x = leaf([1, 2]);
    manualSeed(6);
    const y = checkpoint((a: Tensor) => {
      const z = a.exp().mul(randn([2], { dtype: 'float64' }));
      if (failing) throw new Error('second run');
      return z.sin();
    }, x);
    const next = randn([2]);
    manualSeed(6);
    randn([2], { dtype: 'float64' });
    failing = true;
    expect(thrownBy(() => y.sum().backward(null, { retainGraph: true }))).toMatchObject({ message: 'second run' });
    expect([x.grad, bitsOf(randn([2]))]).toEqual([null, bitsOf(next)]);
    failing = false;
    y.sum().backward();
    expect(x.grad).not.toBeNull();
  });

  it('because the graph was freed says so', () => {
    const x = leaf([1, 2]);
    const y = checkpoint((a: Tensor) => a.exp(), x);
    y.sum().backward();
    expect(thrownBy(() => y.sum().backward())).toMatchObject({ message: expect.stringMatching(/freed/) });
    expect(thrownBy(() => checkpoint(3 as never, x))).toBeInstanceOf(ArgumentError);
  });
});

describe('without gradients', () => {
  it('it is a plain call, once', () => {
    let runs = 0;
    const f = (x: Tensor): Tensor => {
      runs++;
      return x.exp();
    };
    const x = leaf([1, 2]);
    const y = noGrad(() => checkpoint(f, x));
    expect([runs, y.requiresGrad]).toEqual([1, false]);
    expect([checkpoint(f, f64([1])).requiresGrad, runs]).toEqual([false, 2]);
    const z = checkpoint(f, x);
    expect(runs).toBe(3);
    z.sum().backward();
    expect(runs).toBe(4);
  });
});

describe('memory', () => {
  const WIDTH = 64;
  const make = (): nn.Sequential =>
    new nn.Sequential(new nn.Linear(WIDTH, WIDTH), new nn.GELU(), new nn.Linear(WIDTH, WIDTH), new nn.GELU());

  it('the peak falls as the lesson’s table says: with 4 of 4 blocks, by about two thirds', () => {
    manualSeed(1);
    const blocks = Array.from({ length: 4 }, make);
    const x = randn([512, WIDTH]);
    const peak = (call: (block: nn.Module, y: Tensor) => Tensor): number => {
      const pass = (): void =>
        scope(() =>
          blocks
            .reduce((y, block) => call(block, y), x)
            .sum()
            .backward(),
        );
      pass();
      collected();
      const before = memoryStats().liveBytes;
      resetPeakMemory();
      pass();
      return memoryStats().peakBytes - before;
    };
    const plain = peak((block, y) => block.call(y));
    const less = peak((block, y) => checkpoint((a: Tensor) => block.call(a), y));
    // Activations alone would fall by 67 %; gradients on their way are in both.
    expect(less / plain).toBeLessThan(0.6);
    // Between the passes only inputs and outputs of blocks are there.
    const y = blocks.reduce((a, block) => checkpoint((b: Tensor) => block.call(b), a), x);
    const held = collected();
    y.dispose();
    const parameters = blocks.flatMap((block) => [...block.parameters()]).reduce((sum, p) => sum + 2 * p.nbytes, 0);
    expect(held).toBeLessThan(parameters + 6.5 * x.nbytes);
  });

  it('is the same after 210 iterations, with and without a backward pass', () => {
    manualSeed(1);
    const block = make();
    const x = randn([16, WIDTH]);
    const call = (a: Tensor): Tensor => block.call(a).dropout(0.1, { training: true });
    const round = (): void => {
      for (let i = 0; i < 15; i++) {
        const y = checkpoint(
          call,
          checkpoint((a: Tensor) => checkpoint(call, a), x),
        );
        if (i % 3 !== 0) y.sum().backward();
        if (i % 5 === 0) scope(() => checkpoint(call, x).sum().backward());
        block.zeroGrad();
      }
    };
    expect(leftBehind(round, 14)).toBe(0);
  });

  it.concurrent.each([
    ['everything', 1],
    ['one segment', 1],
    ['twice', 1],
    ['parts', 0],
    ['segments', 0],
    ['the first half', 0],
    ['budget', 0],
    ['no gradient', 0],
  ])('advice is given where it is deserved: %s', async (name, count) => {
    const warnings = await runFixture<string[]>('checkpoint-advice.ts', { args: [name] });
    expect(warnings).toHaveLength(count);
    for (const text of warnings) expect(text).toMatch(/^CHAINRULE_CHECKPOINT_PEAK: .*segments/);
  });
});
