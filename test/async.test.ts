// Work beside the event loop: the same bits, in order, with aborts, errors, back-pressure and reads that wait.
import { setImmediate, setTimeout } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  CaptureError,
  compile,
  crossEntropy,
  IndexError,
  manualSeed,
  memoryStats,
  nn,
  optim,
  randint,
  randn,
  run,
  setNumThreads,
  type Tensor,
  tensor,
  trimMemory,
} from '../lib/index.ts';
import { bitsOf, leaf, thrownBy, trainingStep, values } from './support.ts';

function job(sizes = [6, 32, 3]): {
  model: nn.Sequential;
  step: (x: Tensor, y: Tensor) => Tensor;
  predict: (x: Tensor) => Tensor;
} {
  manualSeed(11);
  const model = new nn.Sequential(
    new nn.Linear(sizes[0]!, sizes[1]!),
    new nn.GELU(),
    new nn.Linear(sizes[1]!, sizes[2]!),
  );
  const optimizer = new optim.Adam(model.parameters(), { lr: 0.01 });
  return {
    model,
    predict: (x) => model.call(x),
    step: trainingStep(optimizer, (x, y) => crossEntropy(model.call(x), y)),
  };
}

const batches = (n: number): [Tensor, Tensor][] => {
  manualSeed(3);
  return Array.from({ length: n }, () => [randn([16, 6]), randint(0, 3, [16])]);
};
const stateOf = (model: nn.Module): string[] => [...model.stateDict().values()].map(bitsOf);

/** Long enough to be under way when asked: hundreds of milliseconds. */
function long(): { f: (x: Tensor) => Tensor; x: Tensor } {
  const w = randn([512, 512]).mul(0.05);
  const f = (x: Tensor): Tensor => {
    let y = x;
    for (let i = 0; i < 100; i++) y = y.matmul(w).tanh();
    return y;
  };
  return { f, x: randn([512, 512]) };
}

describe('steps beside the event loop', () => {
  it('end in the bits of ordinary ones, awaited or not', async () => {
    const plain = job();
    const expected = batches(20).map(([x, y]) => bitsOf(plain.step(x, y)));
    for (const awaited of [true, false]) {
      const { model, step } = job();
      const compiled = compile(step);
      const losses: (Tensor | Promise<Tensor>)[] = [];
      for (const [x, y] of batches(20)) losses.push(awaited ? await compiled.async(x, y) : compiled.async(x, y));
      expect((await Promise.all(losses)).map(bitsOf)).toEqual(expected);
      expect(stateOf(model)).toEqual(stateOf(plain.model));
    }
  });

  it('mix with ordinary ones and predictions, in the order of the calls', async () => {
    const plain = job();
    const mixed = job();
    const step = compile(mixed.step);
    const predict = compile(mixed.predict);
    const expected: string[] = [];
    const got: Promise<string>[] = [];
    for (const [i, [x, y]] of batches(12).entries()) {
      expected.push(bitsOf(plain.step(x, y)), bitsOf(plain.predict(x)));
      if (i % 3 === 0) got.push(Promise.resolve(bitsOf(mixed.step(x, y))));
      else if (i % 3 === 1) got.push(Promise.resolve(bitsOf(step(x, y))));
      else got.push(step.async(x, y).then(bitsOf));
      got.push(i % 2 === 0 ? predict.async(x).then(bitsOf) : Promise.resolve(bitsOf(predict(x))));
    }
    expect(await Promise.all(got)).toEqual(expected);
  });

  it('leave the event loop free', async () => {
    const { f, x } = long();
    const compiled = compile(f);
    const expected = bitsOf(f(x));
    compiled(x);
    let turns = 0;
    let going = true;
    const counting = (async () => {
      for (; going; turns++) await setImmediate();
    })();
    const y = await compiled.async(x);
    going = false;
    await counting;
    expect(turns).toBeGreaterThan(100);
    expect(bitsOf(y)).toBe(expected);
  });

  it('run(fn) does once what compile does often', async () => {
    const w = leaf([1, 2], 'float32');
    const result = await run(() => {
      const y = w.mul(3);
      y.sum().backward();
      return { y, list: [y.neg()] };
    });
    expect(values(result.y)).toEqual([3, 6]);
    expect(values(result.list[0]!)).toEqual([-3, -6]);
    expect(values(w.grad!)).toEqual([3, 3]);
    await expect(run(() => w.sum().item())).rejects.toThrow(CaptureError);
  });
});

