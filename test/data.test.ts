// Datasets, collating, loaders and how they resume.
import { describe, expect, it } from 'vitest';
import { arange, data, Generator, manualSeed, ones, stack, type Tensor, tensor, zeros } from '../lib/index.ts';

const values = (t: Tensor): number[] => Array.from(t.toTypedArray(), Number);
const numbers = (length: number): data.TensorDataset<[Tensor]> => new data.TensorDataset(arange(length));
const epoch = (loader: Iterable<[Tensor]>): number[][] => Array.from(loader, ([x]) => values(x));
const sorted = (x: number[]): number[] => [...x].sort((a, b) => a - b);

/** Sample i as nested data, without a fast path to batches. */
class Squares implements data.Dataset<{ x: Tensor; pair: [number, boolean]; name: string }> {
  readonly length = 5;
  get(i: number): { x: Tensor; pair: [number, boolean]; name: string } {
    return { x: tensor([i, i * i]), pair: [i + 0.5, i % 2 === 0], name: `n${i}` };
  }
}

describe('TensorDataset', () => {
  it('gives rows one by one or by a list of indices', () => {
    const set = new data.TensorDataset(
      tensor([
        [1, 2],
        [3, 4],
        [5, 6],
      ]),
      tensor([7, 8, 9], { dtype: 'int32' }),
    );
    expect(set.length).toBe(3);
    expect(set.get(1).map(values)).toEqual([[3, 4], [8]]);
    const batch = set.getBatch(tensor([2, 0], { dtype: 'int32' }));
    expect(batch.map(values)).toEqual([
      [5, 6, 1, 2],
      [9, 7],
    ]);
    expect(batch.map(({ dtype }) => dtype)).toEqual(['float32', 'int32']);
  });

  it('refuses tensors without common rows', () => {
    expect(() => new data.TensorDataset(zeros([3, 2]), zeros([4]))).toThrow('shapes [3,2] and [4]');
    expect(() => new data.TensorDataset(zeros([]))).toThrow('Expected equal first sizes');
    expect(() => new data.TensorDataset()).toThrow('got no tensors');
  });
});

describe('collate', () => {
  it('follows the structure of the samples', () => {
    const [first, second] = [...new data.DataLoader(new Squares(), { batchSize: 3 })];
    expect(values(first!.x)).toEqual([0, 0, 1, 1, 2, 4]);
    expect(first!.x.shape).toEqual([3, 2]);
    expect(values(first!.pair[0])).toEqual([0.5, 1.5, 2.5]);
    expect(first!.pair[1].dtype).toBe('bool');
    expect(values(first!.pair[1])).toEqual([1, 0, 1]);
    expect(first!.name).toEqual(['n0', 'n1', 'n2']);
    expect(second!.name).toEqual(['n3', 'n4']);
  });

  it('refuses samples of different structure', () => {
    expect(() => data.collate<object>([{ a: 1 }, { b: 1 }])).toThrow('differ in structure');
    expect(() => data.collate<object>([[1], [1, 2]])).toThrow('differ in structure');
    expect(() => data.collate<unknown>([[1], null])).toThrow('differ in structure');
  });

  it('may be the user’s', () => {
    const loader = new data.DataLoader(new Squares(), {
      batchSize: 2,
      collate: (samples) =>
        stack(samples.map(({ x }) => x))
          .sum()
          .item(),
    });
    expect([...loader]).toEqual([2, 18, 20]);
  });
});

