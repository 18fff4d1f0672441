// How elementwise ops are made from a kernel row: `unary` and `binary` give the function, its in-place twin and its
// rule of differentiation. The ops themselves stand in elementwise.ts.
import { needsGrad, type Rule, record, recording, tracks } from '../autograd/tape.ts';
import { BOOL, isFloat } from '../dtype.ts';
import { ArgumentError, DTypeError } from '../errors.ts';
import { opcode } from '../native.ts';
import { copy, map } from '../program/commands.ts';
import { describe, sameShape } from '../shape.ts';
import { checkTensor, fresh, type Tensor, track } from '../tensor.ts';
import { overBatch, spreadOver } from './align.ts';
import { Batched, levelOf, lower } from './batched.ts';
import { checkKernel, checkSameDtype, finishPlain, freshLike, resultShape } from './op.ts';
import { beforeInPlace, finishInPlace, overlaps } from './overwrite.ts';

/** `logSigmoid` → `LogSigmoidBackward`. */
const nodeName = (name: string): string => `${name[0]!.toUpperCase()}${name.slice(1)}Backward`;

/** The value that an in-place op is about to overwrite, with its place in the graph. */
function preserve(x: Tensor): Tensor {
  const out = fresh(x.shape, x.code);
  copy(out, x);
  out.node = x.node;
  out.dual = x.dual;
  return track(out);
}

/** One example of a vmap. */
const isBatched = (t: Input2): boolean => typeof t !== 'number' && t.physical !== null;

// ---- one input ------------------------------------------------------------------------------------------------------
export interface UnarySpec {
  /** What the gradient reads; checked against the kernel's row. */
  saves: 'x' | 'y' | 'none';
  /**
   * dy/dx in differentiable ops of the saved value: what a recorded backward pass (createGraph) multiplies with.
   * Others run the row's fused pullback. Number: constant.
   */
  derivative: (saved: Tensor, p0: number, p1: number) => Tensor | number;
}

export interface UnaryOp {
  (x: Tensor): Tensor;
  /** The same, written into x. */
  inPlace: (x: Tensor) => Tensor;
}

/** With one or two numbers that the kernel calls p0 and p1. */
export interface ParametricOp {
  (x: Tensor, p0: number, p1?: number): Tensor;
  inPlace: (x: Tensor, p0: number, p1?: number) => Tensor;
}

/**
 * `unary(name, spec, kernel)`: an elementwise op of one tensor; `kernel` is its row's name where it differs.
 * `parametric`: the same with numbers. `multiply` is the op mul, which the rows' file makes.
 */
export function unaryWith(multiply: (a: Tensor, b: Input2) => Tensor): {
  unary: (name: string, spec: UnarySpec, kernel?: string) => UnaryOp;
  parametric: (name: string, spec: UnarySpec, kernel?: string) => ParametricOp;
} {
  const parametric = (name: string, spec: UnarySpec, kernel = name): ParametricOp => make(multiply, name, spec, kernel);
  return {
    // Of one argument only, so that list.map(relu) is what it seems.
    unary: (name, spec, kernel) => {
      const run = parametric(name, spec, kernel);
      return withInPlace(
        (x: Tensor) => run(x, 0),
        (x: Tensor) => run.inPlace(x, 0),
      );
    },
    parametric,
  };
}

