// Writes a file whole or not at all: after a crash at any moment the path holds the old content or the new. Layer io.
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, readdirSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import path from 'node:path';

/** Chunks are asked for one at a time, so a large file needs memory for its largest chunk only. Errors are the system's. */
export function writeFileAtomic(file: string, chunks: Iterable<Uint8Array>): void {
  sweep(file);
  // In the same directory, because a rename is atomic within one file system only.
  const temporary = `${file}.tmp-${process.pid}-${randomBytes(4).toString('hex')}`;
  const handle = openSync(temporary, 'wx');
  try {
    try {
      for (const chunk of chunks) writeAll(handle, chunk);
      fsyncSync(handle);
    } finally {
      closeSync(handle);
    }
    renameSync(temporary, file);
  } catch (error) {
    removeQuietly(temporary);
    throw error;
  }
  syncDirectory(path.dirname(file));
}

/** Writes from `position` on, or, without one, where the handle is. */
export function writeAll(handle: number, chunk: Uint8Array, position: number | null = null): void {
  // A call of the system writes less than 2 GiB, and perhaps less than it was given.
  for (let done = 0; done < chunk.length; ) {
    const count = Math.min(chunk.length - done, 2 ** 30);
    done += writeSync(handle, chunk, done, count, position === null ? null : position + done);
  }
}

/** Makes the rename itself durable. Windows has no such call, and no way to open a directory. */
function syncDirectory(directory: string): void {
  if (process.platform === 'win32') return;
  const handle = openSync(directory, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/** Removes what writers of this file left behind when they were killed. */
function sweep(file: string): void {
  const directory = path.dirname(file);
  const prefix = `${path.basename(file)}.tmp-`;
  for (const name of readdirSync(directory)) {
    const pid = name.startsWith(prefix) && /^(\d+)-[0-9a-f]{8}$/.exec(name.slice(prefix.length))?.[1];
    if (pid && isOrphan(path.join(directory, name), Number(pid))) removeQuietly(path.join(directory, name));
  }
}

function isOrphan(temporary: string, pid: number): boolean {
  try {
    // In a container every run has the same small pid: then a file older than this process is an earlier run's.
    if (pid === process.pid) return statSync(temporary).mtimeMs < Date.now() - process.uptime() * 1000;
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

/** For files that only take up space: an error about them must not hide, or become, the error of the save. */
function removeQuietly(temporary: string): void {
  try {
    rmSync(temporary, { force: true });
  } catch {}
}
