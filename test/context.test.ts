// Grad modes and scopes: nesting, exceptions, async functions side by side, and which tensors outlive a scope.
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  DisposedError,
  enableGrad,
  inferenceMode,
  isGradEnabled,
  keep,
  memoryStats,
  noGrad,
  scope,
  type Tensor,
  zeros,
} from '../lib/index.ts';
import { f64, gradOf, leaf, thrownBy, values } from './support.ts';

const boom = new Error('boom');
const fail = (): never => {
  throw boom;
};

describe('noGrad and enableGrad', () => {
  it('nest, and are taken back on the way out', () => {
    const seen: boolean[] = [];
    const see = (): void => void seen.push(isGradEnabled());
    see();
    noGrad(() => {
      see();
      enableGrad(() => {
        see();
        inferenceMode(see);
        see();
      });
      see();
    });
    see();
    expect(seen).toEqual([true, false, true, false, true, false, true]);
  });

  it('decide what is recorded, and return what fn returns', () => {
    const x = leaf([1, 2]);
    const y = noGrad(() => x.mul(2));
    expect([y.requiresGrad, y.isLeaf]).toEqual([false, true]);
    expect(noGrad(() => enableGrad(() => x.mul(2))).requiresGrad).toBe(true);
    expect(noGrad(() => leaf(1)).requiresGrad).toBe(true);
  });

  it('survive exceptions', () => {
    expect(thrownBy(() => noGrad(() => enableGrad(() => noGrad(fail))))).toBe(boom);
    expect(isGradEnabled()).toBe(true);
    expect(thrownBy(() => noGrad(() => scope(fail)))).toBe(boom);
    expect(isGradEnabled()).toBe(true);
  });

  it('follow the awaits of an async function, and reach nobody else', async () => {
    const seen: Record<string, boolean[]> = { off: [], on: [], outside: [] };
    const off = noGrad(async () => {
      for (let i = 0; i < 4; i++) {
        seen.off!.push(isGradEnabled());
        await turn();
        enableGrad(() => seen.on!.push(isGradEnabled()));
      }
      return 'off';
    });
    const on = enableGrad(async () => {
      for (let i = 0; i < 4; i++) {
        await turn();
        seen.on!.push(isGradEnabled());
      }
    });
    for (let i = 0; i < 6; i++) {
      seen.outside!.push(isGradEnabled());
      await turn();
    }
    expect(await off).toBe('off');
    await on;
    expect(seen).toEqual({
      off: [false, false, false, false],
      on: Array.from({ length: 8 }, () => true),
      outside: Array.from({ length: 6 }, () => true),
    });
    expect(isGradEnabled()).toBe(true);
  });

  it('end with an async function that rejects', async () => {
    await expect(
      noGrad(async () => {
        await turn();
        fail();
      }),
    ).rejects.toBe(boom);
    expect(isGradEnabled()).toBe(true);
  });

  it('hold inside an async function called from one', async () => {
    const seen = await noGrad(async () => {
      const inner = await enableGrad(async () => {
        await turn();
        return isGradEnabled();
      });
      return [inner, isGradEnabled()];
    });
    expect(seen).toEqual([true, false]);
  });

  it.each([
    ['noGrad', noGrad],
    ['enableGrad', enableGrad],
    ['scope', scope],
  ])('%s refuses a function that is not async but returns a promise', async (_, run) => {
    const error = thrownBy(() => run(() => turn()));
    expect(error).toBeInstanceOf(ArgumentError);
    expect((error as Error).message).toMatch(/async/);
    // Its rejection is nobody's to handle.
    expect(thrownBy(() => run(() => Promise.reject(boom)))).toBeInstanceOf(ArgumentError);
    await turn();
    expect(isGradEnabled()).toBe(true);
  });
});

