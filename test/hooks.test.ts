// What runs inside a backward pass: hooks, vjps that are wrong or throw, backward passes within. Rules are recorded by
// hand here, as ops record theirs.
import { describe, expect, it } from 'vitest';
import { type Rule, record } from '../lib/autograd/tape.ts';
import {
  ArgumentError,
  AutogradError,
  enableGrad,
  grad,
  memoryStats,
  noGrad,
  type Tensor,
  tensor,
  trimMemory,
} from '../lib/index.ts';
import { f64, gradOf, leaf, thrownBy, values } from './support.ts';

/** A copy of x that a rule says how to differentiate. */
function withRule(x: Tensor, vjp: (g: Tensor) => Tensor | null, saved: Tensor[] = []): Tensor {
  const out = noGrad(() => x.clone());
  const rule: Rule = { name: 'CustomBackward', vjp: [vjp] };
  record(out, rule, [x], saved, null);
  return out;
}

describe('a hook of a tensor', () => {
  it('replaces the gradient, in the order of registration', () => {
    const x = leaf([1, 2]);
    const y = x.mul(2);
    y.registerHook((g) => g.mul(10));
    y.registerHook((g) => g.add(1));
    x.registerHook((g) => g.neg());
    y.sum().backward();
    expect(gradOf(x)).toEqual([-22, -22]);
  });

  it('is called once, with the sum over all paths', () => {
    const x = leaf(3);
    const y = x.mul(1);
    const seen: number[] = [];
    y.registerHook((g) => void seen.push(g.item()));
    x.registerHook((g) => void seen.push(g.item()));
    y.mul(y).add(y.mul(5)).add(x).backward();
    expect(seen).toEqual([11, 12]);
  });

  it('is gone once removed', () => {
    const x = leaf(1);
    const remove = x.registerHook((g) => g.mul(100));
    remove();
    remove();
    x.mul(2).backward();
    expect(x.grad!.item()).toBe(2);
  });

  it('may keep what it gets: later passes do not change it', () => {
    const x = leaf([1, 2]);
    const y = x.mul(3);
    const kept: Tensor[] = [];
    x.registerHook((g) => void kept.push(g));
    y.registerHook((g) => void kept.push(g));
    const z = y.add(y.mul(y)).sum();
    for (let i = 0; i < 3; i++) z.backward(null, { retainGraph: true });
    noGrad(() => x.grad!.mul_(0));
    expect(kept.map(values)).toEqual(
      Array.from({ length: 3 }, () => [
        [7, 13],
        [21, 39],
      ]).flat(),
    );
    expect(kept.every((g) => !g.disposed)).toBe(true);
  });

  it('may return only a gradient that fits', () => {
    const x = leaf([1, 2]);
    const returning = (value: unknown): unknown => {
      const y = x.mul(1);
      y.registerHook(() => value as Tensor);
      return thrownBy(() => y.sum().backward());
    };
    expect(returning(f64([1, 2, 3]))).toMatchObject({ message: expect.stringMatching(/\[3\].*\[2\]/) });
    expect(returning(tensor([1, 2]))).toBeInstanceOf(AutogradError);
    expect(returning(5)).toBeInstanceOf(ArgumentError);
    expect(x.grad).toBeNull();
    expect(thrownBy(() => x.registerHook(5 as never))).toBeInstanceOf(ArgumentError);
    expect(thrownBy(() => f64(1).registerHook(() => undefined))).toBeInstanceOf(AutogradError);
  });

  it('is part of the recorded pass', () => {
    const x = leaf(2);
    x.registerHook((g) => g.square());
    const [g] = grad(x.pow(3), x, { createGraph: true });
    expect(g!.item()).toBe(144);
    expect(grad(g!, x)[0]!.item()).toBeGreaterThan(0);
  });
});

describe('a hook of a node', () => {
  it('sees the gradients that leave and the one that entered', () => {
    const [x, w] = [leaf(2), leaf(3)];
    const y = x.mul(w);
    const seen: [(Tensor | null)[], Tensor][] = [];
    const remove = y.gradFn!.registerHook((gradients, g) => void seen.push([[...gradients], g]));
    y.mul(5).backward(null, { retainGraph: true });
    remove();
    y.mul(5).backward();
    expect(seen.map(([gradients, g]) => [...gradients.map((t) => t!.item()), g.item()])).toEqual([[15, 10, 5]]);
  });
});

describe('retainGrad', () => {
  it('keeps the gradient of a result, after hooks, and accumulates it', () => {
    const x = leaf(2);
    const y = x.mul(3);
    y.retainGrad();
    y.registerHook((g) => g.mul(10));
    const z = y.mul(2);
    z.backward(null, { retainGraph: true });
    expect(y.grad!.item()).toBe(20);
    z.backward();
    expect([y.grad!.item(), x.grad!.item()]).toEqual([40, 120]);
  });

  it('stays with a tensor that is changed in place', () => {
    const y = leaf(2).mul(3);
    y.retainGrad();
    y.mul_(4);
    y.mul(5).backward();
    expect(y.grad!.item()).toBe(5);
  });

  it('does nothing for a leaf and refuses what gets no gradient', () => {
    const x = leaf(2);
    x.retainGrad();
    x.mul(3).backward();
    expect(x.grad!.item()).toBe(3);
    expect(thrownBy(() => f64(1).retainGrad())).toBeInstanceOf(AutogradError);
  });
});

