// The walk of a backward pass: from outputs to inputs over recorded nodes, newest first, each once. It knows no op: it
// checks every gradient's shape and dtype, sums those of broadcast inputs, adds up what arrives over several paths.
import { current, Scope } from '../context.ts';
import { DTYPES } from '../dtype.ts';
import { AutogradError } from '../errors.ts';
import { clone } from '../ops/cast.ts';
import { add } from '../ops/elementwise.ts';
import { sum } from '../ops/reduce.ts';
import { reshape } from '../ops/views.ts';
import { adopt } from '../program/engine.ts';
import { type Shape, sameShape, show } from '../shape.ts';
import { alias, checkTensor, type GradHook, keep, type Tensor } from '../tensor.ts';
import { isAccumulator, type Node } from './tape.ts';

export interface BackwardOptions {
  /** Keep what the graph saved, so that it can be walked again. Default: `createGraph`. */
  retainGraph?: boolean;
  /** Record the backward pass itself, so that gradients have gradients. */
  createGraph?: boolean;
}

let visits = 0;

/** All nodes from which gradients flow, newest first: along every path a node comes before its inputs. */
function reachable(roots: readonly Node[]): Node[] {
  const visit = ++visits;
  const found: Node[] = [];
  const stack: Node[] = [];
  const push = (node: Node): void => {
    if (node.visit === visit) return;
    node.visit = visit;
    found.push(node);
    stack.push(node);
  };
  roots.forEach(push);
  while (stack.length > 0) {
    const { edges } = stack.pop()!;
    for (let i = 0; i < edges.length; i++) if (edges[i] !== null) push(edges[i]!);
  }
  // A chain is found in order, which sorting notices: linear time.
  return found.sort((a, b) => b.sequence - a.sequence);
}

/** The nodes that lie on a path to a target. */
function onPathTo(targets: ReadonlyMap<Node, Capture>, order: readonly Node[]): ReadonlySet<Node> {
  const wanted = new Set<Node>();
  for (let i = order.length - 1; i >= 0; i--) {
    const node = order[i]!;
    if (targets.has(node) || node.edges.some((edge) => edge !== null && wanted.has(edge))) wanted.add(node);
  }
  return wanted;
}

/** Sums a gradient of a broadcast op down to the shape that its input had before it was broadcast. */
function sumTo(g: Tensor, shape: Shape): Tensor {
  if (sameShape(g.shape, shape)) return g;
  const skip = g.ndim - shape.length;
  const dims = g.shape.map((_, d) => d).filter((d) => d < skip || (shape[d - skip] === 1 && g.shape[d] !== 1));
  return reshape(sum(g, dims, { keepdim: true }), shape);
}

function checkGradient(name: string, edge: Node, input: number, g: Tensor): void {
  if (g.code !== edge.code) {
    throw new AutogradError(
      `${name}: the gradient for input ${input} is ${g.dtype}, the input ${DTYPES[edge.code]}. A gradient has its input's dtype.`,
    );
  }
  if (!sameShape(g.shape, edge.shape)) {
    throw new AutogradError(
      `${name}: the gradient for input ${input} has shape ${show(g.shape)}, the input ${show(edge.shape)}. ` +
        "A gradient has its input's shape.",
    );
  }
}

export type Capture = (g: Tensor) => void;

/** One walk. Gradients on the way are its own: freed as soon as they are spent, unless recorded. */
export class Walk {
  readonly #record: boolean;
  readonly #retain: boolean;
  readonly #captures: ReadonlyMap<Node, Capture> | null;
  /** Where gradients are needed to reach the captures; null: everywhere. */
  #wanted: ReadonlySet<Node> | null = null;
  /** Receives what the vjps of one node make. */
  readonly #temporaries = new Scope<Tensor>();

  /** `captures`: where gradients are wanted, instead of in the grad of every leaf. */
  constructor(options: BackwardOptions, captures: ReadonlyMap<Node, Capture> | null) {
    this.#record = options.createGraph ?? false;
    this.#retain = options.retainGraph ?? this.#record;
    this.#captures = captures;
  }

