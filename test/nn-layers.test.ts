// Layers, activations and losses against their functions and formulas; initialisation; clipping.
import { describe, expect, it } from 'vitest';
import * as chainrule from '../lib/index.ts';
import {
  Generator,
  isGradEnabled,
  manualSeed,
  nn,
  randn,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from '../lib/index.ts';

const values = (t: Tensor): number[] => Array.from(t.detach().to('float64').toTypedArray());
const std = (x: number[]): number => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length);

describe('layers', () => {
  it('Linear draws weight and bias from U(±1/√fanIn) and computes x Wᵀ + b', () => {
    manualSeed(1);
    const layer = new nn.Linear(400, 500);
    expect(layer.weight.shape).toEqual([500, 400]);
    for (const drawn of [values(layer.weight), values(layer.bias!)]) {
      const [least, most] = [drawn.reduce((a, b) => Math.min(a, b)), drawn.reduce((a, b) => Math.max(a, b))];
      expect(Math.max(-least, most)).toBeLessThanOrEqual(Math.fround(0.05));
      expect(Math.min(-least, most)).toBeGreaterThan(0.049);
    }
    expect(Math.abs(std(values(layer.weight)) / (0.05 / Math.sqrt(3)) - 1)).toBeLessThan(0.005);

    const small = new nn.Linear(2, 1);
    small.loadStateDict({ weight: tensor([[2, 3]]), bias: tensor([4]) });
    expect(values(small.call(tensor([[10, 100]])))).toEqual([324]);
    const plain = new nn.Linear(2, 1, { bias: false, dtype: 'float64' });
    expect([...plain.stateDict()].map(([name, { dtype }]) => [name, dtype])).toEqual([['weight', 'float64']]);
    expect(() => new nn.Linear(2, -1)).toThrow('outFeatures is -1');
    expect(() => new nn.Linear(2.5, 1)).toThrow('inFeatures is 2.5');
  });

  it('a block of the lesson runs forward and backward', () => {
    class LargeBlock extends nn.Module {
      readonly layers: nn.Sequential;
      constructor(dim: number) {
        super();
        this.layers = new nn.Sequential(new nn.Linear(dim, dim * 4), new nn.GELU(), new nn.Linear(dim * 4, dim));
      }
      override forward(x: Tensor): Tensor {
        return x.add(this.layers.call(x));
      }
    }
    const block = new LargeBlock(512);
    const y = block.call(randn([32, 512]));
    expect(y.shape).toEqual([32, 512]);
    y.sum().backward();
    expect([...block.parameters()].map(({ grad }) => grad!.shape)).toEqual([[2048, 512], [2048], [512, 2048], [512]]);
  });

  it('Flatten keeps the batch', () => {
    expect(new nn.Flatten().call(zeros([2, 3, 4])).shape).toEqual([2, 12]);
    expect(new nn.Flatten(0, 1).call(zeros([2, 3, 4])).shape).toEqual([6, 4]);
  });

  it('Dropout zeroes while training only', () => {
    manualSeed(3);
    const layer = new nn.Dropout(0.25);
    const x = tensor(new Float32Array(10_000).fill(3));
    const y = values(layer.call(x));
    const zeroed = y.filter((v) => v === 0).length;
    expect(zeroed).toBeGreaterThan(2300);
    expect(zeroed).toBeLessThan(2700);
    expect(new Set(y)).toEqual(new Set([0, 4]));
    expect(values(layer.eval().call(x))).toEqual(values(x));
    for (const p of [-0.1, 1.1, Number.NaN]) expect(() => new nn.Dropout(p)).toThrow(/Dropout: p is .* in \[0, 1\]/);
  });

  it('Embedding looks up rows drawn from N(0, 1)', () => {
    manualSeed(4);
    const layer = new nn.Embedding(1000, 50);
    expect(std(values(layer.weight))).toBeCloseTo(1, 1);
    const rows = layer.call(tensor([[7, 0]], { dtype: 'int32' }));
    expect(rows.shape).toEqual([1, 2, 50]);
    expect(values(rows)).toEqual([...values(layer.weight.select(0, 7)), ...values(layer.weight.select(0, 0))]);
    expect(() => new nn.Embedding(-1, 2)).toThrow('number of embeddings');
  });

  it('LayerNorm and RMSNorm normalise the last dimensions', () => {
    const x = tensor([[1, 2, 3, 6]], { dtype: 'float64' });
    const layer = new nn.LayerNorm(4, { dtype: 'float64', eps: 0 });
    // Mean 3, mean square 12.5, variance 3.5.
    const expected = [-2, -1, 0, 3].map((v) => v / Math.sqrt(3.5));
    for (const [i, v] of values(layer.call(x)).entries()) expect(v).toBeCloseTo(expected[i]!, 12);
    layer.loadStateDict({
      weight: tensor([2, 2, 2, 2], { dtype: 'float64' }),
      bias: tensor([1, 1, 1, 1], { dtype: 'float64' }),
    });
    for (const [i, v] of values(layer.call(x)).entries()) expect(v).toBeCloseTo(2 * expected[i]! + 1, 12);

    const rms = new nn.RMSNorm([4], { dtype: 'float64', eps: 0 });
    for (const [i, v] of values(rms.call(x)).entries()) expect(v).toBeCloseTo(values(x)[i]! / Math.sqrt(12.5), 12);
    expect([...new nn.LayerNorm([2, 3]).stateDict().values()].map(({ shape }) => shape)).toEqual([
      [2, 3],
      [2, 3],
    ]);
    expect([...new nn.LayerNorm(4, { bias: false }).stateDict().keys()]).toEqual(['weight']);
    expect([...new nn.LayerNorm(4, { elementwiseAffine: false }).parameters()]).toEqual([]);
  });
});

