// Reading and adding by index. Kernels see [outer, rows, inner]; indices are int32 and checked natively as they are used.
import type { Rule } from '../autograd/tape.ts';
import { COMPUTE, I32 } from '../dtype.ts';
import { ShapeError } from '../errors.ts';
import { opcode } from '../native.ts';
import * as commands from '../program/commands.ts';
import { checkDim, checkInteger, numelOf, type Shape, sameShape, show } from '../shape.ts';
import { checkTensor, fresh, type Tensor } from '../tensor.ts';
import { spreadOver } from './align.ts';
import { allOf, Batched, isBatchedAt, levelOf, lower } from './batched.ts';
import { cast } from './cast.ts';
import { filled } from './create.ts';
import { checkIndex, checkSameDtype, dense, drop, finish, finishPlain, indexed } from './op.ts';
import { narrow } from './parts.ts';
import { expand, reshape, squeeze, unsqueeze } from './views.ts';

const GATHER = opcode('gather');
const SCATTER_ADD = opcode('scatterAdd');

function layout(shape: Shape, dim: number, count: number, perElement: boolean): commands.Indexing {
  return {
    perElement,
    outer: numelOf(shape.slice(0, dim)),
    rows: shape[dim]!,
    count,
    inner: numelOf(shape.slice(dim + 1)),
  };
}

// ---- rows -------------------------------------------------------------------------------------------------------------
interface Rows {
  /** Of the tensor that rows are taken from. */
  readonly shape: Shape;
  readonly dim: number;
  /** Of the tensor of rows. */
  readonly out: Shape;
}

const rowsRule = (name: string): Rule<Rows> => ({ name, vjp: [(g, [index], to) => addRows(g, index!, to)] });
const indexSelectRule = rowsRule('IndexSelectBackward');
const embeddingRule = rowsRule('EmbeddingBackward');
const addRowsRule: Rule<Rows> = {
  name: 'IndexAddBackward',
  vjp: [(g, [index], to) => takeRows('indexSelect', g, index!, to, indexSelectRule), () => null],
};

function takeRows(op: string, x: Tensor, index: Tensor, to: Rows, rule: Rule<Rows>): Tensor {
  const level = levelOf(x, index);
  if (level !== null) {
    const all = lower(level, () => {
      if (!isBatchedAt(level, index)) return takeRows(op, allOf(level, x), index, rowsOfAll(to, level.size), rule);
      const rows = gather(spreadOver(level, x), to.dim + 1, perElement(allOf(level, index), to));
      return reshape(rows, [level.size, ...to.out]);
    });
    return finish(all, rule, [x], [index], to);
  }
  const [source, rows] = [dense(x, x.code), dense(index, I32)];
  const out = fresh(to.out, x.code);
  commands.indexing(GATHER, out, source, rows, layout(to.shape, to.dim, index.numel, false));
  return indexed(op, to.shape[to.dim]!, () => {
    drop(rows, index);
    drop(source, x);
    return finish(out, rule, [x], [index], to);
  });
}

/** The same rows of every example. */
const rowsOfAll = ({ shape, dim, out }: Rows, size: number): Rows => ({
  shape: [size, ...shape],
  dim: dim + 1,
  out: [size, ...out],
});

/** Indices of rows, others for each example, as one index for each element of the rows. */
function perElement(index: Tensor, { shape, dim }: Rows): Tensor {
  const size = index.shape[0]!;
  const count = index.numel / Math.max(size, 1);
  const line = [size, ...shape.map((_, d) => (d === dim ? count : 1))];
  return expand(reshape(index, line), [size, ...shape.with(dim, count)]);
}

