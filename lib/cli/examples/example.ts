// What a shipped example is: a loss as a function of inputs that a reader of the page may change, and how inputs that
// come from there are checked. Layer cli.
import { checkOptions } from '../../arguments.ts';
import { ArgumentError } from '../../errors.ts';
import { describe } from '../../shape.ts';
import { scope, type Tensor } from '../../tensor.ts';
import { trace } from '../../viz/trace.ts';
import type { ChoiceInput, Description, Input, Inputs, MatrixInput, NumberInput, Outcome } from '../protocol.ts';

export type Values<I extends Inputs> = { readonly [K in keyof I]: I[K]['value'] };

export interface Example extends Description {
  /** @throws ArgumentError for inputs that are not those of the example */
  run(given: unknown): Outcome;
}

export function number(label: string, value: number, min = -Number.MAX_VALUE, max = Number.MAX_VALUE): NumberInput {
  return { kind: 'number', label, value, min, max, whole: false };
}
export function whole(label: string, value: number, min: number, max: number): NumberInput {
  return { kind: 'number', label, value, min, max, whole: true };
}
export function choice(label: string, ...options: [string, ...string[]]): ChoiceInput {
  return { kind: 'choice', label, value: options[0], options };
}
export function matrix(label: string, value: readonly (readonly number[])[]): MatrixInput {
  return { kind: 'matrix', label, value };
}

/** An example whose `graph` gives the loss, and names for the tensors in it. */
export function example<I extends Inputs>(
  about: Omit<Description, 'inputs' | 'trains'>,
  inputs: I,
  graph: (values: Values<I>) => { loss: () => Tensor; names?: Readonly<Record<string, Tensor>> },
): Example {
  return {
    ...about,
    inputs,
    trains: null,
    run: (given) =>
      scope(() => {
        const { loss, names = {} } = graph(checkInputs(about.id, inputs, given));
        return { trace: trace(loss, { names }), training: null };
      }),
  };
}

/** Inputs that are not given keep their values. @throws ArgumentError */
export function checkInputs<I extends Inputs>(id: string, inputs: I, given: unknown): Values<I> {
  checkOptions(id, given as object, inputs);
  const checked = Object.entries(inputs).map(([name, input]) => {
    const value = (given as Record<string, unknown>)[name] ?? input.value;
    return [name, checkInput(`${id}: ${name}`, input, value)];
  });
  return Object.fromEntries(checked) as Values<I>;
}

function checkInput(what: string, input: Input, value: unknown): unknown {
  switch (input.kind) {
    case 'number': {
      const { min, max, whole: integer } = input;
      if (Number.isFinite(value) && (value as number) >= min && (value as number) <= max) {
        if (!integer || Number.isInteger(value)) return value;
      }
      throw new ArgumentError(
        `${what} is ${describe(value)}. Expected a ${integer ? 'whole' : 'finite'} number${range(min, max)}.`,
      );
    }
    case 'choice':
      if (input.options.includes(value as string)) return value;
      throw new ArgumentError(`${what} is ${describe(value)}. Expected one of ${input.options.join(', ')}.`);
    case 'matrix': {
      const [rows, columns] = [input.value.length, input.value[0]!.length];
      if (isMatrix(value, rows, columns)) return value;
      throw new ArgumentError(`${what} is not ${rows} rows of ${columns} finite numbers.`);
    }
  }
}

const range = (min: number, max: number): string => (max === Number.MAX_VALUE ? '' : ` from ${min} to ${max}`);

const isMatrix = (value: unknown, rows: number, columns: number): boolean =>
  Array.isArray(value) &&
  value.length === rows &&
  value.every((row) => Array.isArray(row) && row.length === columns && row.every(Number.isFinite));
