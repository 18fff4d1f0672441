// The graph behind a tensor as a picture: DOT, the text that Graphviz reads, and SVG. Layer viz; draws what the tape
// recorded and runs nothing.
import { checkOptions } from '../arguments.ts';
import { edgeOf, isAccumulator, type Node, type Saved } from '../autograd/tape.ts';
import { reachable } from '../autograd/walk.ts';
import { BYTES } from '../dtype.ts';
import { ArgumentError, AutogradError } from '../errors.ts';
import type { AnyModule } from '../nn/module.ts';
import { checkModel } from '../nn/watch.ts';
import { numelOf, show } from '../shape.ts';
import { checkTensor, type Tensor } from '../tensor.ts';
import { bytesText, plain } from '../text.ts';
import { peer } from './peer.ts';

export interface GraphOptions {
  /** Whose parameters have their names in the picture. */
  model?: AnyModule;
}

/** More than anyone can look at, and than Graphviz lays out in a few seconds. */
const MOST_NODES = 2000;

/**
 * The graph that gradients of `t` flow through, as a digraph of DOT from the leaves to `t`. Each op with the shape of its
 * output and the bytes that it holds for the backward pass; each leaf with its shape. What needs no gradient is not there.
 * @throws AutogradError when t requires no grad, ArgumentError for a graph of more than 2,000 nodes
 */
export const toDot = (t: Tensor, options: GraphOptions = {}): string => dot('toDot', t, options);

/**
 * The same as SVG, drawn by `@viz-js/viz`, which has to be installed beside chainrule.
 * @throws DependencyError when it is not, and as toDot
 */
export async function toSvg(t: Tensor, options: GraphOptions = {}): Promise<string> {
  const text = dot('toSvg', t, options);
  const { instance } = await peer('toSvg', '@viz-js/viz', () => import('@viz-js/viz'));
  return (await instance()).renderString(text, { format: 'svg' });
}

function dot(op: string, t: Tensor, options: GraphOptions): string {
  checkTensor(op, t);
  checkOptions(op, options, { model: null });
  const { model } = options;
  if (model !== undefined) checkModel(op, model);
  const root = edgeOf(t);
  if (root === null) {
    throw new AutogradError(
      `${op}: the tensor of shape ${show(t.shape)} requires no grad: there is no graph behind it.`,
    );
  }
  const nodes = reachable([root]).reverse();
  if (nodes.length > MOST_NODES) {
    throw new ArgumentError(
      `${op}: the graph has ${nodes.length} nodes, more than ${MOST_NODES}. Draw a part: a tensor nearer to the leaves, ` +
        'a smaller model, or fewer steps in time.',
    );
  }
  const names = new Map<unknown, string>([...(model?.namedParameters() ?? [])].map(([name, p]) => [p, name]));
  const ids = new Map(nodes.map((node, i) => [node, `n${i}`]));
  const lines = nodes.map((node) => `  ${ids.get(node)} [${attributes(node, node === root, names)}];`);
  const edges = nodes.flatMap((node) =>
    node.edges.flatMap((from) => (from === null ? [] : `  ${ids.get(from)} -> ${ids.get(node)};`)),
  );
  return `digraph chainrule {\n${STYLE}${[...lines, ...edges].join('\n')}\n}\n`;
}

const STYLE = `  bgcolor="white";
  node [shape=box, style="rounded,filled", fillcolor="#f4f4f4", fontname="Helvetica", fontsize=11];
  edge [color="#666666"];
`;

function attributes(node: Node, root: boolean, names: ReadonlyMap<unknown, string>): string {
  const border = root ? ', peripheries=2' : '';
  if (!isAccumulator(node)) return `label="${label([node.name, show(node.shape), ...savedText(node)])}"${border}`;
  const name = names.get(node.context);
  const fill = name === undefined ? '#dcecff' : '#d5f0d5';
  return `label="${label([name ?? 'leaf', show(node.shape)])}", style=filled, fillcolor="${fill}"${border}`;
}

const bytesOf = (entry: Saved | null): number => {
  if (entry === null) return 0;
  return entry.tensor !== null ? entry.tensor.nbytes : numelOf(entry.shape) * BYTES[entry.code]!;
};

function savedText({ saved }: Node): string[] {
  if (saved === null) return ['saved values freed'];
  const bytes = saved.reduce((sum, entry) => sum + bytesOf(entry), 0);
  return bytes === 0 ? [] : [`saves ${bytesText(bytes)}`];
}

/** Lines inside a quoted string of DOT, where a backslash begins an escape and an ampersand an entity. */
const label = (lines: readonly string[]): string =>
  lines.map((line) => plain(line).replaceAll('&', '&amp;').replaceAll('\\', '\\\\').replaceAll('"', '\\"')).join('\\n');
