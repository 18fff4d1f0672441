// gradientFlow, deadUnits and clipGradients against hand computation.
import { inspect } from 'node:util';
import { describe, expect, it, vi } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  data,
  deadUnits,
  gradientFlow,
  memoryStats,
  nn,
  noGrad,
  ShapeError,
  type Tensor,
  tensor,
} from '../lib/index.ts';
import { f64, thrownBy, values } from './support.ts';

/** x → 2 units → ReLU → 1 output, in float64. Hand: for x = [1, 2], z = [1 + 2, -2 + 0] = [3, -2], h = [3, 0], y = 4·3. */
function small(): nn.Sequential {
  const [first, last] = [new nn.Linear(2, 2, { dtype: 'float64' }), new nn.Linear(2, 1, { dtype: 'float64' })];
  first.loadStateDict({
    weight: f64([
      [1, 1],
      [-2, 0],
    ]),
    bias: f64([0, 0]),
  });
  last.loadStateDict({ weight: f64([[4, 5]]), bias: f64([0]) });
  return new nn.Sequential(first, new nn.ReLU(), last);
}
const X = (): Tensor => f64([[1, 2]]);

describe('gradientFlow', () => {
  it('measures what a hand computes', () => {
    const model = small();
    const flow = gradientFlow(model, () => model.call(X()).square().sum());
    // dL/dy = 2y = 24; dL/dh = 24 [4, 5]; dL/dz = 24 [4, 0]; dL/dW2 = 24 h; dL/dW1 = dL/dz xᵀ.
    const rows = [
      { name: '0', type: 'Linear', mean: 0.5, std: 2.5, off: 0, norm: 96, none: 0.5, weight: 96 * Math.sqrt(5) },
      { name: '1', type: 'ReLU', mean: 1.5, std: 1.5, off: 0.5, norm: 24 * Math.sqrt(41), none: 0, weight: null },
      { name: '2', type: 'Linear', mean: 12, std: 0, off: 0, norm: 24, none: 0, weight: 72 },
    ];
    expect(flow).toHaveLength(3);
    rows.forEach(({ name, type, mean, std, off, norm, none, weight }, i) => {
      expect(flow[i]).toEqual({
        name,
        type,
        activation: { mean, std: expect.closeTo(std, 12), zeros: off },
        gradient: { norm: expect.closeTo(norm, 10), zeros: none },
        weightGradNorm: weight === null ? null : expect.closeTo(weight, 10),
        ratio: expect.closeTo(norm / 24, 12),
      });
    });
  });

  it('leaves every grad and the memory as they were', () => {
    const model = small();
    const [weight] = [...model.parameters()];
    weight!.grad = f64([
      [7, 7],
      [7, 7],
    ]);
    const loss = (): Tensor => model.call(X()).sum();
    const before = memoryStats().liveTensors;
    gradientFlow(model, loss);
    expect(memoryStats().liveTensors).toBe(before);
    expect(values(weight!.grad!)).toEqual([7, 7, 7, 7]);
    expect([...model.parameters()].slice(1).map(({ grad }) => grad)).toEqual([null, null, null]);
    const failing = (): Tensor => {
      model.call(X());
      throw new RangeError('no loss');
    };
    expect(() => gradientFlow(model, failing)).toThrow('no loss');
  });

  it('leaves no hook behind, also after a throw', () => {
    const model = small();
    const [held, removed] = [new Set<unknown>(), new Set<unknown>()];
    const original = nn.Module.prototype.registerForwardHook;
    const spy = vi.spyOn(nn.Module.prototype, 'registerForwardHook').mockImplementation(function (
      this: nn.AnyModule,
      hook,
    ) {
      const remove = original.call(this, hook);
      held.add(remove);
      return () => {
        removed.add(remove);
        remove();
      };
    });
    gradientFlow(model, () => model.call(X()).sum());
    deadUnits(model, [X()]);
    expect(held.size).toBe(4);
    expect(() => gradientFlow(model, () => model.call(f64([1])))).toThrow(ShapeError);
    expect(() => deadUnits(model, [f64([1])])).toThrow(ShapeError);
    spy.mockRestore();
    expect(held.size).toBe(8);
    expect(removed).toEqual(held);
  });

  it('prints a table, and is an array', () => {
    const model = small();
    const flow = gradientFlow(model, () => model.call(X()).square().sum());
    const lines = String(flow).split('\n');
    expect(lines[0]!.split(/ {2,}/)).toEqual([
      'layer',
      'type',
      'mean',
      'std',
      'zeros',
      '|gradient|',
      'zero grads',
      '|weight grad|',
      'ratio',
      '1e+1',
      '1e+3',
    ]);
    expect(lines[2]!.split(/ {2,}/)).toEqual([
      '1',
      'ReLU',
      '1.50e+0',
      '1.50e+0',
      '50.0 %',
      '1.54e+2',
      '0.0 %',
      '-',
      '6.40e+0',
      // 24 places for two decades: log10(154) is 2.19.
      `|${'#'.repeat(14)}`,
      '|',
    ]);
    expect(new Set(lines.map((line) => line.length)).size).toBe(1);
    expect(inspect(flow)).toBe(String(flow));
    expect(flow.map(({ type }) => type)).toEqual(['Linear', 'ReLU', 'Linear']);
    expect(Object.keys(flow)).toEqual(['0', '1', '2']);
  });

  it('draws a bar for each gradient on a scale of whole decades', () => {
    const scaled = (factors: readonly number[]): string[] => {
      class Scale extends nn.Module {
        readonly factor: number;
        constructor(factor: number) {
          super();
          this.factor = factor;
        }
        override forward(x: Tensor): Tensor {
          return x.mul(this.factor);
        }
      }
      const model = new nn.Sequential(...factors.map((factor) => new Scale(factor)));
      const flow = gradientFlow(model, () => model.call(f64([1]).requiresGrad_()).sum());
      return String(flow)
        .split('\n')
        .map((line) => line.slice(-26));
    };
    // The gradient after layer i is the product of the factors behind it: 0, 1e-6, 1e-3, 1.
    expect(scaled([1, 0, 1e-3, 1e-3])).toEqual([
      '1e-6                  1e+0',
      `|${' '.repeat(24)}|`,
      `|#${' '.repeat(23)}|`,
      `|${'#'.repeat(12)}${' '.repeat(12)}|`,
      `|${'#'.repeat(24)}|`,
    ]);
    // Equal gradients are no reason for a bar to be full: the scale has a decade at least.
    expect(scaled([1, 1])[0]).toBe('1e+0                  1e+1');
    expect(scaled([1, 0]).slice(1)).toEqual([`|${' '.repeat(24)}|`, `|#${' '.repeat(23)}|`]);
  });

  it('has a row for each call of a module, and none for one that did not run', () => {
    class Shared extends nn.Module {
      readonly a = new nn.Linear(2, 3, { dtype: 'float64' });
      readonly unused = new nn.Linear(2, 3);
      readonly act = new nn.Tanh();
      readonly b = new nn.Linear(3, 2, { dtype: 'float64' });
      override forward(x: Tensor): Tensor {
        return this.act.call(this.b.call(this.act.call(this.a.call(x))));
      }
    }
    const model = new Shared();
    const flow = gradientFlow(model, () => model.call(X()).sum());
    expect(flow.map(({ name }) => name)).toEqual(['a', 'act', 'b', 'act#2']);
    expect(flow[3]!.ratio).toBe(1);
    expect(gradientFlow(model, () => model.call(X()).sum()).map(({ name }) => name)).toEqual([
      'a',
      'act',
      'b',
      'act#2',
    ]);
  });

  it('says where no gradient arrives', () => {
    const model = small();
    const flow = gradientFlow(model, () => {
      model.call(X());
      return (model[2] as nn.Linear).weight.sum();
    });
    expect(flow.map(({ gradient, ratio }) => [gradient, ratio])).toEqual(new Array(3).fill([null, null]));
    expect(flow.map(({ weightGradNorm }) => weightGradNorm)).toEqual([null, null, Math.SQRT2]);
    expect(String(flow)).toContain(' - ');
    for (const parameter of (model[0] as nn.Linear).parameters()) parameter.requiresGrad_(false);
    expect(gradientFlow(model, () => model.call(X()).sum()).map(({ gradient }) => gradient === null)).toEqual([
      true,
      true,
      false,
    ]);
  });

  it('measures norms of float32 that a sum of squares in float32 would lose', () => {
    const layer = new nn.Linear(2, 1, { bias: false });
    layer.loadStateDict({ weight: tensor([[1, 1]]) });
    const [row] = gradientFlow(layer, () =>
      layer
        .call(tensor([[3, 4]]))
        .mul(1e-30)
        .sum(),
    );
    expect(row!.name).toBe('Linear');
    expect(row!.gradient!.norm).toBeCloseTo(1e-30, 36);
    expect(row!.weightGradNorm! / 5e-30).toBeCloseTo(1, 6);
  });

  it('records inside noGrad, and refuses what has no gradient', () => {
    const model = small();
    expect(noGrad(() => gradientFlow(model, () => model.call(X()).sum()))[2]!.gradient!.norm).toBe(1);
    const refusals: [() => unknown, new (message: string) => Error, RegExp][] = [
      [
        () =>
          gradientFlow(model, () =>
            model.call(
              f64([
                [1, 2],
                [3, 4],
              ]),
            ),
          ),
        ShapeError,
        /a loss of shape \[2,1\]/,
      ],
      [() => gradientFlow(model, () => model.forward(X()).detach().sum()), AutogradError, /does not require grad/],
      [() => gradientFlow(new nn.Sequential(model), () => small().call(X()).sum()), AutogradError, /no layer ran/],
      [() => gradientFlow(model, X() as never), ArgumentError, /the loss is a Tensor. Expected a function/],
      [() => gradientFlow(model, () => 3 as never), ArgumentError, /the loss is 3/],
      [() => gradientFlow({} as never, X), ArgumentError, /the model is a Object. Expected a module/],
    ];
    for (const [fn, type, message] of refusals) {
      const error = thrownBy(fn);
      expect(error).toBeInstanceOf(type);
      expect((error as Error).message).toMatch(message);
    }
  });
});

