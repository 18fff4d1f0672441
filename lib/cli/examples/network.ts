// The two-layer network of the lesson, for one example and for a batch. Layer cli. The numbers are those of numpy's
// generator with seed 42, as in docs/lesson/03-two-layers-by-hand.md.
import { mseLoss, random, scope, type Tensor, tensor } from '../../index.ts';
import { example, matrix } from './example.ts';

const FEATURES = 4;
const HIDDEN = 8;
const BATCH = 4;

type Matrix = readonly (readonly number[])[];

function rows(t: Tensor, columns: number): Matrix {
  const values = Array.from(t.toTypedArray() as Float64Array);
  return Array.from({ length: values.length / columns }, (_, i) => values.slice(columns * i, columns * (i + 1)));
}

const drawn = scope(() => {
  const numpy = random.numpyLegacy(42);
  const W1 = rows(numpy.randn(HIDDEN, FEATURES).mul(Math.sqrt(2 / FEATURES)), FEATURES);
  const W2 = rows(numpy.randn(1, HIDDEN).mul(Math.sqrt(2 / HIDDEN)), HIDDEN);
  return { W1, W2, X: rows(numpy.randn(BATCH, FEATURES), FEATURES) };
});
const zeros = (columns: number): Matrix => [new Array<number>(columns).fill(0)];

const weights = {
  W1: matrix('W1', drawn.W1),
  b1: matrix('b1', zeros(HIDDEN)),
  W2: matrix('W2', drawn.W2),
  b2: matrix('b2', zeros(1)),
};

const of = (values: Matrix | readonly number[], requiresGrad = true): Tensor =>
  tensor(values as number[][] | number[], { dtype: 'float64', requiresGrad });

type Given = { readonly [K in keyof typeof weights]: Matrix };
const leaves = ({ W1, b1, W2, b2 }: Given) => ({ W1: of(W1), b1: of(b1[0]!), W2: of(W2), b2: of(b2[0]!) });

export const twoLayers = example(
  {
    id: 'two-layers',
    title: 'Two layers, one example',
    text: 'ŷ = W2 relu(W1 x + b1) + b2, and the loss is (ŷ - y)². Units that ReLU turns off get no gradient.',
  },
  { x: matrix('x', [drawn.X[0]!]), y: matrix('y', [[1]]), ...weights },
  (values) => {
    const { W1, b1, W2, b2 } = leaves(values);
    const [x, y] = [of(values.x[0]!, false), of(values.y[0]!, false)];
    const loss = () => W2.matmul(W1.matmul(x).add(b1).relu()).add(b2).sub(y).square().sum();
    return { loss, names: { x, y, W1, b1, W2, b2 } };
  },
);

export const batch = example(
  {
    id: 'batch',
    title: 'Two layers, a batch',
    text: `The same network for ${BATCH} examples at once, each a row of X. The loss is the mean; a bias, which all rows share, gets the sum of their gradients.`,
  },
  { X: matrix('X', drawn.X), Y: matrix('Y', [[1], [0], [-1], [1]]), ...weights },
  (values) => {
    const { W1, b1, W2, b2 } = leaves(values);
    const [X, Y] = [of(values.X, false), of(values.Y, false)];
    const loss = () => mseLoss(X.matmul(W1.T).add(b1).relu().matmul(W2.T).add(b2), Y);
    return { loss, names: { X, Y, W1, b1, W2, b2 } };
  },
);
