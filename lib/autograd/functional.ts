// Derivatives of functions: vjp, jacobian, hessian, hvp. They leave every `grad` alone, may be nested in each other,
// in jvp and in vmap, and their results can be differentiated when what they depend on requires grad.
import { current, within } from '../context.ts';
import { AutogradError, DTypeError, ShapeError } from '../errors.ts';
import { eye, zerosLike } from '../ops/create.ts';
import { reshape } from '../ops/views.ts';
import { sameShape, show } from '../shape.ts';
import { checkTensor, Tensor } from '../tensor.ts';
import { grad } from './backward.ts';
import { checkFloats, checkFunction, checkTensors, jvp, type Outputs } from './forward.ts';
import { edgeOf, isAccumulator, type Node, needsGrad, type Rule, record } from './tape.ts';
import { vmap } from './vmap.ts';

const ALIAS: Rule = { name: 'AliasBackward', vjp: [(g) => g], elementwise: true };

/** x once more, to differentiate for: gradients for it leave x's other uses out, and can be followed on to x. */
function inputOf(x: Tensor): Tensor {
  const input = x.alias();
  if (edgeOf(x) !== null || x.dual !== null) record(input, ALIAS, [x], [], null);
  if (input.node === null) input.leafRequiresGrad = true;
  return input;
}

/** Whether gradients flow on from what was computed: beyond the inputs, to another leaf, or behind a vmap. */
function reachesBeyond(outputs: readonly Tensor[], inputs: readonly Tensor[]): boolean {
  if (inputs.some((x) => x.node !== null)) return true;
  if ([...inputs, ...outputs].some(({ physical }) => physical !== null && needsGrad(physical))) return true;
  const own = new Set(inputs.map(edgeOf));
  const seen = new Set<Node>();
  const stack = outputs.flatMap((y) => edgeOf(y) ?? []);
  while (stack.length > 0) {
    const node = stack.pop()!;
    if (seen.has(node)) continue;
    seen.add(node);
    if (isAccumulator(node) && !own.has(node)) return true;
    for (const edge of node.edges) if (edge !== null) stack.push(edge);
  }
  return false;
}

interface Pulled<T extends Outputs> {
  readonly out: T;
  readonly outs: readonly Tensor[];
  /** The gradients of the inputs from those of the outputs; zeros where nothing depends. */
  readonly pull: (gradients: readonly Tensor[]) => Tensor[];
}

function differentiate<T extends Outputs>(
  op: string,
  fn: (...xs: Tensor[]) => T,
  primals: readonly Tensor[],
): Pulled<T> {
  checkFunction(op, fn);
  checkFloats(op, primals);
  const recorded = current().grad;
  const inputs = within(op, { grad: true, stopped: false }, () => primals.map(inputOf));
  const out = within(op, { grad: true, stopped: false }, () => fn(...inputs));
  const outs = checkTensors(op, 'result of the function', out);
  const beyond = recorded && reachesBeyond(outs, inputs);
  const pull = (gradients: readonly Tensor[]): Tensor[] => {
    const createGraph = beyond || (current().grad && gradients.some(needsGrad));
    const used = outs.flatMap((y, i) => (y.requiresGrad ? [i] : []));
    if (used.length === 0) return inputs.map((x) => zerosLike(x));
    const found = grad(
      used.map((i) => outs[i]!),
      inputs,
      { gradOutputs: used.map((i) => gradients[i]!), retainGraph: true, createGraph, allowUnused: true },
    );
    return inputs.map((x, i) => found[i] ?? zerosLike(x));
  };
  return { out: (beyond ? out : detached(out)) as T, outs, pull };
}

/** Values without the graph that was only needed for the pullback. */
const detached = (out: Outputs): Outputs => {
  const one = (y: Tensor): Tensor => {
    const handle = y.alias();
    handle.dual = y.dual;
    return handle;
  };
  return out instanceof Tensor ? one(out) : out.map(one);
};

/** From the gradient of each output to that of the primal, or of each. */
export type Pullback<R = Tensor | Tensor[]> = (...gradients: Tensor[]) => R;

