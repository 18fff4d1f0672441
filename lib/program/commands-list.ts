// Writers of the commands over lists of tensors, as commands.ts has the others: layouts of native/runtime/commands_list.cc.
import { opcode } from '../native.ts';
import { end, number, OPERAND, operand, output } from './commands.ts';
import { flush, words } from './engine.ts';
import { capturing } from './recorder.ts';
import type { View } from './storage.ts';

/** The longest item list that one command can carry. */
export const MAX_ITEMS = 4000;

export interface Item {
  param: View;
  grad: View;
  state: readonly View[];
}

/** Gradients are scaled together so that their norm is at most `maxNorm`. */
export interface Clip {
  /** Asked again in each run. */
  readonly maxNorm: () => number;
  /** One float64: the sum of the squares of all of them. */
  squares: View;
}

/** Bit 0 of the flags is to maximize, bit 1 the writer's; the optimizer's own begin at bit 2. Options in the decoder's order. */
export interface Settings {
  flags: number;
  options: readonly number[];
}

/**
 * sgd, adam, rmsprop, adagrad, adadelta: one update over all items. `settings` are asked again in each run: rates have
 * schedules.
 */
export function update(
  op: number,
  code: number,
  settings: () => Settings,
  clip: Clip | null,
  items: readonly Item[],
): void {
  flush();
  words[1] = code;
  const write = (to: Int32Array, start: number): number => {
    const { flags, options } = settings();
    let at = start;
    to[at++] = clip === null ? flags : flags | 2;
    if (clip !== null) at = number(at, clip.maxNorm(), to) + OPERAND;
    for (const option of options) at = number(at, option, to);
    return at;
  };
  let at = write(words, 2);
  capturing()?.rewrite(2, write);
  if (clip !== null) operand(5, clip.squares);
  words[at++] = items.length;
  for (const { param, grad, state } of items) {
    words[at++] = param.numel;
    at = output(at, param);
    at = operand(at, grad);
    for (const view of state) at = output(at, view);
  }
  end(0, op, at);
}

const SUM_SQUARES = opcode('sumSquares');

/** out (one float64) += the sum of the squares of all elements of all items. */
export function sumSquares(out: View, code: number, items: readonly View[]): void {
  flush();
  let at = 1;
  words[at++] = code;
  at = output(at, out);
  words[at++] = items.length;
  for (const item of items) {
    words[at++] = item.numel;
    at = operand(at, item);
  }
  end(0, SUM_SQUARES, at);
}
