// toDot, toSvg and flowToSvg: what is in the pictures, and that names from outside stay text.
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  flowToSvg,
  gradientFlow,
  type LayerFlow,
  manualSeed,
  nn,
  noGrad,
  ones,
  savedTensorsHooks,
  type Tensor,
  tensor,
  toDot,
  toSvg,
} from '../lib/index.ts';
import { leaf, runFixture, thrownBy } from './support.ts';

const square = (): Tensor => leaf(2).mul(leaf(3)).add(leaf(1)).square();
/** Labels of the nodes, in order. */
const labels = (dot: string): string[] => [...dot.matchAll(/label="((?:[^"\\]|\\.)*)"/g)].map(([, text]) => text!);
const edges = (dot: string): string[] => dot.match(/n\d+ -> n\d+/g) ?? [];

/** A tower of n additions over one leaf. */
function tower(n: number): Tensor {
  let t: Tensor = leaf([1, 2]);
  for (let i = 0; i < n; i++) t = t.add(1);
  return t;
}

describe('toDot', () => {
  it('draws y = (xw + b)^2 from the leaves to y', () => {
    expect(toDot(square())).toBe(`digraph chainrule {
  bgcolor="white";
  node [shape=box, style="rounded,filled", fillcolor="#f4f4f4", fontname="Helvetica", fontsize=11];
  edge [color="#666666"];
  n0 [label="leaf\\n[]", style=filled, fillcolor="#dcecff"];
  n1 [label="leaf\\n[]", style=filled, fillcolor="#dcecff"];
  n2 [label="MulBackward\\n[]\\nsaves 16 B"];
  n3 [label="leaf\\n[]", style=filled, fillcolor="#dcecff"];
  n4 [label="AddBackward\\n[]"];
  n5 [label="SquareBackward\\n[]\\nsaves 8 B", peripheries=2];
  n0 -> n2;
  n1 -> n2;
  n2 -> n4;
  n3 -> n4;
  n4 -> n5;
}
`);
  });

  it('names the parameters of a model, and has an edge for each use', () => {
    const model = new nn.Sequential(new nn.Linear(3, 2), new nn.ReLU());
    const y = model.call(ones([4, 3]));
    expect(labels(toDot(y, { model }))).toEqual(
      expect.arrayContaining(['0.weight\\n[2,3]', '0.bias\\n[2]', 'ReluBackward\\n[4,2]\\nsaves 32 B']),
    );
    expect(labels(toDot(y))).not.toContain('0.bias\\n[2]');
    const x = leaf(3);
    const shared = x.exp();
    expect(edges(toDot(shared.mul(shared)))).toEqual(['n0 -> n1', 'n1 -> n2', 'n1 -> n2']);
    expect(labels(toDot(x))).toEqual(['leaf\\n[]']);
  });

  it('says what was freed, and counts what a hook keeps', () => {
    const y = square();
    y.backward();
    expect(labels(toDot(y))).toContain('MulBackward\\n[]\\nsaved values freed');
    const packed = savedTensorsHooks(
      (t) => Array.from(t.toTypedArray() as Float64Array),
      (data) => tensor(data, { dtype: 'float64' }),
      () => leaf([1, 2, 3]).exp(),
    );
    expect(labels(toDot(packed))).toContain('ExpBackward\\n[3]\\nsaves 24 B');
  });

  it('keeps names inside their quotes', async () => {
    const hostile = 'a"];\nevil [label="<b>&lt;x&amp;\\N\\\u0000\u202e<script>';
    class Odd extends nn.Module {
      override forward(x: Tensor): Tensor {
        return x.mul((this as unknown as Record<string, Tensor>)[hostile]!);
      }
    }
    const model = new Odd();
    Reflect.set(model, hostile, new nn.Parameter(tensor([1])));
    const dot = toDot(model.call(tensor([2])), { model });
    expect(labels(dot)[0]).toBe('a\\"]; evil [label=\\"<b>&amp;lt;x&amp;amp;\\\\N\\\\  <script>\\n[1]');
    expect(labels(dot)).toHaveLength(2);
    const svg = await toSvg(model.call(tensor([2])), { model });
    expect(svg).not.toMatch(/<script|<b>/);
    expect(svg.match(/class="node"/g)).toHaveLength(2);
    expect(svg).toContain('&lt;script&gt;');
  });

  it('draws 2,000 nodes and refuses more', () => {
    expect(labels(toDot(tower(1999)))).toHaveLength(2000);
    const error = thrownBy(() => toDot(tower(2000))) as Error;
    expect(error).toBeInstanceOf(ArgumentError);
    expect(error.message).toMatch(/toDot: the graph has 2001 nodes, more than 2000\. Draw a part/);
  });

  it('refuses what has no graph', () => {
    const refusals: [() => unknown, typeof ArgumentError | typeof AutogradError, RegExp][] = [
      [() => toDot(tensor([1, 2])), AutogradError, /toDot: the tensor of shape \[2\] requires no grad/],
      [() => toDot(noGrad(square)), AutogradError, /requires no grad/],
      [() => toDot(3 as never), ArgumentError, /toDot: .*3/],
      [() => toDot(square(), { model: {} as never }), ArgumentError, /toDot: the model is a Object/],
      [() => toDot(square(), { names: 1 } as never), ArgumentError, /toDot: unknown option "names"/],
    ];
    for (const [fn, type, message] of refusals) {
      const error = thrownBy(fn);
      expect(error).toBeInstanceOf(type);
      expect((error as Error).message).toMatch(message);
    }
  });
});

