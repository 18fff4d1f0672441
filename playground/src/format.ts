// Numbers, shapes and names as the page writes them.
import type { TraceNode, TraceNumber, TraceValues } from '../../lib/viz/trace-format.ts';

/** Six significant digits; plain where that is readable. */
export function number(value: TraceNumber | null): string {
  if (value === null) return '-';
  if (typeof value === 'string') return value.replace('-', '−').replace('Infinity', '∞');
  const size = Math.abs(value);
  const text =
    size !== 0 && (size < 1e-4 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(6)));
  return text.replaceAll('-', '−');
}

/** In little room. */
export function short(value: TraceNumber | null): string {
  if (typeof value !== 'number') return number(value);
  const size = Math.abs(value);
  const text =
    size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  return text.replaceAll('-', '−');
}

export function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  const power = Math.min(4, Math.floor(Math.log2(count) / 10));
  return `${Number((count / 1024 ** power).toPrecision(3))} ${['', 'KiB', 'MiB', 'GiB', 'TiB'][power]}`;
}

export const shape = (sizes: readonly number[]): string => (sizes.length === 0 ? 'scalar' : sizes.join(' × '));

/** In one line: the number itself, or how large it is. */
export function size(values: TraceValues): string {
  if (values.data?.length === 1) return short(values.data[0]!);
  if (values.nan > 0) return `${values.nan} NaN`;
  if (values.infinite > 0) return `${values.infinite} ∞`;
  return `‖${short(values.norm)}‖`;
}

export const summary = (values: TraceValues, sizes: readonly number[]): string =>
  values.data?.length === 1 ? size(values) : `${sizes.join('×')} ${size(values)}`;

export const label = (node: TraceNode, id: number): string =>
  node.kind === 'op' ? node.op : node.name || `${node.kind} ${id}`;

/** As in a list: with its number, and the name that it was given. */
export const fullLabel = (node: TraceNode, id: number): string =>
  `${id} · ${label(node, id)}${node.kind === 'op' && node.name !== '' ? ` ${node.name}` : ''}${node.module === '' ? '' : ` (${node.module})`}`;
