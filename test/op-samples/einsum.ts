// The row of einsum: its reference goes through every index of the result and every one that is summed over.
import { at, build, type Nd, numel, range, sumOf } from '../reference.ts';
import { constant, FLOATS, float, index, type Refusal, type Row, row, whole } from './row.ts';

interface Sum {
  terms: string[];
  output: string[];
  /** Labels that are summed over. */
  summed: string[];
  sizes: Map<string, number>;
}

/** An equation with ellipses spelt out: digits, counted from the right. */
function read(eq: string, xs: readonly Nd[]): Sum {
  const [left, right] = eq.replaceAll(' ', '').split('->') as [string, string?];
  const spelt = (term: string, ndim: number): string =>
    term.replace(
      '...',
      range(ndim - term.replace('...', '').length)
        .reverse()
        .join(''),
    );
  const terms = left.split(',').map((term, i) => spelt(term, xs[i]!.ndim));
  const sizes = new Map<string, number>();
  terms.forEach((term, i) => {
    [...term].forEach((label, d) => {
      const size = xs[i]!.shape[d]!;
      if (size !== 1 || !sizes.has(label)) sizes.set(label, size);
    });
  });
  const labels = [...sizes.keys()];
  const hidden = labels
    .filter((label) => label < 'A')
    .sort()
    .reverse();
  const once = labels.filter((label) => label >= 'A' && terms.join('').split(label).length === 2).sort();
  const output = right === undefined ? [...hidden, ...once] : [...right.replace('...', hidden.join(''))];
  return { terms, output, summed: labels.filter((label) => !output.includes(label)), sizes };
}

function einsumOf(eq: string, ...xs: Nd[]): Nd {
  const { terms, output, summed, sizes } = read(eq, xs);
  const shape = (labels: string[]): number[] => labels.map((label) => sizes.get(label)!);
  return build(shape(output), (i) => {
    const products = build(shape(summed), (j) => {
      const place = (label: string): number =>
        summed.includes(label) ? j[summed.indexOf(label)]! : i[output.indexOf(label)]!;
      return terms.map((term, k) => at(xs[k]!, [...term].map(place))).reduce((a, b) => a * b, 1);
    });
    return sumOf([...products.data]);
  });
}

const refused = (args: unknown[], error: Refusal[1], message: RegExp): Refusal => [args, error, message];