describe('toSvg', () => {
  it('draws every node and edge', async () => {
    const svg = await toSvg(square());
    expect(svg).toMatch(/<svg [\s\S]*<\/svg>\s*$/);
    expect(svg.match(/class="node"/g)).toHaveLength(6);
    expect(svg.match(/class="edge"/g)).toHaveLength(5);
    expect(svg).toContain('>SquareBackward<');
    expect(svg).toContain('>saves 16 B<');
  });

  it('draws a graph of 2,000 nodes', async () => {
    expect((await toSvg(tower(1999))).match(/class="node"/g)).toHaveLength(2000);
  });

  it('rejects as toDot throws', async () => {
    await expect(toSvg(tensor([1]))).rejects.toThrow(/^toSvg: the tensor of shape \[1\] requires no grad/);
  });
});

describe('flowToSvg', () => {
  it('has a row for each layer and a point for each norm', async () => {
    manualSeed(1);
    const model = new nn.Sequential(new nn.Linear(3, 4), new nn.Sigmoid(), new nn.Linear(4, 2));
    const flow = gradientFlow(model, () => model.call(ones([5, 3])).sum());
    const svg = await flowToSvg(flow);
    expect(svg).toMatch(/^<svg [\s\S]*<\/svg>$/);
    // Three gradients of outputs, two of weights; the legend has two more.
    expect(svg.match(/aria-roledescription="point"/g)).toHaveLength(5);
    expect(svg).toContain('>|gradient|<');
    const rows = [...svg.matchAll(/>(\d \w+)<\/text>/g)].map(([, row]) => row);
    expect(rows).toEqual(['0 Linear', '1 Sigmoid', '2 Linear']);
  });

  it('says in words what has no place on a logarithmic scale', async () => {
    const layer = (name: string, norm: number | null): LayerFlow => ({
      name,
      type: 'ReLU',
      activation: { mean: 0, std: 0, zeros: 1 },
      gradient: norm === null ? null : { norm, zeros: 0 },
      weightGradNorm: null,
      ratio: null,
    });
    const flow = [layer('a<b>', 1), layer('dead', 0), layer('cut', null), layer('bad', Number.NaN)];
    const svg = await flowToSvg(flow);
    for (const text of ['a&lt;b&gt; ReLU', 'dead ReLU', 'cut ReLU', 'bad ReLU', '0', 'none', 'NaN']) {
      expect(svg).toContain(`>${text}</text>`);
    }
    expect(svg.match(/aria-roledescription="point"/g)).toHaveLength(1);
    const wide = await flowToSvg([layer('small', 1e-323), layer('large', 1.7e308)]);
    expect([...wide.matchAll(/"point" transform="translate\((\d+)/g)].map(([, x]) => Number(x))).toEqual([0, 419]);
    expect(wide).not.toMatch(/NaN|Infinity/);
    expect(await flowToSvg([])).toMatch(/^<svg/);
    await expect(flowToSvg([{}] as never)).rejects.toThrow(/flowToSvg: got an array of 1\. Expected what gradientFlow/);
  });
});

describe('without the libraries that draw', () => {
  it('says what to install, and still writes DOT', async () => {
    expect(await runFixture('draw.ts')).toEqual({
      told: [
        {
          code: 'ERR_DEPENDENCY',
          message: 'toSvg: what it draws with is not installed. Run: npm install @viz-js/viz',
        },
        {
          code: 'ERR_DEPENDENCY',
          message: 'flowToSvg: what it draws with is not installed. Run: npm install vega vega-lite',
        },
      ],
      dot: true,
    });
  });
});
