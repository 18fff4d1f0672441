// What the process runs on: threads and the build.
import { checkOptions, checkRange } from './arguments.ts';
import { isa, isaAvailable, native } from './native.ts';
import { checkInteger } from './shape.ts';

export interface ThreadOptions {
  /** Threads for what runs beside the event loop (`compiled.async`, `run`); 0, the default: all but one. */
  background?: number;
  /** How much their work gives way to other processes and threads, as nice(1) counts: 0 to 19. Set it before the first. */
  nice?: number;
}

/** Threads that compute one op, the caller's included. Results do not depend on it, bit for bit. @throws ArgumentError */
export function setNumThreads(n: number, options: ThreadOptions = {}): void {
  checkOptions('setNumThreads', options, { background: 0, nice: 0 });
  native.setThreads(Math.min(checkInteger('setNumThreads', 'n', n, 1), 1024));
  const { background = 0, nice = 0 } = options;
  checkRange('setNumThreads', 'nice', nice, 0, 19);
  native.setQueue(
    checkInteger('setNumThreads', 'background', background, 0),
    checkInteger('setNumThreads', 'nice', nice, 0),
  );
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
