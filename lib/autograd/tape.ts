// The tape: a node for each recorded op, and the grad mode. Records only; walk.ts goes back over it.
import { callSite } from '../call-site.ts';
import { current, type SavedHooks, within } from '../context.ts';
import { ArgumentError, AutogradError } from '../errors.ts';
import { disown } from '../program/engine.ts';
import type { Storage } from '../program/storage.ts';
import { describe, type Shape, sameShape, show } from '../shape.ts';
import { checkTensor, type Dual, type GradHook, isStale, renewView, type Tensor } from '../tensor.ts';

/**
 * How an op is differentiated. `vjp[i]` maps the gradient of the output to that of input i; a single function serves
 * an op with a list of inputs. It is linear in the gradient and written in differentiable ops, so that gradients have
 * gradients. `saved` holds the tensors that the op saved, in its own order; `context` is whatever else it remembers.
 * Null: no gradient.
 */
export interface Rule<C = unknown> {
  /** As PyTorch names it: `MulBackward`. */
  readonly name: string;
  readonly vjp: readonly Vjp<C>[] | Vjp<C>;
  /** Instead of vjp: the gradients of all inputs at once, for those that can only be had together. */
  readonly pull?: (g: Tensor, saved: Tensor[], context: C, needed: readonly boolean[]) => readonly (Tensor | null)[];
  /**
   * The tangent of the output from those of the inputs, of which at least one is not null. Left out where it follows
   * from the vjp: for `elementwise` ops it is the vjp itself, for others it is the vjp transposed.
   */
  readonly jvp?: Jvp<C>;
  /** Element i of the output depends on element i of the (broadcast) inputs alone. */
  readonly elementwise?: boolean;
  /** Every element of the output is one of an input's, or a number given to the op. */
  readonly selects?: boolean;
  /** The op broadcasts its inputs: gradients may have the output's shape and are summed down to each input's. */
  readonly broadcasts?: boolean;
}
export type Vjp<C> = (g: Tensor, saved: Tensor[], context: C, input: number) => Tensor | null;
export type Jvp<C> = (
  tangents: readonly (Tensor | null)[],
  saved: readonly (Tensor | null)[],
  context: C,
  out: Tensor,
) => Tensor | null;

/** The gradient of one input. */
export const gradientOf = ({ vjp }: Rule, g: Tensor, saved: Tensor[], context: unknown, i: number): Tensor | null =>
  (typeof vjp === 'function' ? vjp : vjp[i]!)(g, saved, context, i);

/** A tensor that a node saved. */
interface Kept {
  readonly tensor: Tensor;
  readonly storage: Storage;
  readonly version: number;
}
/** What a pack hook made of it. Holds neither the tensor nor its storage, which may be freed; only its place in the graph. */
interface Packed {
  readonly tensor: null;
  readonly hooks: SavedHooks<Tensor>;
  readonly packed: unknown;
  node: Node | null;
  readonly accumulator: Node | null;
  dual: Dual | null;
  readonly shape: Shape;
  readonly code: number;
}
export type Saved = Kept | Packed;

const NOTHING: readonly (Saved | null)[] = [];
const NO_TENSORS: Tensor[] = [];
let nextSequence = 0;
/** Bytes that nodes saved and have let go since the program began: what checkpoints measure by. */
export const freed = { bytes: 0 };

export class Node {
  /** Nodes that made this one's inputs; null where no gradient is needed. */
  readonly edges: readonly (Node | null)[];
  readonly rule: Rule;
  readonly context: unknown;
  /** Grows along every path of the graph: inputs come before outputs. */
  readonly sequence = nextSequence++;
  /** Of its output, and so of the gradient that it takes. */
  readonly shape: Shape;
  readonly code: number;
  /** Null once freed. */
  saved: readonly (Saved | null)[] | null;
  /** During a backward pass: the sum of the gradients that have arrived. */
  pending: Tensor | null = null;
  /** And from how many uses of its output one may still arrive. */
  arrivals = 0;
  /** The traversal that found it last. */
  visit = 0;
  /** Hooks of the output tensor, which may itself be gone. */
  hooks: Set<GradHook> | null = null;
  nodeHooks: Set<NodeHook> | null = null;
  /** The output, when it retains its gradient. */
  retaining: Tensor | null = null;
  /** The user's line that recorded it, where an observer asked for it. */
  madeAt = '';

