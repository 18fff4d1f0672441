// The examples that the playground ships, and how one of them is run with inputs that come from outside. Layer cli.
import { ArgumentError } from '../errors.ts';
import { describe } from '../shape.ts';
import { depth } from './examples/depth.ts';
import type { Example } from './examples/example.ts';
import { twoMoons } from './examples/moons.ts';
import { batch, twoLayers } from './examples/network.ts';
import { diamond, square } from './examples/scalars.ts';
import type { Description, Outcome } from './protocol.ts';

const EXAMPLES: readonly Example[] = [square, diamond, twoLayers, batch, depth, twoMoons];

export const describeExamples = (): Description[] =>
  EXAMPLES.map(({ id, title, text, inputs, trains }) => ({ id, title, text, inputs, trains }));

/** @param request `{ example, inputs }` @throws ArgumentError for anything else, and what the example throws */
export function runExample(request: unknown): Outcome {
  const { example: id, inputs = {} } = (request ?? {}) as { example?: unknown; inputs?: unknown };
  const found = EXAMPLES.find((example) => example.id === id);
  if (found === undefined) {
    const known = EXAMPLES.map((example) => example.id).join(', ');
    throw new ArgumentError(`run: the example is ${describe(id)}. Expected one of ${known}.`);
  }
  return found.run(inputs);
}
