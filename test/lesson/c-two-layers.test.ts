// The lesson, C: a two-layer network by hand. R25 to R38 of the requirements, a test each.
import { describe, expect, it } from 'vitest';
import { cat, empty, grad, gradcheck, mseLoss, nn, noGrad, ones, optim, random, type Tensor } from '../../lib/index.ts';
import { bitsOf, expectClose, f64, gradOf, leaf, thrownBy, values } from '../support.ts';
import {
  asLeaves,
  backwardByHand,
  type Cache,
  each,
  forward,
  golden,
  lessonNetwork,
  NAMES,
  type Name,
  type Network,
  nodeOf,
  numericGradient,
  opNodes,
  relativeError,
  TIGHT,
} from './lesson.ts';

const lesson = golden.two_layer_seed42;
const sumOfSquares = (yHat: Tensor, y: Tensor): Tensor => mseLoss(yHat, y, { reduction: 'sum' });
type Loss = (yHat: Tensor, y: Tensor) => Tensor;

/** The lesson's forward pass with what its backward pass reads, and its gradients by hand from dL/dŷ = 2(ŷ - y). */
function byHand() {
  const { net, x, y } = lessonNetwork();
  const { z1, h, yHat } = forward(net, x);
  const cache: Cache = { x, z1, h, w2: net.w2 };
  const dyHat = yHat.sub(y).mul(2);
  return { net, x, y, yHat, cache, dyHat, gradients: backwardByHand(cache, dyHat) };
}
/** The gradients of a network's parameters by autograd. */
function byAutograd(net: Network, x: Tensor, y: Tensor, loss: Loss): Record<Name, number[]> {
  const leaves = asLeaves(net);
  loss(forward(leaves, x).yHat, y).backward();
  return each((name) => gradOf(leaves[name]));
}
/** The worst relative error of gradients, over every element of every parameter. */
function worstError(net: Network, x: Tensor, y: Tensor, loss: Loss, gradients: Record<Name, number[]>): number {
  const errors = NAMES.flatMap((name) => {
    const numeric = numericGradient((p) => loss(forward({ ...net, [name]: p }, x).yHat, y), net[name]);
    expect(gradients[name], name).toHaveLength(numeric.length);
    return numeric.map((value, i) => relativeError(gradients[name][i]!, value));
  });
  return Math.max(...errors);
}
/** A network of the legacy stream with several outputs: He weights, biases that are not zero. */
function threeOutputs(): { net: Network; x: Tensor; y: Tensor } {
  const stream = random.numpyLegacy(42);
  const net = {
    w1: stream.randn(8, 4).mul(Math.sqrt(2 / 4)),
    b1: stream.randn(8).mul(0.1),
    w2: stream.randn(3, 8).mul(Math.sqrt(2 / 8)),
    b2: stream.randn(3).mul(0.1),
  };
  return { net, x: stream.randn(4), y: stream.randn(3) };
}
const flatOf = (net: Record<Name, Tensor>): Record<Name, number[]> => each((name) => values(net[name]));

/** What is said by process.emitWarning while fn runs. */
async function warningsOf(fn: () => unknown): Promise<string[]> {
  const codes: string[] = [];
  const listen = (warning: Error & { code?: string }): void => void codes.push(`${warning.code}: ${warning.message}`);
  process.on('warning', listen);
  try {
    fn();
    await new Promise(setImmediate);
  } finally {
    process.off('warning', listen);
  }
  return codes;
}

