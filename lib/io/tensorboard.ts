// SummaryWriter: what training says of itself, in files that TensorBoard opens. Layer io. Numbers of fields and names of
// plugins are the format's.
import { checkOptions, checkRange } from '../arguments.ts';
import type { TypedArray } from '../dtype.ts';
import { ArgumentError, DisposedError } from '../errors.ts';
import { item, toTypedArray } from '../ops/read.ts';
import { checkInteger, describe } from '../shape.ts';
import { checkTensor, Tensor } from '../tensor.ts';
import { EventFile } from './event-file.ts';
import { graphDef } from './graph-def.ts';
import { histogramOf } from './histogram.ts';
import { double, float, int, message, text } from './protobuf.ts';

export interface SummaryWriterOptions {
  /** The longest that an event waits, in seconds, as seen when the next is added. Default: 120. */
  flushSecs?: number;
  /** How many events wait to be written together. Default: 10. */
  maxQueue?: number;
}

/** Of tensors that hold text. */
const DT_STRING = 7;
const DATA_CLASS_TENSOR = 2;

const tagged = (tag: string, ...content: readonly Uint8Array[]): Buffer => message(1, text(1, tag), ...content);
const scalar = (tag: string, value: number): Buffer => tagged(tag, float(2, value));

/**
 * Writes scalars, histograms, text and graphs into a file of its own in `logDir`, a run of TensorBoard's; two runs in one
 * chart are two writers, in directories beside each other. Makes the directory. Events that wait when the process ends
 * are lost: `close()` the writer, or declare it with `using`. A step is a whole number, a `wallTime` seconds since 1970.
 * Everything throws ArgumentError for a tag, step or value of another kind, DisposedError after `close()`, and errors of
 * the file system as they are; after one of those, what was not written waits for the next `flush()`.
 * torch.utils.tensorboard.SummaryWriter
 */
export class SummaryWriter {
  readonly logDir: string;
  readonly #file: EventFile;
  readonly #flushSecs: number;
  readonly #maxQueue: number;
  #queue: Buffer[] = [];
  #flushed = performance.now();
  #closed = false;

  constructor(logDir: string, options: SummaryWriterOptions = {}) {
    const op = 'SummaryWriter';
    this.logDir = checkText(op, 'logDir', logDir);
    const { flushSecs = 120, maxQueue = 10 } = options;
    checkOptions(op, options, { flushSecs, maxQueue });
    this.#flushSecs = checkRange(op, 'flushSecs', flushSecs);
    this.#maxQueue = checkInteger(op, 'maxQueue', maxQueue, 1);
    this.#file = new EventFile(logDir);
    this.#file.append([event(now(), text(3, 'brain.Event:2'))]);
  }

  /** The file that this writer writes. */
  get path(): string {
    return this.#file.path;
  }

  /** One point of a curve: a number or a tensor of one element. The format has float32: 1e39 is infinite in it. */
  addScalar(tag: string, value: number | Tensor, step: number, wallTime?: number): void {
    const op = 'addScalar';
    const read = value instanceof Tensor ? readItem(op, value) : value;
    if (typeof read !== 'number') throw new ArgumentError(`${op}: the value is ${describe(read)}. Expected a number.`);
    this.#add(op, summary(scalar(checkText(op, 'tag', tag), read)), step, wallTime);
  }

  /**
   * How values are spread: of a tensor of any shape and dtype, or of a list of numbers. In buckets that grow by a tenth,
   * from 1e-12 up and from -1e-12 down. NaN and infinities are in no bucket; where there are any, how many is a scalar,
   * `tag/nonfinite`. @throws ArgumentError for no values
   */
  addHistogram(tag: string, values: Tensor | TypedArray | readonly number[], step: number, wallTime?: number): void {
    const op = 'addHistogram';
    checkText(op, 'tag', tag);
    const { fields, nonFinite } = histogramOf(numbersOf(op, values));
    const parts: Buffer[] = [];
    if (fields !== null) parts.push(tagged(tag, message(5, ...fields)));
    if (nonFinite > 0) parts.push(scalar(`${tag}/nonfinite`, nonFinite));
    this.#add(op, summary(...parts), step, wallTime);
  }

