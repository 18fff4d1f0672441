// Hostile arguments for what differentiates: whatever is passed, the error is one of the library's, or the caller's own.
import { describe, expect, it } from 'vitest';
import * as chainrule from '../lib/index.ts';
import { ChainruleError, Tensor, tensor } from '../lib/index.ts';
import { mulberry32 } from './random.ts';

const own = new RangeError('thrown by the function that was passed');
const VALUES: readonly unknown[] = [
  ...[undefined, null, 0, -1, Number.NaN, 1e300, '', 'x', true, 5n, Symbol('s')],
  ...[[], [1], {}, new Map(), new Proxy({}, {}), Object.create(Tensor.prototype)],
  () => 1,
  (x: unknown) => x,
  () => {
    throw own;
  },
  tensor([1, 2]),
  tensor([1, 2], { dtype: 'int32' }),
  tensor(1, { requiresGrad: true }),
];
const FUNCTIONS = [
  ...(['jvp', 'vjp', 'jacobian', 'hessian', 'hvp', 'vmap', 'checkpoint', 'checkpointSequential'] as const),
  ...(['gradcheck', 'gradgradcheck', 'numericalDerivative', 'detectAnomaly', 'savedTensorsHooks'] as const),
  ...(['gradientFlow', 'deadUnits', 'summary', 'toDot', 'grad', 'backward'] as const),
];
type Anything = (...args: unknown[]) => unknown;
const library = chainrule as unknown as Record<string, Anything>;

describe.each(FUNCTIONS)('%s', (name) => {
  it('answers anything with an error of its own kind', () => {
    const random = mulberry32(3);
    const any = (): unknown => VALUES[Math.floor(random() * VALUES.length)];
    const call = (...args: unknown[]): unknown => {
      const result = library[name]!(...args);
      return typeof result === 'function' ? (result as Anything)(any(), any()) : result;
    };
    let refused = 0;
    for (let i = 0; i < 1000; i++) {
      const args = Array.from({ length: Math.floor(random() * 5) }, any);
      try {
        call(...args);
      } catch (error) {
        refused++;
        const fine = error === own || (error instanceof ChainruleError && error.code !== 'ERR_INTERNAL');
        if (!fine) expect.fail(`${name}(${args.map((arg) => typeof arg)}): ${(error as Error).stack}`);
      }
    }
    expect(refused).toBeGreaterThan(500);
  });
});