  constructor(
    rule: Rule,
    edges: readonly (Node | null)[],
    saved: readonly (Saved | null)[],
    context: unknown,
    out: Tensor,
  ) {
    this.rule = rule;
    this.edges = edges;
    this.saved = saved;
    this.context = context;
    this.shape = out.shape;
    this.code = out.code;
  }

  get name(): string {
    return this.rule.name;
  }

  /** The nodes that this one passes gradients to, one per input; null where none is needed. */
  get nextFunctions(): readonly (Node | null)[] {
    return this.edges;
  }

  /** What the forward pass saved for this node. @throws AutogradError once freed */
  get savedTensors(): Tensor[] {
    return this.unpack().filter((t) => t !== undefined);
  }

  /** Calls hook with the gradients that leave the node and the one that entered it. Returns how to remove it. */
  registerHook(hook: NodeHook): () => void {
    this.nodeHooks ??= new Set();
    this.nodeHooks.add(hook);
    return () => void this.nodeHooks?.delete(hook);
  }

  /** The saved tensors, each proven unchanged since it was saved. */
  unpack(): Tensor[] {
    if (this.saved === null) {
      throw new AutogradError(
        `${this.name}: its saved values are freed: the graph has been through backward() before. Pass ` +
          '{ retainGraph: true } to the first call to go through it twice.',
      );
    }
    if (this.saved.length === 0) return NO_TENSORS;
    return this.saved.map((entry) => (entry === null ? undefined : restore(entry, this))) as Tensor[];
  }

  /** Frees what was saved. */
  free(): void {
    if (this.saved === null || this.saved.length === 0) return;
    for (const entry of this.saved) if (entry !== null) letGo(entry);
    this.saved = null;
  }
}
export type NodeHook = (gradInputs: readonly (Tensor | null)[], gradOutput: Tensor) => void;

// ---- saved tensors ------------------------------------------------------------------------------------------------------
/** Keeps t for the backward pass, or has the hooks in force keep it. */
export function save(t: Tensor): Saved {
  const hooks = current().savedHooks as SavedHooks<Tensor> | null;
  if (hooks === null) {
    t.storage.owners++;
    t.storage.savers++;
    return { tensor: t, storage: t.storage, version: t.storage.version };
  }
  // The hook's own ops are neither recorded nor packed, and what it makes lives as long as the graph.
  const packed = within('savedTensorsHooks', { grad: false, savedHooks: null, scope: null }, () => {
    const value = hooks.pack(t);
    return value === t ? t.alias() : value;
  });
  const { node, dual, shape, code } = t;
  return { tensor: null, hooks, packed, node, accumulator: edgeOfLeaf(t), dual, shape, code };
}

/** Who saved a tensor, for messages. */
type Saver = Pick<Node, 'name' | 'madeAt'>;

/** What was saved, proven unchanged, at its place in the graph. @throws AutogradError */
export function restore(entry: Saved, saver: Saver): Tensor {
  if (entry.tensor === null) return unpacked(entry, saver);
  const { tensor, storage, version } = entry;
  if (storage.version !== version) throw changedInPlace(entry, saver);
  if (!tensor.disposed) return tensor;
  // The user's handle is gone, the value is not: another handle with the same place in the graph.
  return handleInGraph(tensor);
}

