// Rows of ops that put tensors together or move their elements; no value changes, so all are exact.
import { at, build, dimsOf, Nd, range, replaced, type Shape } from '../reference.ts';
import { float, mask, type Row } from './row.ts';
import { dimOf, modulo, moved, outside } from './shape.ts';

const catOf = (list: readonly Nd[], dim = 0): Nd => {
  const first = list.find((x) => x.data.length > 0) ?? list[0]!;
  const d = dimOf(dim, first.ndim);
  const parts = list.filter((x) => x.ndim === first.ndim);
  const owners = parts.flatMap((x) => range(x.shape[d]!).map((i) => [x, i] as const));
  return build(replaced(first.shape, d, owners.length), (i) => at(owners[i[d]!]![0], i.with(d, owners[i[d]!]![1])));
};
const rollOf = (x: Nd, shift: number | Shape, dim?: number | Shape): Nd => {
  if (dim === undefined)
    return new Nd(
      x.shape,
      x.data.map((_, i) => x.data[modulo(i - (shift as number), x.data.length)]!),
    );
  const shifts = [shift].flat();
  return dimsOf(dim, x.ndim).reduce(
    (t, d, k) => build(t.shape, (i) => at(t, i.with(d, modulo(i[d]! - shifts[k]!, t.shape[d]!)))),
    x,
  );
};

