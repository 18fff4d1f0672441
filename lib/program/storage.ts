// Storage: one arena slot, shared by a tensor and its views. View: how an operand walks it. Knows no tensors.
import { callSite } from '../call-site.ts';
import type { Shape } from '../shape.ts';

let made = 0;
/** The serial of the next storage: what is made from here on has this or a greater one. */
export const nextSerial = (): number => made;

export class Storage {
  readonly serial = made++;
  /** The slot's id, or -1 once freed. */
  slot: number;
  readonly bytes: number;
  /** Handles that own this storage: tensors, and values saved for a backward pass. Freed at zero. */
  owners = 1;
  /** Raised by every in-place change; saved values remember it. */
  version = 0;
  /** Left to the garbage collector, which need be told only once. */
  adopted = false;
  /** How many values of its present version are saved for a backward pass. A graph that is dropped does not say so. */
  savers = 0;
  /** Where it was last changed in place while it had savers. */
  changedAt = '';
  /** The last program in flight that uses it: see queue.ts. */
  ticket = 0;
  /** Raised when a recorded in-place change gives the storage a new place in the graph: older views are stale. */
  graphVersion = 0;

  constructor(slot: number, bytes: number) {
    this.slot = slot;
    this.bytes = bytes;
  }

  /** Counts a change in place, and notes where in the user's program it is if a backward pass may trip over it. */
  changed(): void {
    this.version++;
    if (this.savers === 0) return;
    this.changedAt = callSite();
    this.savers = 0;
  }

  /** A value that was saved at `version` is needed no longer. */
  letGo(version: number): void {
    if (version === this.version) this.savers--;
  }
}

/** Programs have tickets in order: the last that was handed in, and that up to which all have finished. */
export const progress = { handedIn: 0, finished: 0 };

/** Whether a program that uses it may not have finished yet. */
export const isInFlight = ({ ticket }: Storage): boolean => ticket > progress.finished;

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
