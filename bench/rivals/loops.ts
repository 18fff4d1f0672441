// Bench layer: matrix products in JavaScript itself: the plain triple loop, and one in blocks over typed arrays, which is
// about the best that the engine compiles.
import type { Rival, Sizes } from './rival.ts';

type Multiply = (sizes: Sizes, a: Float32Array, b: Float32Array, c: Float32Array, entry: number) => void;

function plain({ m, n, k }: Sizes, a: Float32Array, b: Float32Array, c: Float32Array, entry: number): void {
  const [ao, bo, co] = [entry * m * k, entry * k * n, entry * m * n];
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let q = 0; q < k; q++) sum += a[ao + i * k + q]! * b[bo + q * n + j]!;
      c[co + i * n + j] = sum;
    }
  }
}

const DEPTH = 64;

/** Four rows at a time over slices of b that stay in the first-level cache. */
function blocked({ m, n, k }: Sizes, a: Float32Array, b: Float32Array, c: Float32Array, entry: number): void {
  const [ao, bo, co] = [entry * m * k, entry * k * n, entry * m * n];
  c.fill(0, co, co + m * n);
  for (let from = 0; from < k; from += DEPTH) {
    const to = Math.min(k, from + DEPTH);
    let i = 0;
    for (; i + 4 <= m; i += 4) {
      const [c0, c1, c2, c3] = [0, 1, 2, 3].map((row) => co + (i + row) * n) as [number, number, number, number];
      for (let q = from; q < to; q++) {
        const at = ao + i * k + q;
        const [x0, x1, x2, x3] = [a[at]!, a[at + k]!, a[at + 2 * k]!, a[at + 3 * k]!];
        const row = bo + q * n;
        for (let j = 0; j < n; j++) {
          const y = b[row + j]!;
          c[c0 + j]! += x0 * y;
          c[c1 + j]! += x1 * y;
          c[c2 + j]! += x2 * y;
          c[c3 + j]! += x3 * y;
        }
      }
    }
    for (; i < m; i++) {
      for (let q = from; q < to; q++) {
        const x = a[ao + i * k + q]!;
        for (let j = 0; j < n; j++) c[co + i * n + j]! += x * b[bo + q * n + j]!;
      }
    }
  }
}

const rival = (name: string, multiply: Multiply): Rival => ({
  name,
  largest: 512 ** 3,
  multiply: (sizes, a, b) => {
    const c = new Float32Array(sizes.batch * sizes.m * sizes.n);
    const run = (): void => {
      for (let entry = 0; entry < sizes.batch; entry++) multiply(sizes, a, b, c, entry);
    };
    const result = async (): Promise<Float32Array> => {
      run();
      return c;
    };
    return { run, result };
  },
});

export const loops = (): Rival[] => [rival('triple loop', plain), rival('blocked loops', blocked)];
