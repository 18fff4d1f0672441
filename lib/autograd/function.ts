// autograd.Function: ops whose gradient the user writes.
// biome-ignore-all lint/complexity/noThisInStatic: `this` is the user's subclass.
import { current, within } from '../context.ts';
import type { DType } from '../dtype.ts';
import { ArgumentError, AutogradError } from '../errors.ts';
import { behind } from '../ops/batched.ts';
import { filled, zeros } from '../ops/create.ts';
import { recordOp } from '../ops/op.ts';
import { detach } from '../ops/views.ts';
import { describe, type Shape } from '../shape.ts';
import { checkTensor, Tensor } from '../tensor.ts';
import { grad } from './backward.ts';
import { enableGrad } from './grad-mode.ts';
import { forwardMode, handleInGraph, hasTangent, hold, needsGrad, type Rule, record, recording } from './tape.ts';
import { currentWalk, type Walk } from './walk.ts';

// ---- types --------------------------------------------------------------------------------------------------------------
type Outputs = Tensor | readonly Tensor[];
type GradientOf<T> = T extends Tensor ? Tensor | null : null | undefined;
type EachGradient<A extends readonly unknown[]> = { readonly [K in keyof A]: GradientOf<A[K]> };
/** What `backward` returns: one gradient for each argument of `forward`, null for what is no tensor or needs none. */
export type Gradients<A extends readonly unknown[]> = A extends readonly [infer Only]
  ? GradientOf<Only> | readonly [GradientOf<Only>]
  : EachGradient<A>;
type GradOutputs<R> = R extends Tensor ? [gradOutput: Tensor] : R extends readonly Tensor[] ? Tensor[] : never;

/** What a class must have to be applied: `backward` takes what `forward` returns, and returns what `forward` takes. */
export interface Differentiable<A extends unknown[], R extends Outputs> {
  readonly name: string;
  forward(ctx: FunctionContext, ...args: A): R;
  backward(ctx: FunctionContext, ...gradOutputs: GradOutputs<R>): Gradients<A>;
}

// ---- context --------------------------------------------------------------------------------------------------------------
const internals = new WeakMap<FunctionContext, { toSave: Tensor[]; saved: Tensor[] | null; flat: Set<Tensor> }>();
const insideOf = (ctx: FunctionContext) => internals.get(ctx)!;

/** Carries what `backward` needs from `forward`; numbers and the like may be put on it as properties. */
export class FunctionContext {
  [property: string]: unknown;

  /** For each argument of forward, whether a gradient is needed for it. */
  readonly needsInputGrad: readonly boolean[];

  /** @internal */
  constructor(needsInputGrad: readonly boolean[]) {
    this.needsInputGrad = needsInputGrad;
    internals.set(this, { toSave: [], saved: null, flat: new Set() });
  }

  /** Keeps inputs, outputs or other tensors for backward; their later changes in place are noticed. */
  saveForBackward(...tensors: Tensor[]): void {
    for (const t of tensors) checkTensor('saveForBackward', t);
    insideOf(this).toSave = tensors;
  }

  /** In backward: the tensors that forward saved, in its order. */
  get savedTensors(): Tensor[] {
    const { saved } = insideOf(this);
    if (saved === null) throw new AutogradError('savedTensors: only in backward. What forward made is at hand there.');
    return saved;
  }

  /** Outputs that never require grad. */
  markNonDifferentiable(...outputs: Tensor[]): void {
    for (const t of outputs) insideOf(this).flat.add(t);
  }
}

// ---- backward -------------------------------------------------------------------------------------------------------------
interface Call {
  readonly fn: Differentiable<unknown[], Outputs>;
  readonly ctx: FunctionContext;
  /** What each argument of forward is, for messages; null for a tensor. */
  readonly args: readonly (string | null)[];
  readonly outputs: readonly { shape: Shape; dtype: DType }[];
  /** In each backward pass, what has arrived at each output. */
  readonly arrived: WeakMap<Walk, (Tensor | null)[]>;
}

