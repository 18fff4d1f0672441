// What the playground's server and its page say to each other. Layer cli; types alone, for the page has no engine.
import type { Trace } from '../viz/trace-format.ts';

export interface NumberInput {
  readonly kind: 'number';
  readonly label: string;
  readonly value: number;
  readonly min: number;
  readonly max: number;
  readonly whole: boolean;
}
export interface ChoiceInput {
  readonly kind: 'choice';
  readonly label: string;
  readonly value: string;
  readonly options: readonly string[];
}
/** Its shape stays as it is. */
export interface MatrixInput {
  readonly kind: 'matrix';
  readonly label: string;
  readonly value: readonly (readonly number[])[];
}
export type Input = NumberInput | ChoiceInput | MatrixInput;
export type Inputs = Readonly<Record<string, Input>>;

/** Where a classifier stands in its training, to be drawn. */
export interface Training {
  readonly iteration: number;
  /** The loss before each iteration, and after the last. */
  readonly losses: readonly number[];
  readonly accuracy: number;
  readonly points: readonly { readonly x: number; readonly y: number; readonly label: 0 | 1 }[];
  /** The probability of label 1 on a grid, row by row, from the smallest y up. */
  readonly boundary: {
    readonly columns: number;
    readonly rows: number;
    readonly x: readonly [least: number, most: number];
    readonly y: readonly [least: number, most: number];
    readonly values: readonly number[];
  };
}

export interface Outcome {
  readonly trace: Trace;
  readonly training: Training | null;
}

export interface Description {
  readonly id: string;
  readonly title: string;
  readonly text: string;
  readonly inputs: Inputs;
  /** The number input that counts iterations, of an example that trains. */
  readonly trains: string | null;
}
