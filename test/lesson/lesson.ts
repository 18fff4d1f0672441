// What the tests of the lesson share: its golden values, its two-layer network with the gradients written by hand,
// numeric gradients, and how a graph, its memory and its work are counted. Test layer: the public API only.
import { readFileSync } from 'node:fs';
import {
  memoryStats,
  type Node,
  noGrad,
  resetPeakMemory,
  scope,
  type Tensor,
  tensor,
  trimMemory,
} from '../../lib/index.ts';
import { f64, values } from '../support.ts';

// ---- golden values ----------------------------------------------------------------------------------------------------
type Matrix = number[][];

interface Golden {
  sin_x2: { x: number; dydx: number };
  scalar_graph: Record<'x' | 'w' | 'b' | 'z1' | 'z2' | 'y' | 'dy_dz2' | 'dy_db' | 'dy_dw' | 'dy_dx', number>;
  legacy_randn_seed42_first16: number[];
  two_layer_seed42: Record<'W1' | 'W2' | 'dW1' | 'dW2', Matrix> &
    Record<'x' | 'y' | 'z1' | 'h' | 'y_hat' | 'db1' | 'db2' | 'active_units', number[]> & { loss: number };
  batched_seed42: Record<'W1' | 'W2' | 'X' | 'Y' | 'dW1' | 'dW2', Matrix> &
    Record<'db1' | 'db2', number[]> & { loss: number };
  autograd_relu: Record<'x' | 'b' | 'z' | 'x_grad' | 'b_grad', number[]> &
    Record<'W' | 'W_grad', Matrix> & { loss: number; graph: string[] };
  vjp: Record<'x' | 'v' | 'x_grad', number[]>;
  retain_graph_accumulates: { x: number[]; grad_after_two_backwards: number[] };
  clip: { n: number; returned_norm: number };
  vanishing: Record<'0.25^10' | '0.25^15' | "E[sigmoid'(N(0,1))]", number> & { 'P(relu path dead after k)': number[] };
  /** By the number of blocks. */
  checkpoint_LargeBlock_512_B32: Record<string, Record<'plain_peak_bytes' | 'ckpt_peak_bytes' | 'saved_pct', number>>;
}
/** Computed with numpy in float64 from its legacy stream, seed 42. */
export const golden = JSON.parse(
  readFileSync(new URL('../golden/lesson.json', import.meta.url), 'utf8'),
) as Readonly<Golden>;

/** The lesson's tolerance in float64. */
export const TIGHT = 1e-10;

// ---- the two-layer network ----------------------------------------------------------------------------------------------
/** w1 (hidden, in), b1 (hidden), w2 (out, hidden), b2 (out). */
export interface Network {
  readonly w1: Tensor;
  readonly b1: Tensor;
  readonly w2: Tensor;
  readonly b2: Tensor;
}
export type Name = keyof Network;
export const NAMES: readonly Name[] = ['w1', 'b1', 'w2', 'b2'];

/** f of every part of a network. */
export const each = <T>(f: (name: Name) => T): Record<Name, T> =>
  Object.fromEntries(NAMES.map((name) => [name, f(name)])) as Record<Name, T>;
/** The same numbers in leaves that require grad. */
export const asLeaves = (net: Network): Network => each((name) => net[name].detach().clone().requiresGrad_());

const zeros = (n: number): Tensor => f64(new Array<number>(n).fill(0));
/** The lesson's network: 4 inputs, 8 hidden units, 1 output, biases of zero; with its input and target. */
export function lessonNetwork(): { net: Network; x: Tensor; y: Tensor } {
  const { W1, W2, x, y } = golden.two_layer_seed42;
  return { net: { w1: f64(W1), b1: zeros(8), w2: f64(W2), b2: zeros(1) }, x: f64(x), y: f64(y) };
}
/** The lesson's network for batches: 32 rows of 4, 16 hidden units, 1 output. */
export function batchedNetwork(): { net: Network; x: Tensor; y: Tensor } {
  const { W1, W2, X, Y } = golden.batched_seed42;
  return { net: { w1: f64(W1), b1: zeros(16), w2: f64(W2), b2: zeros(1) }, x: f64(X), y: f64(Y) };
}

