// What the process runs on: threads and the build.
import { isa, isaAvailable, native } from './native.ts';
import { checkInteger } from './shape.ts';

/** Threads that compute one op, the caller's included. Results do not depend on it, bit for bit. @throws ArgumentError */
export function setNumThreads(n: number): void {
  native.setThreads(Math.min(checkInteger('setNumThreads', 'n', n, 1), 1024));
}

/** As set; at first `CHAINRULE_THREADS`, else what affinity and the cgroup's CPU quota allow. */
export const getNumThreads = (): number => native.getThreads();

const VERSION = '0.1.0';

/** Version, the instruction set in use and those that this machine has (`CHAINRULE_ISA` forces one), threads. */
export function buildInfo(): {
  version: string;
  isa: string;
  isaAvailable: string[];
  threads: number;
  backend: 'native' | 'js';
} {
  return { version: VERSION, isa, isaAvailable: [...isaAvailable], threads: getNumThreads(), backend: 'native' };
}