/** Runs the user's backward, and proves that it returned a gradient for each argument. */
function pullBack({ fn, ctx, args, outputs }: Call, gradients: readonly (Tensor | null)[], saved: Tensor[]) {
  const inside = insideOf(ctx);
  inside.saved = saved;
  let returned: unknown;
  try {
    const given = gradients.map((g, i) => g ?? filled('backward', outputs[i]!.shape, 0, { dtype: outputs[i]!.dtype }));
    returned = (fn.backward as (ctx: FunctionContext, ...g: Tensor[]) => unknown)(ctx, ...given);
  } finally {
    inside.saved = null;
  }
  const list: readonly unknown[] = Array.isArray(returned) ? returned : [returned];
  if (list.length !== args.length) {
    throw new AutogradError(
      `${fn.name}.backward: returned ${list.length} gradient${list.length === 1 ? '' : 's'}. Expected ${args.length}, one ` +
        'for each argument of forward; null for what is no tensor.',
    );
  }
  return list.map((g, i) => {
    if (g === null || g === undefined) return null;
    checkTensor(`${fn.name}.backward`, g, `gradient ${i}`);
    if (args[i] === null) return g;
    throw new AutogradError(
      `${fn.name}.backward: gradient ${i} is a tensor, but argument ${i} of forward is ${args[i]}. Return null.`,
    );
  });
}

/** What was held, as a handle of the scope that is open. */
function passOn(held: Tensor): Tensor {
  const handle = handleInGraph(held);
  held.dispose();
  return handle;
}

/**
 * The tangents of all outputs from those of the inputs: backward maps gradients linearly to gradients, and its own
 * gradient maps tangents to tangents.
 */
function pushForward(call: Call, tangents: readonly (Tensor | null)[], saved: readonly (Tensor | null)[]) {
  const createGraph = current().grad;
  return enableGrad(() => {
    const starts = call.outputs.map(({ shape, dtype }) =>
      filled('backward', shape, 0, { dtype, requiresGrad: dtype.includes('float') }),
    );
    const pulled = pullBack(call, starts, saved as Tensor[]);
    const used = pulled.flatMap((g, i) => (g !== null && tangents[i] ? [i] : []));
    for (const i of used) {
      if (pulled[i]!.requiresGrad) continue;
      throw new AutogradError(
        `jvp: ${call.fn.name}.backward: gradient ${i} is not made of ops on the gradients it was given, so it has no ` +
          'forward-mode derivative. Write backward in ops, and return null where nothing flows.',
      );
    }
    if (used.length === 0) return starts.map(() => null);
    const leaves = starts.filter((t) => t.requiresGrad);
    const gradOutputs = used.map((i) => tangents[i]!);
    const outputs = used.map((i) => pulled[i]!);
    const found = grad(outputs, leaves, { gradOutputs, createGraph, allowUnused: true });
    return starts.map((t) => found[leaves.indexOf(t)] ?? null);
  });
}

/** The rule of output i alone, as if the other outputs were not used. */
const ruleOf = (name: string, i: number): Rule<Call> => ({
  name,
  vjp: [],
  jvp: (tangents, saved, call) => pushForward(call, tangents, saved)[i]!,
  pull: (g, saved, call) =>
    pullBack(
      call,
      call.outputs.map((_, k) => (k === i ? g : null)),
      saved,
    ),
});

/**
 * Several outputs have a node each, which only takes in what arrives. Behind them is one node for the call, an input of
 * all, which comes after all of them and calls backward once.
 */
function recordTogether(
  name: string,
  call: Call,
  outputs: readonly Tensor[],
  inputs: readonly (Tensor | null)[],
  saved: readonly Tensor[],
  flat: ReadonlySet<number>,
): void {
  const together = zeros([]);
  const callRule: Rule<Call> = {
    name,
    vjp: [],
    jvp: () => null,
    pull: (_, values, { arrived }) => {
      const gradients = (arrived.get(currentWalk()!) ?? []).map((g) => g && passOn(g));
      arrived.delete(currentWalk()!);
      return pullBack(call, gradients, values);
    },
  };
  if (recording(inputs)) record(together, callRule, inputs, saved, call);
  outputs.forEach((out, i) => {
    if (flat.has(i)) return;
    const take: Rule<Call> = {
      name,
      jvp: () => null,
      vjp: [
        (g) => {
          const walk = currentWalk()!;
          if (!call.arrived.has(walk)) call.arrived.set(walk, new Array<null>(outputs.length).fill(null));
          call.arrived.get(walk)![i] = hold(g);
          return zeros([]);
        },
      ],
    };
    if (recording([together])) record(out, take, [together], [], call);
    const own = ruleOf(name, i);
    if (inputs.some((t) => t !== null && hasTangent(t))) forwardMode.propagate(out, own as Rule, inputs, saved, call);
    if (out.physical !== null) behind.record(out, own, inputs, saved, call);
  });
}

