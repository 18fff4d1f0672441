// Metrics as lines of JSON, one object each: appended, and read back. Layer io. After a crash the file has whole lines and
// at most one that is torn, the last.
import { closeSync, fstatSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readSync } from 'node:fs';
import path from 'node:path';
import { ArgumentError, DisposedError, FormatError } from '../errors.ts';
import { describe } from '../shape.ts';
import { writeAll } from './atomic-write.ts';

export type Metric = number | string | boolean | null;

const CHUNK = 2 ** 16;
/** Of a line, in bytes: a longer one is none of metrics. */
const MOST_BYTES = 2 ** 20;
const NEWLINE = 0x0a;
/** Begins every line. */
const BRACE = 0x7b;

/** JSON has no such numbers. */
const NON_FINITE: ReadonlyMap<unknown, number> = new Map(
  [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY].map((number) => [String(number), number]),
);

/**
 * Appends metrics to a file, one line for each `log`, which is in the file when `log` returns. Opening a file goes on
 * behind its last whole line: a torn one, which a crash has left, is cut off. Makes the directory. One writer at a time.
 * @throws FormatError for a file that is no metrics log, which stays as it is; errors of the file system as they are
 */
export class MetricsLog {
  readonly path: string;
  readonly #handle: number;
  #closed = false;

  constructor(file: string) {
    if (typeof file !== 'string' || file === '') {
      throw new ArgumentError(`MetricsLog: the file is ${describe(file)}. Expected its name.`);
    }
    mkdirSync(path.dirname(file), { recursive: true });
    this.path = file;
    // Every write goes to the end of the file.
    this.#handle = openSync(file, 'a+');
    try {
      mendEnd(this.#handle, file);
    } catch (error) {
      closeSync(this.#handle);
      throw error;
    }
  }

  /**
   * Writes one line. NaN and the infinities are written as strings, "NaN", and read back as numbers.
   * @throws ArgumentError for a value that is no number, string, boolean or null, DisposedError after `close()`
   */
  log(metrics: Readonly<Record<string, Metric>>): void {
    if (this.#closed) throw new DisposedError(`log: the metrics log ${this.path} is closed. Open it again.`);
    const line = Buffer.from(`${toLine(metrics)}\n`);
    if (line.length > MOST_BYTES) {
      throw new ArgumentError(`log: a line of ${line.length} bytes. At most ${MOST_BYTES} are supported.`);
    }
    const { size } = fstatSync(this.#handle);
    try {
      writeAll(this.#handle, line);
    } catch (error) {
      ftruncateSync(this.#handle, size);
      throw error;
    }
  }

  /** Closes the file when the disk has it. A second call does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    try {
      fsyncSync(this.#handle);
    } finally {
      closeSync(this.#handle);
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * The metrics in a file, in order, read as they are asked for. A torn last line is left out, so a file can be read while
 * it is written. @throws FormatError for any other line that is no object of numbers, strings, booleans and null
 */
export function* readMetrics(file: string): Generator<Record<string, Metric>, void> {
  const handle = openSync(file, 'r');
  try {
    let count = 0;
    for (const { text, whole } of linesOf(handle, file)) {
      count++;
      const metrics = fromLine(text);
      if (metrics !== null) yield metrics;
      else if (whole) throw new FormatError(`readMetrics: ${file}: line ${count} is no metrics: ${shorten(text)}.`);
    }
  } finally {
    closeSync(handle);
  }
}

function toLine(metrics: unknown): string {
  const entries = Array.isArray(metrics) ? [] : Object.entries(metrics ?? {});
  // A map has no entries here either, and a line without any says nothing.
  if (typeof metrics !== 'object' || entries.length === 0) {
    throw new ArgumentError(`log: the metrics are ${describe(metrics)}. Expected an object with at least one of them.`);
  }
  for (const [name, value] of entries) {
    if (isMetric(value)) continue;
    throw new ArgumentError(
      `log: '${name}' is ${describe(value)}. Expected a number, a string, a boolean or null; of a tensor, its item().`,
    );
  }
  return JSON.stringify(Object.fromEntries(entries), (_, value) =>
    typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
  );
}

/** Null for what is no line of metrics. */
function fromLine(text: string): Record<string, Metric> | null {
  try {
    const read: unknown = JSON.parse(text, (_, value) => NON_FINITE.get(value) ?? value);
    if (typeof read !== 'object' || read === null || Array.isArray(read)) return null;
    return Object.values(read).every(isMetric) ? (read as Record<string, Metric>) : null;
  } catch {
    return null;
  }
}

const isMetric = (value: unknown): value is Metric =>
  value === null || typeof value === 'number' || typeof value === 'string' || typeof value === 'boolean';

function* linesOf(handle: number, file: string): Generator<{ text: string; whole: boolean }> {
  const chunk = Buffer.alloc(CHUNK);
  let rest = Buffer.alloc(0);
  for (let count: number; (count = readSync(handle, chunk)) > 0; ) {
    rest = Buffer.concat([rest, chunk.subarray(0, count)]);
    let start = 0;
    for (let end: number; (end = rest.indexOf(NEWLINE, start)) >= 0; start = end + 1) {
      yield { text: rest.toString('utf8', start, end), whole: true };
    }
    rest = rest.subarray(start);
    if (rest.length > MOST_BYTES)
      throw new FormatError(`readMetrics: ${file}: a line of more than ${MOST_BYTES} bytes.`);
  }
  if (rest.length > 0) yield { text: rest.toString(), whole: false };
}

/**
 * Makes the file end with a whole line. Only what looks like the beginning of one is cut off: the file may be another
 * than the user meant.
 */
function mendEnd(handle: number, file: string): void {
  const { size } = fstatSync(handle);
  if (size === 0) return;
  const start = tailOf(handle, size);
  const tail = Buffer.alloc(Math.min(size - start, MOST_BYTES + 1));
  readSync(handle, tail, 0, tail.length, start);
  const first = Buffer.alloc(1);
  readSync(handle, first, 0, 1, 0);
  if (first[0] !== BRACE || tail.length > MOST_BYTES || (tail.length > 0 && tail[0] !== BRACE)) {
    throw new FormatError(`MetricsLog: ${file} exists and is no metrics log. Choose another name, or remove it.`);
  }
  if (tail.length === 0) return;
  // Whole, but for its end: it was put there by other means.
  if (fromLine(tail.toString()) !== null) writeAll(handle, Buffer.of(NEWLINE));
  else ftruncateSync(handle, start);
}

/** Where the last line begins that has no end; the size of the file when all have one. */
function tailOf(handle: number, size: number): number {
  const chunk = Buffer.alloc(CHUNK);
  for (let end = size; end > 0; end -= CHUNK) {
    const start = Math.max(0, end - CHUNK);
    const count = readSync(handle, chunk, 0, end - start, start);
    const at = chunk.subarray(0, count).lastIndexOf(NEWLINE);
    if (at >= 0) return start + at + 1;
  }
  return 0;
}

const shorten = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
