// THE table of op samples: one row for each op, by name. What is tested of every op, test/ops.*.test.ts walk it for.
import { attention } from './op-samples/attention.ts';
import { wholeComparisons } from './op-samples/compare.ts';
import { convolutions, pools } from './op-samples/convolution.ts';
import { chance, conversions, creation } from './op-samples/creation.ts';
import { einsums } from './op-samples/einsum.ts';
import { elementwise } from './op-samples/elementwise.ts';
import { inPlaceOnly } from './op-samples/in-place.ts';
import { indexing } from './op-samples/indexing.ts';
import { joins } from './op-samples/join.ts';
import { classLosses, elementwiseLosses, layers } from './op-samples/layers.ts';
import { normalizations } from './op-samples/normalization.ts';
import { products } from './op-samples/products.ts';
import { alongOneDim, reductions } from './op-samples/reductions.ts';
import type { Row } from './op-samples/row.ts';
import { parts, shapes } from './op-samples/shape.ts';
import { sorting } from './op-samples/sort.ts';

/** The rows of lib/ops/index.ts. */
export const opSamples: Readonly<Record<string, Row>> = {
  ...conversions,
  ...creation,
  ...chance,
  ...elementwise,
  ...wholeComparisons,
  ...reductions,
  ...alongOneDim,
  ...products,
  ...einsums,
  ...shapes,
  ...parts,
  ...joins,
  ...indexing,
  ...sorting,
  ...normalizations,
  ...attention,
  ...layers,
  ...convolutions,
  ...pools,
  ...elementwiseLosses,
  ...classLosses,
};

/** The row of an in-place op: its own, or that of the op that it is the twin of. */
export const inPlaceRow = (name: string): Row | undefined =>
  (inPlaceOnly as Readonly<Record<string, Row>>)[name] ?? opSamples[name.slice(0, -1)];
export const inPlaceOnlyNames: readonly string[] = Object.keys(inPlaceOnly);
/** The name of the op that returns what an in-place op writes. */
export const twinOf = (name: string): string | undefined => (name in inPlaceOnly ? undefined : name.slice(0, -1));
