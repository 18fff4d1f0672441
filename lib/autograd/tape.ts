// The tape: a node for each recorded op, and the grad mode. Records only; backward.ts walks.
import { current, within } from '../context.ts';
import { AutogradError } from '../errors.ts';
import { disown } from '../program/engine.ts';
import type { Storage } from '../program/storage.ts';
import { type Shape, show } from '../shape.ts';
import { alias, assertNotStale, type GradHook, type Tensor } from '../tensor.ts';

/**
 * How an op is differentiated. `vjp[i]` maps the gradient of the output to that of input i; a single function serves
 * an op with a list of inputs. It is written in differentiable ops, so that gradients have gradients. `saved` holds
 * the tensors that the op saved, in its own order; `context` is whatever else it remembers. Null: no gradient.
 */
export interface Rule<C = unknown> {
  /** As PyTorch names it: `MulBackward`. */
  readonly name: string;
  readonly vjp: readonly Vjp<C>[] | Vjp<C>;
  /** The op broadcasts its inputs: gradients may have the output's shape and are summed down to each input's. */
  readonly broadcasts?: boolean;
}
export type Vjp<C> = (g: Tensor, saved: Tensor[], context: C, input: number) => Tensor | null;

interface Saved {
  readonly tensor: Tensor;
  readonly storage: Storage;
  readonly version: number;
}

const NOTHING: readonly (Saved | null)[] = [];
const NO_TENSORS: Tensor[] = [];
let nextSequence = 0;

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
  /** The traversal that found it last. */
  visit = 0;
  /** Hooks of the output tensor, which may itself be gone. */
  hooks: Set<GradHook> | null = null;
  nodeHooks: Set<NodeHook> | null = null;
  /** The output, when it retains its gradient. */
  retaining: Tensor | null = null;

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
    return this.saved.map((entry) => (entry === null ? undefined : this.#unpackOne(entry))) as Tensor[];
  }

  #unpackOne({ tensor, storage, version }: Saved): Tensor {
    if (storage.version !== version) {
      throw new AutogradError(
        `${this.name}: a ${tensor.dtype} tensor of shape ${show(tensor.shape)} that it saved was changed in place: it ` +
          `was at version ${version} when saved and is at ${storage.version}. Use the out-of-place op, or change a clone().`,
      );
    }
    if (!tensor.disposed) return tensor;
    // The user's handle is gone, the value is not: another handle with the same place in the graph.
    const handle = alias(tensor);
    handle.node = tensor.node;
    handle.leafRequiresGrad = tensor.leafRequiresGrad;
    return handle;
  }

  /** Frees what was saved. */
  free(): void {
    if (this.saved === null || this.saved.length === 0) return;
    for (const entry of this.saved) if (entry !== null) disown(entry.storage);
    this.saved = null;
  }
}
export type NodeHook = (gradInputs: readonly (Tensor | null)[], gradOutput: Tensor) => void;

function save(t: Tensor): Saved {
  t.storage.owners++;
  return { tensor: t, storage: t.storage, version: t.storage.version };
}

const ACCUMULATE: Rule<Tensor> = { name: 'AccumulateGrad', vjp: [] };

/** The node that passes gradients to t: what computed it, or what adds into its grad. Null when it needs none. */
export function edgeOf(t: Tensor): Node | null {
  if (t.node !== null) return t.node;
  if (!t.leafRequiresGrad) return null;
  return (t.accumulator ??= new Node(ACCUMULATE as Rule, [], NOTHING, t, t));
}

export const isAccumulator = (node: Node): boolean => node.rule === (ACCUMULATE as Rule);

/** Whether an op on these inputs is to be recorded. */
export function recording(inputs: readonly (Tensor | null)[]): boolean {
  if (!current().grad) return false;
  for (let i = 0; i < inputs.length; i++) {
    const t = inputs[i]!;
    if (t !== null && (t.node !== null || t.leafRequiresGrad)) return true;
  }
  return false;
}

/** Records that `out` came from `inputs` (null: a number) by the rule. `saved` entries that no needed gradient reads are null. */
export function record(
  out: Tensor,
  rule: Rule<never>,
  inputs: readonly (Tensor | null)[],
  saved: readonly (Tensor | null)[],
  context: unknown,
): void {
  const edges = new Array<Node | null>(inputs.length);
  for (let i = 0; i < inputs.length; i++) {
    const t = inputs[i]!;
    edges[i] = null;
    if (t === null) continue;
    if (t.viewVersion >= 0) assertNotStale(rule.name, t);
    edges[i] = edgeOf(t);
  }
  let kept = NOTHING;
  if (saved.length > 0) {
    const entries = new Array<Saved | null>(saved.length);
    for (let i = 0; i < saved.length; i++) entries[i] = saved[i] ? save(saved[i]!) : null;
    kept = entries;
  }
  out.node = new Node(rule as unknown as Rule, edges, kept, context, out);
}

/** Runs fn without recording; may be nested, and follows the awaits of an async fn. */
export const noGrad = <T>(fn: () => T): T => within('noGrad', { grad: false }, fn);
/** Runs fn with recording, inside `noGrad`. */
export const enableGrad = <T>(fn: () => T): T => within('enableGrad', { grad: true }, fn);
/** As `noGrad`: the way to say that nothing made inside will ever be differentiated. */
export const inferenceMode = <T>(fn: () => T): T => within('inferenceMode', { grad: false }, fn);
export const isGradEnabled = (): boolean => current().grad;
