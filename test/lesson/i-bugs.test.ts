// R77-R88, the lesson's part 8: each classic bug, what is refused, what is allowed, and what is right instead.
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import {
  AutogradError,
  data,
  detectAnomaly,
  enableGrad,
  manualSeed,
  mseLoss,
  nn,
  noGrad,
  ones,
  optim,
  randn,
  type Tensor,
  tensor,
} from '../../lib/index.ts';
import { expectClose, f64, gradOf, leaf, thrownBy, values } from '../support.ts';

/** What backward says about a saved value that was changed; fails when it succeeds. */
function refusal(loss: Tensor): string {
  const error = thrownBy(() => loss.backward());
  expect(error).toBeInstanceOf(AutogradError);
  return (error as Error).message;
}

/** The number of the line where the caller is. */
function lineHere(): number {
  return Number(/:(\d+):\d+\)?$/.exec(new Error().stack!.split('\n')[2]!)![1]);
}

it('R77: in place on a leaf that requires grad throws at once and changes nothing', () => {
  const x = leaf([1, 2, 3]);
  const error = thrownBy(() => x.add_(1));
  expect(error).toBeInstanceOf(AutogradError);
  expect((error as Error).message).toMatch(/^add_: a leaf that requires grad of shape \[3\] .*noGrad/);
  expect(values(x)).toEqual([1, 2, 3]);
  x.mul(x).sum().backward();
  expect(gradOf(x)).toEqual([2, 4, 6]);
});

it('R78: in place on a result whose value is not saved is allowed, and the gradient is right', () => {
  const leafOfAll = leaf([1, 2, 3]);
  const x = leafOfAll.clone();
  const y = x.mul(2);
  x.add_(1);
  y.sum().backward();
  expect([values(x), gradOf(leafOfAll)]).toEqual([
    [2, 3, 4],
    [2, 2, 2],
  ]);
});

describe('R79: in place on a saved value', () => {
  it('R79: the input of x² is named with its op, shape, dtype and both versions', () => {
    const x = leaf([1, 2, 3]).clone();
    const loss = x.pow(2).sum();
    x.add_(1);
    x.mul_(2);
    const message = refusal(loss);
    for (const part of ['PowBackward', 'float64', '[3]', 'version 0', 'at 2']) expect(message).toContain(part);
  });

  it('R79: so is the output of exp', () => {
    const y = leaf([[1, 2, 3]], 'float32').exp();
    const loss = y.sum();
    y.add_(1);
    const message = refusal(loss);
    for (const part of ['ExpBackward', 'float32', '[1,3]', 'version 0', 'at 1']) expect(message).toContain(part);
  });

  it('R79: so is a weight that an optimizer has changed between two passes', () => {
    const model = new nn.Sequential(new nn.Linear(4, 8), new nn.Tanh(), new nn.Linear(8, 2));
    const loss = model
      .call(ones([5, 4]))
      .square()
      .sum();
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
    loss.backward(null, { retainGraph: true });
    optimizer.step();
    const message = refusal(loss);
    for (const part of ['AddmmBackward', 'float32', '[2,8]', 'version 1', 'at 2']) expect(message).toContain(part);
  });

  it('R79: the line that changed it is told', () => {
    const x = leaf([1, 2, 3]).clone();
    const loss = x.pow(2).sum();
    const line = lineHere() + 1;
    x.add_(1);
    expect(refusal(loss)).toMatch(new RegExp(`i-bugs\\.test\\.ts:${line}\\b`));
  });

  it('R79: so is the line of a step() that changed it', () => {
    const w = leaf([1, 2]);
    const loss = w.square().sum();
    loss.backward(null, { retainGraph: true });
    const optimizer = new optim.SGD([w], { lr: 0.1 });
    const line = lineHere() + 1;
    optimizer.step();
    expect(refusal(loss)).toMatch(new RegExp(`i-bugs\\.test\\.ts:${line}\\b`));
  });
});

