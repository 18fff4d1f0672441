// Rows of products of matrices and vectors.
import { add, matmul, Nd, transpose, zip } from '../reference.ts';
import { EXACT, FLOATS, float, type Refusal, type Row, row, whole } from './row.ts';

type Pair = [a: Nd, b: Nd];
const inner = (a: Nd): number => a.shape.at(-1) ?? 1;
const TERMS = { terms: (a: Nd) => inner(a) };

/** Each pair of shapes with random numbers, and with whole ones, whose product must be exact. */
const pairs = (...shapes: [number[], number[]][]): Pair[] =>
  shapes.flatMap(([a, b]): Pair[] => [
    [float(a), float(b)],
    [whole(a), whole(b)],
  ]);
const shapes = (...list: [number[], number[]][]) => list;

const MATRICES = shapes(
  [
    [3, 4],
    [4, 5],
  ],
  [
    [1, 1],
    [1, 1],
  ],
  [
    [17, 33],
    [33, 15],
  ],
  [
    [2, 0],
    [0, 3],
  ],
  [
    [0, 4],
    [4, 0],
  ],
  [
    [65, 7],
    [7, 66],
  ],
);
const BATCHES = shapes(
  [
    [2, 3, 4],
    [2, 4, 5],
  ],
  [
    [1, 17, 9],
    [1, 9, 3],
  ],
  [
    [0, 3, 4],
    [0, 4, 5],
  ],
  [
    [3, 2, 0],
    [3, 0, 2],
  ],
);
const LARGE = shapes([
  [300, 200],
  [200, 100],
]);

const refusedInner = (a: number[], b: number[]): Refusal => [
  [float(a), float(b)],
  'ShapeError',
  /inner dimensions differ: .* x .*. Expected a.shape\[-1\] == b.shape/,
];
const refusedRank = (...args: Nd[]): Refusal => [args, 'ShapeError', /has shape \[.*\]. Expected \d dimension/];

function product(
  of: [number[], number[]][],
  large: [number[], number[]][],
  refused: () => Refusal[],
  batched?: true,
): Row {
  return row<Pair>({
    samples: () => pairs(...of),
    reference: matmul,
    tolerance: TERMS,
    dtypes: FLOATS,
    large: () => pairs(...large),
    refused,
    ...(batched && { batched }),
  });
}

const linearOf = (x: Nd, weight: Nd, bias?: Nd | null): Nd => {
  const y = matmul(x, transpose(weight, 0, 1));
  return bias ? add(y, bias) : y;
};

