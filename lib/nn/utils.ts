// nn.utils: what happens to gradients between backward and the optimizer's step. Layer nn.
import { checkRange } from '../arguments.ts';
import { noGrad } from '../autograd/tape.ts';
import { ArgumentError } from '../errors.ts';
import { globalNorm, scale_ } from '../ops/optimizer.ts';
import { Tensor } from '../tensor.ts';

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

/** Clamps every element of every gradient to ±`clipValue`. */
export function clipGradValue_(parameters: Parameters, clipValue: number): void {
  checkRange('clipGradValue_', 'clipValue', clipValue, 0, Infinity);
  noGrad(() => {
    for (const grad of gradsOf(parameters)) grad.clamp_({ min: -clipValue, max: clipValue });
  });
}

function gradsOf(parameters: Parameters): Tensor[] {
  const list = parameters instanceof Tensor ? [parameters] : [...parameters];
  return list.flatMap(({ grad }) => grad ?? []);
}
