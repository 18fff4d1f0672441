// Errors: what every op refuses, with which error, and that nothing has changed then. The message begins with the op.
import { describe, expect, it } from 'vitest';
import * as chainrule from '../lib/index.ts';
import { memoryStats, scope, Tensor } from '../lib/index.ts';
import * as inPlace from '../lib/ops/in-place.ts';
import * as ops from '../lib/ops/index.ts';
import {
  type Args,
  bits,
  expectSameBits,
  isFloatInput,
  ndsIn,
  replace,
  samples,
  showArgs,
  tensorsIn,
  toTensor,
} from './helpers.ts';
import { ALL, type DType, type ErrorName, type Row, samplesOf } from './op-samples/row.ts';
import { inPlaceRow, opSamples, twinOf } from './op-samples.ts';
import { Nd } from './reference.ts';

type Call = (...args: unknown[]) => unknown;
const CLASSES = chainrule as unknown as Record<string, new (message: string) => Error>;

/** Calls fn, which must throw: that class, a message that begins with the op, and no trace left. */
function expectRefusal(
  name: string,
  fn: Call,
  args: Args,
  error: ErrorName | 'DisposedError',
  message: RegExp,
  what: string,
): void {
  const inputs = tensorsIn(args).filter((t) => !t.disposed);
  const before = {
    bits: bits(inputs),
    versions: inputs.map((t) => t.storage.version),
    live: memoryStats().liveTensors,
  };
  let thrown: unknown = null;
  scope(() => {
    try {
      fn(...args);
    } catch (caught) {
      thrown = caught;
    }
  });
  expect(thrown, `${what}: not refused`).toBeInstanceOf(Error);
  const { message: told } = thrown as unknown as Error;
  expect(thrown, `${what}: ${told}`).toBeInstanceOf(CLASSES[error]);
  expect(told, what).toMatch(message);
  expect(told.startsWith(`${name}:`), `${what}: the message does not begin with the op: ${told}`).toBe(true);
  expect(memoryStats().liveTensors, `${what}: tensors left behind`).toBe(before.live);
  expectSameBits(bits(inputs), before.bits, `${what} changed its inputs`);
  expect(
    inputs.map((t) => t.storage.version),
    `${what} raised a version`,
  ).toEqual(before.versions);
}

/** The sample with the most tensors: every argument has its turn. */
function fullest(name: string, row: Row): Args {
  return samples(name, row).reduce((best, args) => (ndsIn(args).length > ndsIn(best).length ? args : best));
}

/** The arguments as tensors, the k-th of them replaced. */
function withOne(args: Args, k: number, dtype: DType, make: (x: Nd) => unknown): unknown[] {
  let next = 0;
  return replace(args, (x) => (next++ === k ? make(x) : toTensor(x, dtype)));
}

function describeErrors(name: string, fn: Call, row: Row): void {
  const dtypes = row.dtypes ?? ALL;
  const args = fullest(name, row);
  const inputs = ndsIn(args);

  const refused = row.refused === undefined ? [] : samplesOf(name, row.refused);
  if (refused.length > 0)
    it('refuses what its row says', () => {
      for (const [given, error, message] of refused) {
        scope(() => {
          expectRefusal(
            name,
            fn,
            replace(given, (x) => toTensor(x, 'float32')),
            error,
            message,
            `${name}(${showArgs(given)})`,
          );
        });
      }
    });
  if (inputs.length === 0) return;

  it('refuses disposed tensors', () => {
    inputs.forEach((_, k) => {
      scope(() => {
        const dead = (x: Nd): Tensor => {
          const t = toTensor(x, 'float32');
          t.dispose();
          return t;
        };
        expectRefusal(
          name,
          fn,
          withOne(args, k, 'float32', dead),
          'DisposedError',
          /was disposed/,
          `${name}, tensor ${k}`,
        );
      });
    });
  });

  it('refuses objects that are no tensors', () => {
    for (const impostor of [{}, { shape: [1], dtype: 'float32' }]) {
      inputs.forEach((_, k) => {
        scope(() => {
          expectRefusal(
            name,
            fn,
            withOne(args, k, 'float32', () => impostor),
            'ArgumentError',
            /./,
            `${name}, tensor ${k}`,
          );
        });
      });
    }
  });

  const others = ALL.filter((dtype) => !dtypes.includes(dtype));
  if (others.length > 0 && inputs.some(isFloatInput))
    it('refuses dtypes that it is not defined for', () => {
      for (const dtype of others) {
        scope(() => {
          const given = replace(args, (x) => toTensor(x, dtype));
          expectRefusal(name, fn, given, row.wrongDtype ?? 'DTypeError', new RegExp(dtype), `${name} of ${dtype}`);
        });
      }
    });

  const floats = inputs.flatMap((x, k) => (isFloatInput(x) ? [k] : []));
  if (floats.length > 1 && !row.mixed)
    it('refuses to mix dtypes', () => {
      for (const k of floats) {
        scope(() => {
          const given = withOne(args, k, 'float32', (x) => toTensor(x, 'float64'));
          expectRefusal(
            name,
            fn,
            given,
            'DTypeError',
            /float32.*float64|float64.*float32/,
            `${name}, float64 tensor ${k}`,
          );
        });
      }
    });
}

describe.each(Object.entries(opSamples))('%s', (name, row) =>
  describeErrors(name, (ops as unknown as Record<string, Call>)[name]!, row),
);
describe.each(Object.keys(inPlace))('%s', (name) => {
  const fn = (inPlace as unknown as Record<string, Call>)[name]!;
  const row = inPlaceRow(name)!;
  // Of a twin only tensors in the first place can be written to, and not all shapes fit.
  const { refused, ...rest } = row;
  const own = twinOf(name) !== undefined ? { ...rest, samples: () => row.samples().filter(fitsInPlace) } : row;
  describeErrors(name, fn, own as Row);
});

it('refuses objects that only inherit from tensors', () => {
  expect(() => ops.neg(Object.create(Tensor.prototype) as Tensor)).toThrow(chainrule.ArgumentError);
});

/** Whether the result has the shape of the first input. */
function fitsInPlace(args: Args): boolean {
  const [x, ...others] = args;
  return x instanceof Nd && ndsIn(others).every((y) => String(y.shape) === String(x.shape));
}