describe('R79: within detectAnomaly', () => {
  it('R79: the line that saved the value is told as well', () => {
    const savedAt = lineHere() + 3;
    const message = detectAnomaly(() => {
      const x = leaf([1, 2, 3]).clone();
      const loss = x.pow(2).sum();
      x.add_(1);
      return refusal(loss);
    });
    for (const line of [savedAt, savedAt + 1]) expect(message).toMatch(new RegExp(`i-bugs\\.test\\.ts:${line}\\b`));
  });
});

describe('R80: an update inside noGrad', () => {
  it('R80: is allowed, and backward notices it', () => {
    const x = leaf([1, 2, 3]);
    const loss = x.mul(x).sum();
    noGrad(() => x.sub_(1));
    expect(values(x)).toEqual([0, 1, 2]);
    expect(refusal(loss)).toContain('MulBackward');
    expect(x.grad).toBeNull();
  });

  it('R80: does no harm when it comes after backward', () => {
    const x = leaf([1, 2, 3]);
    const loss = x.mul(x).sum();
    loss.backward();
    noGrad(() => x.sub_(x.grad!.mul(0.5)));
    expect([values(x), gradOf(x)]).toEqual([
      [0, 0, 0],
      [2, 4, 6],
    ]);
  });
});

describe('R81: no way round the version counter', () => {
  const doors: [string, (x: Tensor) => void][] = [
    ['detach()', (x) => void x.detach().add_(1)],
    ['a view', (x) => void noGrad(() => x.narrow(0, 0, 1).add_(1))],
    ['a view of detach()', (x) => void x.detach().reshape([3, 1]).fill_(0)],
    ['another parameter on the same memory', (x) => void noGrad(() => new nn.Parameter(x).zero_())],
    ['nn.init', (x) => void nn.init.constant_(x, 5)],
    ['a random fill', (x) => void noGrad(() => x.uniform_())],
    ['copy_', (x) => void noGrad(() => x.copy_(f64([9, 9, 9])))],
    [
      'an optimizer',
      (x) => {
        x.grad = f64([1, 1, 1]);
        new optim.AdamW([x]).step();
      },
    ],
  ];
  it.each(doors)('R81: %s counts', (_, change) => {
    const x = leaf([1, 2, 3]);
    const loss = x.mul(x).sum();
    change(x);
    expect(values(x)).not.toEqual([1, 2, 3]);
    refusal(loss);
  });

  it('R81: loadStateDict counts', () => {
    const model = new nn.Linear(3, 1, { bias: false });
    const loss = model.weight.mul(model.weight).sum();
    model.loadStateDict({ weight: ones([1, 3]) });
    refusal(loss);
  });

  it('R81: there is no .data, and typed arrays are copies', () => {
    const x = leaf([1, 2, 3]);
    expect('data' in x).toBe(false);
    x.toTypedArray()[0] = 100;
    const source = new Float64Array([1, 2, 3]);
    const y = tensor(source, { requiresGrad: true });
    source[0] = 100;
    expect([values(x), values(y)]).toEqual([
      [1, 2, 3],
      [1, 2, 3],
    ]);
  });

  it('R81: enableGrad inside noGrad protects leaves again', () => {
    const x = leaf([1, 2, 3]);
    expect(thrownBy(() => noGrad(() => enableGrad(() => x.add_(1))))).toBeInstanceOf(AutogradError);
    expect(values(x)).toEqual([1, 2, 3]);
  });
});

/** The warnings of the process while fn runs: code and message. */
async function warningsOf(fn: () => void): Promise<string[]> {
  const seen: string[] = [];
  const listen = ({ code, message }: Error & { code?: string }): void => void seen.push(`${code}: ${message}`);
  process.on('warning', listen);
  fn();
  await setImmediate();
  process.off('warning', listen);
  return seen;
}

it('R82: x = x + 1 works; the gradient is on the old leaf, and reading it on the new tensor says so', async () => {
  const old = leaf([1, 2, 3]);
  let x = old;
  x = x.add(1);
  x.mul(2).sum().backward();
  const warnings = await warningsOf(() => expect(x.grad).toBeNull());
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toMatch(/^CHAINRULE_NON_LEAF_GRAD: .*not a leaf.*retainGrad\(\).*x = x \+ 1/);
  expect(gradOf(old)).toEqual([2, 2, 2]);
});

