// Writers of the commands of convolutions, as commands.ts has the others: layouts of native/runtime/commands_conv.cc.
import { opcode } from '../native.ts';
import { begin, end, operand, output } from './commands.ts';
import { words } from './engine.ts';
import type { View } from './storage.ts';

/** One spatial dimension: of input and output, and how windows lie over the input, with zeros outside of it. */
export interface ConvDim {
  in: number;
  out: number;
  kernel: number;
  stride: number;
  pad: number;
  dilation: number;
}
export interface Conv {
  n: number;
  groups: number;
  /** Of a group. */
  inChannels: number;
  outChannels: number;
  dims: readonly [ConvDim, ConvDim];
}

function conv(start: number, code: number, c: Conv): number {
  let at = start + 1;
  words[at++] = code;
  words[at++] = c.n;
  words[at++] = c.groups;
  words[at++] = c.inChannels;
  words[at++] = c.outChannels;
  for (const d of c.dims) {
    words[at++] = d.in;
    words[at++] = d.out;
    words[at++] = d.kernel;
    words[at++] = d.stride;
    words[at++] = d.pad;
    words[at++] = d.dilation;
  }
  return at;
}

const CONVOLUTION = opcode('convolution');

/** out = x convolved with weight, plus bias; all contiguous. */
export function convolution(out: View, x: View, weight: View, bias: View | null, c: Conv): void {
  const start = begin();
  let at = conv(start, out.code, c);
  words[at++] = bias ? 1 : 0;
  at = output(at, out);
  at = operand(at, x);
  at = operand(at, weight);
  end(start, CONVOLUTION, bias ? operand(at, bias) : at);
}

/** convolutionInput (g, weight) and convolutionWeight (x, g): its gradients; all contiguous. */
export function convolutionGradient(op: number, out: View, a: View, b: View, c: Conv): void {
  const start = begin();
  let at = output(conv(start, out.code, c), out);
  at = operand(at, a);
  end(start, op, operand(at, b));
}