describe('activations and losses are their functions', () => {
  const activations: [string, string, ...unknown[]][] = [
    ['ReLU', 'relu'],
    ['ReLU6', 'relu6'],
    ['LeakyReLU', 'leakyRelu'],
    ['LeakyReLU', 'leakyRelu', 0.3],
    ['ELU', 'elu', 0.7],
    ['SELU', 'selu'],
    ['GELU', 'gelu'],
    ['GELU', 'gelu', { approximate: 'tanh' }],
    ['SiLU', 'silu'],
    ['Mish', 'mish'],
    ['Softplus', 'softplus'],
    ['Softsign', 'softsign'],
    ['LogSigmoid', 'logSigmoid'],
    ['Hardtanh', 'hardtanh', -0.5, 2],
    ['Sigmoid', 'sigmoid'],
    ['Tanh', 'tanh'],
    ['Softmax', 'softmax', 0],
    ['LogSoftmax', 'logSoftmax', -1],
  ];
  const losses: [string, string, unknown][] = [
    ['MSELoss', 'mseLoss', { reduction: 'sum' }],
    ['L1Loss', 'l1Loss', { reduction: 'none' }],
    ['SmoothL1Loss', 'smoothL1Loss', { beta: 0.2 }],
    ['HuberLoss', 'huberLoss', { delta: 0.2 }],
    ['BCELoss', 'binaryCrossEntropy', { reduction: 'sum' }],
    ['BCEWithLogitsLoss', 'binaryCrossEntropyWithLogits', {}],
    ['KLDivLoss', 'klDiv', { reduction: 'sum' }],
    ['CosineSimilarity', 'cosineSimilarity', { dim: 0 }],
  ];
  type AnyClass = new (...args: unknown[]) => nn.Module<Tensor[]>;
  const construct = (name: string, args: unknown[]) => new (nn as unknown as Record<string, AnyClass>)[name]!(...args);
  const apply = (name: string, ...args: unknown[]) =>
    (chainrule as unknown as Record<string, (...args: unknown[]) => Tensor>)[name]!(...args);

  it.each(activations)('%s: %s', (name, fn, ...args) => {
    const x = tensor([
      [-3, -0.4, 0, 0.7],
      [5, -1, 2, 7],
    ]);
    const module = construct(name, args);
    expect(module.constructor.name).toBe(name);
    expect(values(module.call(x))).toEqual(values(apply(fn, x, ...args)));
    expect([...module.stateDict()]).toEqual([]);
  });

  it.each(losses)('%s: %s', (name, fn, options) => {
    const [a, b] = [
      tensor([
        [0.3, 0.4],
        [0.25, 0.9],
      ]),
      tensor([
        [1, 0.1],
        [0, 0.5],
      ]),
    ];
    expect(values(construct(name, [options]).call(a, b))).toEqual(values(apply(fn, a, b, options)));
  });

  it('CrossEntropyLoss is NLLLoss after log softmax', () => {
    const [x, target] = [randn([6, 3]), tensor([0, 1, 2, 2, 1, 0], { dtype: 'int32' })];
    const [loss] = values(new nn.CrossEntropyLoss().call(x, target));
    expect(loss).toBeCloseTo(values(new nn.NLLLoss().call(x.logSoftmax(1), target))[0]!, 6);
    expect(new nn.CrossEntropyLoss({ reduction: 'none' }).call(x, target).shape).toEqual([6]);
  });
});

