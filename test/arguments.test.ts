// What users pass by mistake: every value that is not one an op takes gives an error of the library that names the op.
import { describe, expect, it } from 'vitest';
import * as c from '../lib/index.ts';
import { ArgumentError, ChainruleError, DTypeError, ShapeError, type Tensor, tensor, zeros } from '../lib/index.ts';
import { f64, leaf, thrownBy, values } from './support.ts';

const HOSTILE: Record<string, unknown> = {
  '-1': -1,
  '-0': -0,
  NaN: Number.NaN,
  '1.5': 1.5,
  '2^53': 2 ** 53,
  Infinity: Number.POSITIVE_INFINITY,
  bigint: 2n,
  string: '2',
  null: null,
  symbol: Symbol('s'),
  boolean: true,
  function: () => 1,
  'null prototype': Object.create(null),
  'list with a hole': Object.assign(new Array<number>(2), { 1: 1 }),
  'list of strings': ['1'],
};
type Accepted = readonly (keyof typeof HOSTILE)[];
const NOTHING: Accepted = [];
const SIZE: Accepted = ['-0'];
const DIM: Accepted = ['-1', '-0'];
const DIMS: Accepted = [...DIM, 'null'];
const NUMBER: Accepted = ['-1', '-0', 'NaN', '1.5', '2^53', 'Infinity'];

const x = (): Tensor =>
  tensor([
    [1, 2, 3],
    [4, 5, 6],
  ]);
const int = (data: number[] | number[][]): Tensor => tensor(data, { dtype: 'int32' });
const y = (): Tensor => leaf(1).mul(2);

