// maxGradNorm of the optimizers against clipGradNorm_ before the step: bits, norms, errors.
import { describe, expect, it } from 'vitest';
import { Generator, nn, optim, randn, scope, type Tensor, tensor } from '../lib/index.ts';

type Options = { maxGradNorm?: number };
const OPTIMIZERS: [string, (params: Tensor[], more?: Options) => optim.Optimizer<object>][] = [
  ['SGD', (params, more) => new optim.SGD(params, { lr: 0.1, ...more })],
  ['SGD with momentum', (params, more) => new optim.SGD(params, { momentum: 0.9, nesterov: true, ...more })],
  ['SGD that maximizes', (params, more) => new optim.SGD(params, { maximize: true, weightDecay: 0.1, ...more })],
  ['Adam', (params, more) => new optim.Adam(params, { weightDecay: 0.1, ...more })],
  ['Adam that maximizes', (params, more) => new optim.Adam(params, { amsgrad: true, maximize: true, ...more })],
  ['AdamW', (params, more) => new optim.AdamW(params, more)],
  ['RMSprop', (params, more) => new optim.RMSprop(params, { momentum: 0.5, centered: true, ...more })],
  ['Adagrad', (params, more) => new optim.Adagrad(params, { lrDecay: 0.1, ...more })],
  ['Adadelta', (params, more) => new optim.Adadelta(params, more)],
];

const numbers = (list: Iterable<Tensor>): number[][] => [...list].map((t) => Array.from(t.detach().toTypedArray()));

/** Parameters of two dtypes, with gradients that are drawn from the step's number, one of them transposed. */
function parameters(): Tensor[] {
  const generator = new Generator(1);
  return [
    randn([3, 5], { generator, requiresGrad: true }),
    randn([40_001], { generator, requiresGrad: true }),
    randn([7], { generator, dtype: 'float64', requiresGrad: true }),
  ];
}
function setGradients(params: Tensor[], step: number, scale: number): void {
  const generator = new Generator(100 + step);
  for (const p of params) p.grad = randn([...p.shape].reverse(), { generator, dtype: p.dtype }).mul(scale).T;
}

describe('maxGradNorm', () => {
  // Of the norms, about 200 and 0.02, only one is clipped.
  it.each(OPTIMIZERS)('%s: the bits of clipGradNorm_ before the step', (_, make) => {
    const [apart, folded] = [parameters(), parameters()];
    const optimizers = [make(apart), make(folded, { maxGradNorm: 0.7 })] as const;
    for (const [step, scale] of [1, 1e-4, 0.5, 1].entries()) {
      setGradients(apart, step, scale);
      setGradients(folded, step, scale);
      const before = numbers(folded.map((p) => p.grad!));
      const norm = nn.utils.clipGradNorm_(apart, 0.7);
      for (const optimizer of optimizers) optimizer.step();
      expect(optimizers[1].gradNorm).toBe(norm);
      expect(norm > 0.7).toBe(scale > 0.1);
      expect(numbers(folded.map((p) => p.grad!))).toEqual(before);
      expect(numbers(folded)).toEqual(numbers(apart));
    }
    const unclipped = parameters();
    const other = make(unclipped);
    for (const [step, scale] of [1, 1e-4, 0.5, 1].entries()) {
      setGradients(unclipped, step, scale);
      other.step();
    }
    expect(numbers(unclipped)).not.toEqual(numbers(folded));
  });

  it('takes the norm over all groups, and only over what has a gradient', () => {
    const [a, b, idle] = [3, 4, 5].map((x) => tensor([x], { dtype: 'float64', requiresGrad: true })) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    const optimizer = new optim.SGD([{ params: [a, idle], lr: 1 }, { params: [b] }], { lr: 2, maxGradNorm: 1 });
    expect(optimizer.gradNorm).toBeNaN();
    [a.grad, b.grad] = [tensor([3], { dtype: 'float64' }), tensor([4], { dtype: 'float64' })];
    scope(() => optimizer.step());
    expect(optimizer.gradNorm).toBe(5);
    const factor = 1 / (5 + 1e-6);
    expect(numbers([a, b, idle])).toEqual([[3 - 3 * factor], [4 - 2 * (4 * factor)], [5]]);
    optimizer.zeroGrad();
    optimizer.step();
    expect(optimizer.gradNorm).toBe(0);
  });

  it.each([
    ['NaN', NaN, [NaN, NaN]],
    ['infinite', Infinity, [NaN, 2]],
  ])('lets a %s norm show, as clipGradNorm_ does', (_, value, expected) => {
    const p = tensor([1, 2], { requiresGrad: true });
    const optimizer = new optim.SGD([p], { lr: 1, maxGradNorm: 1 });
    p.grad = tensor([value, 1]);
    optimizer.step();
    expect(optimizer.gradNorm).toBe(value);
    expect(numbers([p])).toEqual([expected]);
  });

  it('can be changed between steps, and turned off', () => {
    const p = tensor([0], { requiresGrad: true });
    const optimizer = new optim.SGD([p], { lr: 1 });
    p.grad = tensor([8]);
    for (const [maxGradNorm, expected] of [[4], [1], [Infinity]].map(([norm], i) => [norm!, [-4, -5, -13][i]!])) {
      optimizer.maxGradNorm = maxGradNorm!;
      optimizer.step();
      expect(p.item()).toBeCloseTo(expected!, 5);
    }
    expect(() => {
      optimizer.maxGradNorm = -1;
    }).toThrow('SGD: maxGradNorm is -1');
    expect(optimizer.maxGradNorm).toBe(Infinity);
  });

  it.each<[unknown, string]>([
    [-1, 'Adam: maxGradNorm is -1. Expected a number in [0, Infinity]'],
    [NaN, 'Adam: maxGradNorm is NaN'],
    ['1', 'Adam: maxGradNorm is "1"'],
    [null, 'Adam: maxGradNorm is null'],
  ])('refuses %s', (maxGradNorm, message) => {
    const p = tensor([1], { requiresGrad: true });
    expect(() => new optim.Adam([p], { maxGradNorm: maxGradNorm as number })).toThrow(message);
  });

  it('is no option of a group', () => {
    const group = { params: [tensor([1], { requiresGrad: true })], maxGradNorm: 1 };
    expect(() => new optim.Adam([group])).toThrow('Adam: unknown option "maxGradNorm"');
  });
});
