// What the walkers of the op table share: tensors from samples, calls by name, bits, and how far a result may be off.
import { expect } from 'vitest';
import { grad, manualSeed, scope, Tensor, tensor } from '../lib/index.ts';
import * as ops from '../lib/ops/index.ts';
import type { DType, Row } from './op-samples/row.ts';
import { samplesOf } from './op-samples/row.ts';
import { map, Nd, type Shape } from './reference.ts';

// ---- arguments ----------------------------------------------------------------------------------------------------------
export type Args = readonly unknown[];
type Result = Tensor | Tensor[] | boolean;
type Op = (...args: unknown[]) => Result;

const isPlain = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;

/** The same arguments with f of every Nd in place of it. */
export function replace(args: Args, f: (x: Nd) => unknown): unknown[] {
  const visit = (value: unknown): unknown => {
    if (value instanceof Nd) return f(value);
    if (Array.isArray(value)) return value.map(visit);
    return isPlain(value)
      ? Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, visit(entry)]))
      : value;
  };
  return args.map(visit);
}

/** Every Nd among the arguments, in order. */
export function ndsIn(args: Args): Nd[] {
  const found: Nd[] = [];
  replace(args, (x) => found.push(x));
  return found;
}
export const isFloatInput = (x: Nd): boolean => x.kind === 'float';
export const isVariable = (x: Nd): boolean => x.kind === 'float' && !x.constant;
export const samples = (name: string, row: Row): Args[] => samplesOf(name, row.samples);
/** Samples small enough to be looked at from many sides. */
export const smallSamples = (name: string, row: Row, most = 300): Args[] =>
  samples(name, row).filter((args) => ndsIn(args).every((x) => x.data.length <= most));

export const dtypeOf = (x: Nd, dtype: DType): DType => (x.kind === 'float' ? dtype : x.kind);
export const toTensor = (x: Nd, dtype: DType): Tensor => tensor(x.data, { shape: x.shape, dtype: dtypeOf(x, dtype) });
export const toTensors = (args: Args, dtype: DType): unknown[] => replace(args, (x) => toTensor(x, dtype));
/** What the tensor holds, as far as float64 goes. */
export const toNd = (t: Tensor, like?: Nd): Nd => new Nd(t.shape, t.toTypedArray(), like?.kind, like?.constant);
/** What of the arguments the dtype holds. */
export const rounded = (args: Args, dtype: DType): unknown[] => replace(args, (x) => toNd(toTensor(x, dtype), x));

/** Tensors in arguments, in order. */
export function tensorsIn(args: Args): Tensor[] {
  return args.flatMap((arg) =>
    arg instanceof Tensor && 'storage' in arg
      ? [arg]
      : Array.isArray(arg) || isPlain(arg)
        ? tensorsIn(Object.values(arg))
        : [],
  );
}

// ---- calls --------------------------------------------------------------------------------------------------------------
/** A result as tensors: a truth value of JavaScript as one of bool. */
export const list = (result: Result): Tensor[] =>
  Array.isArray(result) ? result : [typeof result === 'boolean' ? tensor(result) : result];
/** The op's results. Random ops draw the same numbers every time. */
export function call(name: string, args: Args): Tensor[] {
  manualSeed(1);
  return list((ops as unknown as Record<string, Op>)[name]!(...args));
}
export function callMethod(name: string, [x, ...rest]: Args): Tensor[] {
  manualSeed(1);
  return list((x as Record<string, Op>)[name]!(...rest));
}

/** Dtype, shape and every bit. */
export function bits(tensors: readonly (Tensor | null)[]): string[] {
  return tensors.map((t) => {
    if (t === null) return 'null';
    const { buffer } = t.detach().toTypedArray();
    return `${t.dtype}[${t.shape}] ${Buffer.from(buffer as ArrayBuffer).toString('latin1')}`;
  });
}
/** Fails without printing what may be a million numbers. */
export function expectSameBits(got: string[], expected: string[], what: string): void {
  expect(got.length, what).toBe(expected.length);
  const differing = got.findIndex((value, i) => value !== expected[i]);
  if (differing < 0) return;
  const [a, b] = [got[differing]!, expected[differing]!];
  const at = [...a].findIndex((char, i) => char !== b[i]);
  expect.fail(
    `${what}: result ${differing}, ${a.slice(0, a.indexOf(' '))} and ${b.slice(0, b.indexOf(' '))}, differ at byte ${at - a.indexOf(' ') - 1}`,
  );
}

// ---- rounding -----------------------------------------------------------------------------------------------------------
const f64 = new Float64Array(1);
const u32 = new Uint32Array(f64.buffer);
const MANTISSA: Partial<Record<DType, number>> = { float32: 23, float64: 52, bfloat16: 7 };

/** A unit in the last place of a value. */
export function ulpOf(value: number, dtype: DType): number {
  f64[0] = value;
  const exponent = Math.max(((u32[1]! >>> 20) & 0x7ff) - 1023, dtype === 'float64' ? -1022 : -126);
  return 2 ** (exponent - MANTISSA[dtype]!);
}

function toBfloat16(value: number): number {
  const step = ulpOf(value, 'bfloat16');
  const nearest = Math.round(Math.abs(value) / step);
  const even = (Math.abs(value) / step) % 1 === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
  const result = even * step > (2 - 2 ** -7) * 2 ** 127 ? Number.POSITIVE_INFINITY : even * step;
  return Object.is(Math.sign(value), -0) || value < 0 ? -result : result;
}

