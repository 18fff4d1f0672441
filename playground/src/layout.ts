// Where nodes and edges are drawn: dagre decides, this asks it. Pure; knows no page.
import { type Edge, Graph, layout } from '@dagrejs/dagre';
import { label } from './format.ts';
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
const CHARACTER = 8;
export const MOST_CHARACTERS_SHOWN = 16;

export const shortened = (text: string): string =>
  text.length > MOST_CHARACTERS_SHOWN ? `${text.slice(0, MOST_CHARACTERS_SHOWN - 1)}…` : text;

export function draw(walk: Walk, window: readonly number[], direction: 'LR' | 'TB'): Drawing {
  const graph = new Graph({ multigraph: true });
  graph.setGraph({ rankdir: direction, nodesep: 22, ranksep: 40, edgesep: 14, marginx: 16, marginy: 16 });
  graph.setDefaultEdgeLabel(() => ({}));
  const drawn = new Set(window);
  const { nodes } = walk.trace;
  const hidden = new Map<number, number>();
  for (const id of window) {
    const { length } = shortened(label(nodes[id]!, id));
    graph.setNode(String(id), { width: Math.max(92, length * CHARACTER + 28), height: NODE_HEIGHT });
    const inputs = nodes[id]!.inputs.filter((input) => input !== null);
    const away = [...inputs, ...walk.users[id]!].filter((other) => !drawn.has(other)).length;
    if (away > 0) hidden.set(id, away);
  }
  for (const id of window) {
    nodes[id]!.inputs.forEach((input, i) => {
      if (input === null || !drawn.has(input)) return;
      graph.setEdge(String(input), String(id), { width: 68, height: 18, labelpos: 'c' }, String(i));
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
      return { from: Number(edge.v), to: Number(edge.w), input: Number(edge.name), path: smooth(points), x: x!, y: y! };
    }),
  };
}

interface Point {
  readonly x: number;
  readonly y: number;
}

/** Through the middles of a line's parts, bent at its points. */
function smooth(points: readonly Point[]): string {
  const [first, ...rest] = points;
  const last = rest.at(-1)!;
  const bends = rest.slice(0, -1).map((point, i) => {
    const next = rest[i + 1]!;
    const end = next === last ? last : { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 };
    return `Q${at(point)} ${at(end)}`;
  });
  return `M${at(first!)}${bends.length > 0 ? bends.join('') : `L${at(last)}`}`;
}
const at = ({ x, y }: Point): string => `${x.toFixed(1)},${y.toFixed(1)}`;
