// Convolution and pooling: layers against their functions, initialisation, what the ops save, and a small training.
import { describe, expect, it } from 'vitest';
import {
  conv1d,
  conv2d,
  crossEntropy,
  type DType,
  grad,
  manualSeed,
  maxPool2d,
  memoryStats,
  narrow,
  nn,
  noGrad,
  optim,
  randn,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../lib/index.ts';
import { bitsOf, values } from './support.ts';

describe('convolution layers', () => {
  it.each([
    ['Conv1d', new nn.Conv1d(8, 600, 5), [600, 8, 5], 40],
    ['Conv2d', new nn.Conv2d(8, 300, [3, 5]), [300, 8, 3, 5], 120],
    ['Conv2d in groups', new nn.Conv2d(12, 300, 3, { groups: 3 }), [300, 4, 3, 3], 36],
  ])('%s draws weight and bias from U(±1/√fanIn)', (_, layer, shape, fanIn) => {
    expect([...layer.stateDict()].map(([name, t]) => [name, t.shape])).toEqual([
      ['weight', shape],
      ['bias', [shape[0]]],
    ]);
    const bound = 1 / Math.sqrt(fanIn);
    for (const drawn of [values(layer.weight), values(layer.bias!)]) {
      const sizes = drawn.map(Math.abs);
      expect(Math.max(...sizes)).toBeLessThanOrEqual(Math.fround(bound));
      expect(Math.max(...sizes)).toBeGreaterThan(0.98 * bound);
      expect(Math.min(...drawn)).toBeLessThan(-0.97 * bound);
      const deviation = Math.sqrt(drawn.reduce((total, v) => total + v * v, 0) / drawn.length);
      expect(Math.abs(deviation / (bound / Math.sqrt(3)) - 1)).toBeLessThan(0.1);
    }
  });

  it('are their functions, with all their options', () => {
    const options = { stride: [2, 1], padding: [1, 0], dilation: [1, 2], groups: 2 };
    const layer = new nn.Conv2d(4, 6, [3, 2], options);
    const x = randn([2, 4, 7, 8]);
    const y = layer.call(x);
    expect(y.shape).toEqual([2, 6, 4, 6]);
    expect(bitsOf(y)).toBe(bitsOf(conv2d(x, layer.weight, layer.bias, options)));
    expect(y.gradFn!.name).toBe('ConvolutionBackward');

    const line = new nn.Conv1d(4, 2, 3, { padding: 'same', bias: false, dtype: 'float64' });
    expect([...line.stateDict().keys()]).toEqual(['weight']);
    const z = randn([3, 4, 9], { dtype: 'float64' });
    expect(line.call(z).shape).toEqual([3, 2, 9]);
    expect(bitsOf(line.call(z))).toBe(bitsOf(conv1d(z, line.weight, null, { padding: 'same' })));
  });

  it('refuse wrong arguments when they are made', () => {
    expect(() => new nn.Conv2d(3, -1, 3)).toThrow('Conv2d: outChannels is -1');
    expect(() => new nn.Conv2d(3, 4, [3])).toThrow('Conv2d: kernelSize is a list of 1');
    expect(() => new nn.Conv1d(3, 4, 0)).toThrow('Conv1d: kernelSize is 0');
    expect(() => new nn.Conv2d(3, 4, 3, { groups: 2 })).toThrow(
      'Conv2d: inChannels is 3. Expected a multiple of groups, 2',
    );
    expect(() => new nn.Conv2d(4, 3, 3, { groups: 2 })).toThrow('Conv2d: outChannels is 3. Expected a multiple');
    expect(() => new nn.Conv2d(3, 4, 3, { strides: 2 } as object)).toThrow('Conv2d: unknown option "strides"');
    expect(() => new nn.Conv2d(3, 4, 3, { stride: 2, padding: 'same' })).toThrow("Conv2d: padding 'same' with stride");
  });

  it('pooling layers are their functions', () => {
    const x = tensor([
      [
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [9, 10, 11, 12],
        [13, 14, 15, 16],
      ],
    ]);
    expect(values(new nn.MaxPool2d(2).call(x))).toEqual([6, 8, 14, 16]);
    expect(values(new nn.MaxPool2d(2, { stride: 1, dilation: 2 }).call(x))).toEqual([11, 12, 15, 16]);
    expect(values(new nn.AvgPool2d(2).call(x))).toEqual([3.5, 5.5, 11.5, 13.5]);
    expect(values(new nn.AvgPool2d([2, 4], { padding: [1, 0] }).call(x))).toEqual([1.25, 8.5, 7.25]);
  });

  it('train: the loss of a small network falls', () => {
    manualSeed(7);
    // Which half of an image is bright, up to noise: seen by convolution, in place ReLU, pooling and a linear layer.
    const labels = Array.from({ length: 32 }, (_, i) => i % 2);
    const images = randn([32, 1, 8, 8]).mul(0.3);
    labels.forEach(
      (label, i) =>
        void images
          .select(0, i)
          .narrow(2, 4 * label, 4)
          .add_(1),
    );
    const target = tensor(labels, { dtype: 'int32' });
    const network = new nn.Sequential(
      new nn.Conv2d(1, 4, 3, { padding: 1 }),
      new nn.ReLU(),
      new nn.MaxPool2d(2),
      new nn.Conv2d(4, 8, 3, { groups: 2 }),
      new nn.AvgPool2d(2),
      new nn.Flatten(),
      new nn.Linear(8, 2),
    );
    const optimizer = new optim.SGD(network.parameters(), { lr: 0.1, momentum: 0.9 });
    const losses = Array.from({ length: 30 }, () =>
      scope(() => {
        const loss = crossEntropy(network.call(images), target);
        optimizer.zeroGrad();
        loss.backward();
        optimizer.step();
        return loss.item();
      }),
    );
    expect(losses[0]).toBeGreaterThan(0.5);
    expect(losses.at(-1)).toBeLessThan(0.05);
  });
});

describe('what the ops leave behind', () => {
  const leaf = (shape: number[], requiresGrad = true): Tensor => randn(shape, { requiresGrad });

  it('a convolution saves what a needed gradient reads, and no columns', () => {
    const saved = (x: boolean, weight: boolean, bias: boolean): number[][] => {
      const y = conv2d(leaf([2, 3, 6, 6], x), leaf([4, 3, 3, 3], weight), leaf([4], bias));
      return y.gradFn!.savedTensors.map(({ shape }) => [...shape]);
    };
    expect(saved(true, true, true)).toEqual([
      [2, 3, 6, 6],
      [4, 3, 3, 3],
    ]);
    expect(saved(false, true, true)).toEqual([[2, 3, 6, 6]]);
    expect(saved(true, false, false)).toEqual([[4, 3, 3, 3]]);
    expect(saved(false, false, true)).toEqual([]);

    const [x, weight] = [leaf([2, 8, 16, 16]), leaf([8, 8, 3, 3])];
    const before = memoryStats().liveBytes;
    const y = conv2d(x, weight, null, { padding: 1 });
    expect(memoryStats().liveBytes - before).toBeLessThan(y.nbytes + 1000);
  });

  it('pooling saves places and nothing else', () => {
    const x = leaf([2, 3, 6, 6]);
    expect(maxPool2d(x, 2).gradFn!.savedTensors.map(({ dtype, shape }) => [dtype, shape])).toEqual([
      ['int32', [2, 3, 9]],
    ]);
    expect(x.avgPool2d(2).gradFn!.savedTensors).toEqual([]);
    expect(noGrad(() => maxPool2d(x, 2)).gradFn).toBeNull();
  });

  it('results can be changed in place', () => {
    const x = leaf([1, 3, 6, 6]);
    const weight = leaf([2, 3, 3, 3]);
    const plain = conv2d(x, weight).relu().sum();
    const inPlace = conv2d(x, weight).relu_().sum();
    expect(inPlace.item()).toBe(plain.item());
    expect(grad(inPlace, [x, weight]).map(bitsOf)).toEqual(grad(plain, [x, weight]).map(bitsOf));
    for (const pooled of [maxPool2d(x, 2), x.avgPool2d(2)])
      expect(grad(pooled.mul_(2).sum(), x)[0]!.shape).toEqual(x.shape);
  });

  it.each<DType>(['float32', 'float64'])('an example alone has the bits that it has in its batch, in %s', (dtype) => {
    const x = randn([9, 6, 13, 11], { dtype, requiresGrad: true });
    const weight = randn([8, 3, 3, 3], { dtype });
    const bias = randn([8], { dtype });
    const run = (input: Tensor): Tensor => conv2d(input, weight, bias, { groups: 2, padding: 1, stride: 2 });
    const whole = run(x);
    const [gradient] = grad(whole.square().sum(), x);
    for (const i of [0, 4, 8]) {
      const alone = narrow(x.detach(), 0, i, 1).requiresGrad_();
      const y = run(alone);
      expect(bitsOf(y.detach())).toBe(bitsOf(narrow(whole.detach(), 0, i, 1).contiguous()));
      expect(bitsOf(grad(y.square().sum(), alone)[0]!)).toBe(bitsOf(narrow(gradient!, 0, i, 1).contiguous()));
    }
  });

  it('bfloat16 computes in float32 and rounds once', () => {
    const x = randn([2, 3, 6, 6]).to('bfloat16');
    const weight = randn([4, 3, 3, 3]).to('bfloat16').requiresGrad_();
    const y = conv2d(x, weight, zeros([4], { dtype: 'bfloat16' }));
    const wide = conv2d(x.float(), weight.detach().float());
    expect(bitsOf(y.detach())).toBe(bitsOf(wide.to('bfloat16')));
    expect(grad(y.sum(), weight)[0]!.dtype).toBe('bfloat16');

    const [narrowLeaf, wideLeaf] = [x.detach().requiresGrad_(), x.float().requiresGrad_()];
    const pooled = (leafOf: Tensor): Tensor => leafOf.avgPool2d(3, { stride: 1, padding: 1 });
    expect(bitsOf(pooled(narrowLeaf).detach())).toBe(bitsOf(pooled(wideLeaf).detach().to('bfloat16')));
    const gradOutputs = x.square();
    const [narrowGradient] = grad(pooled(narrowLeaf), narrowLeaf, { gradOutputs });
    const [wideGradient] = grad(pooled(wideLeaf), wideLeaf, { gradOutputs: gradOutputs.float() });
    expect(bitsOf(narrowGradient!)).toBe(bitsOf(wideGradient!.to('bfloat16')));
  });
});
