// Folding: which recorded commands give the same in every run, and need to run only once: elementwise ones of numbers,
// and of what such commands give, as the gradient of a loss by itself. Knows no op by name.
import { isElementwise } from '../native.ts';
import { numelOf } from '../shape.ts';
import { type Command, opcodeIn, type Recorder } from './recorder.ts';
import type { Storage } from './storage.ts';

/** Elements of a result that is worth keeping: a larger one would take memory for as long as the program lives. */
const MOST = 16;

/** In order. `own`: what nobody but the program sees. */
export function fold({ commands, repeats }: Recorder, own: (storage: Storage) => boolean): Command[] {
  const writers = new Map<Storage, number>();
  for (const { references } of commands) {
    for (const { storage, written } of references) {
      if (written) writers.set(storage, (writers.get(storage) ?? 0) + 1);
    }
  }
  const varying = new Set(repeats.map(({ command }) => command));
  const constant = new Set<Storage>();
  return commands.filter((command) => {
    const [out, ...inputs] = command.references;
    if (!isElementwise(opcodeIn(command.words[0]!)) || varying.has(command)) return false;
    if (!own(out!.storage) || writers.get(out!.storage) !== 1 || numelOf(out!.shape) > MOST) return false;
    if (!inputs.every(({ storage }) => constant.has(storage))) return false;
    constant.add(out!.storage);
    return true;
  });
}
