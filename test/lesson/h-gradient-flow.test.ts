// R65-R76, the lesson's part 6: what activations, scales and depth do to gradients, and what helps. All draws are seeded.
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  deadUnits,
  elu,
  type GradientFlow,
  gelu,
  gradientFlow,
  leakyRelu,
  manualSeed,
  mseLoss,
  nn,
  ones,
  optim,
  rand,
  randn,
  relu,
  sigmoid,
  type Tensor,
  tanh,
  tensor,
} from '../../lib/index.ts';
import { expectClose, f64, gradOf, leaf, values } from '../support.ts';
import { golden } from './lesson.ts';

/** The slope of f at every point. */
function slopes(f: (x: Tensor) => Tensor, points: readonly number[]): number[] {
  const x = leaf([...points]);
  f(x).sum().backward();
  return gradOf(x);
}

describe('R65: the slope of the sigmoid', () => {
  it('R65: is at most 1/4 anywhere', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ noNaN: true }), { minLength: 1, maxLength: 20 }), (points) => {
        for (const slope of slopes(sigmoid, points)) {
          expect(slope).toBeGreaterThanOrEqual(0);
          expect(slope).toBeLessThanOrEqual(0.25);
        }
      }),
    );
  });

  it('R65: is exactly 1/4 at 0, and less beside it', () => {
    expect(slopes(sigmoid, [0, -0])).toEqual([0.25, 0.25]);
    for (const slope of slopes(sigmoid, [-1e-3, 1e-3])) expect(slope).toBeLessThan(0.25);
  });
});

it('R66: ten and fifteen sigmoids at 0 scale the gradient by 0.25^10 and 0.25^15', () => {
  const chain = (depth: number): number => {
    const x = leaf(0);
    let y = x;
    // Back to 0 after each, where the slope is largest.
    for (let i = 0; i < depth; i++) y = y.sigmoid().sub(0.5);
    y.backward();
    return x.grad!.item();
  };
  expect(chain(10)).toBe(golden.vanishing['0.25^10']);
  expect(chain(15)).toBe(golden.vanishing['0.25^15']);
  expect([chain(10).toExponential(4), chain(15).toExponential(4)]).toEqual(['9.5367e-7', '9.3132e-10']);
});

describe('R67: the table of vanishing gradients', () => {
  /** As printf's %.2e: two digits of exponent. */
  const sci = (value: number): string => value.toExponential(2).replace(/e([+-])(\d)$/, 'e$10$2');
  const LAYERS = [1, 2, 3, 4, 5, 15];
  const DRAWS = 20_000;

  /** Products of slopes at standard normal inputs, layer by layer: (15, draws). */
  function products(activation: (x: Tensor) => Tensor): Tensor {
    manualSeed(42);
    const x = randn([15, DRAWS], { dtype: 'float64', requiresGrad: true });
    activation(x).sum().backward();
    return x.grad!.log().cumsum(0).exp();
  }
  const row = (layer: number, s: number, r: number): string =>
    `${String(layer).padStart(6)}${sci(s).padStart(12)}${sci(r).padStart(14)}`;

  it('R67: one path in the lesson’s format; the ReLU column is zero from its first closed gate on', () => {
    const s = products(sigmoid).select(1, 0);
    const r = products(relu).select(1, 0);
    const at = (t: Tensor, layer: number): number => t.select(0, layer - 1).item();
    const lines = LAYERS.map((layer) => row(layer, at(s, layer), at(r, layer)));
    console.log(`${' Layer'}${'Sigmoid'.padStart(12)}${'ReLU (p=0.5)'.padStart(14)}\n${lines.join('\n')}`);
    for (const line of lines) expect(line).toMatch(/^ {4}[ \d]\d {4}\d\.\d\de-\d\d {6}[01]\.00e\+00$/);
    expect(at(s, 15)).toBeGreaterThan(0);
    expect(at(s, 15)).toBeLessThanOrEqual(0.25 ** 15);
    // A path of 15 open gates has probability 2^-15.
    expect(at(r, 15)).toBe(0);
    LAYERS.slice(1).forEach((layer, i) => {
      expect(at(s, layer)).toBeLessThanOrEqual(0.25 ** (layer - LAYERS[i]!) * at(s, LAYERS[i]!));
      expect(at(r, layer)).toBeLessThanOrEqual(at(r, LAYERS[i]!));
    });
  });

  it('R67: a ReLU path is dead after k layers with probability 1 - 2^-k', () => {
    const dead = values(products(relu).eq(0).to('float64').mean(1));
    golden.vanishing['P(relu path dead after k)'].forEach((p, k) => {
      // Four standard errors, and one path for where nearly all are dead.
      expect(Math.abs(dead[k]! - p)).toBeLessThan(4 * Math.sqrt((p * (1 - p)) / DRAWS) + 1 / DRAWS);
    });
  });

  it('R67: the sigmoid’s slope at standard normal inputs is 0.2066 on average; fifteen make 3.5e-11', () => {
    const all = products(sigmoid);
    expect(all.select(0, 0).mean().item()).toBeCloseTo(golden.vanishing["E[sigmoid'(N(0,1))]"], 3);
    const median = values(all.select(0, 14)).sort((a, b) => a - b)[DRAWS / 2]!;
    expect(median / 3.5e-11).toBeCloseTo(1, 1);
  });
});