describe('nn.init', () => {
  const empty = () => zeros([1000, 250], { requiresGrad: true });
  const { init } = nn;

  it('draws with the documented deviation, of zero mean', () => {
    const generator = new Generator(5);
    const drawn: [Tensor, number][] = [
      [init.kaimingNormal_(empty(), { nonlinearity: 'relu', generator }), Math.sqrt(2 / 250)],
      [init.kaimingNormal_(empty(), { nonlinearity: 'relu', mode: 'fanOut', generator }), Math.sqrt(2 / 1000)],
      [init.kaimingUniform_(empty(), { a: 0.5, generator }), Math.sqrt(2 / 1.25 / 250)],
      [init.xavierNormal_(empty(), { generator }), Math.sqrt(2 / 1250)],
      [init.xavierUniform_(empty(), { gain: 3, generator }), 3 * Math.sqrt(2 / 1250)],
      [init.uniform_(empty(), -3, 3, { generator }), Math.sqrt(3)],
      [init.normal_(empty(), 0, 0.1, { generator }), 0.1],
    ];
    for (const [t, expected] of drawn) {
      const x = values(t);
      expect(std(x) / expected).toBeGreaterThan(0.99);
      expect(std(x) / expected).toBeLessThan(1.01);
      expect(Math.abs(x.reduce((sum, v) => sum + v, 0) / x.length)).toBeLessThan(0.01 * expected);
    }
  });

  it('He initialisation has deviation √(2/fanIn) within 1 % at a million draws', () => {
    const w = init.kaimingNormal_(zeros([1000, 1000]), { nonlinearity: 'relu', generator: new Generator(6) });
    expect(Math.abs(std(values(w)) / Math.sqrt(2 / 1000) - 1)).toBeLessThan(0.01);
  });

  it('uniform draws stay within √3 deviations', () => {
    const x = values(init.kaimingUniform_(empty(), { a: Math.sqrt(5) })).map(Math.abs);
    const bound = 1 / Math.sqrt(250);
    expect(x.reduce((most, v) => Math.max(most, v))).toBeLessThanOrEqual(bound * (1 + 1e-6));
    expect(x.reduce((most, v) => Math.max(most, v))).toBeGreaterThan(0.99 * bound);
  });

  it('counts the kernel into the fan', () => {
    const w = init.kaimingNormal_(zeros([200, 10, 5, 5]), { nonlinearity: 'linear', generator: new Generator(7) });
    expect(std(values(w)) * Math.sqrt(10 * 25)).toBeCloseTo(1, 1);
  });

  it.each([
    [4, 9],
    [9, 4],
    [6, 6],
  ])('orthogonal_ of %i x %i', (rows, columns) => {
    const q = init.orthogonal_(zeros([rows, columns], { dtype: 'float64' }), { gain: 2, generator: new Generator(8) });
    const gram = rows <= columns ? q.matmul(q.T) : q.T.matmul(q);
    for (const [i, v] of values(gram).entries()) {
      const n = Math.min(rows, columns);
      expect(v).toBeCloseTo(Math.floor(i / n) === i % n ? 4 : 0, 12);
    }
  });

  it('returns the tensor, records nothing, repeats with a seed', () => {
    const w = empty();
    expect(init.constant_(w, 2.5)).toBe(w);
    expect(w.isLeaf && w.requiresGrad && isGradEnabled()).toBe(true);
    expect(new Set(values(w))).toEqual(new Set([2.5]));
    expect(new Set(values(init.ones_(w)))).toEqual(new Set([1]));
    expect(new Set(values(init.zeros_(w)))).toEqual(new Set([0]));
    const draw = () => values(init.kaimingUniform_(empty(), { generator: new Generator(9) }));
    expect(draw()).toEqual(draw());
  });

  it('explains what it cannot do', () => {
    expect(() => init.kaimingNormal_(zeros([3]))).toThrow(ShapeError);
    expect(() => init.orthogonal_(zeros([3]))).toThrow('orthogonal_: shape [3] has no fan');
    expect(() => init.kaimingNormal_(zeros([3, 3]), { mode: 'fan_in' as 'fanIn' })).toThrow(`mode is "fan_in"`);
    expect(() => init.calculateGain('swish' as 'relu')).toThrow('unknown nonlinearity swish');
  });

  it('knows the gains', () => {
    expect(init.calculateGain('tanh')).toBe(5 / 3);
    expect(init.calculateGain('relu')).toBe(Math.SQRT2);
    expect(init.calculateGain('leakyRelu', 0.2)).toBeCloseTo(Math.sqrt(2 / 1.04), 15);
    expect([init.calculateGain('linear'), init.calculateGain('sigmoid'), init.calculateGain('selu')]).toEqual([
      1, 1, 0.75,
    ]);
  });
});