describe('initialisation', () => {
  it('R25: He initialisation draws N(0, 2 / fanIn), and biases are zero', () => {
    const [out, fanIn] = [4000, 250];
    const w = nn.init.kaimingNormal_(empty([out, fanIn], { dtype: 'float64' }), { nonlinearity: 'relu' });
    const drawn = values(w);
    const std = Math.sqrt(2 / fanIn);
    const mean = drawn.reduce((sum, v) => sum + v, 0) / drawn.length;
    const deviation = Math.sqrt(drawn.reduce((sum, v) => sum + (v - mean) ** 2, 0) / drawn.length);
    expect(drawn).toHaveLength(1e6);
    expect(Math.abs(deviation / std - 1)).toBeLessThan(0.01);
    expect(Math.abs(mean)).toBeLessThan((5 * std) / 1000);
    // Normal, not uniform of the same deviation (which has 57.7 % there).
    const within = drawn.filter((v) => Math.abs(v) < std).length / drawn.length;
    expect(Math.abs(within - 0.6827)).toBeLessThan(0.005);
    expect(values(nn.init.zeros_(ones([8])))).toEqual(new Array(8).fill(0));
  });

  it("R26: numpyLegacy reproduces numpy's seed(42) bit for bit", () => {
    const stream = random.numpyLegacy(42);
    const drawn = stream.randn(16);
    expect([drawn.dtype, drawn.shape]).toEqual(['float64', [16]]);
    expect(values(drawn).slice(0, 3)).toEqual([0.4967141530112327, -0.13826430117118466, 0.6476885381006925]);
    expect(values(drawn)).toEqual(golden.legacy_randn_seed42_first16);
    // The stream goes on where it was, in the middle of a pair, too.
    const again = random.numpyLegacy(42);
    const parts = [again.randn(3), again.randn(2, 2), again.randn(9)];
    expect(parts.map((t) => t.shape)).toEqual([[3], [2, 2], [9]]);
    expect(parts.flatMap(values)).toEqual(golden.legacy_randn_seed42_first16);
    expect(values(random.numpyLegacy(42).rand(4))).toEqual([
      0.3745401188473625, 0.9507143064099162, 0.7319939418114051, 0.5986584841970366,
    ]);
    expect(values(random.numpyLegacy(43).randn(1))).not.toEqual(values(random.numpyLegacy(42).randn(1)));
    // So the whole network is the lesson's, to the last bit.
    const own = random.numpyLegacy(42);
    const [w1, w2, x] = [own.randn(8, 4).mul(Math.sqrt(2 / 4)), own.randn(1, 8).mul(Math.sqrt(2 / 8)), own.randn(4)];
    expect([w1, w2, x].map((t) => t.toArray())).toEqual([lesson.W1, lesson.W2, lesson.x]);
  });

  it('R26: the batched network, too, but for two numbers whose logarithm the C library rounds the wrong way', () => {
    const { W1, W2, X, Y } = golden.batched_seed42;
    const batch = random.numpyLegacy(42);
    const [v1, v2] = [batch.randn(16, 4).mul(0.1), batch.randn(1, 16).mul(0.1)];
    const [row, expected] = [(v2.toArray() as number[][])[0]!, (W2 as number[][])[0]!];
    const differing = row.flatMap((value, i) => (value === expected[i] ? [] : [i]));
    expect(differing).toEqual([12, 13]);
    for (const i of differing) expect(Math.abs(row[i]! / expected[i]! - 1)).toBeLessThan(2 ** -51);
    expect([v1, batch.randn(32, 4), batch.randn(32, 1)].map((t) => t.toArray())).toEqual([W1, X, Y]);
  });
});