describe('R69: activations and their slopes', () => {
  // Values and gradients at these points from PyTorch, float64.
  const POINTS = [-3, -0.7, -0.01, 0.4, 2.5];
  const REFERENCE: [string, (x: Tensor) => Tensor, number[], number[]][] = [
    ['ReLU', relu, [0, 0, 0, 0.4, 2.5], [0, 0, 0, 1, 1]],
    ['leaky ReLU', leakyRelu, [-0.03, -0.007, -0.0001, 0.4, 2.5], [0.01, 0.01, 0.01, 1, 1]],
    ['leaky ReLU of slope 0.2', (x) => leakyRelu(x, 0.2), [-0.6, -0.14, -0.002, 0.4, 2.5], [0.2, 0.2, 0.2, 1, 1]],
    [
      'ELU',
      elu,
      [-0.950212931632136, -0.5034146962085905, -0.009950166250831893, 0.4, 2.5],
      [0.049787068367863944, 0.4965853037914095, 0.9900498337491681, 1, 1],
    ],
    [
      'GELU, exact',
      gelu,
      [-0.00404969409489031, -0.1693745565561511, -0.004960106436853684, 0.2621686966441297, 2.4844758366855597],
      [-0.01194564720418392, 0.023385898866340155, 0.49202142034750757, 0.8027297977316535, 1.037611085908145],
    ],
    [
      'GELU by tanh',
      (x) => gelu(x, { approximate: 'tanh' }),
      [-0.0036373920817729943, -0.16942986529488321, -0.0049601064401444276, 0.2621611694273562, 2.484915733910001],
      [-0.011584166630969648, 0.023642781343896052, 0.49202142166375923, 0.8026588344205614, 1.037951576212666],
    ],
    [
      'sigmoid',
      sigmoid,
      [0.04742587317756678, 0.3318122278318339, 0.49750002083312506, 0.598687660112452, 0.9241418199787566],
      [0.04517665973091214, 0.22171287329310907, 0.2499937501041652, 0.24026074574152914, 0.07010371654510807],
    ],
    [
      'tanh',
      tanh,
      [-0.9950547536867305, -0.6043677771171635, -0.00999966667999946, 0.3799489622552249, 0.9866142981514303],
      [0.009866037165440166, 0.6347395899824586, 0.9999000066662889, 0.8556387860811777, 0.02659222668316057],
    ],
  ];
  it.each(REFERENCE)('R69: %s', (_, f, forward, backward) => {
    expectClose(values(f(f64(POINTS))), forward, 1e-14);
    expectClose(slopes(f, POINTS), backward, 1e-14);
  });
});

