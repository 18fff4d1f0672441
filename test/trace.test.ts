// trace: every step forward and backward, with the engine's own numbers; and parseTrace, which takes nothing else.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  checkpoint,
  crossEntropy,
  FormatError,
  log,
  mseLoss,
  nn,
  parseTrace,
  randint,
  randn,
  ShapeError,
  type Tensor,
  type Trace,
  type TraceStep,
  trace,
  zeros,
} from '../lib/index.ts';
import { leaf, thrownBy, values } from './support.ts';

type Backward = Extract<TraceStep, { pass: 'backward' }>;
const backwardOf = ({ steps }: Trace): Backward[] => steps.filter((step) => step.pass === 'backward');
const nameOf = ({ nodes }: Trace, id: number): string => nodes[id]!.name || nodes[id]!.op;
/** The last sum that arrived at the node of that name. */
const arrivedAt = (t: Trace, name: string): readonly unknown[] | null | undefined =>
  backwardOf(t)
    .flatMap(({ edges }) => edges)
    .findLast(({ to }) => nameOf(t, to) === name)?.sum.data;

const square = (): Trace => {
  const [x, w, b] = [leaf(3), leaf(2), leaf(1)];
  return trace(() => x.mul(w).add(b).square(), { names: { x, w, b } });
};

describe('trace', () => {
  it('tells value, local derivative, upstream, product and sum of each step of y = (xw + b)²', () => {
    const t = square();
    const forward = t.steps.filter(({ pass }) => pass === 'forward');
    expect(forward.map(({ node }) => [t.nodes[node]!.op, t.nodes[node]!.value.data])).toEqual([
      ['mul', [6]],
      ['add', [7]],
      ['square', [49]],
    ]);
    expect(nameOf(t, t.loss)).toBe('square');
    const told = backwardOf(t).map(({ node, upstream, edges }) => [
      nameOf(t, node),
      upstream.data,
      edges.map(({ to, local, product, sum }) => [nameOf(t, to), local?.data, product.data, sum.data]),
    ]);
    expect(told).toEqual([
      ['square', [1], [['add', [14], [14], [14]]]],
      [
        'add',
        [14],
        [
          ['mul', [1], [14], [14]],
          ['b', [1], [14], [14]],
        ],
      ],
      [
        'mul',
        [14],
        [
          ['x', [2], [28], [28]],
          ['w', [3], [42], [42]],
        ],
      ],
    ]);
  });

  it('adds up over paths', () => {
    const x = leaf(3);
    const t = trace(
      () => {
        const a = x.square();
        return a.mul(2).add(a.mul(3)).add(x);
      },
      { names: { x } },
    );
    const sums = backwardOf(t)
      .flatMap(({ edges }) => edges)
      .map(({ to, product, sum }) => [nameOf(t, to), product.data, sum.data]);
    expect(sums).toContainEqual(['square', [3], [3]]);
    expect(sums).toContainEqual(['square', [2], [5]]);
    expect(sums).toContainEqual(['x', [1], [1]]);
    expect(sums).toContainEqual(['x', [30], [31]]);
  });

  it('ends at the gradients that backward() gives, and leaves every grad alone', () => {
    const model = new nn.Sequential(new nn.Linear(3, 4), new nn.Tanh(), new nn.LayerNorm(4), new nn.Linear(4, 2));
    const [x, y] = [randn([5, 3]), randn([5, 2])];
    const loss = (): Tensor => mseLoss(model.call(x), y);
    const t = trace(loss);
    for (const parameter of model.parameters()) expect(parameter.grad).toBe(null);
    loss().backward();
    for (const [name, { grad }] of model.namedParameters()) {
      expect(arrivedAt(t, name)).toEqual(values(grad!).map((value) => Number(value.toPrecision(9))));
    }
    expect(
      backwardOf(t)
        .find(({ node }) => nameOf(t, node) === 'layerNorm')!
        .edges.map(({ local }) => local),
    ).toEqual([null, null, null]);
  });

  it('says where: module, line, parameters, what came in', () => {
    const model = new nn.Sequential(new nn.Linear(3, 4), new nn.Sequential(new nn.ReLU()));
    const t = trace(() => model.call(randn([2, 3])).sum());
    const ops = t.nodes.filter(({ kind }) => kind === 'op');
    expect(ops.map(({ op, module }) => [op, module])).toEqual([
      ['addmm', '0'],
      ['relu', '1.0'],
      ['sum', ''],
    ]);
    for (const { at } of ops) expect(at).toMatch(/^test\/trace\.test\.ts:\d+:\d+$/);
    expect(t.nodes.filter(({ kind }) => kind === 'parameter').map(({ name }) => name)).toEqual(['0.bias', '0.weight']);
    expect(t.nodes.filter(({ kind }) => kind === 'input').map(({ shape }) => shape)).toEqual([[2, 3]]);
  });

  it('shows what the graph holds rise and fall', () => {
    const model = new nn.Sequential(new nn.Linear(8, 16), new nn.ReLU(), new nn.Linear(16, 4));
    const [x, y] = [randn([10, 8]), randint(0, 4, [10])];
    const plain = trace(() => crossEntropy(model.call(x), y));
    // The input, then relu's result once for two; parameters are there in any case.
    const bytes = plain.steps.map((step) => step.bytes);
    expect(bytes.slice(0, 3)).toEqual([320, 960, 960]);
    expect(bytes.slice(-2)).toEqual([320, 0]);
    expect(bytes[3]).toBe(Math.max(...bytes));
  });

  it('shows a checkpoint compute again', () => {
    const part = new nn.Sequential(new nn.Linear(8, 16), new nn.Tanh());
    const head = new nn.Linear(16, 1);
    const x = randn([10, 8]);
    const t = trace(() => head.call(checkpoint((a: Tensor) => part.call(a), x)).sum());
    const passes = t.steps.map(({ pass, node }) => `${pass} ${nameOf(t, node)}`);
    const again = passes.indexOf('recompute addmm');
    expect(again).toBeGreaterThan(passes.indexOf('backward addmm'));
    expect(again).toBeLessThan(passes.indexOf('backward tanh'));
    expect(t.steps[again]!.bytes).toBeGreaterThan(t.steps[again - 1]!.bytes);
    expect(t.steps.at(-1)!.bytes).toBe(0);
  });

  it('sums up large tensors, and says what is no number', () => {
    const x = leaf([0, -1, 4, ...new Array(97).fill(2)], 'float32');
    const t = trace(() => log(x).sum(), { names: { x } });
    const { value } = t.nodes.find(({ op }) => op === 'log')!;
    expect(value).toMatchObject({ data: null, nan: 1, infinite: 1, zeros: 0, max: Number(Math.log(4).toPrecision(9)) });
    expect(value.histogram.reduce((a, b) => a + b)).toBe(98);
    expect(value.mean).toBeCloseTo((Math.log(4) + 97 * Math.log(2)) / 98, 6);
    const small = trace(() => log(leaf([0, -1], 'float32')).sum());
    expect(small.nodes.find(({ op }) => op === 'log')!.value.data).toEqual(['-Infinity', 'NaN']);
  });

  it('is bounded: what is too much is left out, and counted', () => {
    const x = leaf(1);
    const chain = (): Tensor => {
      let y = x;
      for (let i = 0; i < 100; i++) y = y.mul(1.5);
      return y;
    };
    const t = trace(chain, { maxNodes: 10 });
    expect(t.dropped).toBe(90);
    expect(t.nodes.length).toBe(11);
    expect(nameOf(t, t.loss)).toBe('mul');
    expect(t.nodes[t.loss]!.inputs).toEqual([null, null]);
    expect(parseTrace(JSON.stringify(t))).toEqual(t);
  });

  it('follows ops in place and views', () => {
    const x = leaf([1, 2, 3]);
    const t = trace(
      () => {
        const y = x.mul(2);
        y.slice(0, 0, 2).mul_(10);
        return y.sum();
      },
      { names: { x } },
    );
    expect(arrivedAt(t, 'x')).toEqual([20, 20, 2]);
  });

  it('refuses what it cannot trace', () => {
    expect(thrownBy(() => trace(3 as never))).toBeInstanceOf(ArgumentError);
    expect(thrownBy(() => trace(() => leaf([1, 2]).mul(2)))).toBeInstanceOf(ShapeError);
    expect(thrownBy(() => trace(() => zeros([])))).toBeInstanceOf(AutogradError);
    const outside = leaf(2).mul(3);
    expect(thrownBy(() => trace(() => outside))).toBeInstanceOf(AutogradError);
    expect(thrownBy(() => trace(() => leaf(2).mul(3), { maxNodes: 10 ** 6 }))).toBeInstanceOf(ArgumentError);
    expect(thrownBy(() => trace(() => leaf(2).mul(3), { names: { x: 3 as never } }))).toBeInstanceOf(ArgumentError);
    expect(() => trace((async () => leaf(2).mul(3)) as never)).toThrow(/Promise/);
  });
});