function unpacked({ hooks, packed, node, accumulator, dual, shape, code }: Packed, { name }: Saver): Tensor {
  const value = hooks.unpack(packed);
  checkTensor(name, value, 'value that the unpack hook returned');
  if (value.code !== code || !sameShape(value.shape, shape)) {
    throw new AutogradError(
      `${name}: the unpack hook returned a ${value.dtype} tensor of shape ${show(value.shape)} for one of shape ` +
        `${show(shape)}. It returns what pack was given: the same shape, dtype and values.`,
    );
  }
  const handle = value.alias();
  handle.node = node;
  handle.leafRequiresGrad = accumulator !== null;
  handle.accumulator = accumulator;
  handle.dual = dual;
  return handle;
}

function changedInPlace({ tensor, storage, version }: Kept, { name, madeAt }: Saver): AutogradError {
  const saved = madeAt === '' ? '' : ` at ${madeAt}`;
  const changed = storage.changedAt === '' ? '' : ` at ${storage.changedAt}`;
  const hint = madeAt === '' ? ' Inside detectAnomaly(() => ...) this message also tells where it was saved.' : '';
  return new AutogradError(
    `${name}: a ${tensor.dtype} tensor of shape ${show(tensor.shape)} that it saved${saved} was changed in ` +
      `place${changed}: it was at version ${version} when saved and is at ${storage.version}. Use the out-of-place ` +
      `op, or change a clone().${hint}`,
  );
}

/** Frees what was kept, or tells the hooks that it may go. */
export function letGo(entry: Saved): void {
  if (entry.tensor === null) {
    entry.hooks.free?.(entry.packed);
    return;
  }
  freed.bytes += entry.tensor.nbytes;
  entry.storage.letGo(entry.version);
  disown(entry.storage);
}

/**
 * Calls `pack` with every tensor that ops inside fn save for the backward pass, and `unpack` with what it returned when
 * the value is needed: to keep it elsewhere (on disk, in fewer bytes), or to compute it again. The tensor that unpack
 * returns has the same shape, dtype and values. torch.autograd.graph.saved_tensors_hooks
 * @throws AutogradError from backward() when unpack returns another shape or dtype
 */
export function savedTensorsHooks<P, T>(pack: (tensor: Tensor) => P, unpack: (packed: P) => Tensor, fn: () => T): T {
  for (const hook of [pack, unpack]) {
    if (typeof hook !== 'function') {
      throw new ArgumentError(
        `savedTensorsHooks: a hook is ${describe(hook)}. Expected two functions, pack and unpack.`,
      );
    }
  }
  return within('savedTensorsHooks', { savedHooks: { pack, unpack } as unknown as SavedHooks }, fn);
}

const ACCUMULATE: Rule<Tensor> = { name: 'AccumulateGrad', vjp: [] };

const edgeOfLeaf = (t: Tensor): Node | null =>
  t.leafRequiresGrad && t.node === null ? (t.accumulator ??= new Node(ACCUMULATE as Rule, [], NOTHING, t, t)) : null;

/** @throws AutogradError for a view that has lost its place in the graph */
function upToDate(t: Tensor): void {
  if (!isStale(t)) return;
  renewView(t);
  if (!isStale(t) || !(current().grad || forwardMode.active())) return;
  throw new AutogradError(
    `a view of shape ${show(t.shape)} was taken before its base was changed in place by a recorded op, and its elements ` +
      'are shared or its base is not row-major. Take the view again after the change.',
  );
}

/** The node that passes gradients to t: what computed it, or what adds into its grad. Null when it needs none. */
export function edgeOf(t: Tensor): Node | null {
  upToDate(t);
  return t.node ?? edgeOfLeaf(t);
}

/** Another handle on t, at its place in the graph and with its tangents. */
export function handleInGraph(t: Tensor): Tensor {
  const handle = t.alias();
  handle.accumulator = edgeOfLeaf(t);
  handle.leafRequiresGrad = t.leafRequiresGrad;
  handle.node = t.node;
  handle.dual = t.dual;
  return handle;
}

/** The same, that belongs to no scope: whoever holds it disposes it. */
export function hold(t: Tensor): Tensor {
  const context = current();
  const { scope } = context;
  context.scope = null;
  try {
    return handleInGraph(t);
  } finally {
    context.scope = scope;
  }
}

