// Einstein summation: one batched product for each pair of operands, views and sums around it.
import { BF16, F32 } from '../dtype.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import { describe, numelOf, show } from '../shape.ts';
import { checkTensor, type Tensor } from '../tensor.ts';
import { cast } from './cast.ts';
import { mul } from './elementwise.ts';
import { matmul } from './matmul.ts';
import { checkFloat, checkSameDtype, composed } from './op.ts';
import { diagonal } from './parts.ts';
import { sum } from './reduce.ts';
import { permute, reshape, squeeze } from './views.ts';

/** A tensor and the label of each of its dimensions: a letter, or the number of one that an ellipsis stands for. */
interface Labelled {
  readonly t: Tensor;
  readonly labels: readonly string[];
}
type Labels = readonly string[];

const ELLIPSIS = '...';
const MAX_BATCH = 6;
const isLetter = (label: string): boolean => /^[A-Za-z]$/.test(label);

// ---- the equation -------------------------------------------------------------------------------------------------------
/** The labels of one term: letters, and one ellipsis. @throws ArgumentError */
function parseTerm(eq: string, term: string): Labels {
  const labels: Labels = term.match(/\.\.\.|[^\s]/g) ?? [];
  for (const label of labels) {
    if (!isLetter(label) && label !== ELLIPSIS) {
      throw new ArgumentError(`einsum: ${describe(label)} in ${describe(eq)}. Expected letters, '...', ',' and '->'.`);
    }
  }
  if (labels.indexOf(ELLIPSIS) !== labels.lastIndexOf(ELLIPSIS)) {
    throw new ArgumentError(`einsum: two ellipses in one term of ${describe(eq)}. Expected at most one.`);
  }
  return labels;
}

function parse(eq: unknown): { inputs: Labels[]; output: Labels | null } {
  if (typeof eq !== 'string') throw new ArgumentError(`einsum: the equation is ${describe(eq)}. Expected a string.`);
  const [left, right, ...more] = eq.split('->');
  if (more.length > 0) throw new ArgumentError(`einsum: more than one '->' in ${describe(eq)}.`);
  const inputs = left!.split(',').map((term) => parseTerm(eq, term));
  return { inputs, output: right === undefined ? null : parseTerm(eq, right) };
}

/** The term with its ellipsis spelt out: dimension n from the right of it is called n. @throws ShapeError */
function spellOut(eq: string, term: readonly string[], t: Tensor, i: number): string[] {
  const letters = term.filter(isLetter).length;
  const hidden = t.ndim - letters;
  if (hidden < 0 || (hidden > 0 && letters === term.length)) {
    const named = letters === 1 ? '1 letter' : `${letters} letters`;
    throw new ShapeError(
      `einsum: operand ${i} of ${describe(eq)} has shape ${show(t.shape)}, its term ${describe(term.join(''))} ${named}.`,
    );
  }
  return term.flatMap((label) => (label === ELLIPSIS ? numbered(hidden) : [label]));
}
const numbered = (n: number): string[] => Array.from({ length: n }, (_, d) => `${n - 1 - d}`);

/** The labels of the result. @throws ArgumentError */
function outputOf(eq: string, explicit: readonly string[] | null, terms: readonly Labels[]): string[] {
  const all = terms.flat();
  const hidden = numbered(new Set(all.filter((label) => !isLetter(label))).size);
  if (explicit === null) {
    const once = all.filter((label) => isLetter(label) && all.indexOf(label) === all.lastIndexOf(label));
    return [...hidden, ...once.sort()];
  }
  explicit.forEach((label, at) => {
    if (explicit.indexOf(label) !== at) {
      throw new ArgumentError(`einsum: the output of ${describe(eq)} names '${label}' twice.`);
    }
    if (label !== ELLIPSIS && !all.includes(label)) {
      throw new ArgumentError(`einsum: the output of ${describe(eq)} names '${label}', which no operand has.`);
    }
  });
  return explicit.flatMap((label) => (label === ELLIPSIS ? hidden : [label]));
}

// ---- one operand --------------------------------------------------------------------------------------------------------
/** The size of each label; one of 1 broadcasts. @throws ShapeError */
function sizesOf(eq: string, operands: readonly Labelled[]): Map<string, number> {
  const sizes = new Map<string, number>();
  operands.forEach(({ t, labels }, i) => {
    labels.forEach((label, d) => {
      const size = t.shape[d]!;
      const known = sizes.get(label);
      if (known !== undefined && known !== size && (labels.indexOf(label) < d || (known !== 1 && size !== 1))) {
        const what = isLetter(label) ? `'${label}'` : "a dimension of '...'";
        throw new ShapeError(
          `einsum: ${what} in ${describe(eq)} is ${known}, but ${size} in operand ${i} of shape ${show(t.shape)}.`,
        );
      }
      if (known === undefined || known === 1) sizes.set(label, size);
    });
  });
  return sizes;
}

/** With each label once: a repeated one stands for the diagonal. */
function withoutRepeats({ t, labels }: Labelled): Labelled {
  const again = labels.findIndex((label, d) => labels.indexOf(label) < d);
  if (again < 0) return { t, labels };
  const label = labels[again]!;
  const first = labels.indexOf(label);
  const rest = labels.filter((_, d) => d !== first && d !== again);
  return withoutRepeats({ t: diagonal(t, 0, first, again), labels: [...rest, label] });
}

