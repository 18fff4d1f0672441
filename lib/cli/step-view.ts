// How `chainrule step` looks and what its keys do: functions of a trace and a state. Layer cli; touches no terminal.
// A trace may come from anywhere: what it says is printed by plain() only.
import { bar, bytesText, numberText, plain } from '../text.ts';
import type { Trace, TraceStep, TraceValues } from '../viz/trace-format.ts';

// ---- what a step says ---------------------------------------------------------------------------------------------------
const SPARKS = '▁▂▃▄▅▆▇█';

function sparkline(histogram: readonly number[]): string {
  const most = histogram.reduce((a, b) => Math.max(a, b), 1);
  return histogram.map((n) => (n === 0 ? '·' : SPARKS[Math.ceil((n / most) * SPARKS.length) - 1])).join('');
}

/** Nested as the shape says, from `at` on. */
function nested(texts: readonly string[], shape: readonly number[], at = 0): string {
  // Before a size is believed: nothing is nested in [1000000000000,0].
  if (texts.length === 0) return '[]';
  if (shape.length === 0) return texts[at]!;
  const [size, ...inner] = shape as [number, ...number[]];
  const step = inner.reduce((a, b) => a * b, 1);
  return `[${Array.from({ length: size }, (_, i) => nested(texts, inner, at + i * step)).join(', ')}]`;
}

const several = (n: number, what: string): string[] => (n === 0 ? [] : [`${n} ${what}`]);

function valuesText({ data, ...values }: TraceValues, shape: readonly number[]): string {
  if (data !== null) {
    const texts = data.map((value) => numberText(Number(value)));
    return nested(texts, shape.reduce((a, b) => a * b, 1) === data.length ? shape : [data.length]);
  }
  const { min, max, mean, std, norm, zeros, nan, infinite, histogram } = values;
  const parts = [
    ...(min === null || max === null ? [] : [`${numberText(min)} to ${numberText(max)}`]),
    ...(mean === null || std === null ? [] : [`mean ${numberText(mean)}`, `std ${numberText(std)}`]),
    `norm ${numberText(norm)}`,
    ...several(zeros, 'zeros'),
    ...several(nan, 'NaN'),
    ...several(infinite, 'infinite'),
  ];
  return `${parts.join(', ')}${histogram.length === 0 ? '' : `  |${sparkline(histogram)}|`}`;
}

/** `#4 square`, `#0 x` */
function nodeText({ nodes }: Trace, id: number): string {
  const { op, name, kind } = nodes[id]!;
  return plain(`#${id} ${[op, name].filter((text) => text !== '').join(' ') || kind}`);
}

const LABEL = 12;
const labelled = (label: string, text: string): string => `  ${label.padEnd(LABEL - 2)}${text}`;

/** Everything there is to say of a step, after its title. */
export function stepLines(trace: Trace, index: number): string[] {
  const step = trace.steps[index]!;
  const { nodes } = trace;
  const node = nodes[step.node]!;
  const title = `${nodeText(trace, step.node)}  [${node.shape.join(',')}] ${plain(node.dtype)}`;
  const lines = [step.node === trace.loss ? `${title}  (the loss)` : title];
  if (node.module !== '') lines.push(labelled('module', plain(node.module)));
  if (node.at !== '') lines.push(labelled('line', plain(node.at)));
  for (const input of node.inputs) {
    const text = input === null ? 'a number' : `${nodeText(trace, input)} = ${valueAt(trace, input)}`;
    lines.push(labelled('input', text));
  }
  lines.push(labelled('value', valueAt(trace, step.node)));
  if (step.pass !== 'backward') {
    const saved = node.saved.map((id) => (id === step.node ? 'its value' : nodeText(trace, id)));
    lines.push(labelled('saves', saved.join(', ') || 'nothing'));
    return lines;
  }
  lines.push(labelled('upstream', valuesText(step.upstream, node.shape)));
  for (const { to, local, product, sum } of step.edges) {
    const { shape } = nodes[to]!;
    lines.push(`  to ${nodeText(trace, to)}`);
    lines.push(labelled('  local', local === null ? 'not one for each element' : valuesText(local, node.shape)));
    lines.push(labelled('  product', valuesText(product, shape)), labelled('  sum', valuesText(sum, shape)));
  }
  return lines;
}

const valueAt = ({ nodes }: Trace, id: number): string => valuesText(nodes[id]!.value, nodes[id]!.shape);

const PASSES = { forward: 'forward', backward: 'backward', recompute: 'forward again, for a checkpoint' };
const titleOf = ({ steps }: Trace, index: number): string =>
  `step ${index + 1} of ${steps.length}  ${PASSES[steps[index]!.pass]}`;

export const mostBytes = ({ steps }: Trace): number => steps.reduce((most, { bytes }) => Math.max(most, bytes), 0);

function heldLine({ bytes }: TraceStep, most: number): string {
  const held = bar(most === 0 ? 0 : bytes / most, 24);
  return labelled('holds', `|${held}| ${bytesText(bytes)} of ${bytesText(most)} at most`);
}

/** A step as text, for where there is no screen. */
export const stepText = (trace: Trace, index: number, most: number): string =>
  [titleOf(trace, index), heldLine(trace.steps[index]!, most), ...stepLines(trace, index)].join('\n');

// ---- the screen ---------------------------------------------------------------------------------------------------------
export interface State {
  /** From 0. */
  readonly step: number;
  /** The first line of the step's that is shown. */
  readonly top: number;
  readonly asking: 'step' | 'text' | null;
  readonly typed: string;
  readonly help: boolean;
  readonly message: string;
  /** What was searched for last. */
  readonly wanted: string;
}

