// Worker threads: equal bits everywhere, safe ends, and tensors that do not cross. Runs the built package.
import { describe, expect, it } from 'vitest';
import { ArgumentError, add, DisposedError, tensor } from '../lib/index.ts';
import { leaf, runFixture, thrownBy } from './support.ts';

const run = <T>(mode: string, env?: NodeJS.ProcessEnv): Promise<T> =>
  runFixture<T>('workers.mjs', { args: [mode], ...(env && { env }) });

describe('workers', () => {
  it('compute at once, with the bits of the main thread, on any number of threads', async () => {
    const runs = await Promise.all(
      ['1', '4'].map((threads) => run<{ digests: string[] }>('equal', { CHAINRULE_THREADS: threads })),
    );
    const digests = runs.flatMap((result) => result.digests);
    expect(digests).toHaveLength(10);
    expect(new Set(digests).size).toBe(1);
  });

  it('may alone load the addon, and leave', async () => {
    expect(await run('alone', { CHAINRULE_THREADS: '4' })).toEqual({ codes: [0, 0, 0, 0, 0] });
  });

  it('may be terminated at work', async () => {
    const { slowest, same } = await run<{ slowest: number; same: boolean }>('terminate');
    expect(same).toBe(true);
    expect(slowest).toBeLessThan(2000);
  });
});

describe('a tensor', () => {
  it('that was cloned to another thread is refused there', () => {
    const error = thrownBy(() => add(structuredClone(tensor([1, 2])), 1));
    expect(error).toBeInstanceOf(ArgumentError);
    expect((error as Error).message).toMatch(/add.*this thread.*send data to workers, not tensors/);
    expect(error).not.toBeInstanceOf(DisposedError);
  });

  it('with a history cannot be cloned', () => {
    expect(thrownBy(() => structuredClone(leaf([1]).mul(2)))).toMatchObject({ name: 'DataCloneError' });
  });

  it('of another copy of the library is refused as such', () => {
    const foreign = { [Symbol.for('chainrule.tensor')]: true };
    const error = thrownBy(() => add(foreign as never, 1));
    expect(error).toBeInstanceOf(ArgumentError);
    expect((error as Error).message).toMatch(/another copy/);
  });
});