describe('R70: ReLU at its corner', () => {
  it.each(['float64', 'float32'] as const)('R70: in %s', (dtype) => {
    const x = leaf([0, -0, Number.NaN, -1, 2], dtype);
    const y = relu(x);
    y.sum().backward();
    expect(values(y)).toEqual([0, 0, Number.NaN, 0, 2]);
    expect(gradOf(x)).toEqual([0, 0, 1, 0, 1]);
  });

  it('R70: is documented', () => {
    const page = readFileSync(new URL('../../docs/numerics.md', import.meta.url), 'utf8');
    const kinks = page.slice(page.indexOf('## Gradients at kinks'));
    expect(kinks).toMatch(/\| .*`relu`.*corner.* \| 0 \|/);
    expect(kinks).toMatch(/\| .*`relu`.* at NaN \| 1/);
  });
});

/** A square layer of the stack: act(Wx), normalised before act or not, added to x or not. */
class Layer extends nn.Module {
  readonly linear: nn.Linear;
  readonly norm: nn.BatchNorm1d | null;
  readonly activation: nn.Module;
  readonly residual: boolean;

  constructor(activation: nn.Module, std: number, { norm = false, residual = false } = {}) {
    super();
    this.linear = new nn.Linear(WIDTH, WIDTH, { bias: false });
    nn.init.normal_(this.linear.weight, 0, std);
    this.norm = norm ? new nn.BatchNorm1d(WIDTH) : null;
    this.activation = activation;
    this.residual = residual;
  }

  override forward(x: Tensor): Tensor {
    const z = this.linear.call(x);
    const out = this.activation.call(this.norm === null ? z : this.norm.call(z));
    return this.residual ? x.add(out) : out;
  }
}

/** How the gradient flows through a stack of layers, for a batch of 64 rows of N(0, 1) and a random direction of loss. */
function flow(layer: () => Layer, depth = 15): GradientFlow {
  const model = new nn.Sequential(...Array.from({ length: depth }, layer));
  const x = randn([64, WIDTH]);
  const direction = randn([64, WIDTH]);
  return gradientFlow(model, () => model.call(x).mul(direction).sum());
}

/** The gradient at the first layer's output over that at the last one's; the median of seven seeds. */
function firstOverLast(layer: () => Layer, depth = 15): number {
  const ratios = Array.from({ length: 7 }, (_, seed) => {
    manualSeed(seed);
    const linears = flow(layer, depth).filter(({ type }) => type === 'Linear');
    return linears[0]!.gradient!.norm / linears.at(-1)!.gradient!.norm;
  });
  return ratios.sort((a, b) => a - b)[3]!;
}
const WIDTH = 256;
const HE = Math.sqrt(2 / WIDTH);
const XAVIER = Math.sqrt(1 / WIDTH);
const reluLayer = (std: number, options?: { norm?: boolean; residual?: boolean }) => () =>
  new Layer(new nn.ReLU(), std, options);

