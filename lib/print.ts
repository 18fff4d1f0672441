// How tensors print: as PyTorch prints them, large ones with their middle left out.

import { noGrad } from './autograd/grad-mode.ts';
import { BOOL } from './dtype.ts';
import { cat } from './ops/join.ts';
import { narrow } from './ops/parts.ts';
import { toTypedArray } from './ops/read.ts';
import { show } from './shape.ts';
import { scope, type Tensor } from './tensor.ts';

const MANY = 1000;
const EDGE = 3;
const DIGITS = 4;

/** How to print a number so that all of them line up: whole, fixed or scientific, as their sizes ask. */
function formatter(values: ArrayLike<number>): (value: number) => string {
  const finite = Array.from(values, Math.abs).filter((v) => Number.isFinite(v) && v > 0);
  const largest = finite.reduce((a, b) => Math.max(a, b), 0);
  const smallest = finite.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const special = (v: number): string => (Number.isNaN(v) ? 'nan' : v > 0 ? 'inf' : '-inf');
  let text: (v: number) => string;
  if (finite.every(Number.isInteger)) {
    text = largest >= 1e8 ? (v) => v.toExponential(DIGITS) : (v) => `${Object.is(v, -0) ? '-0' : v}.`;
  } else if (largest / smallest > 1000 || largest >= 1e8 || smallest < 1e-4) {
    text = (v) => v.toExponential(DIGITS);
  } else {
    text = (v) => v.toFixed(DIGITS);
  }
  return (v) => (Number.isFinite(v) ? text(v) : special(v));
}

/** The parts of a large tensor that are printed: both ends of every long dimension. */
function corners(t: Tensor): Tensor {
  return t.shape.reduce(
    (part: Tensor, size, d) =>
      size > 2 * EDGE ? cat([narrow(part, d, 0, EDGE), narrow(part, d, size - EDGE, EDGE)], d) : part,
    t,
  );
}

/** `tensor([[1., 2.],\n        [3., 4.]], requiresGrad=true)` */
export function format(t: Tensor): string {
  if (t.disposed) return `tensor(<disposed>, shape=${show(t.shape)}, dtype=${t.dtype})`;
  if (t.physical !== null)
    return `tensor(<one of ${t.physical.shape[0]} in vmap>, shape=${show(t.shape)}, dtype=${t.dtype})`;
  const summary = t.numel > MANY;
  const flat = noGrad(() => scope(() => toTypedArray(summary ? corners(t) : t)));
  const plain = t.dtype === 'int32' || t.dtype === 'uint8';
  const text = t.code === BOOL ? (v: number) => String(v !== 0) : plain ? String : formatter(flat);
  const entries = Array.from(flat, (v) => text(v));
  const width = entries.reduce((w, entry) => Math.max(w, entry.length), 0);
  const indent = 'tensor('.length;

  const block = (dim: number, at: number): [text: string, next: number] => {
    if (dim === t.ndim) return [entries[at]!.padStart(t.ndim > 0 ? width : 0), at + 1];
    const size = t.shape[dim]!;
    const cut = summary && size > 2 * EDGE;
    const parts: string[] = [];
    let next = at;
    for (let i = 0; i < (cut ? 2 * EDGE : size); i++) {
      if (cut && i === EDGE) parts.push('...');
      const [part, after] = block(dim + 1, next);
      parts.push(part);
      next = after;
    }
    const gap = dim === t.ndim - 1 ? ', ' : `,${'\n'.repeat(t.ndim - 1 - dim)}${' '.repeat(indent + dim + 1)}`;
    return [`[${parts.join(gap)}]`, next];
  };
  const notes = [block(0, 0)[0]];
  if (t.numel === 0 && t.ndim !== 1) notes.push(`shape=${show(t.shape)}`);
  if (t.dtype !== 'float32' && t.dtype !== 'bool') notes.push(`dtype=${t.dtype}`);
  if (t.node !== null) notes.push(`gradFn=<${t.node.name}>`);
  else if (t.requiresGrad) notes.push('requiresGrad=true');
  return `tensor(${notes.join(', ')})`;
}
