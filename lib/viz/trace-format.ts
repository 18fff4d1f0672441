// The trace format: one forward and backward pass as JSON, and how a file is read that may be anything. Layer viz; a
// browser runs it too, so it imports nothing of Node's. docs/trace.md describes it field by field.
import { FormatError } from '../errors.ts';

/** Changes when a reader of the older version could misread a newer file. */
export const TRACE_VERSION = 1;

/** JSON has no other numbers than finite ones. */
export type TraceNumber = number | 'NaN' | 'Infinity' | '-Infinity';

/** What a tensor held: all of it when that is little, and what can be said of it otherwise. */
export interface TraceValues {
  /** Row-major; null when there were too many. */
  readonly data: readonly TraceNumber[] | null;
  /** Over the finite ones; null when there are none. The deviation has divisor n. */
  readonly min: number | null;
  readonly max: number | null;
  readonly mean: number | null;
  readonly std: number | null;
  /** The 2-norm of the finite ones. */
  readonly norm: number;
  readonly zeros: number;
  readonly nan: number;
  readonly infinite: number;
  /** How many of the finite ones lie in each of as many equal parts of [min, max]; empty where data is given. */
  readonly histogram: readonly number[];
}

export interface TraceNode {
  readonly kind: 'op' | 'parameter' | 'input';
  /** The op, as its function is called: `mul`, `layerNorm`. Of a parameter or input ''. */
  readonly op: string;
  /** Of a parameter or input, where one is known: `0.weight`. */
  readonly name: string;
  /** The nodes that it was computed from, all of them earlier; null for a number. */
  readonly inputs: readonly (number | null)[];
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly value: TraceValues;
  readonly requiresGrad: boolean;
  /** The call of a module that it was made in: `0`, `encoder.1`; '' outside of any. */
  readonly module: string;
  /** `file:line:column` of the user's call. */
  readonly at: string;
  /** Nodes whose values it kept for the backward pass. */
  readonly saved: readonly number[];
}

/** What a node passes back to one of its inputs. */
export interface TraceEdge {
  readonly to: number;
  /** Which input of the node. */
  readonly input: number;
  /** The derivative by that input, where there is one for each element: upstream times it is the product. */
  readonly local: TraceValues | null;
  readonly product: TraceValues;
  /** All that has arrived at `to` so far, this included. */
  readonly sum: TraceValues;
}

/** One step of the pass. `bytes`: what the graph holds for the backward pass after it. */
export type TraceStep =
  | { readonly pass: 'forward' | 'recompute'; readonly node: number; readonly bytes: number }
  | {
      readonly pass: 'backward';
      readonly node: number;
      readonly bytes: number;
      readonly upstream: TraceValues;
      readonly edges: readonly TraceEdge[];
    };

export interface Trace {
  readonly format: 'chainrule-trace';
  readonly version: number;
  readonly nodes: readonly TraceNode[];
  /** What was differentiated. */
  readonly loss: number;
  readonly steps: readonly TraceStep[];
  /** Ops that were left out, because there were more than a trace takes. */
  readonly dropped: number;
}

/** The most nodes that a file may have, and its most characters: what a page can still show. */
export const MOST_NODES = 20_000;
export const MOST_CHARACTERS = 256 * 2 ** 20;