describe('a walk inside a hook', () => {
  it.each(['backward', 'grad'])('does not disturb the %s around it', (kind) => {
    const x = leaf(2);
    const y = x.mul(x);
    const inner: number[] = [];
    y.registerHook(() => {
      inner.push(
        grad(
          enableGrad(() => x.mul(3)),
          x,
        )[0]!.item(),
      );
    });
    const z = y.mul(2).add(x);
    if (kind === 'backward') z.backward();
    else x.grad = grad(z, x)[0]!;
    expect([inner, x.grad!.item()]).toEqual([[3], 9]);
  });

  it('may cross the very graph that is being walked', () => {
    const x = leaf(3);
    const y = x.mul(x);
    const z = y.mul(y);
    const inner: number[] = [];
    const remove = y.registerHook(() => {
      remove();
      inner.push(grad(y, x, { retainGraph: true })[0]!.item());
    });
    z.backward();
    expect([inner, x.grad!.item()]).toEqual([[6], 108]);
  });
});

describe('a vjp', () => {
  it.each([
    ['shape', () => f64([1, 2, 3]), /CustomBackward.*input 0.*\[3\].*\[2\]/],
    ['dtype', () => tensor([1, 2]), /CustomBackward.*float32.*float64/],
  ])('of the wrong %s is refused with its name', (_, vjp, message) => {
    const x = leaf([1, 2]);
    const error = thrownBy(() => withRule(x.mul(1), vjp).sum().backward());
    expect(error).toBeInstanceOf(AutogradError);
    expect((error as Error).message).toMatch(message);
    expect(x.grad).toBeNull();
  });

  it('that gives no gradient ends there', () => {
    const x = leaf([1, 2]);
    withRule(x, () => null)
      .sum()
      .backward();
    expect(x.grad).toBeNull();
    withRule(x, (g) => g.mul(7))
      .sum()
      .backward();
    expect(gradOf(x)).toEqual([7, 7]);
  });

  it('may hand back what it was given, or a saved value', () => {
    const [x, s] = [leaf([1, 2]), f64([5, 6])];
    const out = withRule(x, () => s, [s]);
    out.sum().backward(null, { retainGraph: true });
    out.sum().backward();
    expect([gradOf(x), values(s)]).toEqual([
      [10, 12],
      [5, 6],
    ]);
  });
});

describe('an exception', () => {
  const boom = new Error('boom');

  it.each(['hook', 'node hook', 'vjp'])('of a %s goes through unchanged, and the graph stays whole', (where) => {
    const x = leaf([1, 2]);
    let armed = true;
    const fire = (): void => {
      if (armed) throw boom;
    };
    let y = x.mul(x);
    if (where === 'vjp') {
      y = withRule(y, (g) => {
        fire();
        return g;
      });
    }
    if (where === 'hook') y.registerHook(fire as () => undefined);
    if (where === 'node hook') y.gradFn!.registerHook(fire);
    const z = y.mul(y).sum();
    expect(thrownBy(() => z.backward(null, { retainGraph: true }))).toBe(boom);
    expect(x.grad).toBeNull();
    armed = false;
    z.backward();
    expect(gradOf(x)).toEqual([4, 32]);
  });

  it('of a hook or a vjp leaks nothing', () => {
    const collect = (): number => {
      for (let i = 0; i < 3; i++) {
        trimMemory();
        globalThis.gc!();
      }
      trimMemory();
      return memoryStats().liveTensors;
    };
    const attempt = (): void => {
      const x = leaf([1, 2]);
      const fail = (): never => {
        throw boom;
      };
      const h = x.mul(2).exp();
      h.registerHook(fail);
      expect(thrownBy(() => h.mul(h).add(x.exp()).sum().backward())).toBe(boom);
      const n = x.mul(2).exp();
      n.gradFn!.registerHook(fail);
      expect(thrownBy(() => n.mul(n).add(x.exp()).sum().backward())).toBe(boom);
      const v = withRule(x.exp(), fail);
      expect(thrownBy(() => v.mul(v).add(x.exp()).sum().backward())).toBe(boom);
      const shape = withRule(x.exp(), () => f64([1]));
      expect(thrownBy(() => shape.mul(shape).add(x.exp()).sum().backward())).toBeInstanceOf(AutogradError);
    };
    attempt();
    const before = collect();
    for (let i = 0; i < 20; i++) attempt();
    expect(collect()).toBe(before);
  });
});
