// What the page asks of a trace: what is there at a step, what is wrong in it, and which nodes are near one. Pure; knows
// no page.
import type { Trace, TraceStep, TraceValues } from '../../lib/viz/trace-format.ts';

export interface Arrival {
  readonly step: number;
  readonly from: number;
  readonly input: number;
  readonly product: TraceValues;
  readonly sum: TraceValues;
}

/** A trace with what can be looked up in it. */
export interface Walk {
  readonly trace: Trace;
  /** By node: the step that computes it; -1 for what was there before. */
  readonly computedAt: readonly number[];
  /** By node: the step of the backward pass that runs it; null when none does. */
  readonly passedAt: readonly (number | null)[];
  /** By node: the nodes that use it. */
  readonly users: readonly (readonly number[])[];
  /** By node: what comes back to it, in order. */
  readonly arrivals: readonly (readonly Arrival[])[];
}

export function walkOf(trace: Trace): Walk {
  const { nodes, steps } = trace;
  const computedAt = nodes.map(() => -1);
  const passedAt = nodes.map((): number | null => null);
  const users = nodes.map((): number[] => []);
  const arrivals = nodes.map((): Arrival[] => []);
  nodes.forEach(({ inputs }, id) => {
    for (const input of new Set(inputs)) if (input !== null) users[input]!.push(id);
  });
  steps.forEach((step, at) => {
    if (step.pass === 'forward') computedAt[step.node] = at;
    if (step.pass !== 'backward') return;
    passedAt[step.node] ??= at;
    for (const { to, input, product, sum } of step.edges) {
      arrivals[to]!.push({ step: at, from: step.node, input, product, sum });
    }
  });
  return { trace, computedAt, passedAt, users, arrivals };
}

/** The gradient at a node after a step: the sum so far, or what the backward pass starts from. */
export function gradientAt({ trace, arrivals, passedAt }: Walk, node: number, step: number): TraceValues | null {
  const arrived = arrivals[node]!.findLast((arrival) => arrival.step <= step);
  if (arrived !== undefined) return arrived.sum;
  const passed = passedAt[node];
  if (passed === null || passed === undefined || passed > step) return null;
  const own = trace.steps[passed]!;
  return own.pass === 'backward' ? own.upstream : null;
}

/** What has come back over an edge after a step. */
export const productAt = ({ arrivals }: Walk, to: number, from: number, input: number, step: number) =>
  arrivals[to]!.find((arrival) => arrival.from === from && arrival.input === input && arrival.step <= step)?.product ??
  null;

/** The step that shows a node best from where the walk is: of its backward pass once that has begun, else its forward. */
export function stepOf({ trace, computedAt, passedAt, users }: Walk, node: number, now: number): number {
  const back = trace.steps[now]?.pass === 'backward';
  const own = back ? passedAt[node] : null;
  if (own !== null && own !== undefined) return own;
  if (computedAt[node]! >= 0) return computedAt[node]!;
  // A parameter or input has no step of its own: the first one that uses it.
  const user = users[node]![0];
  if (user === undefined) return now;
  return (back ? passedAt[user] : null) ?? Math.max(0, computedAt[user]!);
}

// ---- what is wrong --------------------------------------------------------------------------------------------------------
/** How many values there were. */
export const countOf = ({ data, histogram, nan, infinite }: TraceValues): number =>
  data?.length ?? histogram.reduce((sum, count) => sum + count, nan + infinite);

export type Mark = 'nan' | 'infinite' | 'zero';

export function markOf(values: TraceValues | null): Mark | null {
  if (values === null) return null;
  if (values.nan > 0) return 'nan';
  if (values.infinite > 0) return 'infinite';
  return values.zeros > 0 && values.zeros >= countOf(values) ? 'zero' : null;
}

/** Of the gradient of a node, or of its value where that is not finite: a value may well be zero. */
export function nodeMark(walk: Walk, node: number, step: number): Mark | null {
  const own = walk.computedAt[node]! <= step ? markOf(walk.trace.nodes[node]!.value) : null;
  if (own === 'nan' || own === 'infinite') return own;
  return markOf(gradientAt(walk, node, step));
}

export interface Finding {
  readonly text: string;
  /** The first step that shows it. */
  readonly step: number;
  readonly node: number;
}

/** Where numbers first go wrong, forward and backward, and where a gradient has become nothing. */
export function findings({ trace: { nodes, steps } }: Walk): Finding[] {
  const found = new Map<string, Finding & { count: number }>();
  const note = (text: string, step: number, node: number): void => {
    const first = found.get(text);
    found.set(text, first === undefined ? { text, step, node, count: 1 } : { ...first, count: first.count + 1 });
  };
  steps.forEach((step, at) => {
    const { node } = step;
    if (step.pass === 'backward') {
      const mark = markOf(step.upstream);
      if (mark !== null) note(`${MARKS[mark]} gradient`, at, node);
      for (const { to, sum } of step.edges) {
        const arrived = markOf(sum);
        if (nodes[to]!.kind === 'parameter' && arrived !== null) {
          note(`${MARKS[arrived]} gradient of a parameter`, at, to);
        }
      }
    } else if (step.pass === 'forward') {
      const mark = markOf(nodes[node]!.value);
      if (mark === 'nan' || mark === 'infinite') note(`${MARKS[mark]} value`, at, node);
    }
  });
  return [...found.values()].map(({ text, step, node, count }) => ({
    text: count === 1 ? text : `${text}, ${count} times`,
    step,
    node,
  }));
}

export const MARKS: Readonly<Record<Mark, string>> = { nan: 'NaN', infinite: 'Infinite', zero: 'Zero' };

// ---- a part of the graph ------------------------------------------------------------------------------------------------
/** How many nodes are drawn at once. */
export const WINDOW = 36;

const neighbours = ({ trace, users }: Walk, node: number): number[] => [
  ...trace.nodes[node]!.inputs.filter((input) => input !== null),
  ...users[node]!,
];

/** The nodes nearest to one, in order; all of them where they are few. */
export function windowAround(walk: Walk, node: number): number[] {
  const { length } = walk.trace.nodes;
  if (length <= WINDOW) return walk.trace.nodes.map((_, id) => id);
  const near = new Set([node]);
  for (const each of near) {
    for (const next of neighbours(walk, each)) {
      if (near.size >= WINDOW) return [...near].sort((a, b) => a - b);
      near.add(next);
    }
  }
  return [...near].sort((a, b) => a - b);
}

/** Whether a window still shows a node and what it is connected with; else a new one is due. */
export function shows(window: ReadonlySet<number>, walk: Walk, node: number): boolean {
  if (!window.has(node)) return false;
  // A node may have more users than a window has places.
  return neighbours(walk, node)
    .slice(0, WINDOW / 4)
    .every((next) => window.has(next));
}

export const normOf = (step: TraceStep): number | null => (step.pass === 'backward' ? step.upstream.norm : null);