describe('R68: the flow through real networks of 15 layers of 256', () => {
  // First over last, as measured with another library: medians 3.7e-10, 0.21, 5.1e-3, 0.96, 3.7e4.
  it.each<[string, () => Layer, number, number]>([
    ['sigmoid, Xavier: vanishes', () => new Layer(new nn.Sigmoid(), XAVIER), 1e-11, 1e-8],
    ['tanh, Xavier: holds for a while', () => new Layer(new nn.Tanh(), XAVIER), 0.05, 1],
    ['ReLU, 1 / fan_in: halves the square at each', reluLayer(XAVIER), 2e-3, 2e-2],
    ['ReLU, He: stays', reluLayer(HE), 0.3, 3],
    ['ReLU, twice He: doubles at each', reluLayer(2 * HE), 1e3, 1e5],
  ])('R68: %s', (_, layer, low, high) => {
    const ratio = firstOverLast(layer);
    expect(ratio).toBeGreaterThan(low);
    expect(ratio).toBeLessThan(high);
  });

  it('R68: the report has a row for each layer, and its numbers are those of the gradients', () => {
    manualSeed(0);
    const model = new nn.Sequential(new nn.Linear(3, 4), new nn.ReLU(), new nn.Linear(4, 2));
    const x = randn([5, 3]);
    const rows = gradientFlow(model, () => model.call(x).square().sum());
    expect(rows.map(({ name, type }) => [name, type])).toEqual([
      ['0', 'Linear'],
      ['1', 'ReLU'],
      ['2', 'Linear'],
    ]);
    const [first, , last] = [...model] as [nn.Linear, nn.ReLU, nn.Linear];
    const z = first.call(x);
    const y = last.call(z.relu());
    for (const t of [z, y]) t.retainGrad();
    y.square().sum().backward();
    const norm = (t: Tensor): number => t.norm().item();
    expect(rows[0]!.gradient!.norm).toBeCloseTo(norm(z.grad!), 5);
    expect(rows[2]!.gradient!.norm).toBeCloseTo(norm(y.grad!), 5);
    expect(rows[0]!.ratio!).toBeCloseTo(norm(z.grad!) / norm(y.grad!), 5);
    expect(rows[0]!.weightGradNorm!).toBeCloseTo(norm(first.weight.grad!), 5);
    console.log(String(rows));
    expect(String(rows)).toContain(rows[0]!.gradient!.norm.toExponential(2));
  });
});

describe('R71: residual connections', () => {
  it('R71: explode alone', () => {
    // Measured with another library: 208.
    expect(firstOverLast(reluLayer(HE, { residual: true }))).toBeGreaterThan(50);
  });

  it('R71: stay bounded with batch normalisation in each block', () => {
    const ratio = firstOverLast(reluLayer(HE, { residual: true, norm: true }));
    expect(ratio).toBeGreaterThan(0.1);
    expect(ratio).toBeLessThan(10);
  });
});

it('R72: twice He’s scale explodes a hundredfold in ten layers, every time', () => {
  for (let seed = 0; seed < 5; seed++) {
    manualSeed(seed);
    const norms = flow(reluLayer(2 * HE), 10)
      .filter(({ type }) => type === 'Linear')
      .map(({ gradient }) => gradient!.norm);
    // The gradient doubles at every layer: 2^9 from the last to the first.
    expect(norms[0]! / norms[9]!).toBeGreaterThan(100);
    expect(norms[0]! / norms[9]!).toBeLessThan(3 * 2 ** 9);
  }
});

describe('R73: clipGradNorm_', () => {
  const linear = (): nn.Linear => {
    const layer = new nn.Linear(3, 3);
    for (const p of layer.parameters()) p.grad = ones(p.shape).mul(2);
    return layer;
  };
  const normOf = (layer: nn.Linear): number => Math.hypot(...[...layer.parameters()].flatMap((p) => gradOf(p)));

  it('R73: returns the norm before, and leaves one just below the limit', () => {
    const layer = linear();
    expect(nn.utils.clipGradNorm_(layer.parameters(), 1)).toBeCloseTo(golden.clip.returned_norm, 6);
    expect(normOf(layer).toFixed(8)).toBe('0.99999988');
  });

  it('R73: changes nothing below the limit', () => {
    const layer = linear();
    nn.utils.clipGradNorm_(layer.parameters(), 7);
    expect(gradOf(layer.weight)).toEqual(new Array(9).fill(2));
  });
});

