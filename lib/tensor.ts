// A tensor: a handle on storage with a shape, strides and a place in the graph. Knows no op: ops/* compute, and
// methods.ts gives tensors their methods.
import type { Node } from './autograd/tape.ts';
import { current, Scope, within } from './context.ts';
import { BYTES, DTYPES, type DType } from './dtype.ts';
import { ArgumentError, CaptureError, DisposedError, DTypeError, ShapeError } from './errors.ts';
import { adopt, disown, newStorage } from './program/engine.ts';
import { capturing } from './program/recorder.ts';
import type { Storage, View } from './program/storage.ts';
import {
  checkDim,
  checkShape,
  describe,
  isRowMajor,
  MAX_DIMS,
  MAX_ELEMENTS,
  numelOf,
  type Shape,
  sameShape,
  show,
  stridesOf,
} from './shape.ts';

export type GradHook = (grad: Tensor) => Tensor | undefined;

/** The tangent of a tensor in one forward-mode derivative, and those in others around it. */
export interface Dual {
  readonly level: number;
  readonly tangent: Tensor;
  readonly next: Dual | null;
}

export class Tensor implements View {
  /** @internal */
  readonly storage: Storage;
  readonly shape: Shape;
  /** In elements. */
  readonly strides: Shape;
  /** In elements. */
  readonly offset: number;
  /** Number of elements. */
  readonly numel: number;
  /** Row-major without gaps. */
  readonly isContiguous: boolean;
  /** @internal dtype code */
  readonly code: number;
  /** @internal */
  disposed = false;
  /** @internal a view shares its base's storage; the storage's graphVersion when its place was found, -1 for no view */
  viewVersion: number;
  /** @internal what it is a view of; null for a tensor of its own, and for another handle on the whole */
  base: Tensor | null = null;
  /** @internal what computed it; null for a leaf */
  node: Node | null = null;
  /** @internal */
  leafRequiresGrad = false;
  /** @internal */
  gradTensor: Tensor | null = null;
  /** @internal whether `gradTensor` is the backward pass's own: nobody has read it from `grad` */
  gradUnseen = false;
  /** @internal how many backward passes have added into `grad` since it was set */
  gradPasses = 0;
  /** @internal the node that adds into `grad`; leaves only, made when first needed */
  accumulator: Node | null = null;
  /** @internal its tangents, where a forward-mode derivative is being computed */
  dual: Dual | null = null;
  /** @internal inside vmap: all examples together, the batch as dimension 0 */
  readonly physical: Tensor | null = null;

  /** @internal */
  constructor(
    storage: Storage,
    shape: Shape,
    strides: Shape,
    offset: number,
    numel: number,
    code: number,
    dense: boolean,
    viewVersion: number,
  ) {
    this.storage = storage;
    this.shape = shape;
    this.strides = strides;
    this.offset = offset;
    this.numel = numel;
    this.code = code;
    this.isContiguous = dense;
    this.viewVersion = viewVersion;
  }

  get dtype(): DType {
    return DTYPES[this.code]!;
  }

  get ndim(): number {
    return this.shape.length;
  }

  /** The shape, or the size of one dimension. @throws IndexError */
  size(): Shape;
  size(dim: number): number;
  size(dim?: number): Shape | number {
    return dim === undefined ? this.shape : this.shape[checkDim('size', dim, this.ndim)]!;
  }

  /** Bytes of its elements. */
  get nbytes(): number {
    return this.numel * BYTES[this.code]!;
  }

  get requiresGrad(): boolean {
    renewView(this);
    return this.leafRequiresGrad || this.node !== null;
  }

  /** Made by the user or without recording: gradients end here. */
  get isLeaf(): boolean {
    renewView(this);
    return this.node === null;
  }

  /** The node of the graph that computed this tensor; null for a leaf. */
  get gradFn(): Node | null {
    renewView(this);
    return this.node;
  }

  /** What `backward()` has accumulated here; null before. Only leaves and tensors with `retainGrad()` have one. */
  get grad(): Tensor | null {
    if (this.node !== null && this.node.retaining !== this && this.gradTensor === null) warnGradOfNonLeaf();
    capturing()?.gradientOf(this, 'read');
    this.gradUnseen = false;
    return this.gradTensor;
  }

  set grad(value: Tensor | null) {
    if (value !== null) {
      checkTensor('grad', value);
      if (value.code !== this.code) throw new DTypeError(`grad: a ${value.dtype} gradient for a ${this.dtype} tensor.`);
      if (!sameShape(value.shape, this.shape)) {
        throw new ShapeError(`grad: shape ${show(value.shape)} for a tensor of shape ${show(this.shape)}.`);
      }
    }
    capturing()?.gradientOf(this, 'set');
    // At once, not when the collector finds it: the next backward pass then works in memory that is still in cache.
    if (this.gradUnseen) this.gradTensor?.dispose();
    this.gradUnseen = false;
    this.gradTensor = value;
    this.gradPasses = 0;
  }

  /**
   * Frees the storage now, unless a view or a saved value still needs it. Never required: what is unreachable is
   * freed without it. A second call does nothing.
   */
  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    disown(this.storage);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** @internal another handle on the very same elements, outside the graph */
  alias(): Tensor {
    this.storage.owners++;
    const { storage, shape, strides, offset, numel, code, isContiguous } = this;
    return track(new Tensor(storage, shape, strides, offset, numel, code, isContiguous, storage.graphVersion));
  }
}