// ---- apply ----------------------------------------------------------------------------------------------------------------
function checkClass(fn: { readonly name: string; readonly forward?: unknown; readonly backward?: unknown }): void {
  for (const method of ['forward', 'backward'] as const) {
    if (typeof fn[method] === 'function') continue;
    throw new ArgumentError(`${fn.name}: has no static ${method}(ctx, ...). A Function defines forward and backward.`);
  }
}

/** An output of forward as a tensor of its own: not an input, and outside of any graph. */
function ownOutput(fn: string, y: unknown, inputs: readonly unknown[]): Tensor {
  checkTensor(`${fn}.forward`, y, 'result');
  return inputs.includes(y) || y.node !== null || y.leafRequiresGrad ? detach(y) : y;
}

/**
 * Base class of ops with gradients of their own:
 *
 *     class Cube extends autograd.Function {
 *       static forward(ctx: FunctionContext, x: Tensor) { ctx.saveForBackward(x); return x.pow(3); }
 *       static backward(ctx: FunctionContext, g: Tensor) { const [x] = ctx.savedTensors; return g.mul(x!.square()).mul(3); }
 *     }
 *     const y = Cube.apply(x);
 *
 * forward runs unrecorded, on any arguments, and returns a tensor or an array of them. backward gets one gradient for
 * each output (zeros where none arrived) and returns one for each argument of forward. Written in ops, it is
 * differentiated itself: second derivatives, jvp and vmap follow. torch.autograd.Function
 */
// biome-ignore lint/complexity/noStaticOnlyClass: users extend it
export abstract class CustomFunction {
  /** @throws AutogradError from backward(), naming the class, when backward returns the wrong number of gradients */
  static apply<A extends unknown[], R extends Outputs>(this: Differentiable<A, R>, ...args: A): R {
    checkClass(this);
    const inputs = args.map((arg) => (arg instanceof Tensor ? arg : null));
    for (const t of inputs) if (t !== null) checkTensor(this.name, t);
    const ctx = new FunctionContext(inputs.map((t) => t !== null && needsGrad(t)));
    // Forward sees its inputs outside of every graph and tangent; what it saves of them is the inputs themselves.
    const seen = args.map((arg) => (arg instanceof Tensor ? detach(arg) : arg));
    const result: Outputs = within(this.name, { grad: false, stopped: true }, () => this.forward(ctx, ...(seen as A)));
    const results: readonly Tensor[] = Array.isArray(result) ? result : [result];
    const outputs = results.map((y) => ownOutput(this.name, y, seen));
    const call: Call = {
      fn: this as unknown as Differentiable<unknown[], Outputs>,
      ctx,
      args: args.map((arg) => (arg instanceof Tensor ? null : describe(arg))),
      outputs: outputs.map(({ shape, dtype }) => ({ shape, dtype })),
      arrived: new WeakMap(),
    };
    const inside = insideOf(ctx);
    const own = new Map<unknown, unknown>();
    for (const [i, t] of seen.entries()) own.set(t, args[i]);
    for (const [i, t] of results.entries()) own.set(t, outputs[i]);
    const saved = inside.toSave.map((t) => (own.get(t) as Tensor | undefined) ?? t);
    inside.toSave = [];
    const name = `${this.name}Backward`;
    const flat = new Set(results.flatMap((t, i) => (inside.flat.has(t) ? [i] : [])));
    if (!Array.isArray(result)) {
      if (!flat.has(0)) recordOp(outputs[0]!, ruleOf(name, 0), inputs, saved, call);
      return outputs[0] as unknown as R;
    }
    if (recording(inputs) || outputs.some((y) => y.physical !== null)) {
      recordTogether(name, call, outputs, inputs, saved, flat);
    }
    return outputs as unknown as R;
  }
}
