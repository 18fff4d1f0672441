// Where nodes and edges are drawn: dagre decides, this asks it. Pure; knows no page.
import { type Edge, Graph, layout } from '@dagrejs/dagre';
import type { TraceNode } from '../../lib/viz/trace-format.ts';
import { label, summary } from './format.ts';
import type { Walk } from './walk.ts';

export interface Placed {
  readonly id: number;
  readonly x: number;
  readonly y: number;
  readonly width: number;
}

export interface PlacedEdge {
  readonly from: number;
  readonly to: number;
  /** Which input of the node that it leads to. */
  readonly input: number;
  readonly path: string;
  /** Where its gradient is written. */
  readonly x: number;
  readonly y: number;
}

export interface Drawing {
  readonly width: number;
  readonly height: number;
  readonly nodes: readonly Placed[];
  readonly edges: readonly PlacedEdge[];
  /** By node: how many neighbours are not drawn. */
  readonly hidden: ReadonlyMap<number, number>;
}

export const NODE_HEIGHT = 58;
export const LABEL_WIDTH = 64;
/** The advance of the monospaced font. */
const CHARACTER = 7.3;
export const MOST_CHARACTERS_SHOWN = 16;

export const shortened = (text: string): string =>
  text.length > MOST_CHARACTERS_SHOWN ? `${text.slice(0, MOST_CHARACTERS_SHOWN - 1)}…` : text;

/** Room for its name, its value, and a gradient. */
function widthOf(node: TraceNode, id: number): number {
  const length = Math.max(shortened(label(node, id)).length, summary(node.value, node.shape).length, 8);
  return Math.round(length * CHARACTER + 22);
}

export function draw(walk: Walk, window: readonly number[], direction: 'LR' | 'TB'): Drawing {
  const graph = new Graph({ multigraph: true });
  graph.setGraph({ rankdir: direction, nodesep: 20, ranksep: 34, edgesep: 12, marginx: 14, marginy: 14 });
  graph.setDefaultEdgeLabel(() => ({}));
  const drawn = new Set(window);
  const { nodes } = walk.trace;
  const hidden = new Map<number, number>();
  for (const id of window) {
    graph.setNode(String(id), { width: widthOf(nodes[id]!, id), height: NODE_HEIGHT });
    const inputs = nodes[id]!.inputs.filter((input) => input !== null);
    const away = [...inputs, ...walk.users[id]!].filter((other) => !drawn.has(other)).length;
    if (away > 0) hidden.set(id, away);
  }
  for (const id of window) {
    nodes[id]!.inputs.forEach((input, i) => {
      if (input === null || !drawn.has(input)) return;
      graph.setEdge(String(input), String(id), { width: LABEL_WIDTH, height: 18, labelpos: 'c' }, String(i));
    });
  }
  layout(graph);
  const { width = 0, height = 0 } = graph.graph();
  return {
    width,
    height,
    hidden,
    nodes: window.map((id) => {
      const { x, y, width: wide } = graph.node(String(id));
      return { id, x, y, width: wide };
    }),
    edges: graph.edges().map((edge: Edge) => {
      const { points, x, y } = graph.edge(edge);
      return {
        from: Number(edge.v),
        to: Number(edge.w),
        input: Number(edge.name),
        path: smooth(points, direction),
        x: x!,
        y: y!,
      };
    }),
  };
}

interface Point {
  readonly x: number;
  readonly y: number;
}

/** Through all points, level at each of them. */
function smooth(points: readonly Point[], direction: 'LR' | 'TB'): string {
  const parts = points.slice(1).map((to, i) => {
    const from = points[i]!;
    const middle = direction === 'LR' ? (from.x + to.x) / 2 : (from.y + to.y) / 2;
    const bend = ({ x, y }: Point): string => at(direction === 'LR' ? { x: middle, y } : { x, y: middle });
    return `C${bend(from)} ${bend(to)} ${at(to)}`;
  });
  return `M${at(points[0]!)}${parts.join('')}`;
}
const at = ({ x, y }: Point): string => `${x.toFixed(1)},${y.toFixed(1)}`;
