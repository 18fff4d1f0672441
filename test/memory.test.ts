// Memory: counters that return to where they were, loops that do not grow, and errors when there is none left.
// What resident memory does is measured in processes of their own.
import { describe, expect, it } from 'vitest';
import {
  grad,
  linear,
  memoryStats,
  noGrad,
  randn,
  resetPeakMemory,
  scope,
  type Tensor,
  tensor,
  trimMemory,
  zeros,
} from '../lib/index.ts';
import { runFixture, thrownBy } from './support.ts';

const MB = 1e6;
const MANY = 60_000;

describe('memoryStats', () => {
  const counts = (): number[] => {
    const { liveBytes, liveTensors } = memoryStats();
    return [liveBytes, liveTensors];
  };

  it('counts what a scope made, and no more after it', () => {
    const [x, w] = [randn([32, 8]), randn([4, 8], { requiresGrad: true })];
    const loss = (): Tensor => linear(x, w).tanh().softmax(1).square().mean();
    const before = counts();
    for (let i = 0; i < 3; i++) {
      const inside = scope(() => {
        noGrad(loss);
        grad(loss(), w);
        return counts();
      });
      expect(inside[0]).toBeGreaterThan(before[0]!);
      expect(counts()).toEqual(before);
    }
  });

  it('counts what an unused graph saved until the collector has it', () => {
    const collected = (): number[] => {
      for (let i = 0; i < 2; i++) {
        globalThis.gc!();
        trimMemory();
      }
      return counts();
    };
    const w = randn([4, 8], { requiresGrad: true });
    const before = collected();
    scope(() => {
      const [g] = grad(w.tanh().softmax(1).square().mean(), w, { createGraph: true });
      g!.square().sum();
    });
    expect(counts()[0]).toBeGreaterThan(before[0]!);
    expect(collected()).toEqual(before);
  });

  it('is the same after calls that throw', () => {
    const [x, index] = [randn([3, 2]), tensor([0, 7], { dtype: 'int32' })];
    const y = randn([2], { requiresGrad: true });
    const before = counts();
    scope(() => {
      thrownBy(() => x.matmul(x));
      thrownBy(() => x.indexSelect(0, index));
      thrownBy(() => x.mul(2).exp().sum(5));
      thrownBy(() => y.neg().backward());
    });
    expect(counts()).toEqual(before);
    expect([index.toArray(), x.toTypedArray().length]).toEqual([[0, 7], 6]);
  });

  it('remembers the peak until it is reset', () => {
    resetPeakMemory();
    const { liveBytes } = memoryStats();
    const x = zeros([1 << 20]);
    x.dispose();
    expect(memoryStats().peakBytes).toBeGreaterThanOrEqual(liveBytes + (4 << 20));
    resetPeakMemory();
    expect(memoryStats().peakBytes).toBe(memoryStats().liveBytes);
  });

  it('tells what is cached, which trimMemory gives back', () => {
    const x = zeros([1 << 20]);
    const { cachedBytes } = memoryStats();
    x.dispose();
    expect(memoryStats().cachedBytes).toBeGreaterThanOrEqual(cachedBytes + (4 << 20));
    trimMemory();
    expect(memoryStats().cachedBytes).toBeLessThan(1 << 20);
  });
});

describe('a synchronous loop', () => {
  it.each([
    ['that trains', [], 0],
    ['whose every tenth step throws', ['throw'], 500],
  ])('%s neither grows nor leaks', { timeout: MANY }, async (_, args, planned) => {
    const { peakRss, leaked, thrown } = await runFixture<{
      peakRss: number;
      leaked: { native: number; heap: number; tensors: number };
      thrown: number;
    }>('train-loop.ts', { args, flags: ['--expose-gc'] });
    expect([leaked.tensors, thrown]).toEqual([0, planned]);
    expect(leaked.native).toBeLessThan(20 * MB);
    expect(leaked.heap).toBeLessThan(2 * MB);
    expect(peakRss).toBeLessThan(400 * MB);
  });

  it('frees large tensors as it goes', { timeout: MANY }, async () => {
    const { sum, peakRss } = await runFixture<{ sum: number; peakRss: number }>('many-tensors.ts');
    expect(sum).toBe(5000);
    expect(peakRss).toBeLessThan(500 * MB);
  });
});

describe('without memory', () => {
  it('throws the same error again and again, then goes on', { timeout: MANY }, async () => {
    const result = await runFixture<{
      held: number;
      intact: boolean;
      errors: number;
      error: { name: string; code: string; message: string };
      first: number;
      last: number;
    }>('out-of-memory.ts', { env: { CHAINRULE_MEMORY_LIMIT: String(40 << 20) } });
    expect(result).toMatchObject({ held: 9, intact: true, errors: 201 });
    expect(result.error).toMatchObject({ name: 'MemoryError', code: 'ERR_OUT_OF_MEMORY' });
    expect(result.error.message).toMatch(/4\.0 MiB.*36\.\d MiB live.*cached.*limit 40\.0 MiB/);
    expect(result.last).toBeLessThan(result.first / 10);
  });

  it('fails cleanly or trains to the same bits, whichever allocation fails', { timeout: MANY }, async () => {
    interface Result {
      error: string | null;
      arenaCalls: number;
      first: string | null;
      second: string;
    }
    const run = (n: number): Promise<Result> =>
      runFixture<Result>('failing-allocation.mjs', { env: { CHAINRULE_FAIL_ALLOC: String(n) } });
    const { second: reference, arenaCalls } = await run(0);
    expect(arenaCalls).toBeGreaterThan(20);
    const results: Result[] = [];
    // Four at a time: most of each is the start of a process.
    let next = 1;
    const worker = async (): Promise<void> => {
      while (next <= arenaCalls) results.push(await run(next++));
    };
    await Promise.all(Array.from({ length: 4 }, worker));
    expect(results).toHaveLength(arenaCalls);
    for (const { error, first, second } of results) {
      expect(second).toBe(reference);
      if (error === null) expect(first).toBe(reference);
      else expect(error).toBe('ERR_OUT_OF_MEMORY');
    }
  });
});
