// A file of TensorBoard events: a new one in a directory, and records that are whole or not there. Layer io; knows the
// frame of a record and nothing of what is in it.
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { hostname } from 'node:os';
import path from 'node:path';
import { writeAll } from './atomic-write.ts';

/** The reversed polynomial of CRC-32C; zlib's checksum has another. */
const CASTAGNOLI = 0x82f63b78;
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ CASTAGNOLI : crc >>> 1;
  return crc;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = -1;
  for (let i = 0; i < bytes.length; i++) crc = TABLE[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** The format stores checksums rotated and shifted, so that the checksum of what holds one is no constant. */
function masked(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** A TFRecord: the length and its checksum, the data and theirs. */
function record(data: Uint8Array): Buffer {
  const framed = Buffer.alloc(8 + 4 + data.length + 4);
  framed.writeBigUInt64LE(BigInt(data.length));
  framed.writeUInt32LE(masked(framed.subarray(0, 8)), 8);
  framed.set(data, 12);
  framed.writeUInt32LE(masked(data), 12 + data.length);
  return framed;
}

let files = 0;

export class EventFile {
  readonly path: string;
  readonly #handle: number;
  /** Where the next record goes: behind the last that is whole. */
  #end = 0;

  /** Makes the directory too, if need be. Errors are the system's. */
  constructor(directory: string) {
    mkdirSync(directory, { recursive: true });
    const name = `events.out.tfevents.${Math.floor(Date.now() / 1000)}.${hostname()}.${process.pid}`;
    for (;;) {
      const file = path.join(directory, `${name}.${files++}`);
      try {
        this.#handle = openSync(file, 'wx');
        this.path = file;
        return;
      } catch (error) {
        // Threads of one process have its pid, and each counts for itself.
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
    }
  }

  /** All or nothing: what a failed call has left behind is written over by the next. */
  append(events: readonly Uint8Array[]): void {
    const records = Buffer.concat(events.map(record));
    writeAll(this.#handle, records, this.#end);
    this.#end += records.length;
  }

  close(): void {
    closeSync(this.#handle);
  }
}
