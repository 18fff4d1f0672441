// The engine: the command buffer, slots, and memory. Eager policy: each op flushes its own commands at once.
// Knows storages, no tensors; knows no op by name.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { ChainruleError, IndexError, MemoryError } from '../errors.ts';
import { type Failure, native, opcode } from '../native.ts';
import { capturing, JOINED, type Recorder, setCapturing } from './recorder.ts';
import { isInFlight, progress, Storage } from './storage.ts';

const CAPACITY = 1 << 16;
/** Words that one run of commands can have. */
export const COMMAND_WORDS = CAPACITY;
/** The command buffer. Commands are written at `cursor.at`; nothing else may keep a position in it. */
export const words = new Int32Array(CAPACITY);
native.bind(words);
export const cursor = { at: 0 };

// ---- slots --------------------------------------------------------------------------------------------------------
const GENERATION = 1 << 24;
const MAX_SLOTS = GENERATION;
const freeIds: number[] = [];
let nextId = 0;
// Storages made since the last successful flush: given back when the flush fails.
const fresh: (Storage | undefined)[] = [];
let freshCount = 0;

/** A storage of n bytes, whose block the first command that writes it will allocate. */
export function newStorage(bytes: number): Storage {
  if (freeIds.length === 0 && nextId === MAX_SLOTS) sweep(true);
  if (freeIds.length === 0 && nextId === MAX_SLOTS) {
    throw new MemoryError(
      `${MAX_SLOTS} tensors are alive, which is the most there can be. Free some: scope(), dispose().`,
    );
  }
  const storage = new Storage(freeIds.length > 0 ? freeIds.pop()! : nextId++, bytes);
  fresh[freshCount++] = storage;
  capturing()?.made.add(storage);
  return storage;
}

// The next generation of an index makes every id of the old one invalid.
const recycle = (id: number): void => {
  freeIds.push((id + GENERATION) & 0x7fffffff);
};

/** Frees the block now: the command goes out with the next flush, in order. */
export function release(storage: Storage): void {
  if (storage.slot < 0) return;
  const recorder = capturing();
  if (recorder !== null) {
    flush();
    recorder.release(storage);
    return;
  }
  if (isInFlight(storage)) later.push({ slot: storage.slot, ticket: storage.ticket });
  else free(storage.slot);
  storage.slot = -1;
}

function free(slot: number): void {
  if (cursor.at + 2 > CAPACITY) flush();
  words[cursor.at++] = FREE | (2 << 16);
  words[cursor.at++] = slot;
  recycle(slot);
}

// Given back while a program in flight uses them.
let later: { slot: number; ticket: number }[] = [];

/** Notes how far programs in flight have come, and frees what waited for them. */
export function advance(finished: number): void {
  progress.finished = Math.max(progress.finished, finished);
  if (later.length === 0) return;
  for (const { slot, ticket } of later) if (ticket <= progress.finished) free(slot);
  later = later.filter(({ ticket }) => ticket > progress.finished);
  flush();
}

/** Waits for the programs in flight that use a storage: who touches it from JavaScript must. */
export function settle(storage: Storage): void {
  if (isInFlight(storage)) progress.finished = Math.max(progress.finished, native.wait(storage.ticket));
}

/** Gives up a storage that no command has written, and none will. */
export function abandonUnwritten(storage: Storage): void {
  if (storage.slot >= 0) recycle(storage.slot);
  storage.slot = -1;
}

export function disown(storage: Storage): void {
  if (--storage.owners === 0) release(storage);
}

// ---- running commands ---------------------------------------------------------------------------------------------
const FREE = opcode('free');

/** Runs what the buffer holds. @throws MemoryError, IndexError */
export function flush(): void {
  const count = cursor.at;
  cursor.at = 0;
  const recorder = capturing();
  if (recorder !== null) recorder.absorb(words, count);
  else if (count > 0 && !native.execute(count)) recover(count);
  // One entry is overwritten by the next op; more would pin storages for long.
  if (freshCount > 1) fresh.length = 0;
  freshCount = 0;
}

/** Runs fn with what ops emit going to a recorder or, for null, to the executor. */
export function divert<T>(to: Recorder | null, fn: () => T): T {
  const before = capturing();
  flush();
  setCapturing(to);
  try {
    return fn();
  } finally {
    flush();
    setCapturing(before);
  }
}

/**
 * Runs the parts of a program, each of which fits the buffer. `made`: the storages that it defines, given back when it
 * fails. `tell` makes of an error, and of which command it is, what is thrown. @throws MemoryError, IndexError
 */
export function runProgram(
  parts: readonly Int32Array[],
  made: readonly Storage[],
  tell: (error: unknown, command: number) => unknown,
): void {
  flush();
  let before = 0;
  for (const part of parts) {
    for (const storage of made) fresh[freshCount++] = storage;
    words.set(part);
    cursor.at = part.length;
    try {
      flush();
    } catch (error) {
      throw tell(error, before + failedCommand);
    }
    if (parts.length > 1) before += commandsIn(part);
  }
}

function commandsIn(part: Int32Array): number {
  let count = 0;
  for (let at = 0; at < part.length; at += part[at]! >>> 16) count++;
  return count;
}

/** Which command of the last batch that failed it was. */
let failedCommand = 0;

function recover(count: number): void {
  let failure = native.failure();
  failedCommand = failure.command;
  if (failure.status === OUT_OF_MEMORY) {
    // Collecting uses the buffer, and flushes: keep what has not run, and what to give back if it cannot.
    const { first, start } = groupOf(failure.command);
    const rest = words.slice(start, count);
    const made = fresh.slice(0, freshCount);
    collect();
    words.set(rest);
    made.forEach((storage, i) => {
      fresh[i] = storage;
    });
    freshCount = made.length;
    if (native.execute(rest.length)) return;
    failure = native.failure();
    failedCommand = first + failure.command;
  }
  abandon();
  throw errorOf(failure);
}