type Row = [op: string, accepted: Accepted, call: (value: never) => unknown];
const CREATION: Row[] = [
  ['zeros', SIZE, (v) => c.zeros([v])],
  ['zeros', NOTHING, (v) => c.zeros(v)],
  ['ones', SIZE, (v) => c.ones([2, v])],
  ['empty', SIZE, (v) => c.empty([v])],
  ['full', SIZE, (v) => c.full([v], 1)],
  ['full', NUMBER, (v) => c.full([2], v)],
  ['fullLike', NUMBER, (v) => c.fullLike(x(), v)],
  ['zerosLike', NOTHING, (v) => c.zerosLike(v)],
  ['onesLike', NOTHING, (v) => c.onesLike(v)],
  ['eye', SIZE, (v) => c.eye(v)],
  // An object in place of a number is the options.
  ['eye', [...SIZE, 'null prototype'], (v) => c.eye(2, v)],
  ['arange', ['-0', '1.5'], (v) => c.arange(v)],
  ['arange', ['-0', '1.5', 'null prototype'], (v) => c.arange(0, v)],
  ['arange', ['1.5', '2^53', 'null prototype'], (v) => c.arange(0, 5, v)],
  ['linspace', NUMBER, (v) => c.linspace(v, 1, 3)],
  ['linspace', NUMBER, (v) => c.linspace(0, v, 3)],
  ['linspace', SIZE, (v) => c.linspace(0, 1, v)],
  ['rand', SIZE, (v) => c.rand([v])],
  ['randn', SIZE, (v) => c.randn([v, 2])],
  ['normal', NUMBER, (v) => c.normal(v, 1, [2])],
  ['normal', ['-0', '1.5', '2^53', 'Infinity'], (v) => c.normal(0, v, [2])],
  ['randint', DIM, (v) => c.randint(v, 5, [2])],
  ['randint', DIM, (v) => c.randint(-5, v, [2])],
  ['randint', SIZE, (v) => c.randint(0, 5, [v])],
  ['randperm', SIZE, (v) => c.randperm(v)],
  ['bernoulli', SIZE, (v) => c.bernoulli(v, [2])],
  ['tensor', [...NUMBER, 'boolean'], (v) => tensor([v])],
  ['tensor', [...NUMBER, 'boolean'], (v) => tensor([[1], [v]])],
  ['tensor', NOTHING, (v) => tensor([1, 2], { shape: [v] })],
  ['tensor', NOTHING, (v) => tensor([1, 2], { shape: v })],
  ['zeros', ['null'], (v) => c.zeros([2], { dtype: v })],
  ['rand', ['null'], (v) => c.rand([2], { generator: v })],
  ['to', NOTHING, (v) => x().to(v)],
  ['Generator', ['-1', '-0', 'bigint'], (v) => new c.Generator(v)],
  ['setNumThreads', NOTHING, (v) => c.setNumThreads(v)],
];
const SHAPE: Row[] = [
  ['reshape', ['-1'], (v) => x().reshape([v])],
  ['reshape', NOTHING, (v) => x().reshape(v)],
  ['view', ['-1'], (v) => x().view([v])],
  ['flatten', DIM, (v) => x().flatten(v)],
  ['flatten', DIM, (v) => x().flatten(0, v)],
  ['squeeze', DIM, (v) => x().squeeze(v)],
  ['unsqueeze', DIM, (v) => x().unsqueeze(v)],
  ['transpose', DIM, (v) => x().transpose(v, 1)],
  ['permute', ['-1'], (v) => x().permute([0, v])],
  ['permute', NOTHING, (v) => x().permute(v)],
  ['expand', SIZE, (v) => x().expand([v, 2, 3])],
  ['narrow', DIM, (v) => x().narrow(v, 0, 1)],
  ['narrow', DIM, (v) => x().narrow(0, v, 1)],
  ['narrow', SIZE, (v) => x().narrow(0, 0, v)],
  ['slice', DIM, (v) => x().slice(v)],
  ['slice', DIM, (v) => x().slice(0, v)],
  ['slice', DIM, (v) => x().slice(0, 0, v)],
  ['slice', NOTHING, (v) => x().slice(0, 0, 2, v)],
  ['select', DIM, (v) => x().select(v, 0)],
  ['select', DIM, (v) => x().select(0, v)],
  ['split', NOTHING, (v) => x().split(v)],
  ['split', NOTHING, (v) => x().split([1, v])],
  ['chunk', NOTHING, (v) => x().chunk(v)],
  ['diagonal', DIM, (v) => x().diagonal(v)],
  ['diagonal', SIZE, (v) => x().diagonal(0, v)],
  ['cat', NOTHING, (v) => c.cat([x(), v])],
  ['cat', DIM, (v) => c.cat([x()], v)],
  ['stack', NOTHING, (v) => c.stack(v)],
  ['stack', DIM, (v) => c.stack([x()], v)],
  ['repeat', SIZE, (v) => x().repeat([1, v])],
  ['flip', DIMS, (v) => x().flip(v)],
  ['roll', DIM, (v) => x().roll(v)],
  ['roll', DIM, (v) => x().roll(1, v)],
  ['pad', DIM, (v) => x().pad([v, 0])],
  ['pad', NUMBER, (v) => x().pad([1, 1], v)],
  ['tril', DIM, (v) => x().tril(v)],
  ['triu', DIM, (v) => x().triu(v)],
  ['indexSelect', DIM, (v) => x().indexSelect(v, int([0]))],
  ['indexSelect', NOTHING, (v) => x().indexSelect(0, v)],
  ['gather', DIM, (v) => x().gather(v, int([[0]]))],
  ['gather', NOTHING, (v) => x().gather(0, v)],
  ['scatterAdd', NOTHING, (v) => x().scatterAdd(0, int([[0]]), v)],
  ['embedding', NOTHING, (v) => c.embedding(v, x())],
  ['oneHot', NOTHING, (v) => c.oneHot(int([0]), v)],
  ['size', DIM, (v) => x().size(v)],
];
const COMPUTATION: Row[] = [
  ...(['sum', 'mean', 'prod', 'amax', 'amin', 'var', 'std', 'logsumexp'] as const).map(
    (op): Row => [op, DIMS, (v) => x()[op](v)],
  ),
  ...(['argmax', 'argmin', 'max', 'min', 'softmax', 'logSoftmax', 'cumsum'] as const).map(
    (op): Row => [op, DIM, (v) => x()[op](v)],
  ),
  ['norm', ['-1', '-0', '1.5', '2^53', 'Infinity'], (v) => x().norm({ p: v })],
  ['var', NUMBER, (v) => x().var(0, { correction: v })],
  ['add', NUMBER, (v) => x().add(v)],
  ['add_', NUMBER, (v) => x().add_(v)],
  ['pow', NUMBER, (v) => x().pow(v)],
  ['matmul', NOTHING, (v) => x().matmul(v)],
  ['where', NOTHING, (v) => c.where(v, x(), 1)],
  ['where', NUMBER, (v) => c.where(x().gt(1), v, x())],
  ['maskedFill', NOTHING, (v) => x().maskedFill(v, 1)],
  ['clamp', NUMBER, (v) => x().clamp({ min: v })],
  ['leakyRelu', NUMBER, (v) => x().leakyRelu(v)],
  ['gelu', NOTHING, (v) => x().gelu({ approximate: v })],
  ['fill_', NUMBER, (v) => x().fill_(v)],
  ['copy_', NOTHING, (v) => x().copy_(v)],
  ['linear', ['null'], (v) => c.linear(x(), x(), v)],
  ['layerNorm', NOTHING, (v) => x().layerNorm([v])],
  ['layerNorm', ['null'], (v) => x().layerNorm([3], v)],
  ['dropout', SIZE, (v) => x().dropout(v)],
  ['mseLoss', NOTHING, (v) => x().mseLoss(v)],
  ['mseLoss', NOTHING, (v) => x().mseLoss(x(), { reduction: v })],
  ['crossEntropy', NOTHING, (v) => x().crossEntropy(v)],
  ['crossEntropy', NOTHING, (v) => x().crossEntropy(int([0, 1]), { weight: v })],
  ['crossEntropy', SIZE, (v) => x().crossEntropy(int([0, 1]), { labelSmoothing: v })],
];
const GRAPH: Row[] = [
  ['backward', ['null'], (v) => y().backward(v)],
  ['backward', NOTHING, (v) => y().backward(null, { inputs: [v] })],
  ['backward', NOTHING, (v) => y().backward(null, { inputs: v })],
  ['grad', NOTHING, (v) => c.grad(v, x())],
  ['grad', NOTHING, (v) => c.grad(y(), [v])],
  ['grad', ['null'], (v) => Object.assign(x(), { grad: v })],
  ['requiresGrad_', ['boolean'], (v) => x().requiresGrad_(v)],
  ['registerHook', ['function'], (v) => y().registerHook(v)],
  ['scope', ['function'], (v) => c.scope(v)],
  ['noGrad', ['function'], (v) => c.noGrad(v)],
  ['keep', NOTHING, (v) => c.keep(v)],
];
const OPTIONS: Row[] = [
  ['zeros', ['null prototype'], (v) => c.zeros([2], v)],
  ['tensor', ['null prototype'], (v) => tensor([1], v)],
  ['randn', ['null prototype'], (v) => c.randn([2], v)],
  ['linspace', ['null prototype'], (v) => c.linspace(0, 1, 3, v)],
  ['sum', ['null prototype'], (v) => x().sum(0, v)],
  ['norm', ['null prototype'], (v) => x().norm(v)],
  ['mseLoss', ['null prototype'], (v) => x().mseLoss(x(), v)],
  ['crossEntropy', ['null prototype'], (v) => x().crossEntropy(int([0, 1]), v)],
  ['dropout', ['null prototype'], (v) => x().dropout(0.5, v)],
  ['backward', ['null prototype'], (v) => y().backward(null, v)],
  ['grad', ['null prototype'], (v) => c.grad([], [], v)],
];

