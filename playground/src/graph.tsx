// The graph around the current node, as SVG: values as they are computed, gradients as they arrive.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { fullLabel, label, size, summary } from './format.ts';
import { type Drawing, draw, LABEL_WIDTH, NODE_HEIGHT, type Placed, type PlacedEdge, shortened } from './layout.ts';
import { gradientAt, nodeMark, productAt, shows, type Walk, windowAround } from './walk.ts';

interface Props {
  readonly walk: Walk;
  readonly step: number;
  readonly onNode: (node: number) => void;
}

/** How far a drawing shrinks before it has to be scrolled. */
const SMALLEST = 0.88;

/** From left to right where there is room for it. */
function useDirection(): 'LR' | 'TB' {
  const [query] = useState(() => matchMedia('(min-width: 760px)'));
  const [wide, setWide] = useState(query.matches);
  useEffect(() => {
    const change = (): void => setWide(query.matches);
    query.addEventListener('change', change);
    return () => query.removeEventListener('change', change);
  }, [query]);
  return wide ? 'LR' : 'TB';
}

/** The nodes drawn: the same ones as long as they show what is around the current one. */
function useWindow(walk: Walk, current: number): readonly number[] {
  const kept = useRef<{ walk: Walk; list: readonly number[]; set: ReadonlySet<number> } | null>(null);
  const { walk: of, set } = kept.current ?? {};
  if (of !== walk || !shows(set!, walk, current)) {
    const list = windowAround(walk, current);
    // The same graph with other numbers keeps its drawing.
    kept.current = { walk, list, set: new Set(list) };
  }
  return kept.current!.list;
}

export function GraphView({ walk, step, onNode }: Props) {
  const direction = useDirection();
  const current = walk.trace.steps[step]?.node ?? walk.trace.loss;
  const window = useWindow(walk, current);
  const drawing = useMemo(() => draw(walk, window, direction), [walk, window, direction]);
  const pane = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const place = drawing.nodes.find(({ id }) => id === current);
    const { current: element } = pane;
    if (place === undefined || element === null) return;
    const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
    const scale = element.firstElementChild!.clientWidth / drawing.width;
    element.scrollTo({
      left: scale * place.x - element.clientWidth / 2,
      top: scale * place.y - element.clientHeight / 2,
      behavior: calm ? 'auto' : 'smooth',
    });
  }, [drawing, current]);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls
    // biome-ignore lint/a11y/useSemanticElements: a section would do the same, with a ref of another type
    <div class="pane" ref={pane} tabIndex={0} role="region" aria-label="The graph">
      <svg
        viewBox={`0 0 ${drawing.width} ${drawing.height}`}
        style={{ width: `${drawing.width}px`, minWidth: `${SMALLEST * drawing.width}px` }}
      >
        <title>The graph around {label(walk.trace.nodes[current]!, current)}</title>
        <defs>
          <marker
            id="arrow"
            viewBox="0 0 8 8"
            refX="7"
            refY="4"
            markerUnits="userSpaceOnUse"
            markerWidth="9"
            markerHeight="9"
            orient="auto"
          >
            <path class="arrow-head" d="M0,0.5 L7,4 L0,7.5" />
          </marker>
        </defs>
        {drawing.edges.map((edge) => (
          <Edge key={`${edge.from} ${edge.to} ${edge.input}`} walk={walk} step={step} edge={edge} />
        ))}
        {drawing.nodes.map((place) => (
          <Node
            key={place.id}
            walk={walk}
            step={step}
            place={place}
            drawing={drawing}
            current={place.id === current}
            onNode={onNode}
          />
        ))}
      </svg>
    </div>
  );
}

function Edge({ walk, step, edge }: { walk: Walk; step: number; edge: PlacedEdge }) {
  const { from, to, input, path, x, y } = edge;
  const product = productAt(walk, from, to, input, step);
  const now = walk.trace.steps[step];
  const active = now?.node === to && (now.pass === 'backward' ? product !== null : true);
  return (
    <g class={`edge-line ${active ? 'active' : ''} ${product === null ? '' : 'arrived'}`}>
      <path d={path} marker-end="url(#arrow)" />
      {product !== null && (
        <>
          <rect x={x - LABEL_WIDTH / 2} y={y - 9} width={LABEL_WIDTH} height="18" rx="9" />
          <text x={x} y={y + 4} data-gradient={`${to}:${input}`}>
            {size(product)}
          </text>
        </>
      )}
    </g>
  );
}

interface NodeProps extends Props {
  readonly place: Placed;
  readonly drawing: Drawing;
  readonly current: boolean;
}

function Node({ walk, step, place, drawing, current, onNode }: NodeProps) {
  const { id, x, y, width } = place;
  const node = walk.trace.nodes[id]!;
  const known = walk.computedAt[id]! <= step;
  const gradient = gradientAt(walk, id, step);
  const mark = nodeMark(walk, id, step);
  const away = drawing.hidden.get(id) ?? 0;
  const classes = ['node', node.kind, known ? 'known' : '', current ? 'current' : '', mark ?? ''];
  return (
    // The list of nodes does the same by keyboard, without a stop at each of them.
    // biome-ignore lint/a11y/noStaticElementInteractions: see above
    <g
      class={classes.join(' ')}
      transform={`translate(${x - width / 2},${y - NODE_HEIGHT / 2})`}
      data-node={id}
      onClick={() => onNode(id)}
    >
      <title>{fullLabel(node, id)}</title>
      <rect width={width} height={NODE_HEIGHT} rx="10" />
      <text class="name" x={width / 2} y="18">
        {shortened(label(node, id))}
      </text>
      <text class="value" x={width / 2} y="34">
        {known ? summary(node.value, node.shape) : '·'}
      </text>
      <text class="gradient" x={width / 2} y="50">
        {gradient === null ? '' : `∂ ${mark === 'zero' ? 'zero' : size(gradient)}`}
      </text>
      {away > 0 && (
        <text class="away" x={width - 6} y={NODE_HEIGHT + 13}>
          +{away}
        </text>
      )}
    </g>
  );
}
