// What the playground's page derives from a trace, without the page.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { nn, parseTrace, randn, type Trace, tensor, trace } from '../lib/index.ts';
import { draw } from '../playground/src/layout.ts';
import {
  findings,
  gradientAt,
  productAt,
  shows,
  stepOf,
  WINDOW,
  walkOf,
  windowAround,
} from '../playground/src/walk.ts';
import { leaf } from './support.ts';

const GUIDE = readFileSync(new URL('../docs/playground.md', import.meta.url), 'utf8');
/** As the page writes them, and docs/playground.md quotes them. */
const lines = (made: Trace): string[] =>
  findings(walkOf(parseTrace(JSON.stringify(made)))).map(({ text, step }) => `- ${text}: first at step ${step + 1}`);

describe('what is worth a look', () => {
  it('is nothing in a sound pass, though values are 0', () => {
    const x = leaf([0, 1, -1]);
    expect(lines(trace(() => x.relu().mul(2).add(0).sum()))).toEqual([]);
  });

  it('says where a NaN comes from, as the guide tells', () => {
    const v = tensor([0, 0, 0], { requiresGrad: true });
    const found = lines(trace(() => v.square().sum().sqrt(), { names: { v } }));
    expect(found).toHaveLength(2);
    for (const line of found) expect(GUIDE).toContain(`${line}\n`);
  });

  it('says where a layer is dead, as the guide tells', () => {
    const first = new nn.Linear(4, 8);
    nn.init.constant_(first.bias!, -100);
    const net = new nn.Sequential(first, new nn.ReLU(), new nn.Linear(8, 1));
    const x = randn([16, 4]);
    const found = lines(trace(() => net.call(x).square().mean()));
    expect(found).toHaveLength(2);
    for (const line of found) expect(GUIDE).toContain(`${line}\n`);
  });

  it('knows a value that is not finite', () => {
    const x = leaf([0, 4]);
    expect(lines(trace(() => x.log().mul(x).sum()))).toEqual(
      expect.arrayContaining(['- Infinite value: first at step 1', '- NaN value, 2 times: first at step 2']),
    );
  });
});

describe('a walk', () => {
  const x = leaf(3);
  const walk = walkOf(
    trace(
      () => {
        const a = x.mul(x);
        return a.mul(2).add(a.mul(3));
      },
      { names: { x } },
    ),
  );
  const { nodes, steps, loss } = walk.trace;
  const id = nodes.findIndex(({ name }) => name === 'x');
  const a = nodes.findIndex(({ op }) => op === 'mul');
  const last = steps.length - 1;

  it('knows the gradient at a node after every step, and over every edge', () => {
    const at = (node: number) => steps.map((_, step) => gradientAt(walk, node, step)?.data?.[0] ?? null);
    expect(at(loss)).toEqual([null, null, null, null, 1, 1, 1, 1]);
    // One path first, then both: 2 + 3 in some order.
    expect(at(a).slice(0, 5)).toEqual([null, null, null, null, null]);
    expect([2, 3]).toContain(at(a)[5]);
    expect(at(a).slice(6)).toEqual([5, 5]);
    expect(at(id).at(-1)).toBe(30);
    expect([0, 1].map((input) => productAt(walk, id, a, input, last)?.data)).toEqual([[15], [15]]);
    expect(productAt(walk, id, a, 0, last - 1)).toBeNull();
  });

  it('goes to the step of a node: forward on the way there, backward on the way back', () => {
    expect(stepOf(walk, a, 0)).toBe(0);
    expect(stepOf(walk, loss, 2)).toBe(3);
    expect(stepOf(walk, a, 5)).toBe(last);
    expect(stepOf(walk, loss, last)).toBe(4);
    // A leaf has no step: that of its first user.
    expect(stepOf(walk, id, 3)).toBe(0);
    expect(stepOf(walk, id, 5)).toBe(last);
  });
});

describe('a large graph', () => {
  const weights = Array.from({ length: 500 }, () => leaf(0.9));
  const shared = leaf(1);
  const walk = walkOf(trace(() => weights.reduce((y, w) => y.mul(w).add(shared), leaf(1)).square()));
  const middle = walk.trace.nodes.findIndex(({ op }, i) => i > 700 && op === 'add');

  it('is drawn around the current node, all its inputs included', () => {
    const window = windowAround(walk, middle);
    expect(window).toHaveLength(WINDOW);
    expect(new Set(window).size).toBe(WINDOW);
    expect(window).toEqual([...window].sort((p, q) => p - q));
    expect(shows(new Set(window), walk, middle)).toBe(true);
    expect(shows(new Set(window), walk, 0)).toBe(false);
    for (const input of walk.trace.nodes[middle]!.inputs) expect(window).toContain(input);
  });

  it('has every node in its place, edges for what is drawn, and a count of what is not', () => {
    const window = windowAround(walk, middle);
    for (const direction of ['LR', 'TB'] as const) {
      const drawing = draw(walk, window, direction);
      expect(drawing.nodes.map(({ id }) => id)).toEqual(window);
      for (const { x, y, width } of drawing.nodes) {
        expect(x - width / 2).toBeGreaterThanOrEqual(0);
        expect(x + width / 2).toBeLessThanOrEqual(drawing.width);
        expect(y).toBeLessThanOrEqual(drawing.height);
      }
      const drawn = new Set(window);
      const inside = window.flatMap((node) => walk.trace.nodes[node]!.inputs.filter((from) => drawn.has(from!)));
      expect(drawing.edges).toHaveLength(inside.length);
      const away = [...drawing.hidden.values()].reduce((sum, count) => sum + count, 0);
      expect(away).toBeGreaterThan(400);
    }
  });
});
