// nn.utils: what happens to gradients between backward and the optimizer's step. Layer nn.
import { checkRange } from '../arguments.ts';
import { noGrad } from '../autograd/grad-mode.ts';
import { edgeOf, isAccumulator, type Node } from '../autograd/tape.ts';
import { ArgumentError } from '../errors.ts';
import { globalNorm, scale_ } from '../ops/optimizer.ts';
import { describe } from '../shape.ts';
import { checkTensor, Tensor } from '../tensor.ts';
import type { AnyModule } from './module.ts';

type Parameters = Tensor | Iterable<Tensor>;

/**
 * Scales all gradients together so that their common 2-norm is at most `maxNorm`; returns the norm before. A norm that
 * is infinite or NaN makes the gradients zero or NaN, unless `errorIfNonFinite`.
 */
export function clipGradNorm_(parameters: Parameters, maxNorm: number, { errorIfNonFinite = false } = {}): number {
  checkRange('clipGradNorm_', 'maxNorm', maxNorm, 0, Infinity);
  const grads = gradsOf(parameters);
  const norm = globalNorm(grads);
  if (errorIfNonFinite && !Number.isFinite(norm)) {
    throw new ArgumentError(`clipGradNorm_: the norm of the gradients is ${norm}. No gradient was changed.`);
  }
  const factor = maxNorm / (norm + 1e-6);
  // Not `factor < 1`: a NaN must reach the gradients.
  if (!(factor >= 1)) scale_(grads, factor);
  return norm;
}

/** `clipGradNorm_` of all parameters of a module: between `backward` and the optimizer's step. */
export const clipGradients = (model: AnyModule, maxNorm: number): number => clipGradNorm_(model.parameters(), maxNorm);

/** Clamps every element of every gradient to ±`clipValue`. */
export function clipGradValue_(parameters: Parameters, clipValue: number): void {
  checkRange('clipGradValue_', 'clipValue', clipValue, 0, Infinity);
  noGrad(() => {
    for (const grad of gradsOf(parameters)) grad.clamp_({ min: -clipValue, max: clipValue });
  });
}

/** A tensor, or a list that starts with one, as loaders give; its dimension 0 are the examples. */
export type MicroBatch = Tensor | readonly unknown[];
type Arguments<B extends MicroBatch> = B extends readonly unknown[] ? B : [B];

/**
 * Adds the gradient of a batch, given in parts, into the `grad` of every leaf: that of one backward pass over the mean
 * loss of the whole batch, also when the parts differ in size. `lossOf(...part)` is the mean loss of one part, a scalar;
 * its graph is freed before the next is made. Returns the mean loss of the batch.
 * @throws ArgumentError before anything is computed
 */
export function accumulateGradients<B extends MicroBatch>(
  microBatches: Iterable<B>,
  lossOf: (...batch: Arguments<B>) => Tensor,
): number {
  const batches = [...microBatches].map((batch) => {
    const parts: readonly unknown[] = Array.isArray(batch) ? batch : [batch];
    return { parts, size: examplesOf(parts[0]) };
  });
  const total = batches.reduce((sum, { size }) => sum + size, 0);
  if (total === 0) throw new ArgumentError(`accumulateGradients: ${batches.length} micro-batches without examples.`);
  const passesBefore = new Map<Tensor, number>();
  let mean = 0;
  try {
    for (const { parts, size } of batches) {
      // The mean over none is NaN, and weighs nothing.
      if (size === 0) continue;
      const loss = lossOf(...(parts as Arguments<B>));
      checkTensor('accumulateGradients', loss, 'loss');
      for (const leaf of leavesOf(loss)) {
        if (!passesBefore.has(leaf)) passesBefore.set(leaf, leaf.gradPasses);
      }
      loss.mul(size / total).backward();
      mean += (Number(loss.item()) * size) / total;
    }
  } finally {
    // Asked for, they count as one pass: see Optimizer.warnOnAccumulation.
    for (const [leaf, passes] of passesBefore) leaf.gradPasses = Math.min(leaf.gradPasses, passes + 1);
  }
  return mean;
}

function examplesOf(first: unknown): number {
  if (first instanceof Tensor && first.ndim > 0) return first.size(0);
  const got = first instanceof Tensor ? 'a scalar' : describe(first);
  throw new ArgumentError(
    `accumulateGradients: a micro-batch starts with ${got}. Expected a tensor whose dimension 0 is the examples.`,
  );
}

/** The leaves that a backward pass from t gives gradients to. */
function leavesOf(t: Tensor): Tensor[] {
  const root = edgeOf(t);
  const nodes = new Set<Node>(root === null ? [] : [root]);
  // A set is walked in the order of adding, what is added on the way included.
  for (const node of nodes) for (const edge of node.edges) if (edge !== null) nodes.add(edge);
  return [...nodes].filter(isAccumulator).map((node) => node.context as Tensor);
}

function gradsOf(parameters: Parameters): Tensor[] {
  const list = parameters instanceof Tensor ? [parameters] : [...parameters];
  return list.flatMap(({ gradTensor }) => gradTensor ?? []);
}
