// The derivative of a function of one number, or of many elements at once, by a central difference.
import { checkRange } from '../arguments.ts';
import { F64 } from '../dtype.ts';
import { ArgumentError, DTypeError, ShapeError } from '../errors.ts';
import { add, div, eq, sub } from '../ops/elementwise.ts';
import { item } from '../ops/read.ts';
import { any } from '../ops/reduce.ts';
import { describe, sameShape, show } from '../shape.ts';
import { checkTensor, scope, type Tensor } from '../tensor.ts';
import { noGrad } from './grad-mode.ts';

const WHY_FLOAT64 =
  'A difference over 1e-6 loses all but a digit or two of float32 to rounding. Convert with to("float64"), the ' +
  'parameters of a module too.';

export function checkFunction(op: string, fn: unknown): void {
  if (typeof fn !== 'function') throw new ArgumentError(`${op}: the function is ${describe(fn)}. Expected a function.`);
}

export function checkFloat64(op: string, what: string, x: Tensor): void {
  if (x.code !== F64) throw new DTypeError(`${op}: ${what} is ${x.dtype}, not float64. ${WHY_FLOAT64}`);
}

/**
 * The derivative of f at x by a central difference, (f(x + h) - f(x - h)) / 2h: of a number, or of each element of a
 * float64 tensor by an elementwise f.
 * @throws DTypeError for another dtype, ShapeError when f changes the shape
 */
export function numericalDerivative(f: (x: number) => number, x: number, h?: number): number;
export function numericalDerivative(f: (x: Tensor) => Tensor, x: Tensor, h?: number): Tensor;
export function numericalDerivative(f: (x: never) => unknown, x: number | Tensor, h = 1e-6): number | Tensor {
  const op = 'numericalDerivative';
  checkFunction(op, f);
  if (!(checkRange(op, 'h', h) > 0)) throw new ArgumentError(`${op}: h is 0. Expected a number above 0.`);
  return typeof x === 'number'
    ? ofNumber(op, f as (x: number) => number, x, h)
    : ofElements(op, f as unknown as (x: Tensor) => Tensor, x, h);
}

function ofNumber(op: string, f: (x: number) => number, x: number, h: number): number {
  // What was really added differs from h by a rounding, which matters where x is large.
  const [low, high] = [x - h, x + h];
  if (low === high) throw new ArgumentError(`${op}: h = ${h} vanishes beside x = ${x}. Take a larger h.`);
  const value = (at: number): number => {
    const y: unknown = f(at);
    if (typeof y === 'number') return y;
    throw new ArgumentError(`${op}: f(${at}) is ${describe(y)}. Expected a number, as x is one.`);
  };
  return (value(high) - value(low)) / (high - low);
}

function ofElements(op: string, f: (x: Tensor) => Tensor, x: Tensor, h: number): Tensor {
  checkTensor(op, x);
  checkFloat64(op, 'the input', x);
  const value = (at: Tensor): Tensor => {
    const y = f(at);
    checkTensor(op, y, 'result of f');
    checkFloat64(op, 'the result of f', y);
    if (sameShape(y.shape, x.shape)) return y;
    throw new ShapeError(
      `${op}: f maps ${show(x.shape)} to ${show(y.shape)}. Expected an elementwise function; for others use gradcheck.`,
    );
  };
  return noGrad(() =>
    scope(() => {
      const [low, high] = [sub(x, h), add(x, h)];
      const gap = sub(high, low);
      if (item(any(eq(gap, 0)))) throw new ArgumentError(`${op}: h = ${h} vanishes beside some x. Take a larger h.`);
      return div(sub(value(high), value(low)), gap);
    }),
  );
}