describe('scope', () => {
  it('frees what was made inside, exactly', () => {
    const x = f64([1, 2]);
    const before = memoryStats();
    let inner!: Tensor;
    const sum = scope(() => {
      inner = x.mul(2);
      return x.exp().add(inner).T.reshape([2, 1]).sum().item();
    });
    expect(sum).toBeCloseTo(6 + Math.E + Math.E ** 2, 10);
    expect(inner.disposed).toBe(true);
    expect(x.disposed).toBe(false);
    const { liveBytes, liveTensors } = memoryStats();
    expect([liveBytes, liveTensors]).toEqual([before.liveBytes, before.liveTensors]);
  });

  it('spares its result, wherever it stands', () => {
    const made = (): Tensor => zeros([1]);
    const circle: Record<string, unknown> = { t: made };
    const result = scope(() => {
      circle.self = circle;
      circle.t = made();
      return {
        list: [made(), [made()]],
        map: new Map([['a', made()]]),
        set: new Set([made()]),
        circle,
        text: 'x',
        none: null,
      };
    });
    const found = [...result.list.flat(), result.map.get('a')!, ...result.set, circle.t as Tensor];
    expect(found.map((t) => t.disposed)).toEqual([false, false, false, false, false]);
    expect(scope(made).disposed).toBe(false);
    const view = scope(() => zeros([2, 3]).T);
    expect(values(view)).toEqual([0, 0, 0, 0, 0, 0]);
  });

  it('hands the results of an inner scope to the outer one', () => {
    let inner!: Tensor;
    let lost!: Tensor;
    const kept = scope(() => {
      inner = scope(() => {
        lost = zeros([1]);
        return zeros([2]);
      });
      expect([inner.disposed, lost.disposed]).toEqual([false, true]);
      return scope(() => zeros([3]));
    });
    expect([inner.disposed, kept.disposed]).toEqual([true, false]);
  });

  it('spares what is kept, through every open scope', () => {
    let outer!: Tensor;
    let inner!: Tensor;
    let other!: Tensor;
    scope(() => {
      outer = zeros([1]);
      scope(() => {
        inner = keep(zeros([2]));
        other = zeros([3]);
        keep(outer);
      });
    });
    expect([outer.disposed, inner.disposed, other.disposed]).toEqual([false, false, true]);
    expect(values(keep(outer))).toEqual([0]);
  });

  it('frees after an exception, too', () => {
    let t!: Tensor;
    let kept!: Tensor;
    const run = (): void =>
      scope(() => {
        t = zeros([1]);
        kept = keep(zeros([1]));
        fail();
      });
    expect(thrownBy(run)).toBe(boom);
    expect([t.disposed, kept.disposed]).toEqual([true, false]);
  });

  it('leaves a graph what it saved, and leaves their gradients', () => {
    const x = leaf([1, 2]);
    const loss = scope(() => x.mul(2).exp().tanh().sum());
    loss.backward();
    const expected = [2, 4].map((v) => (1 - Math.tanh(Math.exp(v)) ** 2) * Math.exp(v) * 2);
    expect(gradOf(x)[0]).toBeCloseTo(expected[0]!, 12);

    for (const createGraph of [false, true]) {
      const y = leaf([1, 2]);
      scope(() => {
        for (let i = 0; i < 2; i++) scope(() => y.mul(y).sum().backward(null, { createGraph }));
      });
      expect(gradOf(y)).toEqual([4, 8]);
    }
  });

  it('keeps async scopes apart', async () => {
    const made: Record<string, Tensor[]> = { a: [], b: [], outside: [] };
    const run = (name: string) =>
      scope(async () => {
        for (let i = 0; i < 3; i++) {
          made[name]!.push(zeros([i + 1]));
          await turn();
        }
        return made[name]![0]!;
      });
    const [a, b] = [run('a'), run('b')];
    for (let i = 0; i < 2; i++) {
      made.outside!.push(zeros([1]));
      await turn();
    }
    expect(made.a!.some((t) => t.disposed)).toBe(false);
    await Promise.all([a, b]);
    const state = (name: string): boolean[] => made[name]!.map((t) => t.disposed);
    expect([state('a'), state('b'), state('outside')]).toEqual([
      [false, true, true],
      [false, true, true],
      [false, false],
    ]);
  });

  it('frees at the end of an async function that rejects', async () => {
    let t!: Tensor;
    const run = scope(async () => {
      t = zeros([1]);
      await turn();
      fail();
    });
    await expect(run).rejects.toBe(boom);
    expect(t.disposed).toBe(true);
  });
});

describe('dispose', () => {
  it('frees at once, and once', () => {
    const { liveTensors } = memoryStats();
    const x = zeros([100]);
    expect(memoryStats().liveTensors).toBe(liveTensors + 1);
    x.dispose();
    x.dispose();
    expect(memoryStats().liveTensors).toBe(liveTensors);
  });

  it('leaves the storage to views, and to what a graph saved', () => {
    const x = leaf([
      [1, 2],
      [3, 4],
    ]);
    const y = x.mul(1);
    const row = y.select(0, 1);
    const loss = y.exp().sum();
    y.dispose();
    expect(values(row)).toEqual([3, 4]);
    loss.backward();
    expect(gradOf(x)[3]).toBeCloseTo(Math.exp(4), 10);
  });

  it('makes every use an error that names the op', () => {
    const x = f64([1, 2]);
    x.dispose();
    const uses: Record<string, () => unknown> = {
      add: () => x.add(1),
      mul: () => f64([1, 2]).mul(x),
      matmul: () => f64([[1, 2]]).matmul(x),
      sum: () => x.sum(),
      reshape: () => x.reshape([2, 1]),
      item: () => x.item(),
      toTypedArray: () => x.toTypedArray(),
      backward: () => x.backward(),
      fill_: () => x.fill_(0),
      detach: () => x.detach(),
      keep: () => keep(x),
    };
    for (const [op, use] of Object.entries(uses)) {
      const error = thrownBy(use);
      expect(error, op).toBeInstanceOf(DisposedError);
      expect((error as DisposedError).code).toBe('ERR_DISPOSED');
      expect((error as Error).message).toContain('[2]');
      expect((error as Error).message).toContain(`${op}:`);
    }
    expect([x.shape, x.dtype, String(x).includes('disposed')]).toEqual([[2], 'float64', true]);
  });

  it('happens at the end of a block that declares with `using`', () => {
    let seen: Tensor;
    {
      using x = zeros([2]);
      seen = x;
      expect(x.disposed).toBe(false);
    }
    expect(seen.disposed).toBe(true);
  });
});
