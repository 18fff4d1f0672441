// The lesson, D: the same network in batches. R39 to R44 of the requirements, a test each.
import { describe, expect, it } from 'vitest';
import {
  binaryCrossEntropy,
  binaryCrossEntropyWithLogits,
  huberLoss,
  klDiv,
  l1Loss,
  memoryStats,
  mseLoss,
  nn,
  noGrad,
  scope,
  smoothL1Loss,
  type Tensor,
  where,
  zeros,
} from '../../lib/index.ts';
import { expectClose, f64, gradOf, leaf, thrownBy, values } from '../support.ts';
import { asLeaves, batchedNetwork, golden, type Network, peakOf, TIGHT } from './lesson.ts';

const [B, D, H] = [32, 4, 16];
const lesson = golden.batched_seed42;

/** Z1 = X W1ᵀ + b1 (B, H), H = relu, Z2 = H W2ᵀ + b2 (B, 1). */
function forward({ w1, b1, w2, b2 }: Network, x: Tensor): Record<'z1' | 'h' | 'z2', Tensor> {
  const z1 = x.matmul(w1.T).add(b1);
  const h = z1.relu();
  return { z1, h, z2: h.matmul(w2.T).add(b2) };
}

/** The lesson's backward pass for a mean over the batch, formula by formula. */
function byHand(): Record<'dz2' | 'dw2' | 'db2' | 'dh' | 'dz1' | 'dw1' | 'db1', Tensor> {
  const { net, x, y } = batchedNetwork();
  const { z1, h, z2 } = forward(net, x);
  const dz2 = z2.sub(y).mul(2 / B);
  const dh = dz2.matmul(net.w2);
  const dz1 = dh.mul(z1.gt(0).to('float64'));
  return { dz2, dw2: dz2.T.matmul(h), db2: dz2.sum(0), dh, dz1, dw1: dz1.T.matmul(x), db1: dz1.sum(0) };
}
/** The gradients by autograd, of the library's mean. */
function byAutograd(): Network {
  const { net, x, y } = batchedNetwork();
  const leaves = asLeaves(net);
  mseLoss(forward(leaves, x).z2, y).backward();
  return leaves;
}

describe('the batched network', () => {
  it('R39: Z1 is (B, H), Z2 is (B, 1), and the bias is added to every row', () => {
    const { net, x } = batchedNetwork();
    expect([x.shape, net.w1.shape, net.w2.shape]).toEqual([
      [B, D],
      [H, D],
      [1, H],
    ]);
    const { z1, h, z2 } = forward(net, x);
    expect([z1.shape, h.shape, z2.shape]).toEqual([
      [B, H],
      [B, H],
      [B, 1],
    ]);
    const row = (m: number[][], i: number): number[] => m[i]!;
    const dot = (a: number[], b: number[]): number => a.reduce((sum, v, k) => sum + v * b[k]!, 0);
    expectClose(
      values(z1),
      lesson.X.flatMap((_, i) => lesson.W1.map((_, j) => dot(row(lesson.X, i), row(lesson.W1, j)))),
      TIGHT,
    );
    expect(values(h)).toEqual(values(z1).map((v) => Math.max(v, 0)));
    // The lesson's biases are zero and show nothing.
    const bias = Array.from({ length: H }, (_, j) => j - 7.5);
    const shifted = forward({ ...net, b1: f64(bias), b2: f64([100]) }, x);
    expectClose(
      values(shifted.z1),
      values(z1).map((v, i) => v + bias[i % H]!),
      TIGHT,
    );
    expectClose(
      values(shifted.z2),
      lesson.X.map((_, i) => 100 + dot(values(shifted.h.select(0, i)), lesson.W2[0]!)),
      TIGHT,
    );
  });

  it('R40: the mean of (Z2 - Y)² is 1.4408639111', () => {
    const { net, x, y } = batchedNetwork();
    const { z2 } = forward(net, x);
    const loss = z2.sub(y).square().mean();
    expect([loss.item().toFixed(10), loss.item().toFixed(4)]).toEqual(['1.4408639111', '1.4409']);
    expectClose([loss.item()], [lesson.loss], TIGHT);
    expectClose([mseLoss(z2, y).item()], [lesson.loss], TIGHT);
  });

  it('R41: dZ2 = (2 / B)(Z2 - Y), dW2 = dZ2ᵀ H, db2 = Σ dZ2 = -0.2902285', () => {
    const { dz2, dw2, db2 } = byHand();
    expect([dz2.shape, dw2.shape, db2.shape]).toEqual([[B, 1], [1, H], [1]]);
    expect(db2.item().toFixed(7)).toBe('-0.2902285');
    expectClose(values(db2), lesson.db2, TIGHT);
    expectClose(values(dw2), lesson.dW2.flat(), TIGHT);
    const { w2, b2 } = byAutograd();
    expectClose(gradOf(w2), lesson.dW2.flat(), TIGHT);
    expectClose(gradOf(b2), lesson.db2, TIGHT);
  });

  it('R42: dH = dZ2 W2, dZ1 = dH (Z1 > 0), dW1 = dZ1ᵀ X, db1 = Σ dZ1', () => {
    const { dh, dz1, dw1, db1 } = byHand();
    expect([dh.shape, dz1.shape, dw1.shape, db1.shape]).toEqual([[B, H], [B, H], [H, D], [H]]);
    expect(values(dw1.select(0, 0)).map((v) => v.toFixed(8))).toEqual([
      '0.02459994',
      '0.01309186',
      '-0.03619105',
      '0.01320571',
    ]);
    expect(dw1.norm().item().toFixed(8)).toBe('0.16765495');
    const { w1, b1 } = byAutograd();
    for (const got of [values(dw1), gradOf(w1)]) expectClose(got, lesson.dW1.flat(), TIGHT);
    for (const got of [values(db1), gradOf(b1)]) expectClose(got, lesson.db1, TIGHT);
  });
});