/** A trace from the text of a file, proven to be one. @throws FormatError that says where it is not */
export function parseTrace(text: string): Trace {
  if (text.length > MOST_CHARACTERS) {
    throw new FormatError(
      `trace: ${text.length} characters, which is more than ${MOST_CHARACTERS}. Trace a smaller part.`,
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new FormatError(`trace: not JSON, or cut off: ${(error as Error).message}`);
  }
  return new Checker().trace(value);
}

type Fields = Record<string, unknown>;

/** Looks at every field that a reader uses; what a file has besides is left out. */
class Checker {
  trace(value: unknown): Trace {
    const { format, version, nodes, loss, steps, dropped } = this.#object(value, 'the file');
    if (format !== 'chainrule-trace') this.#fail('the file', 'is no trace: it does not say format "chainrule-trace"');
    if (version !== TRACE_VERSION) this.#fail('version', `is ${show(version)}; this reads ${TRACE_VERSION}`);
    const list = this.#array(nodes, 'nodes', MOST_NODES);
    if (list.length === 0) this.#fail('nodes', 'is empty');
    const read = list.map((node, i) => this.#node(node, i));
    return {
      format: 'chainrule-trace',
      version: TRACE_VERSION,
      nodes: read,
      loss: this.#index(loss, 'loss', read.length),
      steps: this.#array(steps, 'steps', 4 * MOST_NODES).map((step, i) => this.#step(step, `steps[${i}]`, read)),
      dropped: this.#index(dropped, 'dropped', Number.MAX_SAFE_INTEGER),
    };
  }

  #node(value: unknown, i: number): TraceNode {
    const at = `nodes[${i}]`;
    const fields = this.#object(value, at);
    const { kind } = fields;
    if (kind !== 'op' && kind !== 'parameter' && kind !== 'input') this.#fail(`${at}.kind`, `is ${show(kind)}`);
    const shape = this.#array(fields.shape, `${at}.shape`, 8).map((n) => this.#index(n, `${at}.shape`, 2 ** 48));
    // Earlier nodes only: a graph that is read has no cycles.
    const inputs = this.#array(fields.inputs, `${at}.inputs`, MOST_NODES).map((n) =>
      n === null ? null : this.#index(n, `${at}.inputs`, i),
    );
    return {
      kind: kind as TraceNode['kind'],
      op: this.#string(fields.op, `${at}.op`),
      name: this.#string(fields.name, `${at}.name`),
      inputs,
      shape,
      dtype: this.#string(fields.dtype, `${at}.dtype`),
      value: this.#values(fields.value, `${at}.value`),
      requiresGrad: fields.requiresGrad === true,
      module: this.#string(fields.module, `${at}.module`),
      at: this.#string(fields.at, `${at}.at`),
      saved: this.#array(fields.saved, `${at}.saved`, MOST_NODES).map((n) => this.#index(n, `${at}.saved`, i + 1)),
    };
  }

  #step(value: unknown, at: string, nodes: readonly TraceNode[]): TraceStep {
    const fields = this.#object(value, at);
    const node = this.#index(fields.node, `${at}.node`, nodes.length);
    const bytes = this.#index(fields.bytes, `${at}.bytes`, Number.MAX_SAFE_INTEGER);
    const { pass } = fields;
    if (pass === 'forward' || pass === 'recompute') return { pass, node, bytes };
    if (pass !== 'backward') this.#fail(`${at}.pass`, `is ${show(pass)}`);
    const { inputs } = nodes[node]!;
    const edges = this.#array(fields.edges, `${at}.edges`, MOST_NODES).map((edge, i): TraceEdge => {
      const where = `${at}.edges[${i}]`;
      const { to, input, local, product, sum } = this.#object(edge, where);
      const which = this.#index(input, `${where}.input`, inputs.length);
      if (inputs[which] !== to) this.#fail(`${where}.to`, `is ${show(to)}, which is not that input of node ${node}`);
      return {
        to: to as number,
        input: which,
        local: local === null ? null : this.#values(local, `${where}.local`),
        product: this.#values(product, `${where}.product`),
        sum: this.#values(sum, `${where}.sum`),
      };
    });
    return { pass: 'backward', node, bytes, upstream: this.#values(fields.upstream, `${at}.upstream`), edges };
  }

  #values(value: unknown, at: string): TraceValues {
    const fields = this.#object(value, at);
    const finite = (name: string): number | null => {
      const number = fields[name];
      if (number === null) return null;
      if (typeof number !== 'number') this.#fail(`${at}.${name}`, `is ${show(number)}`);
      return number as number;
    };
    const count = (name: string): number => this.#index(fields[name], `${at}.${name}`, Number.MAX_SAFE_INTEGER);
    const data = fields.data === null ? null : this.#array(fields.data, `${at}.data`, 4096);
    for (const number of data ?? []) {
      if (typeof number !== 'number' && !['NaN', 'Infinity', '-Infinity'].includes(number as string)) {
        this.#fail(`${at}.data`, `has ${show(number)}`);
      }
    }
    return {
      data: data as readonly TraceNumber[] | null,
      min: finite('min'),
      max: finite('max'),
      mean: finite('mean'),
      std: finite('std'),
      norm: finite('norm') ?? 0,
      zeros: count('zeros'),
      nan: count('nan'),
      infinite: count('infinite'),
      histogram: this.#array(fields.histogram, `${at}.histogram`, 256).map((n) =>
        this.#index(n, `${at}.histogram`, Number.MAX_SAFE_INTEGER),
      ),
    };
  }

  #object(value: unknown, at: string): Fields {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) this.#fail(at, `is ${show(value)}`);
    return value as Fields;
  }

  #array(value: unknown, at: string, most: number): unknown[] {
    if (!Array.isArray(value)) this.#fail(at, `is ${show(value)}`);
    const { length } = value as unknown[];
    if (length > most) this.#fail(at, `has ${length} entries, more than ${most}. Trace a smaller part`);
    return value as unknown[];
  }

  #string(value: unknown, at: string): string {
    if (typeof value !== 'string') this.#fail(at, `is ${show(value)}`);
    if ((value as string).length > 1000) this.#fail(at, `has ${(value as string).length} characters`);
    return value as string;
  }

  /** A whole number in [0, end). */
  #index(value: unknown, at: string, end: number): number {
    if (!Number.isInteger(value) || (value as number) < 0 || (value as number) >= end) {
      this.#fail(at, `is ${show(value)}, not a whole number below ${end}`);
    }
    return value as number;
  }

  #fail(at: string, what: string): never {
    throw new FormatError(`trace: ${at} ${what}.`);
  }
}

function show(value: unknown): string {
  if (value === undefined) return 'missing';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
