// Sums of tangents, some of which are not there.
import type { Tensor } from '../tensor.ts';
import { add } from './elementwise.ts';

type Maybe = Tensor | null | undefined;

/** The sum of what is there; null when nothing is. */
export const plus = (a: Maybe, b: Maybe): Tensor | null => (a && b ? add(a, b) : (a ?? b ?? null));