describe('what batches need of tensors', () => {
  it('R43: a transpose copies nothing', () => {
    const w = zeros([512, 1024], { dtype: 'float64' });
    const before = memoryStats();
    const t = w.T;
    expect(t.shape).toEqual([1024, 512]);
    expect(memoryStats()).toMatchObject({ liveBytes: before.liveBytes, liveTensors: before.liveTensors });
    // The same elements: what is written to one is read from the other.
    noGrad(() => w.select(0, 3).select(0, 5).fill_(7));
    expect(t.select(0, 5).select(0, 3).item()).toBe(7);
    // A product reads it where it lies: it takes far less memory than a copy of the 4 MiB.
    const x = zeros([64, 1024], { dtype: 'float64' });
    expect(peakOf(() => x.matmul(w.T))).toBeLessThan(w.nbytes / 4);
    expect(peakOf(() => w.T.contiguous())).toBeGreaterThanOrEqual(w.nbytes);
  });

  it('R43: masks are bool, a byte an element', () => {
    const { net, x } = batchedNetwork();
    const { z1, h } = forward(net, x);
    const mask = z1.gt(0);
    expect([mask.dtype, mask.shape, mask.nbytes]).toEqual(['bool', [B, H], B * H]);
    const flags = values(z1).map((v) => v > 0);
    expect(flags).toContain(true);
    expect(flags).toContain(false);
    expect((mask.toArray() as boolean[][]).flat()).toEqual(flags);
    // As a selection, and as a factor.
    for (const selected of [where(mask, z1, 0), z1.mul(mask.to('float64')), h]) {
      expect(values(selected).map((v) => v + 0)).toEqual(values(z1).map((v, i) => (flags[i] ? v : 0)));
    }
  });

  it('R43: sums over an axis; the gradient of broadcasting is the sum over the broadcast axes', () => {
    const m = f64([
      [1, 2, 3],
      [10, 20, 30],
    ]);
    expect([m.sum(0).toArray(), m.sum(1).toArray()]).toEqual([
      [11, 22, 33],
      [6, 60],
    ]);
    expect([m.sum(1, { keepdim: true }).shape, m.sum([0, 1]).item()]).toEqual([[2, 1], 66]);
    const [bias, column, scalar] = [leaf([0.5, 1, 2]), leaf([[3], [4]]), leaf(5)];
    const upstream = f64([
      [1, 2, 4],
      [8, 16, 32],
    ]);
    m.add(bias).add(column).add(scalar).backward(upstream);
    expect([bias, column, scalar].map((t) => t.grad!.shape)).toEqual([[3], [2, 1], []]);
    expect([gradOf(bias), gradOf(column), gradOf(scalar)]).toEqual([[9, 18, 36], [7, 56], [63]]);
    const factor = leaf([1, 1, 1]);
    m.mul(factor).backward(upstream);
    expect(gradOf(factor)).toEqual([1 + 80, 4 + 320, 12 + 960]);
  });

  it('R44: (B, 1) against (B) is an error in every loss, with both shapes', () => {
    const losses: [string, (a: Tensor, b: Tensor) => Tensor][] = [
      ['mseLoss', mseLoss],
      ['l1Loss', l1Loss],
      ['smoothL1Loss', smoothL1Loss],
      ['huberLoss', huberLoss],
      ['binaryCrossEntropy', binaryCrossEntropy],
      ['binaryCrossEntropyWithLogits', binaryCrossEntropyWithLogits],
      ['klDiv', klDiv],
      ['mseLoss', (a, b) => new nn.MSELoss().call(a, b)],
    ];
    const [column, flat] = [zeros([B, 1], { dtype: 'float64' }).add(0.5), zeros([B], { dtype: 'float64' }).add(0.25)];
    for (const [name, loss] of losses) {
      for (const [input, target, shapes] of [
        [column, flat, /\[32,1\].*\[32\]/],
        [flat, column, /\[32\].*\[32,1\]/],
      ] as const) {
        const error = thrownBy(() => loss(input, target));
        expect(error, name).toMatchObject({ name: 'ShapeError' });
        expect((error as Error).message).toMatch(new RegExp(`^${name}: `));
        expect((error as Error).message).toMatch(shapes);
      }
      expect(loss(column, flat.unsqueeze(1)).shape, name).toEqual([]);
    }
    // What would happen else: every prediction against every target.
    expect(scope(() => column.sub(flat).shape)).toEqual([B, B]);
  });
});
