// The header of a safetensors file: text to a checked list of tensors. Layer io: no file and no tensor here.
// The header's grammar has a fixed depth, so this parser needs no recursion, sees duplicate keys and reads integers
// exactly, none of which JSON.parse does. Nothing it returns needs another check.
import type { DType } from '../dtype.ts';
import { FormatError } from '../errors.ts';
import { MAX_DIMS, MAX_ELEMENTS, show } from '../shape.ts';

/** The file's names for dtypes, and the bytes of an element. */
export const STORED_DTYPES: ReadonlyMap<string, { dtype: DType; bytes: number }> = new Map([
  ['F32', { dtype: 'float32', bytes: 4 }],
  ['F64', { dtype: 'float64', bytes: 8 }],
  ['I32', { dtype: 'int32', bytes: 4 }],
  ['U8', { dtype: 'uint8', bytes: 1 }],
  ['BOOL', { dtype: 'bool', bytes: 1 }],
  ['BF16', { dtype: 'bfloat16', bytes: 2 }],
]);

export interface TensorEntry {
  name: string;
  dtype: DType;
  shape: number[];
  /** Range of bytes behind the header. */
  begin: number;
  end: number;
}

export interface Header {
  /** In the order of their bytes, which they cover without gap or overlap. */
  tensors: TensorEntry[];
  metadata: Map<string, string>;
}

/** Names that become something else in a plain object. A file with one was made to do harm. */
const FORBIDDEN_NAMES = new Set(['__proto__', 'constructor', 'prototype']);

/** @throws FormatError without the file's name, which the caller knows */
export function checkName(name: string): string {
  if (FORBIDDEN_NAMES.has(name)) throw new FormatError(`the name '${name}' is not allowed`);
  return name;
}

/** Parses and checks the header of a file that has `dataBytes` bytes behind it. @throws FormatError saying why not */
export function parseHeader(text: string, dataBytes: number): Header {
  const reader = new Reader(text);
  const metadata = new Map<string, string>();
  const tensors: TensorEntry[] = [];
  reader.object('the header', (name) => {
    if (name === '__metadata__') reader.object(name, (key) => metadata.set(key, reader.string(`${name}.${key}`)));
    else tensors.push(readEntry(reader, name));
  });
  reader.end();
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkCoverage(tensors, dataBytes);
  return { tensors, metadata };
}

function readEntry(reader: Reader, name: string): TensorEntry {
  let stored = '';
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  reader.object(`'${name}'`, (key) => {
    if (key === 'dtype') stored = reader.string(`dtype of '${name}'`);
    else if (key === 'shape') shape = reader.integers(`shape of '${name}'`);
    else if (key === 'data_offsets') offsets = reader.integers(`data_offsets of '${name}'`);
    else throw new FormatError(`'${name}' has an unknown field '${key}'`);
  });
  if (!stored || !shape || !offsets) throw new FormatError(`'${name}' lacks dtype, shape or data_offsets`);

  const format = STORED_DTYPES.get(stored);
  if (!format)
    throw new FormatError(`'${name}' has dtype '${stored}'; supported are ${[...STORED_DTYPES.keys()].join(', ')}`);
  const [begin, end] = offsets;
  if (offsets.length !== 2 || begin! > end!) throw new FormatError(`data_offsets of '${name}' are ${show(offsets)}`);
  const bytes = elementsOf(name, shape) * format.bytes;
  if (end! - begin! !== bytes) {
    throw new FormatError(
      `'${name}' is ${stored} ${show(shape)}, ${bytes} bytes, but has ${end! - begin!} bytes of data`,
    );
  }
  return { name, dtype: format.dtype, shape, begin: begin!, end: end! };
}

function elementsOf(name: string, shape: number[]): number {
  if (shape.length > MAX_DIMS)
    throw new FormatError(`'${name}' has ${shape.length} dimensions; at most ${MAX_DIMS} are supported`);
  let elements = 1;
  // A zero does not excuse an overflow beside it: the product of the other sizes is a stride.
  let span = 1;
  for (const size of shape) {
    elements *= size;
    span *= Math.max(size, 1);
    if (span > MAX_ELEMENTS)
      throw new FormatError(`'${name}' has shape ${show(shape)}, more than ${MAX_ELEMENTS} elements`);
  }
  return elements;
}

function checkCoverage(tensors: readonly TensorEntry[], dataBytes: number): void {
  let covered = 0;
  for (const { name, begin, end } of tensors) {
    if (begin < covered)
      throw new FormatError(`'${name}' begins at byte ${begin}, inside the tensor before, which ends at ${covered}`);
    if (begin > covered) throw new FormatError(`bytes ${covered} to ${begin}, before '${name}', belong to no tensor`);
    covered = end;
  }
  if (covered > dataBytes)
    throw new FormatError(`truncated: the tensors need ${covered} bytes, the file has ${dataBytes}`);
  if (covered < dataBytes) throw new FormatError(`the last ${dataBytes - covered} bytes belong to no tensor`);
}

const NUMBER_CHARACTERS = '+-.0123456789Ee';

/** Reads the JSON values of the grammar from left to right. */
class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  /** Calls `member` with each key, at its value. */
  object(what: string, member: (key: string) => void): void {
    const seen = new Set<string>();
    this.#list(what, '{', '}', () => {
      const key = checkName(this.string(`a key of ${what}`));
      if (seen.has(key)) throw new FormatError(`${what} has the key '${key}' twice`);
      seen.add(key);
      this.#expect(':', what);
      member(key);
    });
  }

  integers(what: string): number[] {
    const values: number[] = [];
    this.#list(what, '[', ']', () => values.push(this.#integer(what)));
    return values;
  }

  string(what: string): string {
    this.#expect('"', what);
    const start = this.#at - 1;
    for (let c = ''; c !== '"'; this.#at++) {
      if (c === '\\') this.#at++;
      c = this.#text[this.#at] ?? this.#fail('the end of the string', what);
    }
    try {
      return JSON.parse(this.#text.slice(start, this.#at)) as string;
    } catch {
      throw new FormatError(`${what} is not a JSON string`);
    }
  }

  end(): void {
    this.#skipSpace();
    if (this.#at < this.#text.length) this.#fail('nothing', 'the rest of the header');
  }

  #list(what: string, open: string, close: string, item: () => void): void {
    this.#expect(open, what);
    if (this.#take(close)) return;
    do item();
    while (this.#take(','));
    this.#expect(close, what);
  }

  #integer(what: string): number {
    this.#skipSpace();
    const start = this.#at;
    while (this.#at < this.#text.length && NUMBER_CHARACTERS.includes(this.#text[this.#at]!)) this.#at++;
    const token = this.#text.slice(start, this.#at);
    const value = Number(token);
    if (/^(0|[1-9][0-9]{0,15})$/.test(token) && Number.isSafeInteger(value)) return value;
    return this.#fail('a whole number from 0 to 2^53 - 1', what, start);
  }

  #take(character: string): boolean {
    this.#skipSpace();
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #expect(character: string, what: string): void {
    if (!this.#take(character)) this.#fail(`'${character}'`, what);
  }

  #skipSpace(): void {
    while (' \t\n\r'.includes(this.#text[this.#at] ?? 'end')) this.#at++;
  }

  #fail(expected: string, what: string, at = this.#at): never {
    const found = at < this.#text.length ? JSON.stringify(this.#text.slice(at, at + 20)) : 'the end';
    throw new FormatError(`${what}: expected ${expected} at character ${at} of the header, found ${found}`);
  }
}
