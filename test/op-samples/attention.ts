// The row of scaled dot-product attention.
import { along, build, logSoftmax, map, matmul, mul, type Nd, transpose, zip } from '../reference.ts';
import { COMPOSED, constant, FLOATS, float, given, type Row, row } from './row.ts';

interface Options {
  mask?: Nd;
  isCausal?: boolean;
  dropout?: number;
}

function attentionOf(q: Nd, k: Nd, v: Nd, { mask, isCausal = false }: Options = {}): Nd {
  const scores = mul(matmul(q, transpose(k, -2, -1)), 1 / Math.sqrt(q.shape.at(-1)!));
  const seen = isCausal ? build(scores.shape, (i) => Number(i.at(-1)! <= i.at(-2)!), 'bool') : mask;
  const masked =
    seen === undefined
      ? scores
      : zip(scores, seen, (score, m) => (seen.kind === 'float' ? score + m : m ? score : -Infinity), 'float');
  return matmul(
    map(
      along(masked, -1, (row) => logSoftmax(row)),
      Math.exp,
    ),
    v,
  );
}

/** Every query sees one key at least. */
const half = given([3, 5], [1, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1], 'bool');

export const attention: Record<string, Row> = {
  scaledDotProductAttention: row<[q: Nd, k: Nd, v: Nd, options?: Options]>({
    tolerance: COMPOSED,
    dtypes: FLOATS,
    samples: () => [
      [float([3, 4]), float([5, 4]), float([5, 2])],
      [float([2, 3, 4]), float([2, 5, 4]), float([2, 5, 2]), { mask: float([3, 5]) }],
      [float([2, 1, 3, 4]), float([2, 5, 4]), float([5, 2]), { mask: half }],
      [float([2, 4, 3]), float([2, 4, 3]), float([2, 4, 3]), { isCausal: true }],
      [float([2, 3]), float([5, 3]), float([5, 3]), { isCausal: true, dropout: 0 }],
      [float([2, 3, 4], [30, 40]), float([2, 5, 4], [30, 40]), float([2, 5, 1])],
      [
        float([2, 3, 4]),
        float([2, 5, 4]),
        float([2, 5, 2]),
        { mask: given([2, 1, 5], [1, 1, 0, 0, 0, 0, 1, 1, 1, 1], 'bool') },
      ],
      // The second query sees no key.
      [
        constant(float([2, 3])),
        constant(float([2, 3])),
        constant(float([2, 1])),
        { mask: given([2, 2], [1, 0, 0, 0], 'bool') },
      ],
      [float([0, 4]), float([5, 4]), float([5, 2])],
      [float([2, 0, 3, 4]), float([2, 0, 5, 4]), float([2, 0, 5, 2])],
    ],
    reference: attentionOf,
    large: () => [[float([4, 70, 33]), float([4, 90, 33]), float([4, 90, 20]), { isCausal: true }]],
    refused: () => [
      [
        [float([4]), float([5, 4]), float([5, 2])],
        'ShapeError',
        /the query has shape \[4\]. Expected \(..., length, size\)/,
      ],
      [
        [float([3, 4]), float([5, 3]), float([5, 2])],
        'ShapeError',
        /query \[3,4\], key \[5,3\] and value \[5,2\] do not fit together/,
      ],
      [[float([3, 4]), float([5, 4]), float([4, 2])], 'ShapeError', /do not fit together/],
      [[float([2, 3, 4]), float([3, 5, 4]), float([5, 2])], 'ShapeError', /\[2\] and \[3\] do not broadcast/],
      [
        [float([3, 4]), float([5, 4]), float([5, 2]), { mask: half, isCausal: true }],
        'ArgumentError',
        /both a mask and isCausal/,
      ],
      [
        [float([3, 4]), float([5, 4]), float([5, 2]), { mask: float([2, 3, 5]) }],
        'ShapeError',
        /a mask of shape \[2,3,5\] does not broadcast to the scores \[3,5\]/,
      ],
      [[float([3, 4]), float([5, 4]), float([5, 2]), { mask: float([4]) }], 'ShapeError', /do not broadcast/],
      [
        [
          float([3, 4]),
          float([5, 4]),
          float([5, 2]),
          { mask: given([3, 5], half.data as unknown as number[], 'int32') },
        ],
        'DTypeError',
        /float.* and int32/,
      ],
      [[float([3, 4]), float([5, 4]), float([5, 2]), { isCausal: 'yes' }], 'ArgumentError', /isCausal is "yes"/],
      [[float([3, 4]), float([5, 4]), float([5, 2]), { dropout: 1.5 }], 'ArgumentError', /dropout is 1.5/],
      [[float([3, 4]), float([5, 4]), float([5, 2]), { causal: true }], 'ArgumentError', /unknown option "causal"/],
    ],
  }),
};
