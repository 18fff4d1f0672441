// trace: runs a function forward and backward and writes down every step, for the playground, the terminal and tools of
// others. Reads every value, so it is for looking, not for training. Layer viz.
import { checkOptions } from '../arguments.ts';
import { grad } from '../autograd/backward.ts';
import { enableGrad } from '../autograd/grad-mode.ts';
import type { Observer } from '../autograd/observer.ts';
import { gradientOf, isAccumulator, type Node } from '../autograd/tape.ts';
import { reachable } from '../autograd/walk.ts';
import { within } from '../context.ts';
import { ArgumentError, AutogradError, ShapeError } from '../errors.ts';
import type { AnyModule } from '../nn/module.ts';
import { onesLike } from '../ops/create.ts';
import { add } from '../ops/elementwise.ts';
import type { Storage } from '../program/storage.ts';
import { checkInteger, describe, show } from '../shape.ts';
import { checkTensor, scope, type Tensor } from '../tensor.ts';
import {
  MOST_NODES,
  TRACE_VERSION,
  type Trace,
  type TraceEdge,
  type TraceNode,
  type TraceStep,
} from './trace-format.ts';
import { valuesOf } from './trace-values.ts';

export interface TraceOptions {
  /** Ops beyond so many are left out. Default 5,000. */
  maxNodes?: number;
  /** Names for tensors that fn uses, such as `{ x, w, b }`. Parameters of modules that are called have theirs. */
  names?: Readonly<Record<string, Tensor>>;
}

const DEFAULTS = { maxNodes: 5000, names: {} };

/**
 * What happens when `fn` computes a loss and its gradients flow back: a trace, which `JSON.stringify` turns into a file.
 * Every `grad` stays as it is. The format is described in docs/trace.md.
 * @throws AutogradError when the loss requires no grad, ShapeError when it is no scalar, and whatever fn throws
 */