describe('parseTrace', () => {
  const text = JSON.stringify(square());

  it('gives back what was written', () => {
    expect(parseTrace(text)).toEqual(square());
  });

  /** The file with something else at a path; undefined takes it out. */
  const changed = (path: readonly (string | number)[], value: unknown): string => {
    const t: unknown = JSON.parse(text);
    const parent = path.slice(0, -1).reduce((at, key) => (at as Record<string, unknown>)[key], t);
    (parent as Record<string, unknown>)[path.at(-1)!] = value;
    return JSON.stringify(t);
  };
  it.each<[string, string, RegExp]>([
    ['cut off', text.slice(0, 500), /not JSON, or cut off/],
    ['foreign', '{"nodes": []}', /no trace/],
    ['of another kind', '[1, 2]', /the file is \[1,2\]/],
    ['a later version', changed(['version'], 2), /version is 2; this reads 1/],
    ['empty', changed(['nodes'], []), /nodes is empty/],
    ['a cycle', changed(['nodes', 2, 'inputs'], [2]), /nodes\[2\].inputs is 2, not a whole number below 2/],
    ['too many nodes', changed(['nodes'], new Array(20_001).fill(0)), /has 20001 entries/],
    ['a long name', changed(['nodes', 0, 'name'], 'x'.repeat(1001)), /nodes\[0\].name has 1001 characters/],
    ['a wrong number', changed(['nodes', 0, 'value', 'data'], ['<b>']), /nodes\[0\].value.data has "<b>"/],
    ['an edge elsewhere', changed(['steps', 5, 'edges', 0, 'to'], 4), /not that input of node/],
    ['no loss', changed(['loss'], undefined), /loss is missing/],
  ])('refuses a file that is %s', (_, file, message) => {
    expect(() => parseTrace(file)).toThrow(FormatError);
    expect(() => parseTrace(file)).toThrow(message);
  });

  it('takes nothing along that it does not know', () => {
    const file = text.replace('"kind"', '"__proto__":{"polluted":true},"extra":1,"kind"');
    expect(parseTrace(file)).toEqual(parseTrace(text));
    expect(({} as { polluted?: boolean }).polluted).toBe(undefined);
  });

  it('refuses any other file with a FormatError', () => {
    const junk = fc.oneof(fc.jsonValue(), fc.constantFrom(null, 1e308, -1, 'NaN', [], {}));
    const paths: (string | number)[][] = [];
    const walk = (value: unknown, path: (string | number)[]): void => {
      paths.push(path);
      if (typeof value !== 'object' || value === null) return;
      for (const [key, entry] of Object.entries(value)) walk(entry, [...path, key]);
    };
    walk(JSON.parse(text), []);
    fc.assert(
      fc.property(fc.constantFrom(...paths.slice(1)), junk, (path, value) => {
        const file = changed(path, value);
        const error = thrownOrNull(() => parseTrace(file));
        if (error !== null) expect(error).toBeInstanceOf(FormatError);
      }),
      { numRuns: 2000 },
    );
  });
});

function thrownOrNull(fn: () => unknown): unknown {
  try {
    fn();
    return null;
  } catch (error) {
    return error;
  }
}
