// Checks of the options that users pass to layers, optimizers and loaders. Beside shape.ts: knows no tensor.
import { ArgumentError } from './errors.ts';
import { describe } from './shape.ts';

/** Returns a number in [least, most]; NaN is in no range, infinity only in one that names it. @throws ArgumentError */
export function checkRange(op: string, what: string, value: unknown, least = 0, most = Number.MAX_VALUE): number {
  if (typeof value === 'number' && value >= least && value <= most) return value;
  const range = most === Number.MAX_VALUE ? `a finite number >= ${least}` : `a number in [${least}, ${most}]`;
  throw new ArgumentError(`${op}: ${what} is ${describe(value)}. Expected ${range}.`);
}

/** Refuses options that `known` has not: a misspelt one would otherwise be ignored in silence. @throws ArgumentError */
export function checkOptions(op: string, options: object, known: object): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new ArgumentError(`${op}: the options are ${describe(options)}. Expected an object.`);
  }
  for (const key in options) {
    if (Object.hasOwn(known, key) || !Object.hasOwn(options, key)) continue;
    throw new ArgumentError(
      `${op}: unknown option ${describe(key)}. Expected one of ${Object.keys(known).join(', ')}.`,
    );
  }
}
