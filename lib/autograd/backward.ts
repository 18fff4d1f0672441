// What users call to differentiate: backward() into the grad of leaves, grad() into results of its own.
import { checkOptions } from '../arguments.ts';
import { current, within } from '../context.ts';
import { ArgumentError, AutogradError, DTypeError, ShapeError } from '../errors.ts';
import { copy } from '../program/commands.ts';
import { adopt, flush } from '../program/engine.ts';
import { describe, sameShape, show } from '../shape.ts';
import { checkTensor, fresh, type Tensor, track } from '../tensor.ts';
import { edgeOf, type Node } from './tape.ts';
import { type BackwardOptions, type Capture, handleOn, Walk } from './walk.ts';

const OPTIONS: BackwardOptions = { retainGraph: false, createGraph: false };
const BACKWARD_OPTIONS = { ...OPTIONS, inputs: [] };
const GRAD_OPTIONS = { ...OPTIONS, gradOutputs: null, allowUnused: false };

/** Gives a gradient to the user: it lives as long as the open scope, or as it is referred to. */
function hand(t: Tensor): Tensor {
  if (current().scope === null) adopt(t.storage);
  return track(t);
}

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
  const one = fresh(root.shape, root.code);
  copy(one, 1);
  flush();
  adopt(one.storage);
  return one;
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
  within('backward', { grad: record, stopped: !record }, () => new Walk(options, captures).run(roots, gradients));
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
  checkOptions('backward', options, BACKWARD_OPTIONS);
  if (options.inputs !== undefined && !Array.isArray(options.inputs)) {
    throw new ArgumentError(`backward: inputs is ${describe(options.inputs)}. Expected an array of tensors.`);
  }
  if (x instanceof Object && x.physical) {
    throw new AutogradError('backward: inside vmap there is no grad to add into. Use grad(), which returns gradients.');
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
  checkOptions('grad', options, GRAD_OPTIONS);
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