export const joins = {
  cat: moved<[list: Nd[], dim?: number]>({
    samples: () => [
      [[float([2, 3]), float([1, 3])]],
      [[float([2, 3]), float([2, 1]), float([2, 0])], -1],
      [[float([4])]],
      [[float([0]), float([0])]],
      [[float([0]), float([2, 3]), float([2, 1])], 1],
      [[float([2, 3]), float([0])], -2],
      [[float([2, 2, 3]), float([2, 5, 3])], 1],
    ],
    reference: catOf,
    large: () => [[[float([300, 211]), float([100, 211])]]],
    refused: () => [
      [[[]], 'ArgumentError', /list is an array of 0/],
      [[float([2])], 'ArgumentError', /Expected at least one tensor/],
      [[[float([]), float([])]], 'ShapeError', /Use stack/],
      [[[float([2, 3]), float([2, 4])]], 'ShapeError', /\[2,3\] and \[2,4\] differ outside dimension 0/],
      [[[float([2]), float([2, 1])]], 'ShapeError', /differ/],
      [[[float([2]), 3]], 'ArgumentError', /entry 1 of the list is 3/],
      [[[float([2]), mask([2])]], 'DTypeError', /float.* and bool/],
      [[[float([2])], 1], 'IndexError', /dim 1 is outside/],
    ],
  }),
  stack: moved<[list: Nd[], dim?: number]>({
    samples: () => [
      [[float([2, 3]), float([2, 3])]],
      [[float([2, 3]), float([2, 3])], -1],
      [[float([]), float([])]],
      [[float([0])], 1],
    ],
    reference: (list, dim = 0) => {
      const d = dim < 0 ? dim + list[0]!.ndim + 1 : dim;
      return build(list[0]!.shape.toSpliced(d, 0, list.length), (i) => at(list[i[d]!]!, i.toSpliced(d, 1)));
    },
    large: () => [[[float([300, 211]), float([300, 211])], 1]],
    refused: () => [
      [[[]], 'ArgumentError', /list is an array of 0/],
      [[[float([2]), float([3])]], 'ShapeError', /shapes differ: \[2\] and \[3\]/],
      [[[float([2])], 2], 'IndexError', /dim 2 is outside/],
    ],
  }),
  repeat: moved<[x: Nd, reps: Shape]>({
    samples: () => [
      [float([2, 3]), [2, 2]],
      [float([3]), [2, 1, 3]],
      [float([]), [4]],
      [float([2]), [0]],
      [float([0, 2]), [3, 1]],
      [float([1, 2]), [3, 1]],
      [float([2]), [1]],
    ],
    reference: (x, reps) => {
      const own = [...new Array<number>(reps.length - x.ndim).fill(1), ...x.shape];
      return build(
        own.map((size, d) => size * reps[d]!),
        (i) =>
          at(
            new Nd(own, x.data),
            i.map((n, d) => n % own[d]!),
          ),
      );
    },
    large: () => [[float([300, 101]), [2, 3]]],
    refused: () => [
      [[float([2, 3]), [2]], 'ShapeError', /for 2 dimensions. Expected at least one number each/],
      [[float([2]), [-1]], 'ArgumentError', /count is -1/],
    ],
  }),
  flip: moved<[x: Nd, dims: number | Shape]>({
    samples: () => [
      [float([17]), 0],
      [float([3, 4]), [0, 1]],
      [float([2, 3, 4]), -2],
      [float([]), 0],
      [float([0, 2]), 0],
    ],
    reference: (x, dims) => {
      const turned = x.ndim === 0 ? [] : dimsOf(dims, x.ndim);
      return build(x.shape, (i) =>
        at(
          x,
          i.map((n, d) => (turned.includes(d) ? x.shape[d]! - 1 - n : n)),
        ),
      );
    },
    large: () => [[float([300, 211]), [0, 1]]],
    refused: () => [outside(2), [[float([2, 3]), [0, 0]], 'ArgumentError', /dim 0 is named twice/]],
  }),
  roll: moved<[x: Nd, shift: number | Shape, dim?: number | Shape]>({
    samples: () => [
      [float([7]), 2, 0],
      [float([3, 4]), -1, 1],
      [float([3, 4]), [1, 6], [0, 1]],
      [float([2, 3]), 4],
      [float([0, 2]), 1, 0],
      [float([3]), 3, 0],
      [float([2, 2]), 4],
    ],
    reference: rollOf,
    large: () => [[float([300, 211]), 7]],
    refused: () => [
      [[float([2, 3]), 1, 2], 'IndexError', /dim 2 is outside/],
      [[float([2, 3]), [1, 2], [0]], 'ArgumentError', /2 shifts for 1 dims/],
      [[float([2, 3]), 0.5, 0], 'ArgumentError', /shift is 0.5/],
    ],
  }),
  pad: moved<[x: Nd, pairs: Shape, value?: number]>({
    samples: () => [
      [float([3]), [1, 2]],
      [float([2, 3]), [1, 0, 0, 2], 7],
      [float([4, 5]), [-1, -2], 1],
      [float([2, 3]), [-1, 2]],
      [float([]), []],
      [float([0]), [2, 1], 3],
    ],
    reference: (x, pairs, value = 0) => {
      const amount = (d: number, side: number): number => pairs[2 * (x.ndim - 1 - d) + side] ?? 0;
      return build(
        x.shape.map((size, d) => size + amount(d, 0) + amount(d, 1)),
        (i) => {
          const from = i.map((n, d) => n - amount(d, 0));
          return from.every((n, d) => n >= 0 && n < x.shape[d]!) ? at(x, from) : value;
        },
      );
    },
    large: () => [[float([300, 211]), [3, 4, 1, 2]]],
    refused: () => [
      [[float([3]), [1]], 'ArgumentError', /Expected up to 1 pairs/],
      [[float([3]), [1, 1, 1, 1]], 'ArgumentError', /Expected up to 1 pairs/],
      [[float([3]), [-2, -2]], 'ShapeError', /dimension 0 of size 3 cannot be cut by 4/],
      [[float([3]), [1, 1], '0'], 'ArgumentError', /value is "0"/],
    ],
  }),
  tril: triangle((offset, k) => offset <= k),
  triu: triangle((offset, k) => offset >= k),
};

/** Keeps elements whose column - row is on the right side of k. */
function triangle(keeps: (offset: number, k: number) => boolean): Row {
  return moved<[x: Nd, k?: number]>({
    samples: () => [
      [float([4, 4])],
      [float([3, 5]), 1],
      [float([5, 3]), -2],
      [float([2, 3, 3])],
      [float([0, 3])],
      [float([3, 3]), 9],
    ],
    reference: (x, k = 0) => build(x.shape, (i) => (keeps(i.at(-1)! - i.at(-2)!, k) ? at(x, i) : 0)),
    large: () => [[float([300, 211])]],
    refused: () => [
      [[float([3])], 'ShapeError', /\[3\] has fewer than two dimensions/],
      [[float([3, 3]), 0.5], 'ArgumentError', /k is 0.5/],
    ],
  });
}