describe('clipping', () => {
  const withGrad = (grad: number[]): Tensor => {
    const p = zeros([grad.length], { requiresGrad: true });
    p.grad = tensor(grad);
    return p;
  };

  it('clipGradNorm_ returns the norm before, and scales by PyTorch’s divisor', () => {
    const params = [withGrad([2, 2, 2, 2, 2]), zeros([3], { requiresGrad: true }), withGrad(new Array(7).fill(2))];
    expect(nn.utils.clipGradNorm_(params, 1)).toBeCloseTo(6.928203, 6);
    const after = Math.hypot(...params.flatMap(({ grad }) => (grad ? values(grad) : [])));
    expect(Math.abs(after - 0.99999988)).toBeLessThan(1e-7);
    expect(params[1]!.grad).toBeNull();
  });

  it('leaves smaller gradients as they are, to the bit', () => {
    const p = withGrad([0.1, -0.2]);
    const before = values(p.grad!);
    expect(nn.utils.clipGradNorm_(p, 1)).toBeCloseTo(Math.hypot(0.1, 0.2), 6);
    expect(nn.utils.clipGradNorm_(p, Number.POSITIVE_INFINITY)).toBeCloseTo(Math.hypot(0.1, 0.2), 6);
    expect(values(p.grad!)).toEqual(before);
    expect(nn.utils.clipGradNorm_([], 1)).toBe(0);
  });

  it('shows or refuses a norm that is not finite', () => {
    const p = withGrad([Number.POSITIVE_INFINITY, 1]);
    expect(() => nn.utils.clipGradNorm_(p, 1, { errorIfNonFinite: true })).toThrow(
      'the norm of the gradients is Infinity',
    );
    expect(values(p.grad!)).toEqual([Number.POSITIVE_INFINITY, 1]);
    expect(nn.utils.clipGradNorm_(p, 1)).toBe(Number.POSITIVE_INFINITY);
    expect(values(p.grad!)).toEqual([Number.NaN, 0]);
    expect(() => nn.utils.clipGradNorm_(p, -1)).toThrow('maxNorm is -1');
  });

  it('clipGradValue_ clamps each element', () => {
    const p = withGrad([-3, 0.5, 2]);
    nn.utils.clipGradValue_([p], 1);
    expect(values(p.grad!)).toEqual([-1, 0.5, 1]);
  });
});
