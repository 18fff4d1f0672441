// The current step: what a node computed, or what it makes of the gradient that comes from above.
import type { TraceEdge, TraceNode, TraceStep, TraceValues } from '../../lib/viz/trace-format.ts';
import { bytes, fullLabel, label, shape as shapeText, summary } from './format.ts';
import { Values } from './values.tsx';
import { gradientAt, type Walk } from './walk.ts';

interface Props {
  readonly walk: Walk;
  readonly step: number;
  readonly onNode: (node: number) => void;
}

const PASSES = { forward: 'Forward', backward: 'Backward', recompute: 'Computed again' };

export function Inspector({ walk, step, onNode }: Props) {
  const now = walk.trace.steps[step];
  if (now === undefined) return <p class="soft">This trace has no steps.</p>;
  const node = walk.trace.nodes[now.node]!;
  return (
    <div class="inspector">
      <header>
        <span class={`pass ${now.pass}`}>{PASSES[now.pass]}</span>
        <h2>
          {label(node, now.node)}
          <span class="soft mono"> #{now.node}</span>
        </h2>
      </header>
      <About node={node} />
      {now.pass === 'backward' ? (
        <Backward walk={walk} now={now} step={step} onNode={onNode} />
      ) : (
        <Forward walk={walk} now={now} step={step} onNode={onNode} />
      )}
    </div>
  );
}

function About({ node }: { node: TraceNode }) {
  const rows: [string, string][] = [
    ['shape', `${shapeText(node.shape)}, ${node.dtype}`],
    ['name', node.op === '' ? '' : node.name],
    ['module', node.module],
    ['line', node.at],
  ];
  return (
    <dl class="about">
      {rows
        .filter(([, value]) => value !== '')
        .map(([name, value]) => (
          <div>
            <dt>{name}</dt>
            <dd class="mono">{value}</dd>
          </div>
        ))}
    </dl>
  );
}

/** A node may have thousands of inputs. */
const MOST_SHOWN = 24;

const More = ({ of }: { of: readonly unknown[] }) =>
  of.length > MOST_SHOWN ? <span class="soft"> and {of.length - MOST_SHOWN} more</span> : null;

const NodeLink = ({ walk, node, onNode }: { walk: Walk; node: number; onNode: Props['onNode'] }) => (
  <button type="button" class="link mono" onClick={() => onNode(node)}>
    {label(walk.trace.nodes[node]!, node)}
  </button>
);

function Forward({ walk, now, step, onNode }: Props & { now: TraceStep }) {
  const { nodes } = walk.trace;
  const node = nodes[now.node]!;
  const before = walk.trace.steps[step - 1]?.bytes ?? 0;
  const more = now.bytes - before;
  return (
    <>
      {now.pass === 'recompute' && (
        <p class="note">A checkpoint runs this op once more: what it saved had been let go after the forward pass.</p>
      )}
      <section class="part">
        <h3>Value</h3>
        <Values name="value" values={node.value} shape={node.shape} />
      </section>
      <section class="part">
        <h3>Computed from</h3>
        <ul class="plain">
          {node.inputs.slice(0, MOST_SHOWN).map((input) => (
            <li>
              {input === null ? (
                <span class="soft">a number</span>
              ) : (
                <>
                  <NodeLink walk={walk} node={input} onNode={onNode} />{' '}
                  <span class="mono soft">{summary(nodes[input]!.value, nodes[input]!.shape)}</span>
                </>
              )}
            </li>
          ))}
        </ul>
        <More of={node.inputs} />
      </section>
      <section class="part">
        <h3>Saved for the backward pass</h3>
        <p>
          {node.saved.length === 0 ? <span class="soft">nothing</span> : null}
          {node.saved.slice(0, MOST_SHOWN).map((saved, i) => (
            <>
              {i > 0 && ', '}
              {saved === now.node ? 'its own value' : <NodeLink walk={walk} node={saved} onNode={onNode} />}
            </>
          ))}
          <More of={node.saved} />
          {more > 0 && <span class="mono soft"> +{bytes(more)}</span>}
        </p>
      </section>
    </>
  );
}

function Backward({ walk, now, step, onNode }: Props & { now: Extract<TraceStep, { pass: 'backward' }> }) {
  const node = walk.trace.nodes[now.node]!;
  return (
    <>
      <section class="part">
        <h3>Upstream, ∂loss / ∂{label(node, now.node)}</h3>
        <Values name="upstream" values={now.upstream} shape={node.shape} />
      </section>
      {now.edges.slice(0, MOST_SHOWN).map((edge) => (
        <Edge key={edge.input} walk={walk} edge={edge} upstream={now.upstream} step={step} onNode={onNode} />
      ))}
      <More of={now.edges} />
      {now.edges.length === 0 && <p class="soft">No input of it needs a gradient.</p>}
    </>
  );
}

interface TermProps {
  readonly title: string;
  readonly name: string;
  readonly values: TraceValues;
  readonly shape: readonly number[];
}

const Term = ({ title, ...values }: TermProps) => (
  <div class={`term ${values.name}`}>
    <h4>{title}</h4>
    <Values {...values} />
  </div>
);

function Edge({ walk, edge, upstream, step, onNode }: Props & { edge: TraceEdge; upstream: TraceValues }) {
  const { nodes, steps } = walk.trace;
  const to = nodes[edge.to]!;
  const { node } = steps[step]!;
  const scalar = edge.local?.data?.length === 1;
  // Of an op that gives one number it is shaped as the input, of others as the result.
  const localShape = nodes[node]!.shape.every((n) => n === 1) ? to.shape : nodes[node]!.shape;
  const arrived = walk.arrivals[edge.to]!;
  const which = arrived.findIndex((each) => each.step === step && each.input === edge.input);
  return (
    <section class="part edge" data-edge={edge.input}>
      <h3>
        To <NodeLink walk={walk} node={edge.to} onNode={onNode} />
      </h3>
      {edge.local === null ? (
        <p class="soft">It has no derivative for each element: the rule of {nodes[node]!.op} gives the product.</p>
      ) : (
        <div class="terms">
          <Term title="Local derivative" name="local" values={edge.local} shape={localShape} />
          {scalar && <Term title="Upstream" name="factor" values={upstream} shape={[]} />}
          <Term
            title={scalar ? 'Product' : 'Product, upstream × local'}
            name="product"
            values={edge.product}
            shape={to.shape}
          />
        </div>
      )}
      {edge.local === null && <Term title="Product" name="product" values={edge.product} shape={to.shape} />}
      <Term
        title={
          arrived.length === 1 ? 'Running sum, of one path' : `Running sum, ${which + 1} of ${arrived.length} paths`
        }
        name="sum"
        values={edge.sum}
        shape={to.shape}
      />
    </section>
  );
}

/** One sentence on a step, for the screen reader. */
export function told(walk: Walk, step: number): string {
  const now = walk.trace.steps[step];
  if (now === undefined) return '';
  const node = walk.trace.nodes[now.node]!;
  const gradient = gradientAt(walk, now.node, step);
  const of = now.pass === 'backward' && gradient !== null ? gradient : node.value;
  const value = of.data?.length === 1 ? `, ${now.pass === 'backward' ? 'gradient' : 'value'} ${of.data[0]}` : '';
  return `Step ${step + 1} of ${walk.trace.steps.length}, ${PASSES[now.pass]}: ${fullLabel(node, now.node)}${value}`;
}
