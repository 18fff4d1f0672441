// Storage: one arena slot, shared by a tensor and its views. View: how an operand walks it. Knows no tensors.
import type { Shape } from '../shape.ts';

export class Storage {
  /** The slot's id, or -1 once freed. */
  slot: number;
  readonly bytes: number;
  /** Handles that own this storage: tensors, and values saved for a backward pass. Freed at zero. */
  owners = 1;
  /** Raised by every in-place change; saved values remember it. */
  version = 0;
  /** Raised when a recorded in-place change gives the storage a new place in the graph: older views are stale. */
  graphVersion = 0;

  constructor(slot: number, bytes: number) {
    this.slot = slot;
    this.bytes = bytes;
  }
}

/** What a command needs to know of an operand. A Tensor is one. */
export interface View {
  readonly storage: Storage;
  readonly shape: Shape;
  /** In elements. */
  readonly strides: Shape;
  readonly offset: number;
  readonly numel: number;
  /** Dtype code. */
  readonly code: number;
  /** Row-major without gaps. */
  readonly isContiguous: boolean;
}
