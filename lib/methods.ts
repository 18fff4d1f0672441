// Gives tensors their methods: every op whose first argument is a tensor, and what reads, differentiates and prints.
// A function is written once; its method is derived here, name and type.
import { inspect } from 'node:util';
import { backward } from './autograd/backward.ts';
import { edgeOf } from './autograd/tape.ts';
import type { BackwardOptions } from './autograd/walk.ts';
import { ArgumentError, AutogradError } from './errors.ts';
import * as inPlace from './ops/in-place.ts';
import * as ops from './ops/index.ts';
import * as reading from './ops/read.ts';
import { format } from './print.ts';
import { describe } from './shape.ts';
import { checkTensor, type GradHook, Tensor } from './tensor.ts';

/** What of the op library has no method: its first argument is not the tensor it works on. */
const NOT_METHODS = [
  ...(['arange', 'empty', 'eye', 'full', 'linspace', 'ones', 'tensor', 'zeros'] as const),
  ...(['bernoulli', 'normal', 'rand', 'randint', 'randn', 'randperm', 'cat', 'stack', 'einsum'] as const),
];
type NotMethod = (typeof NOT_METHODS)[number] | 'max' | 'min';

// Keys are excluded by name, not by signature: the names of a class's members must not depend on the class.
type Methods<M> = {
  [K in Exclude<keyof M, NotMethod>]: M[K] extends (x: never, ...rest: infer R) => infer T ? (...rest: R) => T : never;
};

declare module './tensor.ts' {
  interface Tensor extends Methods<typeof ops>, Methods<typeof inPlace>, Methods<typeof reading> {
    max(): Tensor;
    max(dim: number, options?: ops.ReduceOptions): [values: Tensor, indices: Tensor];
    min(): Tensor;
    min(dim: number, options?: ops.ReduceOptions): [values: Tensor, indices: Tensor];
    /** As the function `backward`. */
    backward(gradient?: Tensor | null, options?: BackwardOptions & { inputs?: Tensor[] }): void;
    /** Keeps the gradient of a tensor that is not a leaf in its `grad`, too. */
    retainGrad(): void;
    /**
     * Calls hook with the gradient of this tensor in every backward pass, once it is complete; what it returns takes
     * the gradient's place. Returns how to remove it. torch.Tensor.register_hook
     */
    registerHook(hook: GradHook): () => void;
    /** With the last two dimensions exchanged; for two dimensions only. */
    readonly T: Tensor;
    /** With the last two dimensions exchanged. */
    readonly mT: Tensor;
  }
}

function define(name: string, value: unknown): void {
  Object.defineProperty(Tensor.prototype, name, { value, writable: true, configurable: true });
}

for (const [name, op] of Object.entries({ ...ops, ...inPlace, ...reading })) {
  if ((NOT_METHODS as readonly string[]).includes(name)) continue;
  const run = op as (x: Tensor, ...rest: unknown[]) => unknown;
  define(name, function method(this: Tensor, ...rest: unknown[]) {
    return run(this, ...rest);
  });
}

define('backward', function (this: Tensor, ...rest: [Tensor?, object?]) {
  backward(this, ...rest);
});

function nodeFor(op: string, t: Tensor) {
  checkTensor(op, t);
  const node = edgeOf(t);
  if (node === null) throw new AutogradError(`${op}: the tensor does not require grad, so no gradient ever arrives.`);
  return node;
}

define('retainGrad', function (this: Tensor) {
  const node = nodeFor('retainGrad', this);
  if (this.node === null) return;
  node.retaining = this;
});

define('registerHook', function (this: Tensor, hook: GradHook) {
  if (typeof hook !== 'function') throw new ArgumentError(`registerHook: ${describe(hook)}. Expected a function.`);
  const node = nodeFor('registerHook', this);
  node.hooks ??= new Set();
  node.hooks.add(hook);
  return () => void node.hooks?.delete(hook);
});

Object.defineProperty(Tensor.prototype, 'T', {
  get(this: Tensor) {
    if (this.ndim > 2) throw new ArgumentError(`T: a tensor of ${this.ndim} dimensions. Use mT, or permute.`);
    return this.ndim < 2 ? this : ops.transpose(this, 0, 1);
  },
});
Object.defineProperty(Tensor.prototype, 'mT', {
  get(this: Tensor) {
    return ops.transpose(this, -2, -1);
  },
});

define('toString', function (this: Tensor) {
  return format(this);
});
define(inspect.custom as unknown as string, function (this: Tensor) {
  return format(this);
});
