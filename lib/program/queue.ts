// Programs in flight: run in order by a thread of the environment's own, and what waits for them. Knows storages, no
// tensors.
import { ChainruleError } from '../errors.ts';
import { type Failure, native } from '../native.ts';
import { advance, errorOf, flush, words } from './engine.ts';
import { isInFlight, progress, type Storage } from './storage.ts';

/** So many programs are in flight at a time; the next starts when one has finished. */
export const MOST_IN_FLIGHT = 64;

interface Waiting {
  readonly ticket: number;
  /** What the collector must not find while the program uses it. */
  readonly used: readonly Storage[];
  readonly resolve: () => void;
  readonly reject: (failure: Failure & { stopped: boolean }) => void;
}

const programs: Waiting[] = [];
const readers: Waiting[] = [];
const failures = new Map<number, Failure & { stopped: boolean }>();
let following = false;

// ---- room -----------------------------------------------------------------------------------------------------------------
const callers: (() => void)[] = [];
let granted = 0;

/** Null when a program may be handed in now, else a promise of that; first come, first served. */
export function turn(): Promise<void> | null {
  if (callers.length === 0 && programs.length + granted < MOST_IN_FLIGHT) return null;
  return new Promise<void>((resolve) => void callers.push(resolve)).then(() => void granted--);
}

function grant(): void {
  for (; callers.length > 0 && programs.length + granted < MOST_IN_FLIGHT; granted++) callers.shift()!();
}

// ---- programs -------------------------------------------------------------------------------------------------------------
/**
 * Hands in a program, in parts that fit the buffer. The storages that it uses are in flight until it has finished. The
 * promise is rejected with the error that stopped it, or with the signal's reason: an abort takes effect between two
 * commands. `tell` makes of an error, and of which command it is, what the promise is rejected with.
 */
export function submit(
  parts: readonly Int32Array[],
  used: readonly Storage[],
  tell: (error: unknown, command: number) => unknown,
  signal?: AbortSignal,
): Promise<void> {
  if (parts.length === 0) return Promise.resolve();
  flush();
  let ticket = 0;
  for (const part of parts) {
    words.set(part);
    ticket = native.enqueue(part.length, part !== parts.at(-1));
  }
  if (ticket === 0) throw new ChainruleError('ERR_INTERNAL', 'async: the system refused a thread.');
  progress.handedIn = ticket;
  for (const storage of used) storage.ticket = ticket;
  const abort = (): void => native.stop(ticket);
  signal?.addEventListener('abort', abort, { once: true });
  const finished = new Promise<void>((resolve, reject) => {
    programs.push({
      ticket,
      used,
      resolve,
      reject: (failure) => reject(failure.stopped ? signal?.reason : tell(errorOf(failure), failure.command)),
    });
    follow();
  });
  return finished.finally(() => signal?.removeEventListener('abort', abort));
}

/** A promise that the programs in flight that use a storage have finished, or failed. */
export async function settled(storage: Storage): Promise<void> {
  if (!isInFlight(storage)) return;
  await new Promise<void>((resolve) => {
    readers.push({ ticket: storage.ticket, used: [], resolve, reject: () => resolve() });
    follow();
  });
}

function follow(): void {
  const tickets = [...programs, ...readers].map(({ ticket }) => ticket);
  if (following || tickets.length === 0) return;
  following = true;
  native.whenFinished(Math.min(...tickets), (finished) => {
    following = false;
    advance(finished);
    for (const failure of native.failures()) failures.set(failure.ticket, failure);
    finish(programs);
    finish(readers);
    grant();
    follow();
  });
}

function finish(list: Waiting[]): void {
  for (const waiting of list.splice(0)) {
    if (waiting.ticket > progress.finished) {
      list.push(waiting);
      continue;
    }
    const failure = failures.get(waiting.ticket);
    if (failure === undefined) waiting.resolve();
    else waiting.reject(failure);
    if (list === programs) failures.delete(waiting.ticket);
  }
}