function make(multiply: (a: Tensor, b: Input2) => Tensor, name: string, spec: UnarySpec, kernel: string): ParametricOp {
  const op = opcode(kernel, spec.saves);
  const pullback = opcode(`${kernel}Vjp`);
  const fused = (g: Tensor, saved: Tensor | undefined, p0: number, p1: number): Tensor => {
    if (tracks(g) || (saved !== undefined && tracks(saved))) return multiply(g, spec.derivative(saved ?? g, p0, p1));
    if (isBatched(g) || (saved !== undefined && isBatched(saved))) {
      const level = levelOf(g, saved)!;
      return finishPlain(lower(level, () => fused(spreadOver(level, g), saved && spreadOver(level, saved), p0, p1)));
    }
    const out = freshLike(g);
    map(pullback, out, g, saved, undefined, p0, p1);
    return finishPlain(out);
  };
  const rule: Rule<readonly [number, number]> = {
    name: nodeName(name),
    elementwise: true,
    vjp: [(g, [saved], [p0, p1]) => fused(g, saved, p0, p1)],
  };
  const savedOf = (x: Tensor, y: Tensor): Tensor[] => (spec.saves === 'none' ? [] : [spec.saves === 'x' ? x : y]);

  const run = (x: Tensor, p0: number, p1 = 0): Tensor => {
    checkTensor(name, x);
    checkKernel(name, op, x);
    let out: Tensor;
    if (x instanceof Batched) out = lower(x.level, () => run(x.physical, p0, p1));
    else {
      out = freshLike(x);
      map(op, out, x, undefined, undefined, p0, p1);
    }
    finishPlain(out);
    if (tracks(x)) record(out, rule, [x], savedOf(x, out), [p0, p1]);
    return out;
  };
  const inPlace = (x: Tensor, p0: number, p1 = 0): Tensor => {
    beforeInPlace(`${name}_`, x, [], x.shape);
    checkKernel(`${name}_`, op, x);
    const before = spec.saves === 'x' && recording([x]) ? preserve(x) : x;
    map(op, x, x, undefined, undefined, p0, p1);
    return finishInPlace(x, rule, [x], () => savedOf(before, x), [p0, p1] as const);
  };
  return Object.assign(run, { inPlace });
}

// ---- two inputs -------------------------------------------------------------------------------------------------------
type Vjp = (g: Tensor, a: Input2, b: Input2, y: Tensor) => Tensor;
/** A tensor, or a number in its place. */
export type Input2 = Tensor | number;

export interface BinarySpec {
  /** The gradients of a and b from that of the result, in differentiable ops; at the result's shape. */
  vjp: readonly [Vjp, Vjp];
  /** Which of a, b, y each of them reads: `['b', 'a']` for mul. */
  reads: readonly [string, string];
}

export interface BinaryOp {
  (a: Input2, b: Input2): Tensor;
  /** The same, written into a. */
  inPlace: (a: Tensor, b: Input2) => Tensor;
}

interface Numbers {
  a: number;
  b: number;
}
const TENSORS: Numbers = { a: 0, b: 0 };

/** @throws DTypeError for a number that a whole dtype would cut */
export function checkFits(name: string, value: number, t: Tensor): void {
  if (!isFloat(t.code) && !Number.isInteger(value)) {
    throw new DTypeError(
      `${name}: ${value} with a tensor of ${t.dtype}. Use a whole number, or convert with .to('float32').`,
    );
  }
}

/** The two operands of one dtype; a number takes the other's. @throws ArgumentError, DTypeError */
function checkOperands(name: string, op: number, a: Input2, b: Input2): Tensor {
  if (typeof a === 'number') {
    if (typeof b === 'number') {
      throw new ArgumentError(`${name}: both operands are numbers. Make one a tensor: tensor(${a}).`);
    }
    checkTensor(name, b, 'second operand');
    checkKernel(name, op, b);
    checkFits(name, a, b);
    return b;
  }
  checkTensor(name, a, 'first operand');
  if (typeof b === 'number') checkFits(name, b, a);
  else {
    checkTensor(name, b, 'second operand');
    checkSameDtype(name, a, b);
  }
  checkKernel(name, op, a);
  return a;
}

const shapeOf = (name: string, a: Input2, b: Input2): readonly number[] =>
  typeof a === 'number' ? (b as Tensor).shape : typeof b === 'number' ? a.shape : resultShape(name, a, b);

function output(name: string, a: Input2, b: Input2, like: Tensor, code: number): Tensor {
  const shape = shapeOf(name, a, b);
  return sameShape(shape, like.shape) ? freshLike(like, code) : fresh(shape, code);
}

