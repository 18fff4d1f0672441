// Random tensors. Element i depends only on the generator's state and i: never on threads.
import { checkOptions } from '../arguments.ts';
import { BF16, dtypeCode, F32, F64, I32 } from '../dtype.ts';
import { ArgumentError, AutogradError, DTypeError } from '../errors.ts';
import { opcode } from '../native.ts';
import * as commands from '../program/commands.ts';
import { flush } from '../program/engine.ts';
import { type Generator, generatorOf } from '../random.ts';
import { checkInteger, checkShape, type Shape } from '../shape.ts';
import { checkTensor, fresh, Tensor } from '../tensor.ts';
import { type Level, lower, openLevels } from './batched.ts';
import { cast } from './cast.ts';
import { asLeaf, type CreateOptions, tensor } from './create.ts';
import { checkNumber } from './define.ts';
import { lt } from './elementwise.ts';
import { checkFloat, finishPlain } from './op.ts';
import { beforeInPlace } from './overwrite.ts';
import { toTypedArray } from './read.ts';

export interface RandomOptions extends CreateOptions {
  generator?: Generator;
}

const GENERATOR = { generator: null };
const KNOWN = { dtype: 'float32', requiresGrad: false, ...GENERATOR };
const [UNIFORM, NORMAL, BERNOULLI, RANDINT] = ['uniform', 'normal', 'bernoulli', 'randint'].map((name) =>
  opcode(name),
) as [number, number, number, number];

function refuseInsideVmap(op: string, instead: string): void {
  if (openLevels.length > 0) throw new AutogradError(`${op}: cannot be used inside vmap. ${instead}`);
}

/** Inside vmap every example draws numbers of its own. */
function drawForAll(level: Level, drawAll: () => Tensor): Tensor {
  openLevels.pop();
  try {
    return finishPlain(lower(level, drawAll));
  } finally {
    openLevels.push(level);
  }
}

function draw(
  name: string,
  op: number,
  shape: Shape,
  code: number,
  a: number,
  b: number,
  options: RandomOptions,
): Tensor {
  const level = openLevels.at(-1);
  if (level !== undefined) return drawForAll(level, () => draw(name, op, [level.size, ...shape], code, a, b, options));
  const out = fresh(checkShape(name, shape), code);
  const generator = generatorOf(name, options);
  commands.random(op, out, () => generator.take(out.numel, code), a, b);
  return finishPlain(out);
}

/** Draws in float32 or float64; bfloat16 rounds float32. */
function drawFloat(name: string, op: number, shape: Shape, a: number, b: number, options: RandomOptions): Tensor {
  checkOptions(name, options, KNOWN);
  const code = dtypeCode(name, options.dtype ?? 'float32');
  if (code !== F32 && code !== F64 && code !== BF16)
    throw new DTypeError(`${name}: ${options.dtype} is not a floating dtype.`);
  const out = draw(name, op, shape, code === BF16 ? F32 : code, a, b, options);
  return asLeaf(name, cast(out, code), options.requiresGrad);
}

/** Uniform in [0, 1). */
export const rand = (shape: Shape, options: RandomOptions = {}): Tensor =>
  drawFloat('rand', UNIFORM, shape, 0, 1, options);
/** Normal with mean 0 and deviation 1. */
export const randn = (shape: Shape, options: RandomOptions = {}): Tensor =>
  drawFloat('randn', NORMAL, shape, 0, 1, options);
/** Normal with the given mean and deviation. */
export const normal = (mean: number, std: number, shape: Shape, options: RandomOptions = {}): Tensor =>
  drawFloat('normal', NORMAL, shape, checkNumber('normal', 'mean', mean), checkDeviation('normal', std), options);

function checkDeviation(op: string, std: number): number {
  if (checkNumber(op, 'std', std) >= 0) return std;
  throw new ArgumentError(`${op}: std is ${std}. Expected a number >= 0.`);
}

/** Whole numbers (int32 unless told) uniform in [low, high). */
export function randint(low: number, high: number, shape: Shape, options: RandomOptions = {}): Tensor {
  checkInteger('randint', 'low', low, -(2 ** 31));
  checkInteger('randint', 'high', high);
  if (high <= low || high > 2 ** 31) {
    throw new ArgumentError(`randint: [${low}, ${high}) is empty or reaches past int32. Expected low < high <= 2^31.`);
  }
  checkOptions('randint', options, KNOWN);
  const code = dtypeCode('randint', options.dtype ?? 'int32');
  return asLeaf('randint', cast(draw('randint', RANDINT, shape, I32, low, high, options), code), options.requiresGrad);
}

/** 1 with chance p, else 0: for a shape and one chance, or for a tensor of chances. */
export function bernoulli(p: Tensor): Tensor;
export function bernoulli(p: number, shape: Shape, options?: RandomOptions): Tensor;
export function bernoulli(p: number | Tensor, shape?: Shape | RandomOptions, options: RandomOptions = {}): Tensor {
  if (p instanceof Tensor) {
    checkTensor('bernoulli', p);
    checkFloat('bernoulli', p);
    const given = (Array.isArray(shape) ? options : shape) ?? {};
    return cast(lt(rand(p.shape, { ...(given as RandomOptions), dtype: p.dtype }), p), p.code);
  }
  if (!(checkNumber('bernoulli', 'the chance', p) >= 0 && p <= 1)) {
    throw new ArgumentError(`bernoulli: the chance is ${p}. Expected a number in [0, 1].`);
  }
  return drawFloat('bernoulli', BERNOULLI, shape as Shape, p, 0, options);
}

/** The numbers 0 … n - 1 (int32) in random order. */
export function randperm(n: number, options: { generator?: Generator } = {}): Tensor {
  const count = checkInteger('randperm', 'n', n, 0);
  refuseInsideVmap('randperm', 'Draw the order outside, and pass it in.');
  checkOptions('randperm', options, GENERATOR);
  const order = Int32Array.from({ length: count }, (_, i) => i);
  const chances = draw('randperm', UNIFORM, [count], F64, 0, 1, options);
  const u = toTypedArray(chances);
  chances.dispose();
  // Fisher-Yates
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(u[i]! * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return tensor(order);
}

function fillInPlace(
  name: string,
  op: number,
  x: Tensor,
  a: number,
  b: number,
  options: { generator?: Generator },
): Tensor {
  beforeInPlace(name, x, [], x.shape);
  refuseInsideVmap(name, 'Draw with rand() or randn(), which give each example its own numbers.');
  checkFloat(name, x);
  checkOptions(name, options, GENERATOR);
  const drawn = draw(name, op, x.shape, x.code === F64 ? F64 : F32, a, b, options);
  commands.copy(x, drawn);
  flush();
  drawn.dispose();
  x.storage.changed();
  return x;
}

/** Fills x with numbers uniform in [a, b). */
export const uniformInPlace = (x: Tensor, a = 0, b = 1, options: { generator?: Generator } = {}): Tensor =>
  fillInPlace('uniform_', UNIFORM, x, checkNumber('uniform_', 'a', a), checkNumber('uniform_', 'b', b), options);
/** Fills x with normal numbers. */
export const normalInPlace = (x: Tensor, mean = 0, std = 1, options: { generator?: Generator } = {}): Tensor =>
  fillInPlace('normal_', NORMAL, x, checkNumber('normal_', 'mean', mean), checkDeviation('normal_', std), options);