describe('the forward pass', () => {
  it('R27: z1 = W1 x + b1, h = max(0, z1), ŷ = W2 h + b2 = -1.10968901, the loss 4.450787721871891', () => {
    const { net, x, y, yHat, cache } = byHand();
    expectClose(values(cache.z1), lesson.z1, TIGHT);
    expectClose(values(cache.h), lesson.h, TIGHT);
    expect(yHat.item().toFixed(8)).toBe('-1.10968901');
    expectClose(values(yHat), lesson.y_hat, TIGHT);
    expectClose([sumOfSquares(yHat, y).item()], [4.450787721871891], TIGHT);
    expectClose([lesson.loss], [4.450787721871891], TIGHT);
    // Zero biases show nothing of how they are added.
    const shifted = forward({ ...net, b1: f64([1, 2, 3, 4, 5, 6, 7, 8]), b2: f64([10]) }, x);
    expectClose(
      values(shifted.z1),
      lesson.z1.map((z, i) => z + i + 1),
      TIGHT,
    );
    expectClose(values(shifted.yHat), [10 + shifted.h.dot(net.w2.select(0, 0)).item()], TIGHT);
  });

  it('R28: x, h and W2 are saved for backward, W1 only for a gradient of x, z1 never', () => {
    const { net, x, y } = lessonNetwork();
    const leaves = asLeaves(net);
    const run = (input: Tensor): { saved: Tensor[]; made: Record<'z1' | 'h' | 'yHat', Tensor>; loss: Tensor } => {
      const made = forward(leaves, input);
      const loss = sumOfSquares(made.yHat, y);
      return { saved: opNodes(loss).flatMap((node) => node.savedTensors), made, loss };
    };
    const { saved, made, loss } = run(x);
    const has = (list: Tensor[], t: Tensor): boolean => list.includes(t);
    expect([x, made.h, leaves.w2].map((t) => has(saved, t))).toEqual([true, true, true]);
    expect([made.z1, leaves.w1, leaves.b1, leaves.b2].map((t) => has(saved, t))).toEqual(new Array(4).fill(false));
    expect([made.yHat, y].map((t) => has(saved, t))).toEqual([true, true]);
    // Where each was saved, and ŷ and y, which the loss reads; h serves the relu and the product.
    const at = (t: Tensor): number[][] => nodeOf(t).savedTensors.map((kept) => [...kept.shape]);
    expect(at(made.z1)).toEqual([]);
    expect(nodeOf(made.z1).nextFunctions[0]!.savedTensors).toEqual([x]);
    expect(nodeOf(made.h).savedTensors).toEqual([made.h]);
    expect(nodeOf(made.yHat).nextFunctions[0]!.savedTensors).toEqual([leaves.w2, made.h]);
    expect(saved.reduce((sum, t) => sum + t.numel, 0)).toBe(4 + 8 + (8 + 8) + (1 + 1));
    const forInput = run(x.detach().clone().requiresGrad_());
    expect([leaves.w1, leaves.w2].map((t) => has(forInput.saved, t))).toEqual([true, true]);
    // So a step between two backward passes is noticed.
    loss.backward(null, { retainGraph: true });
    new optim.SGD([leaves.w2]).step();
    const error = thrownBy(() => loss.backward());
    expect(error).toMatchObject({ name: 'AutogradError' });
    expect((error as Error).message).toMatch(/MvBackward.*\[1,8\].*changed in\s+place/);
  });
});

describe('the backward pass by hand', () => {
  it('R29: δŷ is 2(ŷ - y) for a sum of squares, 2(ŷ - y) / n for a mean: db2 = -4.219378021401681', () => {
    const { net, x, y, gradients } = byHand();
    expectClose(values(gradients.b2), [-4.219378021401681], TIGHT);
    expectClose(lesson.db2, [-4.219378021401681], TIGHT);
    expectClose(byAutograd(net, x, y, sumOfSquares).b2, [-4.219378021401681], TIGHT);
    const [yHat, target] = [leaf([1, -2, 0.5]), f64([0, 1, 0.25])];
    const start = (loss: Loss): number[] => values(grad(loss(yHat, target), yHat)[0]!);
    expectClose(start(sumOfSquares), [2, -6, 0.5], TIGHT);
    expectClose(start(mseLoss), [2 / 3, -2, 0.5 / 3], TIGHT);
  });

  it('R30: dW2 is outer(δŷ, h), δh is W2ᵀ δŷ', () => {
    const { gradients, dyHat } = byHand();
    expect(gradients.w2.shape).toEqual([1, 8]);
    const dw2 = values(gradients.w2);
    expectClose([dw2[3]!, dw2[5]!], [-0.6551762471463556, -4.370392230498259], TIGHT);
    expect([dw2[3]!.toFixed(10), dw2[5]!.toFixed(10)]).toEqual(['-0.6551762471', '-4.3703922305']);
    expectClose(dw2, lesson.dW2.flat(), TIGHT);
    expectClose(
      values(gradients.dh),
      lesson.W2[0]!.map((w) => w * dyHat.item()),
      TIGHT,
    );
  });

  it('R31: relu passes units 3 and 5 only', () => {
    const { gradients, cache } = byHand();
    const active = (t: Tensor): number[] => values(t).flatMap((v, i) => (v === 0 ? [] : [i]));
    expect(active(cache.h)).toEqual([3, 5]);
    expect(active(gradients.dz1)).toEqual([3, 5]);
    expect(lesson.active_units).toEqual([3, 5]);
    // All eight would get a gradient without the mask.
    expect(active(gradients.dh)).toHaveLength(8);
    const z1 = leaf(values(cache.z1));
    z1.relu().backward(gradients.dh);
    expect(active(z1.grad!)).toEqual([3, 5]);
  });

  it('R32: dW1 is outer(δz1, x), db1 is δz1', () => {
    const { gradients } = byHand();
    const dw1 = gradients.w1.toArray() as number[][];
    expect([dw1[3]![0]!, dw1[5]![0]!].map((v) => v.toFixed(10))).toEqual(['1.9019948425', '3.0530383385']);
    expect(values(gradients.b1)[5]!.toFixed(10)).toBe('4.1342945249');
    expectClose(dw1.flat(), lesson.dW1.flat(), TIGHT);
    expectClose(values(gradients.b1), lesson.db1, TIGHT);
  });

  it('R33: autograd gives what was written by hand', () => {
    const { net, x, y, gradients } = byHand();
    const automatic = byAutograd(net, x, y, sumOfSquares);
    const differences = NAMES.flatMap((name) =>
      values(gradients[name]).map((value, i) => Math.abs(value - automatic[name][i]!)),
    );
    expect(differences).toHaveLength(32 + 8 + 8 + 1);
    expect(Math.max(...differences)).toBeLessThan(1e-12);
    expectClose(automatic.w1, lesson.dW1.flat(), TIGHT);
    expectClose(automatic.w2, lesson.dW2.flat(), TIGHT);
  });
});