describe('deadUnits', () => {
  /** Unit 0 is on for x > 0, unit 1 for x < 0, unit 2 for x > 5, unit 3 never: its bias is planted. */
  function planted(activation: nn.Module = new nn.ReLU()): nn.Sequential {
    const linear = new nn.Linear(1, 4);
    linear.loadStateDict({ weight: tensor([[1], [-1], [1], [0.1]]), bias: tensor([0, 0, -5, -100]) });
    return new nn.Sequential(linear, activation);
  }

  it('finds the planted unit, not those that are merely inactive', () => {
    const rows = [{ name: '1', units: 4, dead: [3] }];
    expect(deadUnits(planted(), [tensor([[1], [-1]]), tensor([[6]])])).toEqual(rows);
    expect(deadUnits(planted(), [tensor([[6], [-1]])])).toEqual(rows);
    expect(deadUnits(planted(), [tensor([[1], [2]]), tensor([[0.5]])])).toEqual([{ ...rows[0], dead: [1, 2, 3] }]);
    expect(deadUnits(planted(), [tensor([6])])).toEqual([{ ...rows[0], dead: [1, 3] }]);
  });

  it('takes a loader, whose batches begin with the input', () => {
    const inputs = tensor([[1], [-1], [2], [7], [-3]]);
    const loader = new data.DataLoader(new data.TensorDataset(inputs, inputs), { batchSize: 2 });
    expect(deadUnits(planted(), loader)).toEqual([{ name: '1', units: 4, dead: [3] }]);
  });

  it('counts a ReLU6 that is always at 6 as off, and leaves other activations out', () => {
    // Units 0 and 2 are at 6, and 1 is off: no gradient passes any of them.
    expect(deadUnits(planted(new nn.ReLU6()), [tensor([[20], [30]])])).toEqual([
      { name: '1', units: 4, dead: [0, 1, 2, 3] },
    ]);
    expect(deadUnits(planted(new nn.ReLU6()), [tensor([[20], [5.5]])])).toEqual([
      { name: '1', units: 4, dead: [1, 3] },
    ]);
    expect(deadUnits(planted(new nn.LeakyReLU()), [tensor([[1]])])).toEqual([]);
  });

  it('agrees with the gradient: no weight of a dead unit gets any', () => {
    const model = planted();
    const x = tensor([[1], [-1], [6]]);
    model.call(x).square().sum().backward();
    const grads = values((model[0] as nn.Linear).weight.grad!);
    const { dead } = deadUnits(model, [x])[0]!;
    expect(dead).toEqual([...grads.keys()].filter((unit) => grads[unit] === 0));
  });

  it('counts channels of images, and whatever dim it is told', () => {
    const relu = new nn.ReLU();
    // Channel 1 of 2 is off everywhere; of the columns only the first.
    const x = tensor([-1, 2, -1, 2, -1, -2, -1, -2], { shape: [1, 2, 2, 2] });
    expect(deadUnits(relu, [x])).toEqual([{ name: 'ReLU', units: 2, dead: [1] }]);
    expect(deadUnits(relu, [x], { dim: -1 })).toEqual([{ name: 'ReLU', units: 2, dead: [0] }]);
    expect(deadUnits(relu, [x.reshape([1, 4, 2])])).toEqual([{ name: 'ReLU', units: 2, dead: [0] }]);
  });

  it('tells the calls of a shared module apart', () => {
    class Twice extends nn.Module {
      readonly relu = new nn.ReLU();
      override forward(x: Tensor): Tensor {
        return this.relu.call(this.relu.call(x).sub(2).narrow(1, 0, 1));
      }
    }
    expect(deadUnits(new Twice(), [tensor([[1, -1]]), tensor([[1, 1]])])).toEqual([
      { name: 'relu', units: 2, dead: [] },
      { name: 'relu#2', units: 1, dead: [0] },
    ]);
  });

  it('runs in eval mode without recording, and restores modes and hooks also after a throw', () => {
    const seen: boolean[] = [];
    class Spy extends nn.Module {
      fail = false;
      override forward(x: Tensor): Tensor {
        seen.push(this.training, x.requiresGrad);
        if (this.fail) throw new RangeError('no');
        return x;
      }
    }
    const spy = new Spy();
    const model = new nn.Sequential(new nn.Linear(1, 2), new nn.ReLU(), spy);
    (model[1] as nn.Module).training = false;
    const modes = (): boolean[] => [...model.modules()].map(({ training }) => training);
    const before = modes();
    deadUnits(model, [tensor([[1]])]);
    expect(seen).toEqual([false, false]);
    expect(modes()).toEqual(before);
    spy.fail = true;
    expect(() => deadUnits(model, [tensor([[1]])])).toThrow('no');
    expect(modes()).toEqual(before);
    spy.fail = false;
    const x = tensor([[1]]);
    const live = memoryStats().liveTensors;
    expect(deadUnits(model, [x])).toHaveLength(1);
    expect(memoryStats().liveTensors).toBe(live);
  });

  it('refuses nothing to judge by', () => {
    const refusals: [unknown, RegExp][] = [
      [[], /no batches/],
      [tensor([[1]]), /the batches are a Tensor/],
      [null, /the batches are null/],
      [[3], /input of the model is 3/],
    ];
    for (const [batches, message] of refusals) {
      const error = thrownBy(() => deadUnits(planted(), batches as never));
      expect(error).toBeInstanceOf(ArgumentError);
      expect((error as Error).message).toMatch(message);
    }
    const relu = new nn.ReLU();
    const differing = thrownBy(() => deadUnits(relu, [tensor([[1, 2]]), tensor([[1]])]));
    expect(differing).toBeInstanceOf(ShapeError);
    expect((differing as Error).message).toMatch(/ReLU has 1 units for one batch and 2 for another/);
  });
});

describe('clipGradients', () => {
  it('clips between backward and step, and returns the norm before as a number', () => {
    const model = new nn.Linear(3, 3);
    for (const parameter of model.parameters()) parameter.grad = noGrad(() => parameter.mul(0).add(2));
    expect(nn.utils.clipGradients(model, 1)).toBeCloseTo(6.928203, 6);
    const after = [...model.parameters()].flatMap((parameter) => values(parameter.grad!));
    expect(Math.hypot(...after)).toBeCloseTo(0.99999988, 7);
  });
});
