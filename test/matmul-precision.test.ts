// float32 products of factors rounded to bfloat16: the same as multiplying rounded factors, in values and gradients.
import { afterEach, describe, expect, it } from 'vitest';
import {
  ArgumentError,
  getFloat32MatmulPrecision,
  linear,
  manualSeed,
  matmul,
  memoryStats,
  randn,
  setFloat32MatmulPrecision,
  type Tensor,
  trimMemory,
} from '../lib/index.ts';
import { bitsOf, thrownBy } from './support.ts';

const inBfloat16 = (t: Tensor): Tensor => t.to('bfloat16').float();
const twins = (...shape: number[]): [plain: Tensor, rounded: Tensor] => {
  const plain = randn(shape);
  return [plain.detach().requiresGrad_(), inBfloat16(plain).requiresGrad_()];
};

afterEach(() => setFloat32MatmulPrecision('highest'));

describe("setFloat32MatmulPrecision('medium')", () => {
  it.each([
    ['matrices', [5, 70], [70, 33]],
    ['batches, one of them broadcast', [3, 9, 17], [1, 17, 8]],
    ['a matrix and a vector', [40, 21], [21]],
    ['vectors', [130], [130]],
  ])('%s: the product of the rounded factors, bit for bit', (_, left, right) => {
    manualSeed(1);
    const [a, ar] = twins(...left);
    const [b, br] = twins(...right);
    const [exact, unrounded] = [matmul(ar, br), matmul(a, b)].map(bitsOf);
    setFloat32MatmulPrecision('medium');
    expect(bitsOf(matmul(a, b))).toEqual(exact);
    expect(exact).not.toEqual(unrounded);
  });

  it('rounds a linear layer and its gradients, but not its bias', () => {
    manualSeed(2);
    const [x, xr] = twins(6, 12);
    const [w, wr] = twins(9, 12);
    const bias = randn([9]).requiresGrad_();
    const exact = linear(xr, wr, bias);
    const g = inBfloat16(randn(exact.shape));
    exact.backward(g);
    const ofBias = bitsOf(bias.grad!);
    bias.grad = null;
    setFloat32MatmulPrecision('medium');
    const out = linear(x.T.contiguous().T, w, bias);
    expect(bitsOf(out)).toEqual(bitsOf(exact));
    out.backward(g);
    expect([x.grad!, w.grad!].map(bitsOf)).toEqual([xr.grad!, wr.grad!].map(bitsOf));
    expect(bitsOf(bias.grad!)).toEqual(ofBias);
  });

  it('leaves float64 alone, and ends', () => {
    const a = randn([20, 20], { dtype: 'float64' });
    const b = randn([20, 20]);
    const before = [a, b].map((t) => bitsOf(matmul(t, t)));
    setFloat32MatmulPrecision('medium');
    expect(getFloat32MatmulPrecision()).toBe('medium');
    expect(bitsOf(matmul(a, a))).toEqual(before[0]);
    setFloat32MatmulPrecision('highest');
    expect(bitsOf(matmul(b, b))).toEqual(before[1]);
  });

  it('keeps none of its copies', () => {
    const a = randn([64, 64]);
    setFloat32MatmulPrecision('medium');
    trimMemory();
    const before = memoryStats().liveBytes;
    const out = matmul(a, a);
    expect(memoryStats().liveBytes - before).toBe(out.nbytes);
  });

  it.each(['high', 1, undefined])('refuses %s', (value) => {
    const error = thrownBy(() => setFloat32MatmulPrecision(value as 'medium'));
    expect(error).toBeInstanceOf(ArgumentError);
    expect((error as Error).message).toMatch(/setFloat32MatmulPrecision: got .*Expected 'highest' or 'medium'/);
    expect(getFloat32MatmulPrecision()).toBe('highest');
  });
});