describe('the gradient check', () => {
  it('R34: every element is within 1e-4 of its numeric gradient, by |a - n| / (|a| + |n| + 1e-8)', () => {
    const { net, x, y, gradients } = byHand();
    const worst = worstError(net, x, y, sumOfSquares, flatOf(gradients));
    expect(worst).toBeLessThan(1e-4);
    // Measured with numpy: 7e-11.
    expect(worst).toBeLessThan(1e-9);
    // Both of the lesson's classic slips are found: no mask, and a factor.
    const unmasked = { ...flatOf(gradients), b1: values(gradients.dh) };
    expect(worstError(net, x, y, sumOfSquares, unmasked)).toBeGreaterThan(0.99);
    const halved = { ...flatOf(gradients), w2: values(gradients.w2.mul(0.5)) };
    expect(worstError(net, x, y, sumOfSquares, halved)).toBeCloseTo(1 / 3, 6);
    // The library's own check goes over the same 49 elements.
    const leaves = asLeaves(net);
    const run = (...[w1, b1, w2, b2]: Tensor[]): Tensor =>
      sumOfSquares(forward({ w1, b1, w2, b2 } as Network, x).yHat, y);
    expect(
      gradcheck(
        run,
        NAMES.map((name) => leaves[name]),
      ),
    ).toMatchObject({ checked: 49 });
  });

  it('R35: a check of W1[0,0] is vacuous, and the share of exercised elements is reported', async () => {
    const { net, x, y } = lessonNetwork();
    const w1 = net.w1.clone().requiresGrad_();
    const loss = (weights: Tensor): Tensor => sumOfSquares(forward({ ...net, w1: weights }, x).yHat, y);
    // Units 3 and 5 are on, with four weights each: 8 of 32 show something.
    expect(gradcheck(loss, w1)).toEqual({ checked: 32, vacuous: 24 });
    // The lesson's check of one weight: unit 0 is off, so its gradient is 0 on both sides, whatever backward does.
    const flat = net.w1.flatten();
    const check = (row: number): unknown => {
      const at = row * 4;
      const [before, after] = [flat.slice(0, 0, at), flat.slice(0, at + 1)];
      const w = flat
        .slice(0, at, at + 1)
        .clone()
        .requiresGrad_();
      return gradcheck((value) => loss(cat([before, value, after]).reshape([8, 4])), w);
    };
    let result: unknown;
    const said = await warningsOf(() => (result = check(0)));
    expect(result).toEqual({ checked: 1, vacuous: 1 });
    expect(said).toHaveLength(1);
    expect(said[0]).toMatch(/^CHAINRULE_VACUOUS_GRADCHECK: gradcheck: all 1 elements were vacuous/);
    expect(await warningsOf(() => (result = check(3)))).toEqual([]);
    expect(result).toEqual({ checked: 1, vacuous: 0 });
  });

  it('R37: the perturbed weights are restored bit for bit', () => {
    const { net, x, y } = lessonNetwork();
    const leaves = asLeaves(net);
    // Stepping back, as the lesson does, would not do.
    expect(values(net.w1).some((w) => w + 1e-6 - 2e-6 + 1e-6 !== w)).toBe(true);
    const bits = (): Record<Name, string> => each((name) => bitsOf(leaves[name].detach()));
    const before = bits();
    const loss = (): Tensor => sumOfSquares(forward(leaves, x).yHat, y);
    const seen = new Set<string>();
    const parameters = NAMES.map((name) => leaves[name]);
    gradcheck(() => {
      seen.add(bitsOf(leaves.w1.detach()));
      return loss();
    }, parameters);
    // They did move, each up and down.
    expect(seen.size).toBe(1 + 2 * 32);
    expect(bits()).toEqual(before);
    // Also when the check fails.
    const wrong = (): Tensor => loss().mul(leaves.w1.detach().sum());
    expect(thrownBy(() => gradcheck(wrong, parameters))).toMatchObject({ name: 'AutogradError' });
    expect(bits()).toEqual(before);
  });
});