const OUT_OF_MEMORY = 2;
const INDEX_OUT_OF_RANGE = 3;

/** Where to go on after a command has failed: with its group, of which nothing has run. Its first command, and its place. */
function groupOf(failed: number): { first: number; start: number } {
  let at = 0;
  let group = { first: 0, start: 0 };
  for (let i = 0; i < failed; i++) {
    const head = words[at]!;
    at += head >>> 16;
    if ((head & JOINED) === 0) group = { first: i + 1, start: at };
  }
  return group;
}

// A failed op leaves nothing behind: slots that its earlier commands defined are freed one by one, since those that
// were never defined refuse it.
function abandon(): void {
  for (let i = 0; i < freshCount; i++) {
    const storage = fresh[i]!;
    words[0] = FREE | (2 << 16);
    words[1] = storage.slot;
    native.execute(2);
    recycle(storage.slot);
    storage.slot = -1;
  }
  fresh.length = freshCount = 0;
  cursor.at = 0;
}

const megabytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

export function errorOf(failure: Failure): ChainruleError {
  if (failure.status === OUT_OF_MEMORY) return outOfMemory(failure.op, failure.position);
  if (failure.status === INDEX_OUT_OF_RANGE) {
    return new IndexError(`${failure.op}: index ${failure.value} at position ${failure.position} is out of range.`);
  }
  return new ChainruleError('ERR_INTERNAL', `${failure.op}: invalid command: ${failure.reason}`);
}

export function outOfMemory(op: string, asked: number): MemoryError {
  const { arenaBytes, cachedBytes, limit } = native.memoryStats();
  return new MemoryError(
    `${op}: no memory for ${asked > 0 ? `${megabytes(asked)}: ` : 'scratch: '}${megabytes(arenaBytes)} live, ` +
      `${megabytes(cachedBytes)} cached, limit ${megabytes(limit)}. Free tensors (scope, dispose), use smaller ` +
      'batches, or raise CHAINRULE_MEMORY_LIMIT.',
  );
}

// ---- memory: Note [Sweep] in native/addon/addon.cc ------------------------------------------------------------------
// A new storage stays strongly held for a moment, in `young`: most are freed by their scope or by backward() before
// the collector has to hear of them, and registering them in one call is cheaper.
const YOUNG = 256;
const YOUNG_BYTES = 8 << 20;
const SWEEP_BYTES = 64 << 20;
const SWEEP_COUNT = 4096;
const young = new Array<Storage | undefined>(YOUNG).fill(undefined);
let youngCount = 0;
let youngBytes = 0;
let sinceSweepBytes = 0;
let sinceSweepCount = 0;
let sweepCount = SWEEP_COUNT;

/** Leaves the storage to the garbage collector: its slot is freed once nothing refers to the object. */
export function adopt(storage: Storage): void {
  if (storage.adopted || capturing()?.made.has(storage)) return;
  storage.adopted = true;
  young[youngCount++] = storage;
  youngBytes += storage.bytes;
  if (youngCount === YOUNG || youngBytes > YOUNG_BYTES) {
    watchYoung();
    if (sinceSweepBytes > SWEEP_BYTES || sinceSweepCount > sweepCount) sweep(false);
  }
}

function watchYoung(): void {
  flush();
  let count = 0;
  for (let i = 0; i < youngCount; i++) {
    const storage = young[i]!;
    if (storage.slot >= 0) {
      words[count] = storage.slot;
      young[count++] = storage;
    }
  }
  sinceSweepBytes += youngBytes;
  sinceSweepCount += count;
  if (count > 0) native.watch(young, count);
  young.fill(undefined);
  youngCount = youngBytes = 0;
}

function sweep(all: boolean): void {
  if (all) watchYoung();
  flush();
  sinceSweepBytes = sinceSweepCount = 0;
  let freed: number;
  do {
    freed = native.sweep();
    for (let i = 0; i < freed; i++) recycle(words[i]!);
  } while (freed === CAPACITY);
  // A sweep looks at all that is alive: the more there is the rarer it must be, or a long graph takes quadratic time.
  sweepCount = Math.max(SWEEP_COUNT, native.memoryStats().slots >> 1);
}

let gc: (() => void) | undefined;

// Before giving up on memory: everything unreachable, then everything cached.
function collect(): void {
  if (!gc) {
    setFlagsFromString('--expose-gc');
    gc = runInNewContext('gc') as () => void;
  }
  watchYoung();
  gc();
  sweep(true);
  native.trim();
}

export interface MemoryStats {
  /** Of this environment's tensors, in bytes as the arena rounds them. */
  liveBytes: number;
  /** The most of them since the last `resetPeakMemory()`. */
  peakBytes: number;
  /** Kept for reuse by the process. */
  cachedBytes: number;
  /** Storages that are alive. */
  liveTensors: number;
  /** How often the process has asked for memory, cached or not, for tensors and for the working space of ops. */
  arenaCalls: number;
}

export function memoryStats(): MemoryStats {
  flush();
  const { liveBytes, peakBytes, cachedBytes, slots, arenaCalls } = native.memoryStats();
  return { liveBytes, peakBytes, cachedBytes, liveTensors: slots, arenaCalls };
}

/** Starts `memoryStats().peakBytes` again from what is live now. */
export function resetPeakMemory(): void {
  flush();
  native.resetPeak();
}

/** Frees tensors that the garbage collector has found dead, and returns cached memory to the system. */
export function trimMemory(): void {
  sweep(true);
  native.trim();
}
