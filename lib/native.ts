// Loads the addon and gives its functions their types. The only module that knows there is a binary.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { arch, platform } from 'node:process';
import { fileURLToPath } from 'node:url';
import type { TypedArray } from './dtype.ts';
import { ChainruleError } from './errors.ts';

export interface Failure {
  /** 1 invalid program, 2 out of memory, 3 index out of range (Status in native/kernels/table.h). */
  status: number;
  /** Which command of the batch failed, and its op's name. */
  command: number;
  op: string;
  reason: string;
  /** Out of memory: bytes asked for. Index out of range: where the index stands, and what it is. */
  position: number;
  value: number;
}

interface Addon {
  execute(words: number): boolean;
  failure(): Failure;
  bind(buffer: Int32Array): void;
  read(slot: number, byteOffset: number, target: TypedArray): boolean;
  readNumber(slot: number, byteOffset: number, dtype: number): number | undefined;
  write(slot: number, source: TypedArray): boolean;
  enqueue(words: number, more: boolean): number;
  stop(ticket: number): void;
  wait(ticket: number): number;
  whenFinished(ticket: number, callback: (finished: number) => void): void;
  failures(): (Failure & { ticket: number; stopped: boolean })[];
  setQueue(threads: number, nice: number): void;
  watch(objects: readonly unknown[], count: number): void;
  sweep(): number;
  memoryStats(): {
    liveBytes: number;
    peakBytes: number;
    slots: number;
    arenaBytes: number;
    cachedBytes: number;
    limit: number;
    arenaCalls: number;
  };
  resetPeak(): void;
  trim(): void;
  setThreads(n: number): void;
  getThreads(): number;
  describe(): { isa: string; isaAvailable: string[]; ops: (string | number)[]; elementwise: number };
}

function load(): Addon {
  const require = createRequire(import.meta.url);
  const chosen = process.env.CHAINRULE_BINARY_PATH;
  if (chosen) return require(fileURLToPath(new URL(chosen, `file://${process.cwd()}/`))) as Addon;
  const built = fileURLToPath(new URL('../build/Release/chainrule.node', import.meta.url));
  if (existsSync(built)) return require(built) as Addon;
  const name = `@chainrule/core-${platform}-${arch}`;
  try {
    return require(`${name}/chainrule.node`) as Addon;
  } catch (cause) {
    throw new ChainruleError(
      'ERR_BINARY_MISSING',
      `chainrule: no native binary for ${platform}-${arch} (Node ${process.version}). Tried build/Release and the ` +
        `package ${name}. In a clone run "npm run build"; in an installed package reinstall without --omit=optional.`,
      { cause },
    );
  }
}

export const native: Addon = load();

const description = native.describe();
export const isa = description.isa;
export const isaAvailable: readonly string[] = description.isaAvailable;

const opcodes = new Map<string, number>();
const saved: string[] = [];
const types: number[] = [];
for (let i = 0; i < description.ops.length; i += 3) {
  opcodes.set(description.ops[i] as string, i / 3);
  saved.push(description.ops[i + 1] as string);
  types.push(description.ops[i + 2] as number);
}

/** The opcode of a kernel, by its row's name. With `saves`, checks what the row says its pullback reads. */
export function opcode(name: string, saves?: string): number {
  const code = opcodes.get(name);
  if (code === undefined) {
    throw new ChainruleError('ERR_INTERNAL', `the native library has no op named ${name}: rebuild it`);
  }
  if (saves !== undefined && saved[code] !== saves) {
    throw new ChainruleError('ERR_INTERNAL', `${name}: elementwise.def saves ${saved[code]}, its op saves ${saves}`);
  }
  return code;
}

/** The name of an opcode's row. */
export const nameOf = (op: number): string => description.ops[3 * op] as string;
/** Whether element i of an op's output depends on element i of its (broadcast) inputs alone. */
export const isElementwise = (op: number): boolean => op < description.elementwise;

/** Whether an op has a kernel for a compute type (dtype codes float32, float64, int32). */
export const hasKernel = (op: number, type: number): boolean => ((types[op]! >> type) & 1) === 1;
