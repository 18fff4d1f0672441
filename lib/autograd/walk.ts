// The walk of a backward pass: from outputs to inputs over recorded nodes, newest first, each once. It knows no op: it
// checks every gradient's shape and dtype, sums those of broadcast inputs, adds up what arrives over several paths.
import { current, Scope } from '../context.ts';
import { DTYPES } from '../dtype.ts';
import { AutogradError } from '../errors.ts';
import { clone } from '../ops/cast.ts';
import { add } from '../ops/elementwise.ts';
import { sumTo } from '../ops/sum-to.ts';
import { adopt } from '../program/engine.ts';
import { capturing } from '../program/recorder.ts';
import { sameShape, show } from '../shape.ts';
import { checkTensor, type GradHook, keep, type Tensor } from '../tensor.ts';
import { gradientOf, isAccumulator, type Node } from './tape.ts';

export interface BackwardOptions {
  /** Keep what the graph saved, so that it can be walked again. Default: `createGraph`. */
  retainGraph?: boolean;
  /** Record the backward pass itself, so that gradients have gradients. */
  createGraph?: boolean;
}

let visits = 0;

/** All nodes from which gradients flow, newest first: along every path a node comes before its inputs. */
export function reachable(roots: readonly Node[]): Node[] {
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

/** Of a node that has had its turn. */
const DONE = -1;

/** Gradients go from here to leaves and nowhere else. */
function endsAtLeaves({ edges }: Node): boolean {
  for (let i = 0; i < edges.length; i++) if (edges[i] !== null && !isAccumulator(edges[i]!)) return false;
  return true;
}

/** The gradient as the walk's own; what a vjp passes on as it came, or hands out twice, is not. */
function takeFrom(made: Tensor[], gradient: Tensor): Tensor {
  const at = made.lastIndexOf(gradient);
  if (at < 0) return handleOn(gradient);
  if (at === made.length - 1) made.pop();
  else made.splice(at, 1);
  return gradient;
}

/** Frees a tensor of the walk's own; where a view made on the way lives on, the storage is the collector's. */
function release(t: Tensor): void {
  t.dispose();
  if (t.viewVersion < 0 && t.storage.slot >= 0) adopt(t.storage);
}

/** Frees what was made from `start` on, views before what they are views of. */
function releaseAll(made: Tensor[], start: number): void {
  while (made.length > start) release(made.pop()!);
}

/** The gradient of an input as the rule gives it, summed down where the op broadcast. */
function checked({ rule, edges }: Node, i: number, gradient: Tensor | null): Tensor | null {
  if (gradient === null) return null;
  const own = rule.broadcasts ? sumTo(gradient, edges[i]!.shape) : gradient;
  checkGradient(rule.name, edges[i]!, i, own);
  return own;
}

export type Capture = (g: Tensor) => void;

let running: Walk | null = null;
/** The innermost walk under way. */
export const currentWalk = (): Walk | null => running;

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
    const around = running;
    running = this;
    if (this.#captures !== null) this.#wanted = onPathTo(this.#captures, order);
    // A walk inside a hook or a vjp may cross nodes where gradients of the outer walk wait.
    const outer = around === null ? null : order.map(({ pending, arrivals }) => ({ pending, arrivals }));
    for (const node of order) {
      node.pending = null;
      node.arrivals = 0;
    }
    for (const { edges } of order) for (let i = 0; i < edges.length; i++) if (edges[i] !== null) edges[i]!.arrivals++;
    try {
      for (let i = 0; i < roots.length; i++) this.#deliver(roots[i]!, gradients[i]!);
      for (const node of order) if (node.arrivals !== DONE) this.#run(node);
    } finally {
      running = around;
      for (let i = 0; i < order.length; i++) {
        const node = order[i]!;
        if (node.pending !== null) this.#spend(node.pending);
        node.pending = outer === null ? null : outer[i]!.pending;
        if (outer !== null) node.arrivals = outer[i]!.arrivals;
      }
    }
  }

  /** Visits a node at which all gradients have arrived, if there are any. */
  #run(node: Node): void {
    node.arrivals = DONE;
    const g = node.pending;
    node.pending = null;
    if (g !== null && (this.#wanted === null || this.#wanted.has(node))) this.#visit(node, g);
    else {
      if (g !== null) this.#spend(g);
      for (let i = 0; i < node.edges.length; i++) this.#pass(node.edges[i]!, null);
    }
  }

  /** Hands a gradient on to a node, and counts that one use of its output has been dealt with. */
  #pass(edge: Node | null, g: Tensor | null): void {
    if (edge === null) return;
    if (g !== null) this.#deliver(edge, g);
    // Leaves are as old as the model, but do not wait for their turn: all gradients would stay until the end.
    if (--edge.arrivals === 0 && endsAtLeaves(edge)) this.#run(edge);
  }

  /** Adds a gradient to those that wait at a node. Takes ownership. */
  #deliver(node: Node, g: Tensor): void {
    const before = node.pending;
    if (before === null) {
      node.pending = g;
      return;
    }
    // Only this walk knows the sum so far: add in place, unless it is recorded or shared.
    const plain = g.physical === null && g.dual === null && before.dual === null;
    if (!this.#record && plain && before.isContiguous && before.storage.owners === 1) {
      add.inPlace(before, g);
    } else {
      node.pending = add(before, g);
      this.#spend(before);
    }
    this.#spend(g);
  }

  #spend(g: Tensor): void {
    if (!this.#record) release(g);
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
      if (node.nodeHooks !== null) {
        const seen = g;
        g = this.#lend(g);
        for (const hook of node.nodeHooks) hook([], seen);
      }
      if (this.#captures === null) this.accumulate(node.context as Tensor, g);
      this.#spend(g);
      return;
    }
    // Nothing is wanted from below: its node is neither run nor freed.
    if (this.#wanted === null || node.edges.some((edge) => this.#wants(edge))) this.#visitInputs(node, g);
    else {
      for (let i = 0; i < node.edges.length; i++) this.#pass(node.edges[i]!, null);
      this.#spend(g);
    }
  }

  #visitInputs(node: Node, g: Tensor): void {
    const { observer } = current();
    let arrived = g;
    try {
      if (node.nodeHooks === null && observer === null) {
        this.#differentiate(node, g, null);
        if (!this.#retain) node.free();
      } else {
        let gradients = new Array<Tensor | null>(node.edges.length).fill(null);
        this.#differentiate(node, g, gradients);
        if (node.nodeHooks !== null) {
          const seen = gradients;
          gradients = seen.map((gradient) => gradient && this.#lend(gradient));
          arrived = this.#lend(g);
          for (const hook of node.nodeHooks) hook(seen, g);
        }
        observer?.differentiated(node, arrived, gradients);
        if (!this.#retain) node.free();
        for (let i = 0; i < gradients.length; i++) this.#pass(node.edges[i]!, gradients[i]!);
      }
    } finally {
      this.#spend(arrived);
    }
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

  /**
   * Hands on the gradient of each input, or puts them into `sink`; the last first: those are the weights, whose gradients
   * end at a leaf and are out of the way when the next is computed. Whatever else the vjps make is freed at once.
   */
  #differentiate(node: Node, g: Tensor, sink: (Tensor | null)[] | null): void {
    const { edges, rule, context } = node;
    const { made } = this.#temporaries;
    const surroundings = current();
    const outer = surroundings.scope;
    const start = made.length;
    if (!this.#record) surroundings.scope = this.#temporaries;
    try {
      const saved = node.unpack();
      const pulled = rule.pull ? this.#pullAll(node, g, saved) : null;
      const unpacked = made.length;
      for (let i = edges.length - 1; i >= 0; i--) {
        let gradient: Tensor | null = null;
        if (pulled !== null) gradient = pulled[i]!;
        else if (this.#wants(edges[i]!)) {
          gradient = checked(node, i, gradientOf(rule, g, saved, context, i));
        }
        if (!this.#record) {
          if (gradient !== null) gradient = takeFrom(made, gradient);
          // Before it is handed on: a leaf keeps a gradient whose storage nothing else holds, and copies another.
          if (pulled === null) releaseAll(made, unpacked);
          if (i === 0 && sink === null) this.#spend(g);
        }
        surroundings.scope = outer;
        if (sink === null) this.#pass(edges[i]!, gradient);
        else sink[i] = gradient;
        if (!this.#record) surroundings.scope = this.#temporaries;
      }
    } finally {
      surroundings.scope = outer;
      releaseAll(made, start);
    }
  }

  /** The gradients of all inputs at once, all of them proven before the first is handed on. */
  #pullAll(node: Node, g: Tensor, saved: Tensor[]): (Tensor | null)[] {
    const needed = node.edges.map((edge) => this.#wants(edge));
    const pulled = node.rule.pull!(g, saved, node.context, needed);
    return needed.map((wanted, i) => (wanted ? checked(node, i, pulled[i]!) : null));
  }

  #wants(edge: Node | null): edge is Node {
    return edge !== null && (this.#wanted === null || this.#wanted.has(edge));
  }

  /** Adds g into the grad of t, a leaf or a tensor that retains its gradient. */
  accumulate(t: Tensor, g: Tensor): void {
    capturing()?.gradientOf(t, 'read');
    const before = t.gradTensor;
    t.gradPasses++;
    if (before === null || before.disposed) {
      // The walk's own gradient becomes t's as it is; one that is recorded, or shares its storage, is copied.
      const own = !this.#record && g.isContiguous && g.storage.owners === 1 && g.storage.bytes === g.nbytes;
      t.gradTensor = outlive(own ? handleOn(g) : clone(g));
      t.gradUnseen = !this.#record;
    } else if (this.#record || before.dual !== null || g.dual !== null) {
      t.gradTensor = outlive(add(before, g));
      t.gradUnseen = false;
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
  const handle = t.alias();
  handle.dual = t.dual;
  context.scope = scope;
  return handle;
}

/** Gradients of leaves, and what hooks see, outlive every scope: they are the collector's from now on. */
function outlive(t: Tensor): Tensor {
  adopt(t.storage);
  return keep(t);
}