  /** A text, which TensorBoard shows as Markdown. */
  addText(tag: string, content: string, step: number, wallTime?: number): void {
    const op = 'addText';
    if (typeof content !== 'string') {
      throw new ArgumentError(`${op}: the text is ${describe(content)}. Expected a string.`);
    }
    const metadata = message(9, message(1, text(1, 'text')), int(4, DATA_CLASS_TENSOR));
    const tensor = message(8, int(1, DT_STRING), message(2, message(2, int(1, 1))), text(8, content));
    this.#add(op, summary(tagged(checkText(op, 'tag', tag), tensor, metadata)), step, wallTime);
  }

  /**
   * The graph that `output` was computed by, from the leaves that require grad on; inputs that do not are not part of it.
   * Leaves in `named`, such as `model.namedParameters()`, have their names in it. It is there after `backward()` too.
   * TensorBoard shows one graph for a run. @throws AutogradError for a tensor without gradFn
   */
  addGraph(output: Tensor, named: Iterable<readonly [string, Tensor]> = []): void {
    const op = 'addGraph';
    checkTensor(op, output);
    const leaves = [...named];
    for (const [name, leaf] of leaves) checkTensor(op, leaf, `leaf ${describe(name)}`);
    this.#add(op, message(4, graphDef(op, output, leaves)), 0);
  }

  /** Hands what waits to the operating system. */
  flush(): void {
    this.#check('flush');
    this.#flush();
  }

  /** Flushes, and closes the file. A second call does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    try {
      this.#flush();
    } finally {
      this.#file.close();
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #add(op: string, what: Buffer, step: number, wallTime = now()): void {
    this.#check(op);
    this.#queue.push(event(checkRange(op, 'wallTime', wallTime), int(2, checkInteger(op, 'step', step)), what));
    const waited = (performance.now() - this.#flushed) / 1000;
    if (this.#queue.length >= this.#maxQueue || waited >= this.#flushSecs) this.#flush();
  }

  #flush(): void {
    this.#file.append(this.#queue);
    this.#queue = [];
    this.#flushed = performance.now();
  }

  #check(op: string): void {
    if (this.#closed) throw new DisposedError(`${op}: the writer of ${this.path} is closed. Make a new one.`);
  }
}

/** Seconds since 1970. */
const now = (): number => Date.now() / 1000;

const event = (wallTime: number, ...what: readonly Buffer[]): Buffer => Buffer.concat([double(1, wallTime), ...what]);
const summary = (...values: readonly Buffer[]): Buffer => message(5, ...values);

function checkText(op: string, what: string, given: unknown): string {
  if (typeof given === 'string' && given !== '') return given;
  throw new ArgumentError(`${op}: the ${what} is ${describe(given)}. Expected a string that is not empty.`);
}

function readItem(op: string, tensor: Tensor): number {
  checkTensor(op, tensor, 'value');
  return item(tensor);
}

function numbersOf(op: string, values: unknown): ArrayLike<number> {
  if (values instanceof Tensor) checkTensor(op, values, 'values');
  const numbers = values instanceof Tensor ? toTypedArray(values) : values;
  const isList = Array.isArray(numbers) ? numbers.every((n) => typeof n === 'number') : isTypedArray(numbers);
  if (!isList || (numbers as ArrayLike<number>).length === 0) {
    const got = isList ? 'no values' : `values that are ${describe(values)}`;
    throw new ArgumentError(`${op}: ${got}. Expected a tensor or a list of numbers, with at least one.`);
  }
  return numbers as ArrayLike<number>;
}

const isTypedArray = (values: unknown): boolean =>
  ArrayBuffer.isView(values) && !(values instanceof DataView) && typeof (values as Uint8Array)[0] !== 'bigint';
