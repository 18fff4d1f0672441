// Safetensors files: named tensors and nothing that runs. Layer io. A file is untrusted: all of it is checked before
// memory is allocated for any tensor.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { BOOL, dtypeCode, type TypedArray, toBfloat16, typedArray } from '../dtype.ts';
import { ArgumentError, FormatError } from '../errors.ts';
import { fromTypedArray } from '../ops/create.ts';
import { numelOf } from '../shape.ts';
import { checkTensor, type Tensor } from '../tensor.ts';
import { writeFileAtomic } from './atomic-write.ts';
import { checkName, type Header, parseHeader, STORED_DTYPES, type TensorEntry } from './safetensors-header.ts';

/** Room for about 150,000 tensors. */
const MAX_HEADER_BYTES = 16 * 2 ** 20;
const LENGTH_BYTES = 8;
/** A call of the system reads less than 2 GiB. */
const MAX_READ = 2 ** 30;

type Named<T> = ReadonlyMap<string, T> | Readonly<Record<string, T>>;

export interface SafetensorsFile {
  tensors: Map<string, Tensor>;
  metadata: Map<string, string>;
}

/**
 * Writes tensors, and metadata if given, so that `file` holds either its old content or all of the new, whatever
 * happens meanwhile. Errors of the file system are thrown as they are.
 */
export function saveSafetensors(file: string, tensors: Named<Tensor>, metadata: Named<string> = {}): void {
  const named = entriesOf(tensors).map(([name, value]) => {
    checkTensor('saveSafetensors', value, `tensor '${name}'`);
    return { name: checkOwnName(name), value, ...storedDtype(value) };
  });
  // Wide elements first, so that every tensor is aligned to its elements.
  named.sort((a, b) => b.bytes - a.bytes);

  const header: [string, object][] = [];
  const texts = entriesOf(metadata);
  if (texts.length > 0)
    header.push(['__metadata__', Object.fromEntries(texts.map(([key, text]) => [checkOwnName(key), String(text)]))]);
  let end = 0;
  for (const { name, value, stored } of named) {
    const begin = end;
    end += value.nbytes;
    header.push([name, { dtype: stored, shape: value.shape, data_offsets: [begin, end] }]);
  }
  writeFileAtomic(
    file,
    chunks(
      encodeHeader(Object.fromEntries(header)),
      named.map(({ value }) => value),
    ),
  );
}

/** Reads what `saveSafetensors`, or any other library, has written. @throws FormatError, naming the file and the fault */
export function loadSafetensors(file: string): SafetensorsFile {
  const handle = openSync(file, 'r');
  try {
    const { tensors, metadata, dataStart } = readHeader(handle);
    return { metadata, tensors: new Map(tensors.map((entry) => [entry.name, readTensor(handle, dataStart, entry)])) };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new FormatError(`loadSafetensors: ${file}: ${shorten(error.message)}.`, { cause: error });
  } finally {
    closeSync(handle);
  }
}

function entriesOf<T>(named: Named<T>): [string, T][] {
  return named instanceof Map ? [...(named as ReadonlyMap<string, T>)] : Object.entries(named);
}

function checkOwnName(name: string): string {
  if (name !== '__metadata__') return checkName(name);
  throw new ArgumentError(`saveSafetensors: the name '${name}' is the format's own.`);
}

function storedDtype({ dtype }: Tensor): { stored: string; bytes: number } {
  const [stored, { bytes }] = [...STORED_DTYPES].find(([, format]) => format.dtype === dtype)!;
  return { stored, bytes };
}

/** The length, then the text, padded with spaces so that the data begin at a multiple of 8. */
function encodeHeader(header: object): Buffer {
  const text = Buffer.from(JSON.stringify(header));
  const encoded = Buffer.alloc(LENGTH_BYTES + Math.ceil(text.length / 8) * 8, ' ');
  encoded.writeBigUInt64LE(BigInt(encoded.length - LENGTH_BYTES));
  text.copy(encoded, LENGTH_BYTES);
  return encoded;
}

function* chunks(header: Uint8Array, tensors: readonly Tensor[]): Generator<Uint8Array> {
  yield header;
  for (const value of tensors) {
    const values = value.toTypedArray();
    yield bytesOf(value.dtype === 'bfloat16' ? Uint16Array.from(values, toBfloat16) : values);
  }
}

const bytesOf = ({ buffer, byteOffset, byteLength }: TypedArray): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

function readHeader(handle: number): Header & { dataStart: number } {
  const { size } = fstatSync(handle);
  if (size < LENGTH_BYTES) throw new FormatError(`${size} bytes are too few for the length of a header`);
  const length = readInto(handle, 0, Buffer.alloc(LENGTH_BYTES)).readBigUInt64LE();
  if (length > size - LENGTH_BYTES) throw new FormatError(`a header of ${length} bytes in a file of ${size}`);
  if (length > MAX_HEADER_BYTES) throw new FormatError(`a header of ${length} bytes, more than ${MAX_HEADER_BYTES}`);
  const dataStart = LENGTH_BYTES + Number(length);
  const text = decode(readInto(handle, LENGTH_BYTES, Buffer.alloc(Number(length))));
  return { ...parseHeader(text, size - dataStart), dataStart };
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError('the header is not UTF-8', { cause });
  }
}

function readTensor(handle: number, dataStart: number, { name, dtype, shape, begin }: TensorEntry): Tensor {
  const code = dtypeCode('loadSafetensors', dtype);
  const bits = typedArray(code, numelOf(shape));
  readInto(handle, dataStart + begin, bytesOf(bits));
  if (code === BOOL && bits.some((bit) => bit > 1))
    throw new FormatError(`'${name}' has a bool that is neither 0 nor 1`);
  return fromTypedArray('loadSafetensors', bits, shape, code);
}

/** Names from the file may be as long as its header. */
function shorten(message: string): string {
  return message.length > 400 ? `${message.slice(0, 200)} … ${message.slice(-200)}` : message;
}

/** Fills the target, and returns it. */
function readInto<T extends Uint8Array>(handle: number, position: number, target: T): T {
  for (let done = 0; done < target.length; ) {
    const count = readSync(handle, target, done, Math.min(target.length - done, MAX_READ), position + done);
    if (count === 0) throw new FormatError('the file became shorter while it was read');
    done += count;
  }
  return target;
}