export const einsums: Record<string, Row> = {
  einsum: row<[eq: string, ...xs: Nd[]]>({
    tolerance: {
      terms: (eq, ...xs) => {
        const { summed, sizes } = read(eq, xs);
        return numel(summed.map((label) => sizes.get(label)!));
      },
    },
    dtypes: FLOATS,
    samples: () => [
      // products
      ['ij,jk->ik', float([3, 5]), float([5, 2])],
      ['bij,bkj->bik', float([2, 3, 4]), float([2, 5, 4])],
      ['bij,jk->ikb', float([2, 3, 4]), float([4, 2])],
      ['blhd,bmhd->bhlm', float([2, 3, 2, 4]), float([2, 5, 2, 4])],
      ['abcd,abce->abde', float([2, 3, 4, 2]), float([2, 3, 4, 3])],
      ['ij,kj', float([3, 5]), float([2, 5])],
      ['i,i->', float([17]), float([17])],
      ['bi,bi->b', float([3, 17]), float([3, 17])],
      ['ij,ij->', float([3, 5]), float([3, 5])],
      ['ij , jk , kl -> li', float([2, 3]), float([3, 4]), float([4, 2])],
      ['ab,ac,ad->bcd', float([3, 2]), float([3, 3]), float([3, 2])],
      ['ij,jk->ik', whole([9, 40]), whole([40, 9])],
      // one operand
      ['ij->ji', float([3, 5])],
      ['ijk->ki', float([2, 3, 4])],
      ['ij->', float([3, 5])],
      ['ij', float([3, 5])],
      ['Ba', float([3, 5])],
      ['ba', float([3, 5])],
      ['', float([])],
      // diagonals
      ['ii->i', float([4, 4])],
      ['ii', float([4, 4])],
      ['iji->j', float([3, 2, 3])],
      ['iij,jkk->ik', float([2, 2, 3]), float([3, 2, 2])],
      // without a product of matrices
      ['i,j->ij', float([3]), float([5])],
      ['ij,ij->ji', float([3, 5]), float([3, 5])],
      ['a,b,c->cab', float([2]), float([3]), float([4])],
      ['ij,->ij', float([2, 3]), float([])],
      // letters of one operand alone
      ['ij,k->i', float([3, 5]), float([4])],
      ['aij,kib->ab', float([2, 3, 4]), float([5, 3, 2])],
      // ellipses, and sizes of 1 that broadcast
      ['...ij,...jk->...ik', float([2, 3, 4]), float([4, 2])],
      ['...ij,jk', float([2, 2, 3, 4]), float([4, 2])],
      ['b...i,...i->b...', float([2, 3, 4]), float([3, 4])],
      ['...,...->...', float([2, 1, 3]), float([4, 3])],
      ['a...->...', float([2, 3, 4])],
      ['...a->a', float([2, 3, 4])],
      ['ij,jk->ik', float([3, 1]), float([5, 2])],
      ['i,i->i', float([1]), float([4])],
      // emptiness
      ['ij,jk->ik', constant(float([3, 0])), constant(float([0, 2]))],
      ['ij,jk->ik', float([0, 3]), float([3, 2])],
      ['i->', float([0])],
    ],
    reference: einsumOf,
    large: () => [
      ['bij,bjk->bik', float([5, 90, 70]), float([5, 70, 80])],
      ['ij->', float([300, 401])],
    ],
    refused: () => [
      refused([3, float([2])], 'ArgumentError', /the equation is 3. Expected a string/),
      refused(['ij,jk->ik', float([2, 3])], 'ArgumentError', /"ij,jk->ik" names 2 operands, 1 are given/),
      refused(['i->i'], 'ArgumentError', /names 1 operands, 0 are given/),
      refused(['ij->ij', float([2])], 'ShapeError', /operand 0 of "ij->ij" has shape \[2\], its term "ij" 2 letters/),
      refused(['i', float([2, 3])], 'ShapeError', /operand 0 of "i" has shape \[2,3\], its term "i" 1 letter/),
      refused(['i...jk', float([2, 3])], 'ShapeError', /has shape \[2,3\], its term "i\.\.\.jk" 3 letters/),
      refused(
        ['ij,jk->ik', float([2, 3]), float([4, 2])],
        'ShapeError',
        /'j' in "ij,jk->ik" is 3, but 4 in operand 1 of shape \[4,2\]/,
      ),
      refused(['ii->i', float([2, 3])], 'ShapeError', /'i' in "ii->i" is 2, but 3 in operand 0 of shape \[2,3\]/),
      refused(['ii->i', float([1, 3])], 'ShapeError', /'i' in "ii->i" is 1, but 3 in operand 0/),
      refused(['...,...', float([2]), float([3])], 'ShapeError', /a dimension of '...' in .* is 2, but 3 in operand 1/),
      refused(['ij->ik', float([2, 3])], 'ArgumentError', /the output of "ij->ik" names 'k', which no operand has/),
      refused(['ij->ii', float([2, 3])], 'ArgumentError', /the output of "ij->ii" names 'i' twice/),
      refused(['i->j->k', float([2])], 'ArgumentError', /more than one '->'/),
      refused(['i1->i', float([2, 3])], 'ArgumentError', /"1" in "i1->i". Expected letters/),
      refused(['i..->i', float([2, 3])], 'ArgumentError', /"\." in "i\.\.->i"/),
      refused(['...i...', float([2, 3])], 'ArgumentError', /two ellipses in one term of "...i..."/),
      refused(['i,i', float([3]), index([3], 2)], 'DTypeError', /int32/),
    ],
  }),
};