/**
 * The value of fn at primals, and the function that maps a gradient of the output (one for each output, of its shape)
 * to that of the primals: v·J, by one backward pass a call; may be called again. torch.func.vjp
 * @returns [out, pullback]; the pullback gives one tensor for one primal, else an array
 */
export function vjp<T extends Outputs>(fn: (x: Tensor) => T, primal: Tensor): [out: T, pullback: Pullback<Tensor>];
export function vjp<T extends Outputs>(
  fn: (...primals: Tensor[]) => T,
  ...primals: Tensor[]
): [out: T, pullback: Pullback<Tensor[]>];
export function vjp<T extends Outputs>(
  fn: (...primals: Tensor[]) => T,
  ...primals: Tensor[]
): [out: T, pullback: Pullback] {
  const xs = checkTensors('vjp', 'primal', primals);
  const { out, outs, pull } = differentiate('vjp', fn, xs);
  const pullback: Pullback = (...gradients) => {
    const given = checkTensors('vjp', 'gradient', gradients.flat());
    if (given.length !== outs.length) {
      throw new ShapeError(`vjp: ${given.length} gradients for ${outs.length} outputs. Expected one for each.`);
    }
    given.forEach((g, i) => {
      if (!sameShape(g.shape, outs[i]!.shape)) {
        throw new ShapeError(`vjp: gradient ${i} has shape ${show(g.shape)}, its output ${show(outs[i]!.shape)}.`);
      }
      if (g.code !== outs[i]!.code)
        throw new DTypeError(`vjp: gradient ${i} is ${g.dtype}, its output ${outs[i]!.dtype}.`);
    });
    const pulled = pull(given);
    return pulled.length === 1 ? pulled[0]! : pulled;
  };
  return [out, pullback];
}

/**
 * All derivatives of fn(x), a tensor of shape out.shape + x.shape: one backward pass over as many gradients as the
 * output has elements, all at once. torch.func.jacrev
 */
export function jacobian(fn: (x: Tensor) => Tensor, x: Tensor): Tensor {
  checkTensor('jacobian', x);
  const { out, pull } = differentiate('jacobian', fn, [x]);
  checkTensor('jacobian', out, 'result of the function');
  const basis = reshape(eye(out.numel, { dtype: out.dtype }), [out.numel, ...out.shape]);
  const rows = vmap((g: Tensor) => pull([g])[0]!)(basis);
  return reshape(rows, [...out.shape, ...x.shape]);
}

function scalar(op: string, fn: (x: Tensor) => Tensor): (x: Tensor) => Tensor {
  return (x) => {
    const { out: y, pull } = differentiate(op, fn, [x]);
    checkTensor(op, y, 'result of the function');
    if (y.numel !== 1)
      throw new AutogradError(`${op}: the function returned shape ${show(y.shape)}. Expected a scalar.`);
    return pull([one(y)])[0]!;
  };
}

function one(y: Tensor): Tensor {
  return reshape(eye(1, { dtype: y.dtype }), y.shape);
}

/** All second derivatives of fn(x), a scalar: shape x.shape + x.shape. torch.func.hessian */
export function hessian(fn: (x: Tensor) => Tensor, x: Tensor): Tensor {
  checkTensor('hessian', x);
  checkFunction('hessian', fn);
  return jacobian(scalar('hessian', fn), x);
}

/**
 * The Hessian of fn(x), a scalar, times v (of x's shape), without the Hessian: forward over reverse, for the price of
 * a few gradients.
 */
export function hvp(fn: (x: Tensor) => Tensor, x: Tensor, v: Tensor): Tensor {
  checkTensor('hvp', x);
  checkTensor('hvp', v, 'vector');
  if (!sameShape(x.shape, v.shape)) {
    throw new ShapeError(`hvp: the vector has shape ${show(v.shape)}, the input ${show(x.shape)}.`);
  }
  if (x.code !== v.code) throw new DTypeError(`hvp: the vector is ${v.dtype}, the input ${x.dtype}.`);
  checkFunction('hvp', fn);
  checkFloats('hvp', [x]);
  return jvp(scalar('hvp', fn), x, v)[1];
}
