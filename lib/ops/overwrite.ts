// What ops in place do around their command: may the tensor be written, and what is its place in the graph afterwards.
// A change of a view is a change of its base, which becomes: itself, with a part put in place of another.
import { hasTangent, needsGrad, type Rule, record, recording } from '../autograd/tape.ts';
import { current } from '../context.ts';
import { AutogradError, ShapeError } from '../errors.ts';
import { flush } from '../program/engine.ts';
import { type Shape, sameShape, show } from '../shape.ts';
import { checkTensor, staleViews, type Tensor } from '../tensor.ts';
import { cutOut, type Placement, partRule, pick } from './parts.ts';

// ---- before -------------------------------------------------------------------------------------------------------------
/**
 * Proves that x may be written in place, before anything is written.
 * @throws AutogradError for a leaf that requires grad, or a view of one, while recording; ShapeError for an expanded view
 */
export function beforeInPlace(op: string, x: Tensor, others: readonly Tensor[], result: Shape): void {
  checkTensor(op, x);
  if (!sameShape(result, x.shape)) {
    throw new ShapeError(
      `${op}: the result has shape ${show(result)} and does not fit in place into ${show(x.shape)}.`,
    );
  }
  for (let d = 0; d < x.shape.length; d++) {
    // Without elements row-major strides are 0 as well, and nothing is shared.
    if (x.strides[d] === 0 && x.shape[d]! > 1 && x.numel > 0) {
      throw new ShapeError(`${op}: ${show(x.shape)} is an expanded view: its elements share memory. Use a clone().`);
    }
  }
  if (x.physical !== null || others.some((t) => t.physical !== null)) {
    throw new AutogradError(
      `${op}: a tensor of shape ${show(x.shape)} cannot be changed in place inside vmap. Use the out-of-place op.`,
    );
  }
  if (current().grad) checkNoLeaf(op, x);
  const flows = current().grad ? needsGrad : hasTangent;
  if (x.viewVersion >= 0 && (flows(x) || others.some(flows))) checkPlace(op, x, flows);
}

function checkNoLeaf(op: string, x: Tensor): void {
  const leaf = x.base ?? x;
  if (!leaf.leafRequiresGrad || leaf.node !== null) return;
  const what = x.base === null ? 'a leaf that requires grad' : 'a view of a leaf that requires grad,';
  throw new AutogradError(
    `${op}: ${what} of shape ${show(x.shape)} cannot be changed in place while recording. ` +
      'Update it inside noGrad(() => ...), or use the out-of-place op.',
  );
}

/** A view has a base, of which it is a part; a second handle on the whole has not, and a change would miss the first. */
function checkPlace(op: string, x: Tensor, flows: (t: Tensor) => boolean): void {
  if (x.base === null ? !flows(x) : placementOf(x, x.base) !== null) return;
  throw new AutogradError(
    `${op}: a view of shape ${show(x.shape)} cannot be changed in place while its gradient is recorded: its elements ` +
      'are shared, or its base is not row-major. Use the out-of-place op and put the parts together with cat, where or ' +
      'scatterAdd, or work inside noGrad.',
  );
}

/** Whether writing x while reading y would read elements that are already written. */
export function overlaps(x: Tensor, y: Tensor): boolean {
  return (
    x.storage === y.storage &&
    !(x.offset === y.offset && sameShape(x.shape, y.shape) && sameShape(x.strides, y.strides))
  );
}

// ---- the place of a view --------------------------------------------------------------------------------------------------
/** Whether several indices reach one element: as of an expanded view, or of overlapping windows. */
function repeats({ shape, strides }: Tensor): boolean {
  const steps = shape.flatMap((size, d) => (size > 1 ? [{ size, step: Math.abs(strides[d]!) }] : []));
  steps.sort((a, b) => a.step - b.step);
  let reach = 0;
  for (const { size, step } of steps) {
    if (step <= reach) return true;
    reach += (size - 1) * step;
  }
  return false;
}

/** Where a view lies in its base, or null where that cannot be told. */
function placementOf(x: Tensor, base: Tensor): Placement | null {
  if (!base.isContiguous || repeats(x)) return null;
  const offset = x.offset - base.offset;
  return { whole: base.shape, shape: x.shape, layout: () => [x.strides, offset], rowMajor: true };
}

const viewRule = partRule('AsStridedBackward');

/** The base with a part in place of what was there. */
const putRule: Rule<Placement> = {
  name: 'CopySlices',
  vjp: [(g, _, place) => cutOut(g, place), (g, _, place) => pick(g, place, viewRule)],
};

/** Gives a view the place in the graph that follows from its base's; it stays stale where that cannot be told. */
function renew(x: Tensor): void {
  const { base } = x;
  // A handle outside the graph stays outside.
  const inside = base !== null && !x.leafRequiresGrad && needsGrad(base);
  const place = inside ? placementOf(x, base) : null;
  if (inside && place === null) return;
  x.viewVersion = x.storage.graphVersion;
  if (!inside) return;
  x.node = null;
  x.dual = null;
  const context = current();
  const { grad, savedHooks } = context;
  context.grad = true;
  context.savedHooks = null;
  try {
    record(x, viewRule, [base], [], place);
  } finally {
    context.grad = grad;
    context.savedHooks = savedHooks;
  }
}
staleViews.renew = renew;

// ---- after ----------------------------------------------------------------------------------------------------------------
/** Runs the commands of an in-place op and gives x its new place in the graph. */
export function finishInPlace<C>(
  x: Tensor,
  rule: Rule<C>,
  inputs: readonly (Tensor | null)[],
  saved: () => readonly (Tensor | null)[],
  context: C,
): Tensor {
  flush();
  x.storage.changed();
  if (!recording(inputs)) return x;
  if (x.base === null) {
    recordChange(x, () => record(x, rule, inputs, saved(), context));
    // A handle from outside the graph has a place of its own from here on.
    x.viewVersion = -1;
  } else {
    // What was written, at a place of its own; then the base, and x as a view of it.
    const part = x.alias();
    record(part, rule, inputs, saved(), context);
    const { base } = x;
    recordChange(base, () => record(base, putRule, [base, part], [], placementOf(x, base)));
    part.dispose();
    renew(x);
  }
  return x;
}

function recordChange(x: Tensor, change: () => void): void {
  const before = x.node;
  change();
  x.storage.graphVersion++;
  // Hooks stay with the value that was, as in PyTorch; what x retains is the gradient of the value that is.
  if (before !== null && before.retaining === x && x.node !== before) {
    before.retaining = null;
    x.node!.retaining = x;
  }
}
