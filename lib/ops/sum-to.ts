// The way back from broadcasting. Used by whoever walks a rule, never by ops.
import { type Shape, sameShape } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { sum } from './reduce.ts';
import { reshape } from './views.ts';

/** Sums a gradient of a broadcast op down to the shape that its input had before it was broadcast. */
export function sumTo(g: Tensor, shape: Shape): Tensor {
  if (sameShape(g.shape, shape)) return g;
  const skip = g.ndim - shape.length;
  const dims = g.shape.map((_, d) => d).filter((d) => d < skip || (shape[d - skip] === 1 && g.shape[d] !== 1));
  return reshape(sum(g, dims, { keepdim: true }), shape);
}