export const isAccumulator = (node: Node): boolean => node.rule === (ACCUMULATE as Rule);

// ---- recording ----------------------------------------------------------------------------------------------------------
/** Whether t has a tangent of a derivative that is being computed. */
export const hasTangent = (t: Tensor): boolean => t.dual !== null && forwardMode.inForce(t.dual);

/** Whether a gradient or a tangent flows through t, wherever grad mode allows. */
export function needsGrad(t: Tensor): boolean {
  upToDate(t);
  return t.node !== null || t.leafRequiresGrad || hasTangent(t) || (t.physical !== null && needsGrad(t.physical));
}

/** Whether an op on t is to be recorded here. */
export function tracks(t: Tensor): boolean {
  upToDate(t);
  return (
    ((t.node !== null || t.leafRequiresGrad) && current().grad) ||
    hasTangent(t) ||
    (t.physical !== null && needsGrad(t.physical))
  );
}

/** Whether an op on these inputs is to be recorded. */
export function recording(inputs: readonly (Tensor | null)[]): boolean {
  for (let i = 0; i < inputs.length; i++) {
    const t = inputs[i]!;
    if (t !== null && tracks(t)) return true;
  }
  return false;
}

type Propagate = (
  out: Tensor,
  rule: Rule,
  inputs: readonly (Tensor | null)[],
  saved: readonly (Tensor | null)[],
  context: unknown,
) => void;
/** How tangents pass an op; forward.ts puts it here before the first tensor has one. */
export const forwardMode: { propagate: Propagate; inForce: (dual: Dual) => boolean; active: () => boolean } = {
  propagate: () => {},
  inForce: () => false,
  active: () => false,
};

/** Records that `out` came from `inputs` (null: a number) by the rule. `saved` entries that no needed gradient reads are null. */
export function record(
  out: Tensor,
  rule: Rule<never>,
  inputs: readonly (Tensor | null)[],
  saved: readonly (Tensor | null)[],
  context: unknown,
): void {
  const { grad, savedHooks } = current();
  const edges = new Array<Node | null>(inputs.length);
  let reached = false;
  let dual = false;
  for (let i = 0; i < inputs.length; i++) {
    const t = inputs[i]!;
    edges[i] = null;
    if (t === null) continue;
    const edge = edgeOf(t);
    edges[i] = edge;
    if (edge !== null) reached = true;
    if (t.dual !== null && forwardMode.inForce(t.dual)) dual = true;
  }
  if (grad && reached) {
    out.node = nodeOf(out, rule as unknown as Rule, inputs, edges, saved, context);
  }
  // After the node: a tangent made of a saved output is a function of the inputs through it.
  if (dual) forwardMode.propagate(out, rule as unknown as Rule, inputs, saved, context);
  if (savedHooks !== null) placeOutput(out, saved);
}

/** An output that was packed before it had its place in the graph. */
function placeOutput(out: Tensor, saved: readonly (Tensor | null)[]): void {
  out.node?.saved?.forEach((entry, i) => {
    if (entry?.tensor !== null || saved[i] !== out) return;
    entry.node = out.node;
    entry.dual = out.dual;
  });
}

function nodeOf(
  out: Tensor,
  rule: Rule,
  inputs: readonly (Tensor | null)[],
  edges: readonly (Node | null)[],
  saved: readonly (Tensor | null)[],
  context: unknown,
): Node {
  const { savedHooks, observer } = current();
  let kept = NOTHING;
  if (saved.length > 0) {
    const entries = new Array<Saved | null>(saved.length);
    for (let i = 0; i < saved.length; i++) {
      entries[i] = saved[i] ? save(saved[i]!) : null;
      if (entries[i] !== null) kept = entries;
    }
  }
  const node = new Node(rule, edges, kept, context, out);
  if (savedHooks?.input) for (const t of inputs) if (t !== null) savedHooks.input(t);
  if (observer !== null) {
    node.madeAt = callSite();
    observer.recorded(node, out, inputs);
  }
  return node;
}