export function trace(fn: () => Tensor, options: TraceOptions = {}): Trace {
  if (typeof fn !== 'function')
    throw new ArgumentError(`trace: got ${describe(fn)}. Expected a function that computes a loss.`);
  checkOptions('trace', options, DEFAULTS);
  const maxNodes = checkInteger('trace', 'maxNodes', options.maxNodes ?? DEFAULTS.maxNodes, 1);
  if (maxNodes >= MOST_NODES)
    throw new ArgumentError(`trace: maxNodes is ${maxNodes}. Expected fewer than ${MOST_NODES}.`);
  const tracer = new Tracer(maxNodes, options.names ?? {});
  return scope(() =>
    within('trace', { observer: tracer }, () => {
      const loss = enableGrad(fn);
      checkTensor('trace', loss, 'loss');
      if (loss.numel !== 1)
        throw new ShapeError(`trace: a loss of shape ${show(loss.shape)}. Expected one number, as after mean().`);
      if (loss.gradFn === null) {
        throw new AutogradError(
          'trace: the loss was not computed by fn from anything that requires grad. Call requiresGrad_() on what to ' +
            'differentiate, and compute inside fn.',
        );
      }
      const leaves = tracer.turn(loss);
      grad(loss, leaves, { allowUnused: true });
      return tracer.result();
    }),
  );
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Of a node that was left out. */
const DROPPED = -1;

class Tracer implements Observer {
  readonly #most: number;
  readonly #nodes: Mutable<TraceNode>[] = [];
  readonly #steps: TraceStep[] = [];
  #dropped = 0;
  #loss = 0;
  /** Where in the trace: nodes of the graph, and tensors that no op of it made. */
  readonly #ofGraph = new Map<Node, number>();
  readonly #ofTensor = new Map<Tensor, number>();
  readonly #names: Map<Tensor, string>;
  /** Modules that are running, and the paths of those below the outermost. */
  readonly #running: string[] = [];
  #paths = new Map<object, string>();
  /** Bytes that the graph holds: how many nodes keep each storage. */
  readonly #held = new Map<Storage, number>();
  #bytes = 0;
  /** Nodes that may be computed again, by what tells them apart; and the bytes of those that have been. */
  readonly #toCompute = new Map<string, number[]>();
  readonly #computed = new Map<number, number>();
  /** The gradients that have arrived at nodes of several uses. */
  readonly #uses: number[] = [];
  readonly #arrived = new Map<number, Tensor>();

  constructor(most: number, names: Readonly<Record<string, Tensor>>) {
    this.#most = most;
    this.#names = new Map(Object.entries(names).map(([name, t]) => [t, name]));
    for (const [t] of this.#names) checkTensor('trace', t, 'entry of names');
  }

  // ---- what it sees ------------------------------------------------------------------------------------------------
  entered(module: object): void {
    if (this.#running.length === 0) this.#learn(module as AnyModule);
    this.#running.push(this.#paths.get(module) ?? module.constructor.name);
  }

  left(): void {
    this.#running.pop();
  }

  #learn(root: AnyModule): void {
    this.#paths = new Map([...root.namedModules()].map(([path, module]) => [module, path]));
    for (const [name, parameter] of root.namedParameters()) {
      if (!this.#names.has(parameter)) this.#names.set(parameter, name);
    }
  }

  recorded(node: Node, out: Tensor, inputs: readonly (Tensor | null)[]): void {
    if (this.#nodes.length >= this.#most) {
      this.#dropped++;
      this.#ofGraph.set(node, DROPPED);
      return;
    }
    this.#add(node, out, inputs);
  }

  #add(node: Node, out: Tensor, inputs: readonly (Tensor | null)[]): void {
    const from = inputs.map((t) => (t === null ? null : this.#place(t)));
    const id = this.#nodes.length;
    this.#ofGraph.set(node, id);
    const saved = this.#keep(node, out);
    this.#nodes.push({
      kind: 'op',
      op: opOf(node),
      name: this.#names.get(out) ?? '',
      inputs: from,
      ...this.#described(out),
      requiresGrad: true,
      module: this.#running.at(-1) ?? '',
      at: lineOf(node),
      saved: saved.flatMap((t) => (t === out ? id : (this.#known(t) ?? []))),
    });
    for (const i of from) if (i !== null) this.#uses[i] = (this.#uses[i] ?? 0) + 1;
    const key = keyOf(node);
    if (!this.#toCompute.has(key)) this.#toCompute.set(key, []);
    this.#toCompute.get(key)!.push(id);
    this.#steps.push({ pass: 'forward', node: id, bytes: this.#bytes });
  }

  /** A checkpoint runs its part once more: what it computes is held until the step back over it. */
  readonly again: Observer = {
    recorded: (node, out) => {
      const id = this.#toCompute.get(keyOf(node))?.shift();
      if (id === undefined) return;
      this.#computed.set(id, out.nbytes);
      this.#bytes += out.nbytes;
      this.#steps.push({ pass: 'recompute', node: id, bytes: this.#bytes });
    },
    differentiated: () => {},
  };

  differentiated(node: Node, g: Tensor, gradients: readonly (Tensor | null)[]): void {
    const id = this.#ofGraph.get(node) ?? DROPPED;
    if (id === DROPPED) return;
    const edges = within('trace', { observer: null }, () =>
      gradients.flatMap((gradient, i): TraceEdge[] => {
        const to = this.#nodes[id]!.inputs[i];
        if (gradient === null || to === null || to === undefined) return [];
        const product = valuesOf(gradient);
        return [{ to, input: i, local: localOf(node, g, i), product, sum: this.#sum(to, gradient) ?? product }];
      }),
    );
    this.#letGo(node);
    this.#bytes -= this.#computed.get(id) ?? 0;
    this.#steps.push({ pass: 'backward', node: id, bytes: this.#bytes, upstream: valuesOf(g), edges });
  }

  /** What has arrived at a node; null where it is the first and only. */
  #sum(to: number, gradient: Tensor): TraceEdge['sum'] | null {
    if ((this.#uses[to] ?? 0) < 2) return null;
    const before = this.#arrived.get(to);
    const sum = before === undefined ? gradient.clone() : add(before, gradient);
    this.#arrived.set(to, sum);
    return valuesOf(sum);
  }

  // ---- nodes --------------------------------------------------------------------------------------------------------
  #known(t: Tensor): number | undefined {
    const id = t.node === null ? this.#ofTensor.get(t) : this.#ofGraph.get(t.node);
    return id === DROPPED ? undefined : id;
  }

  /** The node of an input: one that an op made, or a new one for what comes from outside. Null: it was left out. */
  #place(t: Tensor): number | null {
    const known = this.#known(t) ?? this.#ofTensor.get(t);
    if (known !== undefined) return known;
    if (t.node !== null && this.#ofGraph.has(t.node)) return null;
    const id = this.#nodes.length;
    this.#ofTensor.set(t, id);
    this.#nodes.push({
      kind: t.leafRequiresGrad ? 'parameter' : 'input',
      op: '',
      name: this.#names.get(t) ?? '',
      inputs: [],
      ...this.#described(t),
      requiresGrad: t.requiresGrad,
      module: '',
      at: '',
      saved: [],
    });
    return id;
  }

  #described(t: Tensor): Pick<TraceNode, 'shape' | 'dtype' | 'value'> {
    return { shape: [...t.shape], dtype: t.dtype, value: valuesOf(t) };
  }

  // ---- memory -------------------------------------------------------------------------------------------------------
  /** Counts what a node keeps; parameters are there in any case. */
  #keep(node: Node, out: Tensor): Tensor[] {
    const kept = keptBy(node);
    for (const { storage, leafRequiresGrad } of kept) {
      if (leafRequiresGrad && storage !== out.storage) continue;
      const count = this.#held.get(storage) ?? 0;
      this.#held.set(storage, count + 1);
      if (count === 0) this.#bytes += storage.bytes;
    }
    return kept;
  }

  #letGo(node: Node): void {
    for (const { storage } of keptBy(node)) {
      const count = this.#held.get(storage);
      if (count === undefined) continue;
      if (count > 1) this.#held.set(storage, count - 1);
      else if (this.#held.delete(storage)) this.#bytes -= storage.bytes;
    }
  }

  // ---- the way back -------------------------------------------------------------------------------------------------
  /** The forward pass is over. Returns the leaves that gradients go to. */
  turn(loss: Tensor): Tensor[] {
    const node = loss.node!;
    const known = this.#ofGraph.get(node);
    if (known === undefined) throw new AutogradError('trace: the loss was computed outside of fn. Compute it inside.');
    // The last op is never left out: it is where the way back begins.
    if (known === DROPPED) {
      this.#dropped--;
      this.#add(
        node,
        loss,
        node.edges.map(() => null),
      );
    }
    this.#loss = this.#ofGraph.get(node)!;
    return leavesOf(node);
  }

  result(): Trace {
    return {
      format: 'chainrule-trace',
      version: TRACE_VERSION,
      nodes: this.#nodes,
      loss: this.#loss,
      steps: this.#steps,
      dropped: this.#dropped,
    };
  }
}

/** `MulBackward` → `mul`. */
function opOf({ name }: Node): string {
  const op = name.replace(/Backward$/, '');
  return op === '' ? name : op[0]!.toLowerCase() + op.slice(1);
}

/** `file:line:column` of the user's call, from the working directory on. */
const lineOf = ({ madeAt }: Node): string =>
  (/(?:.*\()?(.+:\d+:\d+)\)?$/.exec(madeAt)?.[1] ?? '').replace(`${process.cwd()}/`, '');
const keyOf = (node: Node): string => `${node.name} ${show(node.shape)} ${node.madeAt}`;

const keptBy = ({ saved }: Node): Tensor[] => (saved ?? []).flatMap((entry) => entry?.tensor ?? []);

/**
 * The derivative by an input where upstream times it is the product, element by element. Null for other ops, and where
 * what the op saved is not at hand but would have to be made again.
 */
function localOf(node: Node, g: Tensor, input: number): TraceEdge['local'] {
  const { rule, context, saved } = node;
  if (rule.pull !== undefined || !(rule.elementwise === true || g.numel === 1)) return null;
  if (saved?.some((entry) => entry?.tensor === null)) return null;
  const derivative = gradientOf(rule, onesLike(g), node.unpack(), context, input);
  return derivative === null ? null : valuesOf(derivative);
}

/** The leaves below a node that require grad. */
const leavesOf = (root: Node): Tensor[] =>
  reachable([root])
    .filter(isAccumulator)
    .map((node) => node.context as Tensor);