/** z1 = W1 x + b1, h = max(0, z1), ŷ = W2 h + b2 of one input (in). */
export function forward({ w1, b1, w2, b2 }: Network, x: Tensor): Record<'z1' | 'h' | 'yHat', Tensor> {
  const z1 = w1.matmul(x).add(b1);
  const h = z1.relu();
  return { z1, h, yHat: w2.matmul(h).add(b2) };
}

/** What the lesson's backward pass reads of the forward pass. */
export type Cache = Record<'x' | 'z1' | 'h' | 'w2', Tensor>;

/** The lesson's backward pass, formula by formula, without autograd: from dL/dŷ (out). */
export function backwardByHand({ x, z1, h, w2 }: Cache, dyHat: Tensor): Network & Record<'dh' | 'dz1', Tensor> {
  return noGrad(() => {
    const dh = w2.T.matmul(dyHat);
    const dz1 = dh.mul(z1.gt(0).to('float64'));
    return { w2: dyHat.outer(h), b2: dyHat, dh, dz1, w1: dz1.outer(x), b1: dz1 };
  });
}

// ---- numeric gradients --------------------------------------------------------------------------------------------------
/** The lesson's measure of two derivatives' distance. */
export const relativeError = (analytic: number, numeric: number): number =>
  Math.abs(analytic - numeric) / (Math.abs(analytic) + Math.abs(numeric) + 1e-8);

/** df/dx[i] for every element by central differences; f gives a scalar. */
export function numericGradient(f: (x: Tensor) => Tensor, x: Tensor, step = 1e-5): number[] {
  const at = (i: number, by: number): number =>
    scope(() => f(tensor(values(x).with(i, values(x)[i]! + by), { shape: x.shape, dtype: 'float64' })).item());
  return values(x).map((_, i) => (at(i, step) - at(i, -step)) / (2 * step));
}

// ---- counting -----------------------------------------------------------------------------------------------------------
/** The node that computed t. @throws for a leaf */
export function nodeOf(t: Tensor): Node {
  if (t.gradFn === null) throw new Error('a leaf has no gradFn');
  return t.gradFn;
}

/** Every node below t, each once, t's own first. */
export function nodesOf(t: Tensor): Node[] {
  const found = new Set<Node>([nodeOf(t)]);
  for (const node of found) for (const next of node.nextFunctions) if (next !== null) found.add(next);
  return [...found];
}
export const isLeafNode = (node: Node): boolean => node.name === 'AccumulateGrad';
/** The nodes below t that stand for an op, not for a leaf. */
export const opNodes = (t: Tensor): Node[] => nodesOf(t).filter((node) => !isLeafNode(node));

/** Lists the ops below t in the order in which backward passes run them from now on. */
export function watch(t: Tensor): Node[] {
  const ran: Node[] = [];
  for (const node of opNodes(t)) node.registerHook(() => void ran.push(node));
  return ran;
}

/** The most memory that fn holds at once, in bytes, above what was live before it. */
export function peakOf(fn: () => unknown): number {
  // What is garbage already must not make room for what fn makes.
  globalThis.gc!();
  trimMemory();
  return scope(() => {
    resetPeakMemory();
    const { liveBytes } = memoryStats();
    fn();
    return memoryStats().peakBytes - liveBytes;
  });
}

/** The time of one call in milliseconds, the best of a few; for reports, never for assertions. */
export function timeOf(fn: () => unknown, repeats = 5): number {
  const times = Array.from({ length: repeats }, () => {
    const start = performance.now();
    scope(fn);
    return performance.now() - start;
  });
  return Math.min(...times);
}

/** Prints a table that a requirement asks for. */
export function report(title: string, rows: readonly Readonly<Record<string, string | number>>[]): void {
  console.log(title);
  console.table(rows);
}
