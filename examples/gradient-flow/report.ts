// How the gradient-flow example prints.
import type { PathRow } from './chains.ts';

/** Two digits and an exponent of at least two: 3.51e-11, 0.00e+00. */
export const scientific = (value: number): string => value.toExponential(2).replace(/([+-])(\d)$/, '$10$2');
export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)} %`;

/** The lesson's columns, 6, 12 and 14 wide. */
export const pathLines = (rows: readonly PathRow[]): string[] => [
  `${'Layer'.padStart(6)}${'Sigmoid'.padStart(12)}${'ReLU (p=0.5)'.padStart(14)}`,
  ...rows.map(
    ({ layer, sigmoid, relu }) =>
      String(layer).padStart(6) + scientific(sigmoid).padStart(12) + scientific(relu).padStart(14),
  ),
];

/** Cells under their titles; the first column to the left. */
export function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [titles, ...rows];
  const widths = titles.map((_, c) => Math.max(...lines.map((line) => line[c]!.length)));
  const pad = (cell: string, c: number): string => (c === 0 ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!));
  return lines.map((line) => line.map(pad).join('  ')).join('\n');
}