it('R83: a second backward through freed values throws and names retainGraph', () => {
  const x = leaf([1, 2, 3]);
  const loss = x.mul(x).sum();
  loss.backward();
  expect(refusal(loss)).toMatch(/^MulBackward: .*freed.*retainGraph: true/);
  expect(gradOf(x)).toEqual([2, 4, 6]);
});

it('R84: a second backward on a graph that saved nothing adds again', () => {
  const x = leaf([1, 2, 3]);
  const loss = x.sum();
  loss.backward();
  loss.backward();
  expect(gradOf(x)).toEqual([2, 2, 2]);
});

it('R85: with retainGraph the second pass works, and accumulates', () => {
  const x = leaf([1, 2, 3]);
  const loss = x.mul(x).sum();
  loss.backward(null, { retainGraph: true });
  expect(gradOf(x)).toEqual([2, 4, 6]);
  loss.backward();
  expect(gradOf(x)).toEqual([4, 8, 12]);
});

/** The lesson's loop on y = Xw: 20 epochs over a loader of 64 rows; `zero` says whether gradients are removed. */
function train(zero: boolean): { losses: number[]; weight: number[] } {
  manualSeed(3);
  const inputs = randn([64, 3], { dtype: 'float64' });
  const targets = inputs.matmul(f64([[1], [-2], [0.5]]));
  const model = new nn.Linear(3, 1, { dtype: 'float64' });
  const loader = new data.DataLoader(new data.TensorDataset(inputs, targets), { batchSize: 16, shuffle: true });
  const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
  const losses: number[] = [];
  for (let epoch = 0; epoch < 20; epoch++) {
    for (const [x, y] of loader) {
      if (zero) optimizer.zeroGrad();
      const loss = mseLoss(model.call(x), y);
      loss.backward();
      optimizer.step();
      losses.push(loss.item());
    }
  }
  return { losses, weight: values(model.weight) };
}

describe('R86: a forgotten zeroGrad()', () => {
  it('R86: adds up', () => {
    const w = leaf([1, 2]);
    const steps = [1, 2, 3].map(() => {
      w.mul(3).sum().backward();
      return gradOf(w);
    });
    expect(steps).toEqual([
      [3, 3],
      [6, 6],
      [9, 9],
    ]);
  });

  it('R86: is noticed by an optimizer that is asked to look', async () => {
    const step = (passes: number, watch: boolean) => (): void => {
      const w = leaf([1, 2]);
      const optimizer = new optim.SGD([w], { lr: 0.1 });
      optimizer.warnOnAccumulation = watch;
      for (let i = 0; i < passes; i++) w.mul(3).sum().backward();
      optimizer.step();
    };
    const warnings = await warningsOf(step(2, true));
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/^CHAINRULE_GRAD_ACCUMULATION: SGD: step: .*\[2\].* 2 backward passes.*zeroGrad\(\)/);
    expect(await warningsOf(step(1, true))).toEqual([]);
    expect(await warningsOf(step(2, false))).toEqual([]);
  });

  it('R86: is not seen where gradients were removed in between', async () => {
    const w = leaf([1, 2]);
    const optimizer = new optim.SGD([w], { lr: 0.1 });
    optimizer.warnOnAccumulation = true;
    const steps = (): void => {
      for (let i = 0; i < 3; i++) {
        optimizer.zeroGrad();
        w.mul(3).sum().backward();
        optimizer.step();
      }
    };
    expect(await warningsOf(steps)).toEqual([]);
  });
});