/** An elementwise op of two tensors, broadcast, either of which may be a number. */
export function binary(name: string, spec: BinarySpec): BinaryOp {
  const op = opcode(name);
  const [readsA, readsB] = spec.reads;
  const rule: Rule<Numbers> = {
    name: nodeName(name),
    broadcasts: true,
    elementwise: true,
    vjp: [
      (g, [a, b, y], n) => spec.vjp[0](g, a ?? n.a, b ?? n.b, y!),
      (g, [a, b, y], n) => spec.vjp[1](g, a ?? n.a, b ?? n.b, y!),
    ],
  };
  // Only what a needed gradient reads.
  const savedOf = (a: Input2, b: Input2, y: Tensor): (Tensor | null)[] => {
    const reads =
      (typeof a !== 'number' && needsGrad(a) ? readsA : '') + (typeof b !== 'number' && needsGrad(b) ? readsB : '');
    if (reads === '') return [];
    return [
      typeof a !== 'number' && reads.includes('a') ? a : null,
      typeof b !== 'number' && reads.includes('b') ? b : null,
      reads.includes('y') ? y : null,
    ];
  };
  const inputs = (a: Input2, b: Input2): (Tensor | null)[] => [
    typeof a === 'number' ? null : a,
    typeof b === 'number' ? null : b,
  ];
  const numbers = (a: Input2, b: Input2): Numbers =>
    typeof a === 'number' ? { a, b: 0 } : typeof b === 'number' ? { a: 0, b } : TENSORS;

  const run = (a: Input2, b: Input2): Tensor => {
    const like = checkOperands(name, op, a, b);
    let out: Tensor;
    if (isBatched(a) || isBatched(b)) out = overBatch(run, a, b)!;
    else {
      out = output(name, a, b, like, like.code);
      map(op, out, a, b);
    }
    finishPlain(out);
    // Spelt out, where finish() would do: small ops cost little else, and most are not recorded.
    if ((typeof a !== 'number' && tracks(a)) || (typeof b !== 'number' && tracks(b))) {
      record(out, rule, inputs(a, b), savedOf(a, b, out), numbers(a, b));
    }
    return out;
  };
  const inPlace = (a: Tensor, b: Input2): Tensor => {
    checkTensor(`${name}_`, a);
    checkOperands(`${name}_`, op, a, b);
    beforeInPlace(`${name}_`, a, typeof b === 'number' ? [] : [b], shapeOf(`${name}_`, a, b));
    const tape = recording(inputs(a, b));
    // An operand that the write changes: what is read, and what is saved, is its value before.
    const changes = typeof b !== 'number' && (overlaps(a, b) || (tape && a.storage === b.storage));
    const other = changes ? preserve(b) : b;
    const before = tape && (readsA + readsB).includes('a') ? preserve(a) : a;
    const saved = tape ? savedOf(before, other, a) : [];
    map(op, a, a, other);
    return finishInPlace(a, rule, inputs(a, b), () => saved, numbers(a, b));
  };
  return Object.assign(run, { inPlace });
}

/** A comparison: bool, never differentiated. */
export function compare(name: string): (a: Input2, b: Input2) => Tensor {
  const op = opcode(name);
  const run = (a: Input2, b: Input2): Tensor => {
    const like = checkOperands(name, op, a, b);
    if (isBatched(a) || isBatched(b)) return finishPlain(overBatch(run, a, b)!);
    const out = output(name, a, b, like, BOOL);
    map(op, out, a, b);
    return finishPlain(out);
  };
  return run;
}

/** @throws ArgumentError unless value is a number (NaN and infinities are) */
export function checkNumber(op: string, what: string, value: unknown): number {
  if (typeof value !== 'number') throw new ArgumentError(`${op}: ${what} is ${describe(value)}. Expected a number.`);
  return value;
}

/** A function with its in-place twin, for ops that are put together by hand. */
export const withInPlace = <F, G>(run: F, inPlace: G): F & { inPlace: G } =>
  Object.assign(run as F & object, { inPlace });