  /** Takes ownership of the gradients, one per root. */
  run(roots: readonly Node[], gradients: readonly Tensor[]): void {
    const order = reachable(roots);
    if (this.#captures !== null) this.#wanted = onPathTo(this.#captures, order);
    // A walk inside a hook or a vjp may cross nodes where gradients of the outer walk wait.
    const waiting = order.map((node) => node.pending);
    for (const node of order) node.pending = null;
    try {
      roots.forEach((root, i) => {
        this.#deliver(root, gradients[i]!);
      });
      for (const node of order) {
        const g = node.pending;
        if (g === null) continue;
        node.pending = null;
        if (this.#wanted === null || this.#wanted.has(node)) this.#visit(node, g);
        else this.#spend(g);
      }
    } finally {
      order.forEach((node, i) => {
        if (node.pending !== null) this.#spend(node.pending);
        node.pending = waiting[i]!;
      });
    }
  }

  /** Adds a gradient to those that wait at a node. Takes ownership. */
  #deliver(node: Node, g: Tensor): void {
    const before = node.pending;
    if (before === null) {
      node.pending = g;
      return;
    }
    // Only this walk knows the sum so far: add in place, unless it is recorded or shared.
    if (!this.#record && before.isContiguous && before.storage.owners === 1) {
      add.inPlace(before, g);
    } else {
      node.pending = add(before, g);
      this.#spend(before);
    }
    this.#spend(g);
  }

  #spend(g: Tensor): void {
    if (!this.#record) g.dispose();
  }

  /** The user may keep g from here on: the walk goes on with another handle, and never writes to the storage. */
  #lend(g: Tensor): Tensor {
    if (this.#record) return g;
    outlive(g);
    return handleOn(g);
  }

  #visit(node: Node, arrived: Tensor): void {
    let g = arrived;
    if (node.hooks !== null) g = this.#callHooks(node, node.hooks, g);
    this.#captures?.get(node)?.(g);
    if (node.retaining !== null) this.accumulate(node.retaining, g);
    if (isAccumulator(node)) {
      if (this.#captures === null) this.accumulate(node.context as Tensor, g);
      this.#spend(g);
      return;
    }
    let gradients: (Tensor | null)[];
    try {
      gradients = this.#record ? this.#differentiate(node, g) : this.#differentiateAlone(node, g);
    } catch (error) {
      this.#spend(g);
      throw error;
    }
    if (node.nodeHooks !== null) {
      const [seen, seenG] = [gradients, g];
      gradients = seen.map((gradient) => gradient && this.#lend(gradient));
      g = this.#lend(g);
      for (const hook of node.nodeHooks) hook(seen, seenG);
    }
    if (!this.#retain) node.free();
    const { edges } = node;
    for (let i = 0; i < edges.length; i++) if (gradients[i]) this.#deliver(edges[i]!, gradients[i]!);
    this.#spend(g);
  }

  #callHooks(node: Node, hooks: ReadonlySet<GradHook>, arrived: Tensor): Tensor {
    let g = arrived;
    let mine = this.#lend(g);
    for (const hook of hooks) {
      const replaced = hook(g);
      if (replaced === undefined) continue;
      checkTensor('registerHook', replaced, 'value that the hook returned');
      checkGradient(node.name, node, 0, replaced);
      this.#spend(mine);
      g = replaced;
      mine = this.#record ? g : handleOn(g);
    }
    return mine;
  }

  /** The gradients of a node's inputs; whatever else its vjps make is freed at once. */
  #differentiateAlone(node: Node, g: Tensor): (Tensor | null)[] {
    const { made } = this.#temporaries;
    const context = current();
    const outer = context.scope;
    context.scope = this.#temporaries;
    const owned: Tensor[] = [];
    try {
      const gradients = this.#differentiate(node, g);
      for (let i = 0; i < gradients.length; i++) {
        const gradient = gradients[i]!;
        if (gradient === null) continue;
        // What a vjp passes on as it came, or hands out twice, is not the walk's own.
        const own = made.includes(gradient) && !owned.includes(gradient) ? gradient : handleOn(gradient);
        gradients[i] = own;
        owned.push(own);
      }
      return gradients;
    } finally {
      context.scope = outer;
      for (const t of made) if (!owned.includes(t)) t.dispose();
      made.length = 0;
    }
  }

  #differentiate(node: Node, g: Tensor): (Tensor | null)[] {
    const { edges, rule, context } = node;
    const { vjp } = rule;
    const saved = node.unpack();
    const gradients = new Array<Tensor | null>(edges.length);
    for (let i = 0; i < edges.length; i++) {
      const edge = edges[i]!;
      gradients[i] = null;
      if (edge === null || (this.#wanted !== null && !this.#wanted.has(edge))) continue;
      let gradient = (typeof vjp === 'function' ? vjp : vjp[i]!)(g, saved, context, i);
      if (gradient === null) continue;
      if (rule.broadcasts) gradient = sumTo(gradient, edge.shape);
      checkGradient(rule.name, edge, i, gradient);
      gradients[i] = gradient;
    }
    return gradients;
  }

  /** Adds g into the grad of t, a leaf or a tensor that retains its gradient. */
  accumulate(t: Tensor, g: Tensor): void {
    const before = t.gradTensor;
    if (before === null || before.disposed) {
      // The walk's own gradient becomes t's as it is; one that is recorded, or shares its storage, is copied.
      const own = !this.#record && g.isContiguous && g.storage.owners === 1 && g.storage.bytes === g.nbytes;
      t.gradTensor = outlive(own ? handleOn(g) : clone(g));
    } else if (this.#record) {
      t.gradTensor = outlive(add(before, g));
    } else {
      add.inPlace(before, g);
    }
  }
}

/** Another handle that belongs to no scope. */
export function handleOn(t: Tensor): Tensor {
  const context = current();
  const { scope } = context;
  context.scope = null;
  const handle = alias(t);
  context.scope = scope;
  return handle;
}

/** Gradients of leaves, and what hooks see, outlive every scope: they are the collector's from now on. */
function outlive(t: Tensor): Tensor {
  adopt(t.storage);
  return keep(t);
}
