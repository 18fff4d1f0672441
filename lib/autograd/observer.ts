// Who may watch the tape: detectAnomaly, trace and summary. Types only.
import type { Tensor } from '../tensor.ts';
import type { Node } from './tape.ts';

/** Sees what happens on the tape; set in the context. */
export interface Observer {
  /** A module is called, and has returned or thrown. */
  entered?(module: object): void;
  left?(): void;
  /** Sees what checkpoints compute again; without it nobody does. */
  readonly again?: Observer;
  recorded(node: Node, out: Tensor, inputs: readonly (Tensor | null)[]): void;
  differentiated(node: Node, g: Tensor, gradients: readonly (Tensor | null)[]): void;
}