export const products = {
  matmul: product(
    [
      ...MATRICES,
      ...BATCHES,
      ...shapes(
        [[4], [4]],
        [[4], [4, 3]],
        [[3, 4], [4]],
        [[2, 3, 4], [4]],
        [[4], [2, 4, 3]],
        [
          [2, 3, 4],
          [4, 5],
        ],
      ),
      ...shapes(
        [
          [3, 4],
          [2, 4, 5],
        ],
        [
          [2, 1, 3, 4],
          [3, 4, 2],
        ],
        [
          [5, 1, 2, 3],
          [1, 4, 3, 2],
        ],
        [[0], [0]],
        [
          [7, 2, 3],
          [1, 3, 4],
        ],
      ),
    ],
    [
      ...LARGE,
      ...shapes(
        [
          [4, 60, 50],
          [4, 50, 40],
        ],
        [
          [8, 40, 64],
          [64, 48],
        ],
        [[5000], [5000]],
      ),
    ],
    () => [
      refusedInner([3, 4], [5, 3]),
      refusedInner([4], [3]),
      refusedInner([2, 3, 4], [2, 3, 5]),
      [[float([]), float([3])], 'ShapeError', /at least one dimension/],
      [[float([2, 3, 4]), float([3, 4, 5])], 'ShapeError', /\[2\] and \[3\] do not broadcast/],
    ],
    true,
  ),
  mm: product(
    MATRICES,
    LARGE,
    () => [
      refusedInner([3, 4], [5, 3]),
      refusedRank(float([4]), float([4, 3])),
      refusedRank(float([3, 4]), float([4])),
    ],
    true,
  ),
  bmm: product(
    BATCHES,
    shapes([
      [4, 60, 50],
      [4, 50, 40],
    ]),
    () => [
      refusedInner([2, 3, 4], [2, 5, 3]),
      refusedRank(float([3, 4]), float([2, 4, 3])),
      [[float([2, 3, 4]), float([3, 4, 5])], 'ShapeError', /batches differ: \[2,3,4\] x \[3,4,5\]/],
    ],
  ),
  mv: product(
    shapes([[3, 4], [4]], [[33, 17], [17]], [[1, 1], [1]], [[0, 3], [3]], [[3, 0], [0]]),
    shapes([[700, 501], [501]]),
    () => [refusedInner([3, 4], [3]), refusedRank(float([4]), float([4])), refusedRank(float([3, 4]), float([4, 1]))],
    true,
  ),
  dot: product(shapes([[4], [4]], [[1], [1]], [[0], [0]], [[1000], [1000]]), shapes([[200_003], [200_003]]), () => [
    refusedInner([3], [4]),
    refusedRank(float([3, 4]), float([4])),
    refusedRank(float([4]), float([4, 1])),
  ]),
  outer: row<Pair>({
    samples: () => pairs([[3], [4]], [[1], [1]], [[17], [33]], [[0], [3]], [[3], [0]]),
    reference: (a, b) => zip(new Nd([a.data.length, 1], a.data), b, (x, y) => x * y),
    tolerance: EXACT,
    dtypes: FLOATS,
    large: () => pairs([[400], [301]]),
    refused: () => [refusedRank(float([3, 4]), float([4])), refusedRank(float([4]), float([]))],
  }),
  addmm: row<[bias: Nd, a: Nd, b: Nd]>({
    samples: () =>
      pairs(...MATRICES, [
        [2, 3],
        [3, 4],
      ]).flatMap(([a, b]): [Nd, Nd, Nd][] => {
        const n = b.shape[1]!;
        const make = Number.isInteger(a.data[0] ?? 0) ? whole : float;
        return [
          [make([n]), a, b],
          [make([a.shape[0]!, 1]), a, b],
          [make([]), a, b],
          [make([a.shape[0]!, n]), a, b],
        ];
      }),
    reference: (bias, a, b) => add(bias, matmul(a, b)),
    tolerance: { terms: (_, a) => inner(a) + 1 },
    dtypes: FLOATS,
    large: () => [[float([100]), float([300, 200]), float([200, 100])]],
    refused: () => [
      [[float([3]), float([3, 4]), float([5, 3])], 'ShapeError', /inner dimensions differ/],
      [[float([4]), float([3, 4]), float([4, 3])], 'ShapeError', /do(es)? not broadcast/],
      [
        [float([2, 3, 3]), float([3, 4]), float([4, 3])],
        'ShapeError',
        /bias of shape \[2,3,3\] does not broadcast to \[3,3\]/,
      ],
      refusedRank(float([3]), float([4]), float([4, 3])),
    ],
  }),
  linear: row<[x: Nd, weight: Nd, bias?: Nd | null]>({
    samples: () => [
      [float([3, 4]), float([5, 4]), float([5])],
      [whole([17, 33]), whole([9, 33]), whole([9])],
      [float([3, 4]), float([5, 4])],
      [float([4]), float([5, 4]), float([5])],
      [float([4]), float([5, 4]), null],
      [float([2, 3, 4]), float([5, 4]), float([5])],
      [whole([2, 3, 4]), whole([5, 4])],
      [float([0, 4]), float([5, 4]), float([5])],
      [float([3, 0]), float([5, 0]), float([5])],
    ],
    reference: linearOf,
    tolerance: { terms: (x) => inner(x) + 1 },
    dtypes: FLOATS,
    batched: true,
    large: () => [[float([300, 200]), float([100, 200]), float([100])]],
    refused: () => [
      [[float([3, 4]), float([5, 3])], 'ShapeError', /input \[3,4\] and weight \[5,3\] do not fit/],
      [[float([3, 4]), float([4])], 'ShapeError', /weight has shape \[4\]. Expected 2 dimensions/],
      [[float([3, 4]), float([5, 4]), float([4])], 'ShapeError', /bias has shape \[4\]. Expected \[5\]/],
    ],
  }),
};
