// The backward pass: walks recorded nodes from outputs to inputs, newest first, each once. The traversal knows no op:
// it checks every gradient's shape and dtype, sums those of broadcast inputs, adds up what arrives over several paths.
import { checkOptions } from '../arguments.ts';
import { current, Scope, within } from '../context.ts';
import { DTYPES } from '../dtype.ts';
import { ArgumentError, AutogradError, DTypeError, ShapeError } from '../errors.ts';
import { castLike, clone } from '../ops/cast.ts';
import { add } from '../ops/elementwise.ts';
import { sum } from '../ops/reduce.ts';
import { expand, reshape } from '../ops/views.ts';
import { adopt } from '../program/engine.ts';
import { describe, type Shape, sameShape, show } from '../shape.ts';
import { alias, checkTensor, type GradHook, keep, type Tensor, track } from '../tensor.ts';
import { edgeOf, isAccumulator, type Node, noGrad } from './tape.ts';

export interface BackwardOptions {
  /** Keep what the graph saved, so that it can be walked again. Default: `createGraph`. */
  retainGraph?: boolean;
  /** Record the backward pass itself, so that gradients have gradients. */
  createGraph?: boolean;
}

const OPTIONS: BackwardOptions = { retainGraph: false, createGraph: false };

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

type Capture = (g: Tensor) => void;

/** One walk. Gradients on the way are its own: freed as soon as they are spent, unless recorded. */
class Walk {
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
function handleOn(t: Tensor): Tensor {
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

/** Gives a gradient to the user: it lives as long as the open scope, or as it is referred to. */
function hand(t: Tensor): Tensor {
  if (current().scope === null) adopt(t.storage);
  return track(t);
}

// ---- what users call ----------------------------------------------------------------------------------------------------
/** The gradient that a root starts from: the given one, or 1 for a scalar. Owned by the walk. */
function seed(op: string, root: Tensor, gradient: Tensor | null | undefined, options: BackwardOptions): Tensor {
  checkTensor(op, root, 'output');
  if (!root.requiresGrad) {
    throw new AutogradError(
      `${op}: the tensor of shape ${show(root.shape)} does not require grad: it was made without recording, or from ` +
        'nothing that requires grad. Call requiresGrad_() on what to differentiate, before computing with it.',
    );
  }
  if (gradient !== undefined && gradient !== null) {
    checkTensor(op, gradient, 'gradient');
    if (!sameShape(gradient.shape, root.shape)) {
      throw new ShapeError(`${op}: a gradient of shape ${show(gradient.shape)} for an output of ${show(root.shape)}.`);
    }
    if (gradient.code !== root.code) {
      throw new DTypeError(`${op}: a ${gradient.dtype} gradient for a ${root.dtype} output.`);
    }
    // Recorded, the gradient keeps its place in the graph; else the walk may free its own handle.
    return options.createGraph ? gradient : handleOn(gradient);
  }
  if (root.numel !== 1) {
    throw new AutogradError(
      `${op}: an output of shape ${show(root.shape)} is not a scalar. Reduce it, as in y.sum().backward(), or pass ` +
        'the gradient to start from: y.backward(gradient).',
    );
  }
  return handleOn(noGrad(() => expand(castLike(1, root), root.shape)));
}

const list = <T>(value: T | readonly T[]): readonly T[] => (Array.isArray(value) ? value : [value as T]);

function walk(
  outputs: readonly Tensor[],
  gradients: readonly Tensor[],
  options: BackwardOptions,
  captures: ReadonlyMap<Node, Capture> | null,
): void {
  const roots = outputs.map((t) => edgeOf(t)!);
  const record = options.createGraph ?? false;
  within('backward', { grad: record }, () => new Walk(options, captures).run(roots, gradients));
}

/**
 * Adds the gradient of x into the `grad` of every leaf that x was computed from, or of `inputs` only.
 * `gradient`: of some scalar with respect to x; may be left out when x is a scalar. Frees what the graph saved unless
 * `retainGraph`. torch.Tensor.backward
 * @throws AutogradError, ShapeError, DTypeError
 */
export function backward(
  x: Tensor,
  gradient?: Tensor | null,
  options: BackwardOptions & { inputs?: Tensor[] } = {},
): void {
  checkOptions('backward', options, { ...OPTIONS, inputs: [] });
  if (options.inputs !== undefined && !Array.isArray(options.inputs)) {
    throw new ArgumentError(`backward: inputs is ${describe(options.inputs)}. Expected an array of tensors.`);
  }
  const start = seed('backward', x, gradient, options);
  if (options.inputs === undefined) {
    walk([x], [start], options, null);
    return;
  }
  const walker = new Walk(options, null);
  const captures = new Map<Node, Capture>();
  for (const input of options.inputs) {
    checkTensor('backward', input, 'entry of inputs');
    const node = edgeOf(input);
    if (node === null)
      throw new AutogradError(`backward: an entry of inputs, ${show(input.shape)}, does not require grad.`);
    captures.set(node, (g) => walker.accumulate(input, g));
  }
  walk([x], [start], options, captures);
}

export interface GradOptions extends BackwardOptions {
  /** Gradients of the outputs; may be left out for scalars. */
  gradOutputs?: Tensor | readonly (Tensor | null)[];
  /** Null instead of an error for an input that no output depends on. */
  allowUnused?: boolean;
}

/**
 * The gradients of outputs with respect to inputs, one per input; leaves every `grad` alone. torch.autograd.grad
 * @throws AutogradError when an input requires no grad, or is unused
 */
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options: GradOptions & { allowUnused: true },
): (Tensor | null)[];
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options?: GradOptions,
): Tensor[];
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options: GradOptions = {},
): (Tensor | null)[] {
  checkOptions('grad', options, { ...OPTIONS, gradOutputs: null, allowUnused: false });
  const from = list(outputs);
  const to = list(inputs);
  const given = options.gradOutputs === undefined ? [] : list(options.gradOutputs as Tensor);
  const starts = from.map((output, i) => seed('grad', output, given[i], options));
  const results = new Map<Node, Tensor>();
  const captures = new Map<Node, Capture>();
  const nodes = to.map((input) => {
    checkTensor('grad', input);
    const node = edgeOf(input);
    if (node === null) {
      throw new AutogradError(
        `grad: the input of shape ${show(input.shape)} does not require grad: call requiresGrad_().`,
      );
    }
    captures.set(node, (g) => void results.set(node, options.createGraph ? g : hand(handleOn(g))));
    return node;
  });
  walk(from, starts, options, captures);
  return nodes.map((node, i) => {
    const result = results.get(node) ?? null;
    if (result === null && !options.allowUnused) {
      throw new AutogradError(
        `grad: no output depends on input ${i} of shape ${show(to[i]!.shape)}. Pass { allowUnused: true } for null instead.`,
      );
    }
    return result;
  });
}