let warned = false;
function warnGradOfNonLeaf(): void {
  if (warned) return;
  warned = true;
  process.emitWarning(
    'grad of a tensor that is not a leaf: backward() leaves gradients on leaves only. Call retainGrad() on it first, ' +
      'or, after x = x + 1, read the grad of the tensor that x was before.',
    { code: 'CHAINRULE_NON_LEAF_GRAD' },
  );
}

// Two copies of the package have two classes: the brand tells a foreign tensor from no tensor.
const BRAND = Symbol.for('chainrule.tensor');
Object.defineProperty(Tensor.prototype, BRAND, { value: true });

/** @throws ArgumentError for anything but a tensor of this copy of the library, DisposedError after dispose() */
export function checkTensor(op: string, value: unknown, what = 'input'): asserts value is Tensor {
  // An object that merely inherits from tensors has no storage.
  if (!(value instanceof Tensor) || value.storage === undefined) {
    const foreign = typeof value === 'object' && value !== null && BRAND in value;
    throw new ArgumentError(
      foreign
        ? `${op}: the ${what} belongs to another copy of chainrule. Use one copy, and one realm, for all tensors.`
        : `${op}: the ${what} is ${describe(value)}. Expected a tensor (of this thread; send data to workers, not tensors).`,
    );
  }
  if (value.disposed) {
    throw new DisposedError(`${op}: the ${what} of shape ${show(value.shape)} was disposed, or its scope has ended.`);
  }
  if (value.storage.slot < 0 && value.physical === null) {
    throw new CaptureError(
      `${op}: the ${what} of shape ${show(value.shape)} was made inside a compiled function and is none of its results: ` +
        'it has no value out here. Return it from the function.',
    );
  }
}

/** A tensor with storage of its own, row-major; its block is allocated by the first command that writes it. */
export function fresh(shape: Shape, code: number, strides: Shape = stridesOf(shape), numel = numelOf(shape)): Tensor {
  if (numel > MAX_ELEMENTS || shape.length > MAX_DIMS) refuseShape(shape);
  return new Tensor(newStorage(numel * BYTES[code]!), shape, strides, 0, numel, code, true, -1);
}

/** The shapes that users give are checked where they come in; this is for what ops make of them. */
function refuseShape(shape: Shape): never {
  checkShape('the result', shape);
  throw new ShapeError(`the result: size overflows: ${show(shape)}.`);
}

/** Another handle on the same storage. */
export function viewOf(base: Tensor, shape: Shape, strides: Shape, offset: number): Tensor {
  if (shape.length > MAX_DIMS) refuseShape(shape);
  base.storage.owners++;
  const numel = numelOf(shape);
  const dense = isRowMajor(shape, strides);
  const view = new Tensor(base.storage, shape, strides, offset, numel, base.code, dense, base.storage.graphVersion);
  view.base = base.base ?? base;
  return track(view);
}

/** Puts a new tensor under the care of the open scope, or of the garbage collector. */
export function track(t: Tensor): Tensor {
  const { scope } = current();
  if (scope !== null) scope.made.push(t);
  else if (t.viewVersion < 0) adopt(t.storage);
  return t;
}

/** All tensors in a tree of arrays, maps, sets and plain objects. */
export function tensorsIn(tree: unknown): Set<Tensor> {
  const found = new Set<Tensor>();
  const stack: unknown[] = [tree];
  const seen = new Set<unknown>();
  while (stack.length > 0) {
    const value = stack.pop();
    if (value instanceof Tensor) found.add(value);
    else if (value !== null && typeof value === 'object' && !seen.has(value) && !ArrayBuffer.isView(value)) {
      seen.add(value);
      if (value instanceof Map) stack.push(...value.values());
      else if (Array.isArray(value) || value instanceof Set) stack.push(...value);
      else stack.push(...Object.values(value));
    }
  }
  return found;
}

/**
 * Runs fn and frees at once every tensor made inside, except those in its result (searched in arrays, maps, sets and
 * objects), those passed to `keep`, and gradients of leaves. An async fn is followed through its awaits. Values that
 * a graph needs for its backward pass stay alive with the graph.
 */
export function scope<T>(fn: () => T): T {
  const inner = new Scope(current().scope as Scope<Tensor> | null);
  return within('scope', { scope: inner }, fn, (result) => endScope(inner, tensorsIn(result)));
}

function endScope({ made, kept, outer }: Scope<Tensor>, results: ReadonlySet<Tensor>): void {
  for (const t of made) {
    if (t.disposed) continue;
    if (kept.has(t)) adopt(t.storage);
    else if (results.has(t)) {
      if (outer !== null) outer.made.push(t);
      else adopt(t.storage);
    } else {
      t.dispose();
      // Still owned by a graph that outlives the scope, or by a view: now the collector's.
      if (t.storage.slot >= 0) adopt(t.storage);
    }
  }
}

/** Lets a tensor outlive the open scopes. Returns it. */
export function keep<T extends Tensor>(t: T): T {
  checkTensor('keep', t);
  for (let open = current().scope as Scope<Tensor> | null; open !== null; open = open.outer) open.kept.add(t);
  return t;
}

/** How a view finds its place when its base has a new one; ops/overwrite.ts puts it here. */
export const staleViews: { renew: (t: Tensor) => void } = { renew: () => {} };

/** Gives a view whose base was changed in place by a recorded op its new place in the graph. */
export function renewView(t: Tensor): void {
  if (isStale(t)) staleViews.renew(t);
}
export const isStale = (t: Tensor): boolean => t.viewVersion !== -1 && t.viewVersion !== t.storage.graphVersion;