describe('R74: clipGradients', () => {
  it('R74: between backward and step it bounds the step, and returns a number', () => {
    manualSeed(5);
    const model = new nn.Linear(4, 1, { bias: false });
    const before = model.weight.detach().clone();
    mseLoss(model.call(randn([16, 4]).mul(100)), randn([16, 1])).backward();
    const norm: number = nn.utils.clipGradients(model, 1.0);
    new optim.SGD(model.parameters(), { lr: 1 }).step();
    expect(typeof norm).toBe('number');
    expect(norm).toBeGreaterThan(100);
    expect(model.weight.sub(before).norm().item()).toBeCloseTo(1, 5);
  });

  it('R74: the loop learns with it where it diverges without', () => {
    const train = (clip: boolean): number => {
      manualSeed(5);
      const x = randn([64, 4], { dtype: 'float64' });
      const y = x.matmul(f64([[10], [-20], [30], [5]]));
      const model = new nn.Linear(4, 1, { dtype: 'float64' });
      const optimizer = new optim.SGD(model.parameters(), { lr: 1.5 });
      let loss = mseLoss(model.call(x), y);
      for (let step = 0; step < 200; step++) {
        optimizer.zeroGrad();
        loss.backward();
        if (clip) nn.utils.clipGradients(model, 1.0);
        optimizer.step();
        loss = mseLoss(model.call(x), y);
      }
      return loss.item();
    };
    expect(train(true)).toBeLessThan(3);
    expect(train(false)).toBeGreaterThan(1e6);
  });
});

describe('R75: deadUnits', () => {
  /** Two inputs to five units, of which unit 3 can never be on, for inputs in [0, 1). */
  function model(): nn.Sequential {
    const linear = new nn.Linear(2, 5);
    linear.loadStateDict({
      weight: tensor([
        [1, 1],
        [1, -1],
        [-1, 1],
        [-1, -1],
        [5, 0],
      ]),
      bias: tensor([0, 0, 0, -0.01, -4.9]),
    });
    return new nn.Sequential(linear, new nn.ReLU());
  }

  it('R75: a planted dead unit is flagged, units that are off for some inputs are not', () => {
    const batches = [f64([[0.2, 0.8]]), f64([[0.8, 0.2]]), f64([[0.99, 0.5]])].map((x) => x.float());
    expect(deadUnits(model(), batches)).toEqual([{ name: '1', units: 5, dead: [3] }]);
  });

  it('R75: for one input alone, the inactive ones look dead', () => {
    expect(deadUnits(model(), [tensor([[0.2, 0.8]])])).toEqual([{ name: '1', units: 5, dead: [1, 3, 4] }]);
  });

  it('R75: no gradient ever reaches the weights of a dead unit', () => {
    const net = model();
    net
      .call(rand([500, 2]))
      .sum()
      .backward();
    const { weight } = net[0] as nn.Linear;
    expect(weight.grad!.ne(0).any(1).toArray()).toEqual([true, true, true, false, true]);
  });
});

describe('R76: why He’s scale', () => {
  it('R76: half of the units are active, and the mean squared gradient stays', () => {
    manualSeed(1);
    const x = randn([64, 1024], { requiresGrad: true });
    const z = x.matmul(randn([1024, 1024]).mul(Math.sqrt(2 / 1024)).T);
    const h = relu(z);
    h.backward(randn(h.shape));
    expect(h.gt(0).to('float32').mean().item()).toBeCloseTo(0.5, 2);
    // A factor of 1/2 by the gates, of 1024 · 2/1024 = 2 by the weights.
    expect(x.grad!.square().mean().item()).toBeCloseTo(1, 1);
    expect(h.square().mean().item()).toBeCloseTo(1, 1);
  });

  it('R76: over 15 layers first and last agree; with 1 / fan_in the square halves at each', () => {
    const squares = [firstOverLast(reluLayer(HE)) ** 2, firstOverLast(reluLayer(XAVIER)) ** 2 * 2 ** 14];
    for (const square of squares) {
      expect(square).toBeGreaterThan(1 / 3);
      expect(square).toBeLessThan(3);
    }
  });
});