/** Without the dimensions of size 1 that broadcast: an operand that lacks a label says the same. */
function withoutBroadcast({ t, labels }: Labelled, sizes: ReadonlyMap<string, number>): Labelled {
  const dims = labels.flatMap((label, d) => (t.shape[d] !== sizes.get(label) ? [d] : []));
  if (dims.length === 0) return { t, labels };
  return { t: squeeze(t, dims), labels: labels.filter((_, d) => !dims.includes(d)) };
}

/** Summed over the labels that nothing else needs. */
function withoutUnneeded({ t, labels }: Labelled, needed: Labels): Labelled {
  const dims = labels.flatMap((label, d) => (needed.includes(label) ? [] : [d]));
  if (dims.length === 0) return { t, labels };
  return { t: sum(t, dims), labels: labels.filter((label) => needed.includes(label)) };
}

/** Seen with its dimensions in another order. */
function arranged({ t, labels }: Labelled, order: Labels): Tensor {
  if (order.every((label, d) => label === labels[d])) return t;
  return permute(
    t,
    order.map((label) => labels.indexOf(label)),
  );
}

// ---- two operands -------------------------------------------------------------------------------------------------------
/** Every label of both, by multiplication alone. */
function multiplied(a: Labelled, b: Labelled): Labelled {
  const labels = [...a.labels, ...b.labels.filter((label) => !a.labels.includes(label))];
  const aligned = (x: Labelled): Tensor => {
    const own = labels.filter((label) => x.labels.includes(label));
    const t = arranged(x, own);
    return reshape(
      t,
      labels.map((label) => (own.includes(label) ? t.shape[own.indexOf(label)]! : 1)),
    );
  };
  return { t: mul(aligned(a), aligned(b)), labels };
}

/** The product of both, summed over what only they have: batch x left x shared @ batch x shared x right. */
function contracted(a: Labelled, b: Labelled, needed: Labels, sizes: ReadonlyMap<string, number>): Labelled {
  const common = a.labels.filter((label) => b.labels.includes(label));
  const batch = common.filter((label) => needed.includes(label));
  const shared = common.filter((label) => !needed.includes(label));
  if (shared.length === 0) return multiplied(a, b);
  const left = a.labels.filter((label) => !common.includes(label));
  const right = b.labels.filter((label) => !common.includes(label));
  const shapeOf = (labels: Labels): number[] => labels.map((label) => sizes.get(label)!);
  const [rows, inner, columns] = [left, shared, right].map((labels) => numelOf(shapeOf(labels))) as [
    number,
    number,
    number,
  ];
  // Batch dimensions stay apart, where a product takes so many: joined they might have to be copied.
  const outer = batch.length > MAX_BATCH ? [numelOf(shapeOf(batch))] : shapeOf(batch);
  const product = matmul(
    reshape(arranged(a, [...batch, ...left, ...shared]), [...outer, rows, inner]),
    reshape(arranged(b, [...batch, ...shared, ...right]), [...outer, inner, columns]),
  );
  const labels = [...batch, ...left, ...right];
  return { t: reshape(product, shapeOf(labels)), labels };
}

/**
 * The sum of products that the equation names, as torch.einsum: `einsum('bij,bjk->bik', a, b)`. Letters that the
 * output lacks are summed over; without `->` it has those that occur once, in alphabetical order. '...' stands for any
 * dimensions, which broadcast; a letter twice in one term for a diagonal. Operands are taken in pairs, from the left.
 */
export const einsum = composed('einsum', (eq: string, ...tensors: Tensor[]): Tensor => {
  const { inputs, output: explicit } = parse(eq);
  tensors.forEach((t, i) => {
    checkTensor('einsum', t, `operand ${i}`);
    checkFloat('einsum', t);
    checkSameDtype('einsum', tensors[0]!, t);
  });
  if (tensors.length !== inputs.length) {
    throw new ArgumentError(`einsum: ${describe(eq)} names ${inputs.length} operands, ${tensors.length} are given.`);
  }
  if (tensors[0]!.code === BF16) return cast(einsum(eq, ...tensors.map((t) => cast(t, F32))), BF16);
  const given = tensors.map((t, i): Labelled => ({ t, labels: spellOut(eq, inputs[i]!, t, i) }));
  const output = outputOf(
    eq,
    explicit,
    given.map(({ labels }) => labels),
  );
  const sizes = sizesOf(eq, given);
  const operands = given.map((x) => withoutBroadcast(withoutRepeats(x), sizes));
  /** What the output and all operands but some name. */
  const needed = (but: (i: number) => boolean): string[] => [
    ...output,
    ...operands.flatMap(({ labels }, i) => (but(i) ? [] : labels)),
  ];
  const own = operands.map((x, i) =>
    withoutUnneeded(
      x,
      needed((j) => j === i),
    ),
  );
  const result = own.reduce((a, b, i) =>
    contracted(
      a,
      b,
      needed((j) => j <= i),
      sizes,
    ),
  );
  const out = arranged(result, output);
  // Never an operand itself, which its owner may dispose of.
  return tensors.includes(out) ? reshape(out, out.shape) : out;
});