/** Zeros of shape `to.shape` with the rows of g added at their indices. */
function addRows(g: Tensor, index: Tensor, to: Rows): Tensor {
  const level = levelOf(g, index);
  if (level !== null) {
    const all = lower(level, () => {
      if (!isBatchedAt(level, index)) return addRows(allOf(level, g), index, rowsOfAll(to, level.size));
      const places = perElement(allOf(level, index), to);
      const zeros = filled('indexAdd', [level.size, ...to.shape], 0, { dtype: g.dtype });
      return scatterAdd(zeros, to.dim + 1, places, reshape(spreadOver(level, g), places.shape));
    });
    return finish(all, addRowsRule, [g, index], [index], to);
  }
  const code = COMPUTE[g.code]!;
  if (code !== g.code) return cast(addRows(cast(g, code), index, to), g.code);
  const [source, rows] = [dense(g), dense(index, I32)];
  const out = fresh(to.shape, code);
  commands.copy(out, 0);
  commands.indexing(SCATTER_ADD, out, source, rows, layout(to.shape, to.dim, index.numel, false));
  drop(rows, index);
  drop(source, g);
  return finish(out, addRowsRule, [g, index], [index], to);
}

/** The slices of x at the given indices (int32, one dimension) of dim. */
export function indexSelect(x: Tensor, dim: number, index: Tensor): Tensor {
  checkTensor('indexSelect', x);
  checkIndex('indexSelect', index);
  const d = checkDim('indexSelect', dim, x.ndim);
  if (index.ndim > 1 || x.ndim === 0) {
    throw new ShapeError(
      `indexSelect: x ${show(x.shape)}, index ${show(index.shape)}. Expected an index of one dimension.`,
    );
  }
  const out = x.shape.map((size, i) => (i === d ? index.numel : size));
  return takeRows('indexSelect', x, index, { shape: x.shape, dim: d, out }, indexSelectRule);
}

/** The rows of weight (n, dim) at idx (int32, any shape): shape idx.shape + [dim]. torch.nn.functional.embedding */
export function embedding(idx: Tensor, weight: Tensor): Tensor {
  checkIndex('embedding', idx);
  checkTensor('embedding', weight, 'weight');
  if (weight.ndim !== 2)
    throw new ShapeError(`embedding: the weight has shape ${show(weight.shape)}. Expected [n, dim].`);
  const out = [...idx.shape, weight.shape[1]!];
  return takeRows('embedding', weight, idx, { shape: weight.shape, dim: 0, out }, embeddingRule);
}

// ---- elements -----------------------------------------------------------------------------------------------------------
interface Elements {
  readonly shape: Shape;
  readonly dim: number;
}
const gatherRule: Rule<Elements> = {
  name: 'GatherBackward',
  vjp: [(g, [index], { shape, dim }) => scatterAdd(filled('gather', shape, 0, { dtype: g.dtype }), dim, index!, g)],
};
const scatterRule: Rule<Elements> = {
  name: 'ScatterAddBackward',
  vjp: [(g) => g, () => null, (g, [index], { dim }) => gather(g, dim, index!)],
};

/** The part of x that an index can reach: its own size along dim, the index's elsewhere. */
function reach(op: string, x: Tensor, dim: number, index: Tensor): Tensor {
  if (index.ndim !== x.ndim) {
    throw new ShapeError(
      `${op}: x ${show(x.shape)} and index ${show(index.shape)} differ in their number of dimensions.`,
    );
  }
  return x.shape.reduce((part: Tensor, size, d) => {
    if (d === dim || index.shape[d] === size) return part;
    if (index.shape[d]! > size) {
      throw new ShapeError(`${op}: index ${show(index.shape)} is larger than ${show(x.shape)} in dimension ${d}.`);
    }
    return narrow(part, d, 0, index.shape[d]!);
  }, x);
}