/** Whole dtypes wrap, as sums and products of theirs do. */
export function roundTo(dtype: DType, value: number): number {
  if (dtype === 'float64') return value;
  if (dtype === 'float32') return Math.fround(value);
  if (dtype === 'bfloat16')
    return Number.isFinite(Math.fround(value)) ? toBfloat16(Math.fround(value)) : Math.fround(value);
  return dtype === 'int32' ? value | 0 : dtype === 'uint8' ? value & 255 : Number(value !== 0);
}

// ---- tolerance ------------------------------------------------------------------------------------------------------------
const UNIT = { float32: 2 ** -24, float64: 2 ** -53 };

const isWhole = (x: Nd): boolean => x.data.every((value) => Number.isInteger(value));

/** How far each element of each result may be from the reference; 0: bit for bit. */
export function allowances(row: Row, args: Args, results: readonly Nd[], dtype: DType): number[][] {
  const tolerance = row.tolerance ?? { ulp: 0 };
  const kernel = dtype === 'float64' ? 'float64' : 'float32';
  const narrow = (value: number): number => (dtype === 'bfloat16' ? ulpOf(value, dtype) : 0);
  const each = (allowed: (value: number, k: number, i: number) => number): number[][] =>
    results.map((result, k) => Array.from(result.data, (value, i) => allowed(value, k, i)));
  if ('ulp' in tolerance) {
    const ulp = typeof tolerance.ulp === 'number' ? tolerance.ulp : tolerance.ulp[kernel];
    return each((value) => (ulp === 0 ? 0 : ulp * ulpOf(value, kernel) + narrow(value)));
  }
  if ('relative' in tolerance) {
    // bfloat16 rounds as often, but to 8 bits instead of 24.
    const relative = tolerance.relative[kernel] * (dtype === 'bfloat16' ? 2 ** 16 : 1);
    return each((value) => relative * Math.max(1, Math.abs(value)));
  }
  if (ndsIn(args).every(isWhole)) return each(() => 0);
  const magnitudes = referenceOf(
    row,
    replace(args, (x) => (isFloatInput(x) ? map(x, Math.abs) : x)),
  );
  const scale = 4 * Math.sqrt(Math.max(1, tolerance.terms(...args))) * UNIT[kernel];
  return each((value, k, i) => scale * Math.abs(magnitudes[k]!.data[i]!) + narrow(value));
}

export function referenceOf(row: Row, args: Args): Nd[] {
  const result = row.reference!(...args);
  return Array.isArray(result) ? result : [result];
}

/** Why a value is not the expected one, or null. */
export function mismatch(got: number, expected: number, allowed: number, dtype: DType): string | null {
  const nearest = roundTo(dtype, expected);
  if (Object.is(got, nearest) || (allowed > 0 && Math.abs(got - expected) <= allowed)) return null;
  // The largest finite number and infinity are neighbours.
  if (allowed > 0 && !Number.isFinite(got) && Math.abs(nearest) > 3.4e38 && got > 0 === nearest > 0) return null;
  return `${got}, expected ${nearest} ± ${allowed}`;
}

/** @throws unless the tensor has the reference's shape, the dtype, and values within what is allowed */
export function expectClose(got: Tensor, expected: Nd, dtype: DType, allowed: readonly number[], what: string): void {
  expect(got.dtype, what).toBe(dtype);
  expect(got.shape, what).toEqual(expected.shape);
  const values = got.detach().toTypedArray();
  for (let i = 0; i < values.length; i++) {
    const wrong = mismatch(values[i]!, expected.data[i]!, allowed[i]!, dtype);
    if (wrong !== null) expect.fail(`${what}: element ${i} is ${wrong}`);
  }
}

/** Arguments for a message: shapes instead of tensors. */
export const showArgs = (args: Args): string =>
  JSON.stringify(
    replace(args, (x) => `${x.kind}[${x.shape}]`),
    (_, v) => (typeof v === 'bigint' ? `${v}n` : v),
  )
    ?.replaceAll('"', '')
    .slice(1, -1)
    .slice(0, 120);
export type { Shape };

// ---- gradients ------------------------------------------------------------------------------------------------------------
/**
 * The gradients of inputs from those of the results, null where nothing depends; [] when no result requires grad.
 * `start` makes the gradient of each result.
 */
export function gradients(
  results: readonly Tensor[],
  inputs: readonly Tensor[],
  start: (result: Tensor, i: number) => Tensor,
  createGraph = false,
): (Tensor | null)[] {
  const outputs = results.filter((t) => t.requiresGrad);
  if (outputs.length === 0 || inputs.length === 0) return [];
  return grad(outputs, inputs, { gradOutputs: outputs.map(start), allowUnused: true, createGraph });
}

/** What computes results and gradients, and gives their bits. */
export function runner(name: string, args: Args, dtype: DType): () => string[] {
  const leaves: Tensor[] = [];
  const tensors = replace(args, (x) => {
    const t = toTensor(x, dtype);
    if (isVariable(x)) leaves.push(t.requiresGrad_());
    return t;
  });
  return () =>
    scope(() => {
      const results = call(name, tensors);
      return bits([...results, ...gradients(results, leaves, (y) => y.detach())]);
    });
}

export const largeSamples = (name: string, row: Row): Args[] =>
  row.large === undefined ? [] : samplesOf(name, row.large);
/** Samples to compare bits of, each with the dtypes to do it in: a dozen small ones, and all that are cut into chunks. */
export function sized(name: string, row: Row): [Args, DType[]][] {
  const dtypes = (row.dtypes ?? ['float32', 'float64']).filter((dtype) => dtype === 'float32' || dtype === 'float64');
  return [
    ...smallSamples(name, row)
      .slice(0, 12)
      .map((args): [Args, DType[]] => [args, dtypes]),
    ...largeSamples(name, row).map((args): [Args, DType[]] => [args, ['float32']]),
  ];
}