describe('R87: the training loop', () => {
  it('R87: the right loop converges to the weights behind the data', () => {
    const { losses, weight } = train(true);
    expect(losses).toHaveLength(80);
    expect(losses.at(-1)!).toBeLessThan(1e-8 * losses[0]!);
    weight.forEach((w, i) => {
      expect(w).toBeCloseTo([1, -2, 0.5][i]!, 3);
    });
  });

  it('R87: the wrong loop takes other steps and ends far worse', () => {
    const [right, wrong] = [train(true), train(false)];
    expect(wrong.losses[0]).toBe(right.losses[0]);
    expect(wrong.losses[1]).toBe(right.losses[1]);
    expect(wrong.losses[2]).not.toBe(right.losses[2]);
    expect(wrong.losses.at(-1)!).toBeGreaterThan(1e4 * right.losses.at(-1)!);
  });

  it('R87: zeroGrad removes what step used', () => {
    const w = leaf([1, 2]);
    const optimizer = new optim.SGD([w], { lr: 0.5 });
    w.square().sum().backward();
    optimizer.step();
    expect([values(w), gradOf(w)]).toEqual([
      [0, 0],
      [2, 4],
    ]);
    optimizer.zeroGrad();
    expect(w.grad).toBeNull();
    optimizer.step();
    expect(values(w)).toEqual([0, 0]);
  });
});

describe('R88: accumulation on purpose', () => {
  /** A model, a batch of 32, and the gradients and the loss that fn leaves. */
  function setting() {
    manualSeed(9);
    const model = new nn.Sequential(new nn.Linear(4, 8), new nn.Tanh(), new nn.Linear(8, 3));
    const [x, y] = [randn([32, 4]), randn([32, 3])];
    const lossOf = (input: Tensor, target: Tensor): Tensor => mseLoss(model.call(input), target);
    const parts = (sizes: readonly number[]): [Tensor, Tensor][] => {
      const [inputs, targets] = [x, y].map((t) => t.split([...sizes], 0));
      return inputs!.map((input, i) => [input, targets![i]!]);
    };
    const gradientsAfter = (fn: () => void): number[] => {
      model.zeroGrad();
      fn();
      return [...model.parameters()].flatMap((p) => gradOf(p));
    };
    const whole = gradientsAfter(() => lossOf(x, y).backward());
    return { model, lossOf, parts, gradientsAfter, whole, loss: lossOf(x, y).item() };
  }

  it.each([
    ['of one size', [8, 8, 8, 8]],
    ['of different sizes', [20, 1, 8, 3]],
    ['all in one', [32]],
  ])('R88: micro-batches %s give the gradient of the batch', (_, sizes) => {
    const { lossOf, parts, gradientsAfter, whole, loss } = setting();
    let mean = 0;
    const gradients = gradientsAfter(() => {
      mean = nn.utils.accumulateGradients(parts(sizes), lossOf);
    });
    expectClose(gradients, whole, 1e-6);
    expect(mean).toBeCloseTo(loss, 6);
    expect(Math.max(...whole.map(Math.abs))).toBeGreaterThan(0.01);
  });

  it('R88: the mean of the parts’ means is something else when sizes differ', () => {
    const { lossOf, parts, gradientsAfter, whole } = setting();
    const naive = gradientsAfter(() => {
      for (const [x, y] of parts([20, 1, 8, 3])) lossOf(x, y).div(4).backward();
    });
    expect(Math.max(...naive.map((g, i) => Math.abs(g - whole[i]!)))).toBeGreaterThan(0.01);
  });

  it('R88: it adds to what is there, and does not look like a forgotten zeroGrad', async () => {
    const { model, lossOf, parts, whole } = setting();
    const optimizer = new optim.SGD(model.parameters(), { lr: 0 });
    optimizer.warnOnAccumulation = true;
    const warnings = await warningsOf(() => {
      model.zeroGrad();
      nn.utils.accumulateGradients(parts([16, 16]), lossOf);
      optimizer.step();
    });
    expect(warnings).toEqual([]);
    nn.utils.accumulateGradients(parts([16, 16]), lossOf);
    expectClose(
      [...model.parameters()].flatMap((p) => gradOf(p)),
      whole.map((g) => 2 * g),
      1e-6,
    );
  });
});