/** out[i][j] = x[index[i][j]][j] for dim 0, and so on: one index (int32) for each element of the result. */
export function gather(x: Tensor, dim: number, index: Tensor): Tensor {
  checkTensor('gather', x);
  checkIndex('gather', index);
  const d = checkDim('gather', dim, x.ndim);
  const part = reach('gather', x, d, index);
  const level = levelOf(part, index);
  if (level !== null) {
    const all = lower(level, () => {
      const [parts, places] = [spreadOver(level, part), spreadOver(level, index)];
      // Without dimensions there is one element, a row of its own.
      if (part.ndim === 0) return squeeze(gather(unsqueeze(parts, 1), 1, unsqueeze(places, 1)), 1);
      return gather(parts, d + 1, places);
    });
    return finish(all, gatherRule, [part], [index], { shape: part.shape, dim: d });
  }
  const [source, positions] = [dense(part, x.code), dense(index, I32)];
  const out = fresh(index.shape, x.code);
  const shape = part.ndim === 0 ? [1] : part.shape;
  commands.indexing(GATHER, out, source, positions, layout(shape, d, index.shape[d] ?? 1, true));
  return indexed('gather', shape[d]!, () => {
    drop(positions, index);
    drop(source, part);
    return finish(out, gatherRule, [part], [index], { shape: part.shape, dim: d });
  });
}

/** x with src added at index along dim: out[index[i][j]][j] += src[i][j] for dim 0. Repeated indices add in order. */
export function scatterAdd(x: Tensor, dim: number, index: Tensor, src: Tensor): Tensor {
  checkTensor('scatterAdd', x);
  checkIndex('scatterAdd', index);
  checkTensor('scatterAdd', src, 'src');
  checkSameDtype('scatterAdd', x, src);
  const code = COMPUTE[x.code]!;
  if (code !== x.code) return cast(scatterAdd(cast(x, code), dim, index, cast(src, code)), x.code);
  const d = checkDim('scatterAdd', dim, x.ndim);
  const added = reach('scatterAdd', src, -1, index);
  const target = reach('scatterAdd', x, d, index);
  const level = levelOf(x, index, added);
  if (level !== null) {
    const all = lower(level, () => {
      const [base, places, adding] = [x, index, added].map((t) => spreadOver(level, t)) as [Tensor, Tensor, Tensor];
      if (x.ndim > 0) return scatterAdd(base, d + 1, places, adding);
      return squeeze(scatterAdd(unsqueeze(base, 1), 1, unsqueeze(places, 1), unsqueeze(adding, 1)), 1);
    });
    return finish(all, scatterRule, [x, index, added], [index], { shape: x.shape, dim: d });
  }
  const whole = sameShape(target.shape, x.shape);
  const [source, positions] = [dense(added), dense(index, I32)];
  const out = fresh(x.shape, code);
  commands.copy(out, x);
  // The kernel adds into [outer, rows, inner]: where the index covers only a part of x, into a copy of that part.
  const sums = whole ? out : fresh(target.shape, code);
  if (!whole) commands.copy(sums, target);
  const shape = target.ndim === 0 ? [1] : target.shape;
  commands.indexing(SCATTER_ADD, sums, source, positions, layout(shape, d, index.shape[d] ?? 1, true));
  if (!whole) {
    const { storage, strides, offset } = out;
    commands.copy({ storage, strides, offset, shape: sums.shape, numel: sums.numel, code, isContiguous: false }, sums);
  }
  return indexed('scatterAdd', shape[d]!, () => {
    if (!whole) drop(sums, out);
    drop(positions, index);
    drop(source, added);
    return finish(out, scatterRule, [x, index, added], [index], { shape: x.shape, dim: d });
  });
}

/** Rows of zeros with a 1 (int32) at each index: shape idx.shape + [n]. torch.nn.functional.one_hot */
export function oneHot(idx: Tensor, n: number): Tensor {
  checkIndex('oneHot', idx);
  const classes = checkInteger('oneHot', 'n', n, 1);
  if (idx instanceof Batched) return finishPlain(lower(idx.level, () => oneHot(idx.physical, classes)));
  const index = dense(idx, I32);
  const out = fresh([...idx.shape, classes], I32);
  const one = fresh(idx.shape, I32);
  commands.copy(out, 0);
  commands.copy(one, 1);
  commands.indexing(SCATTER_ADD, out, one, index, {
    perElement: true,
    outer: idx.numel,
    rows: classes,
    count: 1,
    inner: 1,
  });
  return indexed('oneHot', classes, () => {
    drop(one, out);
    drop(index, idx);
    return finish(out, scatterRule, [], [], { shape: out.shape, dim: 0 });
  });
}