export const START: State = { step: 0, top: 0, asking: null, typed: '', help: false, message: '', wanted: '' };

const KEYS = 'n next  p back  g go to  / search  ? help  q quit';
const HELP = [
  'right, n    the next step',
  'left, p     the one before',
  'home, end   the first and the last',
  'up, down    more lines of a step',
  'g 12 Enter  goes to step 12',
  '/ text Enter  the next step whose op, name, module or line has the text; empty: the same text again',
  'q           quits',
];

/** A line in as many as it needs, later ones indented; breaks at spaces where there are some. */
function wrap(line: string, width: number): string[] {
  const lines: string[] = [];
  const indent = width > 3 * LABEL ? ' '.repeat(LABEL) : '';
  let rest = Array.from(line);
  while (rest.length > width) {
    const space = rest.lastIndexOf(' ', width);
    const end = space > width / 2 ? space : width;
    lines.push(rest.slice(0, end).join('').trimEnd());
    rest = Array.from(indent + rest.slice(end).join('').trimStart());
  }
  return [...lines, rest.join('')];
}

const cut = (line: string, width: number): string => {
  const characters = Array.from(line);
  return characters.length <= width ? line : `${characters.slice(0, Math.max(width - 1, 0)).join('')}…`;
};

/** At most `height` lines of at most `width` characters; and where it begins, which is never beyond the end. */
export function screen(trace: Trace, state: State, width: number, height: number): { lines: string[]; top: number } {
  const { step, asking, typed, message } = state;
  const title = cut(state.help ? 'chainrule step' : titleOf(trace, step), width);
  const question = { step: `step (1 to ${trace.steps.length}): `, text: 'search: ' };
  const last = cut(asking === null ? message || KEYS : `${question[asking]}${typed}_`, width);
  const head = height < 5 ? [title] : [title, cut(heldLine(trace.steps[step]!, mostBytes(trace)), width)];
  const room = height - head.length - 1;
  if (room < 1) return { lines: [title, last].slice(0, height), top: 0 };
  const all = (state.help ? HELP : stepLines(trace, step)).flatMap((line) => wrap(line, width));
  const top = Math.max(0, Math.min(state.top, all.length - room));
  const body = all.slice(top, top + room);
  const below = all.length - top - room;
  if (below > 0 && room > 1) body[room - 1] = cut(`… ${below + 1} more lines: down`, width);
  return { lines: [...head, ...body, ...new Array<string>(room - body.length).fill(''), last], top };
}

// ---- keys ---------------------------------------------------------------------------------------------------------------
/** As readline tells it. */
export interface Key {
  readonly name?: string | undefined;
  readonly sequence?: string | undefined;
  readonly ctrl?: boolean | undefined;
}

/** The state after a key; null to quit. */
export function press(trace: Trace, state: State, key: Key): State | null {
  if (key.ctrl && (key.name === 'c' || key.name === 'd')) return null;
  const calm = { ...state, message: '' };
  return state.asking === null ? command(trace, calm, key) : answer(trace, calm, key);
}

function command(trace: Trace, state: State, { name, sequence }: Key): State | null {
  const { step, top } = state;
  if (sequence === '/') return { ...state, asking: 'text', typed: '', help: false };
  if (sequence === '?') return { ...state, help: !state.help, top: 0 };
  switch (name) {
    case 'q':
      return null;
    case 'right':
    case 'n':
      return goTo(trace, state, step + 1);
    case 'left':
    case 'p':
      return goTo(trace, state, step - 1);
    case 'home':
      return goTo(trace, state, 0);
    case 'end':
      return goTo(trace, state, trace.steps.length - 1);
    case 'up':
      return { ...state, top: Math.max(0, top - 1) };
    case 'down':
      return { ...state, top: top + 1 };
    case 'g':
      return { ...state, asking: 'step', typed: '', help: false };
    case 'escape':
      return { ...state, help: false, top: 0 };
    default:
      return state;
  }
}

function goTo({ steps }: Trace, state: State, step: number): State {
  if (step < 0) return { ...state, message: 'This is the first step.' };
  if (step >= steps.length) return { ...state, message: 'This is the last step.' };
  return { ...state, step, top: 0, help: false };
}

function answer(trace: Trace, state: State, { name, sequence = '' }: Key): State {
  const { asking, typed } = state;
  if (name === 'escape') return { ...state, asking: null };
  if (name === 'backspace') return { ...state, typed: Array.from(typed).slice(0, -1).join('') };
  if (name === 'return' || name === 'enter') {
    const done = { ...state, asking: null };
    return asking === 'step' ? jump(trace, done) : search(trace, done);
  }
  return /^\P{C}$/u.test(sequence) ? { ...state, typed: typed + sequence } : state;
}

function jump(trace: Trace, state: State): State {
  const number = Number(state.typed);
  if (/^\d+$/.test(state.typed) && number >= 1 && number <= trace.steps.length) return goTo(trace, state, number - 1);
  return {
    ...state,
    message: `There is no step ${JSON.stringify(state.typed)}. Steps are 1 to ${trace.steps.length}.`,
  };
}

/** The next step that has the text, from the first again after the last. */
function search(trace: Trace, state: State): State {
  const wanted = state.typed || state.wanted;
  if (wanted === '') return state;
  const { length } = trace.steps;
  for (let i = 1; i <= length; i++) {
    const step = (state.step + i) % length;
    const { node } = trace.steps[step]!;
    const { module, at } = trace.nodes[node]!;
    const text = `${nodeText(trace, node)} ${module} ${at}`.toLowerCase();
    if (text.includes(wanted.toLowerCase())) return { ...goTo(trace, state, step), wanted };
  }
  return { ...state, wanted, message: `No step has ${JSON.stringify(wanted)}.` };
}