describe('a tensor in flight', () => {
  it('is waited for by whoever reads it', async () => {
    const { f, x } = long();
    const compiled = compile(f);
    const expected = bitsOf(f(x));
    const done = compiled.async(x);
    // The input is in flight: a change must come after the run.
    x.fill_(0);
    expect(bitsOf(await done)).toBe(expected);
    expect(values(x.sum())).toEqual([0]);
  });

  it('can be read beside the event loop', async () => {
    const w = tensor([1, 2]);
    const { f, x } = long();
    const change = compile((t: Tensor) => {
      const y = f(t);
      w.add_(y.narrow(0, 0, 1).narrow(1, 0, 2).reshape([2]).mul(0).add(1));
    });
    const done = change.async(x);
    expect(await w.toArrayAsync()).toEqual([2, 3]);
    expect(await w.sum().itemAsync()).toBe(5);
    expect(await w.toTypedArrayAsync()).toEqual(Float32Array.of(2, 3));
    await done;
  });

  it('is not collected when nobody else holds it', async () => {
    const { f, x } = long();
    const compiled = compile((t: Tensor) => f(t).sum());
    const expected = bitsOf(compiled(x));
    const sums = [compiled.async(x.clone()), compiled.async(x.clone())];
    for (let i = 0; i < 5; i++) {
      await setImmediate();
      globalThis.gc!();
      trimMemory();
      for (let k = 0; k < 4; k++) x.mul(k);
    }
    expect((await Promise.all(sums)).map(bitsOf)).toEqual([expected, expected]);
  });

  it('may be disposed: it is freed afterwards', async () => {
    const { f, x } = long();
    const compiled = compile(f);
    (await compiled.async(x)).dispose();
    const live = (): number => {
      globalThis.gc!();
      trimMemory();
      return memoryStats().liveTensors;
    };
    const before = live();
    for (let i = 0; i < 3; i++) {
      const input = x.clone();
      const done = compiled.async(input);
      input.dispose();
      (await done).dispose();
    }
    expect(live()).toBe(before);
  });
});

describe('an abort', () => {
  it('takes effect between two commands, and others go on', async () => {
    const { f, x } = long();
    const compiled = compile(f);
    const expected = bitsOf(compiled(x));
    const controller = new AbortController();
    const first = compiled.async(x, { signal: controller.signal });
    const waiting = compiled.async(x, { signal: controller.signal });
    const last = compiled.async(x);
    await setTimeout(5);
    controller.abort(new Error('enough'));
    await expect(first).rejects.toThrow('enough');
    await expect(waiting).rejects.toThrow('enough');
    expect(bitsOf(await last)).toBe(expected);
  });

  it('before the call, or after the end, does nothing else', async () => {
    const double = compile((t: Tensor) => t.mul(2));
    const x = tensor([1, 2]);
    await expect(double.async(x, { signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow('no');
    const controller = new AbortController();
    const y = await double.async(x, { signal: controller.signal });
    controller.abort();
    expect(values(y)).toEqual([2, 4]);
    expect(values(await double.async(x, { signal: undefined as never }))).toEqual([2, 4]);
    await expect(double.async(x, { signal: 3 } as never)).rejects.toThrow(ArgumentError);
  });
});

describe('errors', () => {
  it('of a run reject its promise, and no other', async () => {
    const table = randn([4, 2]);
    const pick = compile((i: Tensor) => table.indexSelect(0, i));
    const good = tensor([0, 3], { dtype: 'int32' });
    const bad = tensor([0, 4], { dtype: 'int32' });
    const all = await Promise.allSettled([pick.async(good), pick.async(bad), pick.async(good)]);
    expect(all.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    const { reason } = all[1] as PromiseRejectedResult;
    expect(reason).toBeInstanceOf(IndexError);
    expect(reason.message).toBe('indexSelect: index 4 at position 1 is outside [0, 3].');
    expect(thrownBy(() => pick(bad))).toBeInstanceOf(IndexError);
  });

  it('of recording reject, too', async () => {
    await expect(compile((t: Tensor) => t.item()).async(tensor([1]))).rejects.toThrow(CaptureError);
    let inner: Promise<unknown> | undefined;
    compile((t: Tensor) => {
      inner = compile((u: Tensor) => u).async(t);
      inner.catch(() => {});
    })(tensor([1]));
    await expect(inner).rejects.toThrow(CaptureError);
  });
});

describe('back-pressure', () => {
  it('holds calls back until there is room, in order', async () => {
    const w = tensor([0]);
    const order: number[] = [];
    const add = compile((t: Tensor) => w.mul_(3).add_(t).clone());
    const results = Array.from({ length: 300 }, async (_, i) => {
      const y = await add.async(tensor([i % 3]));
      order.push(i);
      return y;
    });
    await Promise.all(results);
    expect(order).toEqual(Array.from({ length: 300 }, (_, i) => i));
    let expected = 0;
    for (let i = 0; i < 300; i++) expected = Math.fround(Math.fround(expected * 3) + (i % 3));
    expect(values(w)).toEqual([expected]);
  });

  it('threads for the background are checked', () => {
    expect(() => setNumThreads(1, { background: -1 })).toThrow(ArgumentError);
    expect(() => setNumThreads(1, { nice: 20 })).toThrow(ArgumentError);
    expect(() => setNumThreads(1, { speed: 20 } as never)).toThrow(ArgumentError);
  });
});