function checkRow([op, accepted, call]: Row): void {
  for (const [name, value] of Object.entries(HOSTILE)) {
    if (accepted.includes(name)) {
      expect(() => call(value as never), name).not.toThrow();
      continue;
    }
    const error = thrownBy(() => call(value as never));
    expect(error, `${name}: ${String(error)}`).toBeInstanceOf(ChainruleError);
    expect((error as ChainruleError).code, name).not.toBe('ERR_INTERNAL');
    expect((error as ChainruleError).message, name).toMatch(new RegExp(`^(new )?${op}\\b`));
  }
}

describe.each([
  ['creation', CREATION],
  ['shape', SHAPE],
  ['computation', COMPUTATION],
  ['graph', GRAPH],
  ['options', OPTIONS],
])('hostile values in %s:', (_, rows) => {
  rows.forEach((row, i) => {
    it(`${row[0]} ${i}`, () => checkRow(row));
  });
});

describe('a shape', () => {
  it('is read once, entry by entry, and may throw its own error', () => {
    const boom = new Error('boom');
    const fail = new Proxy([2, 3], {
      get(target, key) {
        if (key === '1') throw boom;
        return Reflect.get(target, key) as unknown;
      },
    });
    expect(thrownBy(() => zeros(fail))).toBe(boom);
    expect(thrownBy(() => zeros([6]).reshape(fail))).toBe(boom);
    let reads = 0;
    const growing = new Proxy([2], {
      get: (target, key) => (key === '0' ? ++reads : (Reflect.get(target, key) as unknown)),
    });
    expect([zeros(growing).shape, reads]).toEqual([[1], 1]);
    const given = [2, 3];
    const t = zeros(given);
    given[0] = 99;
    expect(t.shape).toEqual([2, 3]);
  });

  it.each([
    ['zeros', () => zeros([2 ** 31, 2 ** 31, 4])],
    ['ones', () => c.ones([65536, 65536])],
    ['expand', () => zeros([1]).expand([2 ** 31, 2 ** 31])],
    ['repeat', () => zeros([2 ** 16]).repeat([2 ** 20])],
    [
      'outer',
      () =>
        zeros([1])
          .expand([2 ** 20])
          .outer(zeros([1]).expand([2 ** 20])),
    ],
    ['add', () => zeros([2 ** 20, 1]).add(zeros([2 ** 20]))],
    ['cat', () => c.cat(new Array<Tensor>(3).fill(zeros([1]).expand([2 ** 31])))],
    ['pad', () => zeros([1]).pad([2 ** 32, 0])],
    ['oneHot', () => c.oneHot(zeros([2 ** 10], { dtype: 'int32' }), 2 ** 31)],
    [
      'matmul',
      () =>
        zeros([1, 1])
          .expand([2 ** 17, 1])
          .matmul(zeros([1, 1]).expand([1, 2 ** 17])),
    ],
    ['arange', () => c.arange(2 ** 40)],
  ])('that overflows is refused: %s', (_, make) => {
    const error = thrownBy(make);
    expect(error).toBeInstanceOf(ShapeError);
    expect((error as Error).message).toMatch(/overflow/);
  });

  it.each([
    ['zeros', () => zeros(new Array<number>(9).fill(1))],
    ['reshape', () => zeros([1]).reshape(new Array<number>(9).fill(1))],
    ['unsqueeze', () => zeros(new Array<number>(8).fill(1)).unsqueeze(0)],
    ['stack', () => c.stack([zeros(new Array<number>(8).fill(1))])],
    ['tensor', () => tensor([[[[[[[[[1]]]]]]]]])],
    ['embedding', () => c.embedding(zeros(new Array<number>(8).fill(1), { dtype: 'int32' }), x())],
    ['oneHot', () => c.oneHot(zeros(new Array<number>(8).fill(1), { dtype: 'int32' }), 2)],
    ['repeat', () => zeros([1]).repeat(new Array<number>(9).fill(1))],
  ])('of more than 8 dimensions is refused: %s', (_, make) => {
    const error = thrownBy(make);
    expect(error).toBeInstanceOf(ShapeError);
    expect((error as Error).message).toMatch(/9 dimensions/);
  });
});

