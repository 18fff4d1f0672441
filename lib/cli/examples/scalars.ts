// Examples of numbers: the square, and the diamond. Layer cli.
import { type Tensor, tensor } from '../../index.ts';
import { example, number } from './example.ts';

const scalar = (value: number, requiresGrad = true): Tensor => tensor(value, { dtype: 'float64', requiresGrad });

export const square = example(
  {
    id: 'square',
    title: 'y = (x w + b)²',
    text: 'A chain of three ops. Each multiplies the gradient that comes from above by its own derivative.',
  },
  { x: number('x', 3), w: number('w', 2), b: number('b', 1) },
  (values) => {
    const [x, w, b] = [scalar(values.x), scalar(values.w), scalar(values.b)];
    return { loss: () => x.mul(w).add(b).square(), names: { x, w, b } };
  },
);

export const diamond = example(
  {
    id: 'diamond',
    title: 'The diamond: sums over paths',
    text: 'a = x x is used twice, in p a and in q a. What comes back over the two paths is added up, and so it is for the two uses of x.',
  },
  { x: number('x', 3), p: number('p', 2), q: number('q', 3) },
  (values) => {
    const x = scalar(values.x);
    const [p, q] = [scalar(values.p, false), scalar(values.q, false)];
    return {
      loss: () => {
        const a = x.mul(x);
        return a.mul(p).add(a.mul(q));
      },
      names: { x, p, q },
    };
  },
);
