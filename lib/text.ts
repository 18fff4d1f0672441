// Numbers, bars and tables as text of a fixed width. Lowest layer: knows no tensor, writes nowhere.
import { inspect } from 'node:util';

export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => string;
  /** Names stand to the left, numbers to the right. */
  readonly left?: boolean;
}

/** A line of titles, then one for each row. */
export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const lines = [columns.map(({ title }) => title), ...rows.map((row) => columns.map(({ cell }) => cell(row)))];
  const widths = columns.map((_, c) => lines.reduce((width, line) => Math.max(width, line[c]!.length), 0));
  const pad = (cell: string, c: number): string =>
    columns[c]!.left ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!);
  return lines.map((line) => line.map(pad).join('  ').trimEnd()).join('\n');
}

/** The value, which prints as `text` says, by String() and by console.log. */
export function printsAs<T extends object>(value: T, text: () => string): T {
  return Object.defineProperties(value, { toString: { value: text }, [inspect.custom]: { value: text } });
}

/** `share` of `width` places filled; not quite nothing shows as one. */
export function bar(share: number, width: number): string {
  const filled = share > 0 ? Math.max(1, Math.round(Math.min(share, 1) * width)) : 0;
  return '#'.repeat(filled).padEnd(width);
}

/** Exponents of ten between which all positive numbers of a list lie, a decade apart at least; null without any. */
export function decades(values: readonly number[]): readonly [low: number, high: number] | null {
  const exponents = values.map(Math.log10).filter(Number.isFinite);
  if (exponents.length === 0) return null;
  const low = exponents.reduce((a, b) => Math.min(a, Math.floor(b)), Number.POSITIVE_INFINITY);
  return [low, exponents.reduce((a, b) => Math.max(a, Math.ceil(b)), low + 1)];
}

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytesText(bytes: number): string {
  const power = bytes < 1024 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), BINARY.length - 1);
  return `${power === 0 ? bytes : (bytes / 1024 ** power).toFixed(1)} ${BINARY[power]}`;
}

/** Whole numbers as they are, others with four decimals, and what those would hide as a power of ten: 42, 0.1966, 4.61e-4. */
export function numberText(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e8) return Object.is(value, -0) ? '-0' : String(value);
  return size >= 1e-3 && size < 1e8 ? value.toFixed(4) : value.toExponential(2);
}

/** One line without what moves a cursor, changes colours or the direction of writing. */
export const plain = (text: string): string => text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, ' ');