describe('a typed array', () => {
  const WHOLE = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array];
  const KINDS = [...WHOLE, Float32Array, Float64Array, Buffer] as unknown as (typeof Float32Array)[];
  const numbers = (t: Float32Array): number[] => Array.from(t, (_, i) => (t[i] = i + 1));
  const resizable = (bytes: number, most: number): ArrayBuffer =>
    new (ArrayBuffer as unknown as new (n: number, o: object) => ArrayBuffer)(bytes, { maxByteLength: most });

  it.each(KINDS)('of %o is copied whatever its memory', (kind) => {
    const size = kind === (Buffer as unknown) ? 1 : kind.BYTES_PER_ELEMENT;
    const make = (buffer: ArrayBufferLike, from?: number, n?: number): Float32Array =>
      kind === (Buffer as unknown)
        ? (Buffer.from(buffer as ArrayBuffer, from, n) as unknown as Float32Array)
        : new kind(buffer as ArrayBuffer, from, n);
    const states = [
      make(new ArrayBuffer(0)),
      make(new ArrayBuffer(5 * size)),
      make(new SharedArrayBuffer(5 * size)),
      make(resizable(5 * size, 50 * size)),
      make(new ArrayBuffer(20 * size), 3 * size, 7),
    ];
    for (const data of states) {
      const expected = numbers(data);
      const t = tensor(data);
      expect(values(t)).toEqual(expected);
      data.fill(0);
      expect(values(t)).toEqual(expected);
      expect(values(tensor(data, { dtype: 'float64', shape: [data.length] }))).toEqual(expected.map(() => 0));
    }
  });

  it('that its buffer left is refused', () => {
    const detached = new Float32Array(4);
    structuredClone(detached, { transfer: [detached.buffer] });
    expect(thrownBy(() => tensor(detached))).toBeInstanceOf(ArgumentError);
  });

  it.each([new BigInt64Array(2), new BigUint64Array(2), new DataView(new ArrayBuffer(8))])(
    'of a kind without a dtype is refused: %s',
    (data) => {
      expect(thrownBy(() => tensor(data as never))).toBeInstanceOf(ArgumentError);
    },
  );
});