describe('the update', () => {
  it('R36: SGD is p -= lr·g, lr 0.01 by default', () => {
    const { net, x, y } = lessonNetwork();
    for (const [options, lr] of [
      [{}, 0.01],
      [{ lr: 0.25 }, 0.25],
    ] as const) {
      const leaves = asLeaves(net);
      const optimizer = new optim.SGD(
        NAMES.map((name) => leaves[name]),
        options,
      );
      sumOfSquares(forward(leaves, x).yHat, y).backward();
      optimizer.step();
      const { W1, W2, dW1, dW2, db1, db2 } = lesson;
      const expected: Record<Name, number[]> = {
        w1: W1.flat().map((w, i) => w - lr * dW1.flat()[i]!),
        b1: db1.map((g) => -lr * g),
        w2: W2.flat().map((w, i) => w - lr * dW2.flat()[i]!),
        b2: db2.map((g) => -lr * g),
      };
      for (const name of NAMES) expectClose(values(leaves[name]), expected[name], 1e-14, name);
      // Downhill.
      const after = noGrad(() => sumOfSquares(forward(leaves, x).yHat, y).item());
      if (lr === 0.01) expect(after).toBeLessThan(lesson.loss);
    }
  });
});

describe('more outputs', () => {
  it('R38: with three outputs the reductions stay consistent', () => {
    const { net, x, y } = threeOutputs();
    const { z1, h, yHat } = forward(net, x);
    expect(yHat.shape).toEqual([3]);
    for (const [loss, n] of [
      [mseLoss, 3],
      [sumOfSquares, 1],
    ] as [Loss, number][]) {
      const gradients = backwardByHand({ x, z1, h, w2: net.w2 }, yHat.sub(y).mul(2 / n));
      const automatic = byAutograd(net, x, y, loss);
      for (const name of NAMES) expectClose(values(gradients[name]), automatic[name], 1e-12, name);
      expect(worstError(net, x, y, loss, automatic)).toBeLessThan(1e-4);
      expect(worstError(net, x, y, loss, automatic)).toBeLessThan(1e-8);
    }
    // In a batch the mean is over both its rows and its columns.
    const [rows, targets] = [
      leaf([
        [1, 2, 3],
        [4, 5, 6],
      ]),
      f64([
        [0, 0, 0],
        [1, 1, 1],
      ]),
    ];
    const [start] = grad(mseLoss(rows, targets), rows);
    expectClose(
      values(start!),
      [1, 2, 3, 3, 4, 5].map((difference) => (2 / (2 * 3)) * difference),
      TIGHT,
    );
    // The lesson's pair, 2(ŷ - y) for a mean, is three times too much: a relative error of 0.500.
    const slip = backwardByHand({ x, z1, h, w2: net.w2 }, yHat.sub(y).mul(2));
    const right = byAutograd(net, x, y, mseLoss);
    for (const name of NAMES) {
      expectClose(
        values(slip[name]),
        right[name].map((g) => 3 * g),
        1e-12,
        name,
      );
    }
    expect(worstError(net, x, y, mseLoss, flatOf(slip)).toFixed(3)).toBe('0.500');
  });
});
