// Fusion: which elementwise ops run together, part by part, so that what one writes is still in the cache when the next
// reads it. Commands move only past others that have nothing to do with them. Knows no op by name.
import { BYTES } from '../dtype.ts';
import { isElementwise } from '../native.ts';
import { numelOf } from '../shape.ts';
import { type Command, opcodeIn, type Reference } from './recorder.ts';

/** Commands that run together, in order. */
export type Group = readonly Command[];

/** Elements from which it pays. */
const WORTH = 1 << 15;
/** As Chain::kMost in native/runtime/chain.h. */
const MOST = 8;
/** How many groups back a command looks for one to join. */
const REACH = 64;

const opOf = ({ words }: Command): number => opcodeIn(words[0]!);
const written = ({ references }: Command): Reference => references[0]!;

/** All of its storage, in order. */
export const isWhole = ({ dense, offset, shape, code, storage }: Reference): boolean =>
  dense && offset === 0 && numelOf(shape) * BYTES[code]! === storage.bytes;

/** Whether one of two groups writes what the other reads or writes. */
function conflict(a: Group, b: Group): boolean {
  return a.some((x) =>
    x.references.some((p) =>
      b.some((y) => y.references.some((q) => p.storage === q.storage && (p.written || q.written))),
    ),
  );
}

/** The recorded commands in groups, in the order in which they are to run. */
export function fuse(commands: readonly Command[]): Group[] {
  const groups: Command[][] = [];
  for (const command of commands) {
    const at = groupToJoin(groups, command);
    if (at < 0) groups.push([command]);
    else groups[at]!.push(command);
  }
  return groups;
}

/** The group whose result an elementwise op reads, if it can run as a part of it; -1 if there is none. */
function groupToJoin(groups: readonly Group[], command: Command): number {
  if (!isElementwise(opOf(command)) || numelOf(written(command).shape) < WORTH) return -1;
  for (let at = groups.length - 1; at >= Math.max(0, groups.length - REACH); at--) {
    if (conflict(groups[at]!, [command])) return canJoin(groups[at]!, command) ? at : -1;
  }
  return -1;
}

function canJoin(group: Group, command: Command): boolean {
  const size = numelOf(written(command).shape);
  const aligned = (r: Reference): boolean => isWhole(r) && numelOf(r.shape) === size;
  const lead = group[0]!;
  if (group.length === MOST || !isElementwise(opOf(lead))) return false;
  if (!aligned(written(command)) || !aligned(written(lead))) return false;
  // What both touch, and one of them writes, has to lie element for element in both.
  return group.every((member) =>
    member.references.every((p) =>
      command.references.every(
        (q) => p.storage !== q.storage || !(p.written || q.written) || (aligned(p) && aligned(q)),
      ),
    ),
  );
}