describe('DataLoader', () => {
  it('goes through the data in order, the last batch being smaller or left out', () => {
    const loader = new data.DataLoader(numbers(7), { batchSize: 3 });
    expect(epoch(loader)).toEqual([[0, 1, 2], [3, 4, 5], [6]]);
    expect(epoch(loader)).toEqual([[0, 1, 2], [3, 4, 5], [6]]);
    expect(loader.length).toBe(3);
    const dropping = new data.DataLoader(numbers(7), { batchSize: 3, dropLast: true });
    expect(epoch(dropping)).toEqual([
      [0, 1, 2],
      [3, 4, 5],
    ]);
    expect(dropping.length).toBe(2);
    expect(epoch(new data.DataLoader(numbers(2)))).toEqual([[0], [1]]);
    expect(epoch(new data.DataLoader(numbers(0), { shuffle: true }))).toEqual([]);
  });

  it('shuffles anew each epoch, every sample once, as the generator says', () => {
    const make = (seed: number) =>
      new data.DataLoader(numbers(50), { batchSize: 8, shuffle: true, generator: new Generator(seed) });
    const [a, b, c] = [make(1), make(1), make(2)];
    const [first, second] = [epoch(a), epoch(a)];
    for (const order of [first, second]) expect(sorted(order.flat())).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(first).not.toEqual(second);
    expect([epoch(b), epoch(b)]).toEqual([first, second]);
    expect(epoch(c)).not.toEqual(first);

    manualSeed(9);
    const order = epoch(new data.DataLoader(numbers(50), { shuffle: true }));
    manualSeed(9);
    expect(epoch(new data.DataLoader(numbers(50), { shuffle: true }))).toEqual(order);
  });

  it('keeps inputs and labels together', () => {
    const set = new data.TensorDataset(arange(100), arange(100).mul(2));
    for (const [x, y] of new data.DataLoader(set, { batchSize: 7, shuffle: true }))
      expect(values(x.mul(2))).toEqual(values(y));
  });

  it('starts a new epoch after a loop that was left', () => {
    const loader = new data.DataLoader(numbers(6), { batchSize: 2, shuffle: true, generator: new Generator(3) });
    const reference = new data.DataLoader(numbers(6), { batchSize: 2, shuffle: true, generator: new Generator(3) });
    for (const _ of loader) break;
    epoch(reference);
    expect(epoch(loader)).toEqual(epoch(reference));
  });

  it.each([0, 1, 2, 3, 4, 5])('resumes after batch %i with the very same sequence', (stop) => {
    const make = () => new data.DataLoader(numbers(10), { batchSize: 4, shuffle: true });
    const loader = make();
    const rest: number[][] = [];
    let state = JSON.stringify(loader.stateDict());
    let count = 0;
    for (let i = 0; i < 4; i++) {
      for (const [x] of loader) {
        if (count >= stop) rest.push(values(x));
        if (++count === stop) state = JSON.stringify(loader.stateDict());
      }
    }
    const resumed = make();
    resumed.loadStateDict(JSON.parse(state) as data.DataLoaderState);
    const got: number[][] = [];
    while (got.length < rest.length) got.push(...epoch(resumed));
    expect(got).toEqual(rest);
  });

  it('refuses a state of another data set or loader', () => {
    const plain = new data.DataLoader(numbers(3));
    const shuffled = new data.DataLoader(numbers(3), { shuffle: true });
    const state = shuffled.stateDict();
    expect(() => shuffled.loadStateDict({ ...state, length: 4 })).toThrow('a dataset of 4 samples. Expected 3.');
    expect(() => shuffled.loadStateDict(plain.stateDict())).toThrow('without shuffle');
    expect(() => plain.loadStateDict(state)).toThrow('with shuffle');
    expect(() => shuffled.loadStateDict({ ...state, position: 4 })).toThrow('position 4 is behind the last');
    expect(() => shuffled.loadStateDict({ ...state, epoch: -1 })).toThrow('epoch is -1');
    expect(() => shuffled.loadStateDict({ ...state, seed: 0.5 })).toThrow('seed is 0.5');
    expect(shuffled.stateDict()).toEqual(state);
  });

  it('gives the same batches asynchronously, and lets timers fire between them', async () => {
    const make = () => new data.DataLoader(numbers(9), { batchSize: 2, shuffle: true, generator: new Generator(4) });
    const got: number[][] = [];
    const turns: number[] = [];
    for await (const [x] of make()) {
      setImmediate(() => turns.push(got.length));
      got.push(values(x));
    }
    expect(got).toEqual(epoch(make()));
    expect(turns).toEqual([1, 2, 3, 4, 5]);
  });

  it('explains what it cannot do', () => {
    expect(() => new data.DataLoader(numbers(3), { batchSize: 0 })).toThrow('batchSize is 0');
    expect(() => new data.DataLoader(numbers(3), { batchsize: 2 } as object)).toThrow('unknown option "batchsize"');
  });

  it('hands out tensors that are not views of the data', () => {
    const x = ones([4]);
    for (const [batch] of new data.DataLoader(new data.TensorDataset(x), { batchSize: 2 })) batch.zero_();
    expect(values(x)).toEqual([1, 1, 1, 1]);
  });
});
