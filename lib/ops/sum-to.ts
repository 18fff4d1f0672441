// The way back from broadcasting. Used by whoever walks a rule, never by ops.
import { type Shape, sameShape } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { sum } from './reduce.ts';
import { reshape } from './views.ts';

/** Sums a gradient of a broadcast op down to the shape that its input had before it was broadcast. */
export function sumTo(g: Tensor, shape: Shape): Tensor {
  if (sameShape(g.shape, shape)) return g;
  const skip = g.ndim - shape.length;
  const dims: number[] = [];
  for (let d = 0; d < g.ndim; d++) if (d < skip || (shape[d - skip] === 1 && g.shape[d] !== 1)) dims.push(d);
  // Without a size of 1 to keep, the sum has the shape as it is.
  return dims.length === skip ? sum(g, dims) : reshape(sum(g, dims, { keepdim: true }), shape);
}