describe('a smaller shape', () => {
  it.each([[[]], [[3]]])('%j is not one to expand to', (shape) => {
    expect(thrownBy(() => x().expand(shape))).toBeInstanceOf(ShapeError);
  });
});

describe('data', () => {
  it('that is ragged, or holds no numbers, is refused', () => {
    for (const data of [
      [[1], [1, 2]],
      [[1], 2],
      [1, [2]],
      [[[1]], [[1], [2]]],
    ]) {
      expect(
        thrownBy(() => tensor(data as never)),
        JSON.stringify(data),
      ).toBeInstanceOf(ShapeError);
    }
    for (const data of [['1'], [undefined], [null], {}, undefined, null, '1', 1n]) {
      expect(
        thrownBy(() => tensor(data as never)),
        String(data),
      ).toBeInstanceOf(ArgumentError);
    }
  });

  it('that changes while it is read is refused or read whole', () => {
    let extra = 0;
    const growing = new Proxy([1, 2, 3], {
      get: (target, key) => (key === 'length' ? 3 + extra++ : (Reflect.get(target, key) as unknown)),
    });
    let t: Tensor | null = null;
    try {
      t = tensor([growing, growing] as never);
    } catch (error) {
      expect(error).toBeInstanceOf(ChainruleError);
    }
    if (t !== null) expect(values(t)).toHaveLength(t.numel);
  });

  it('of two dtypes never meets in silence', () => {
    const error = thrownBy(() => tensor([1]).add(f64([1])));
    expect(error).toBeInstanceOf(DTypeError);
    expect((error as Error).message).toMatch(/add.*float32.*float64/);
  });
});
