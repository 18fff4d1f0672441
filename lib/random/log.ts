// The natural logarithm, rounded correctly but for about one in a million arguments: the engine's own differs from a C
// library's in many a last bit. A number here may be an unevaluated sum of two, the second below half an ulp of the
// first. Dekker, "A floating-point technique for extending the available precision", 1971.

type Pair = readonly [high: number, low: number];

/** For |a| >= |b|. */
function quickSum(a: number, b: number): Pair {
  const high = a + b;
  return [high, b - (high - a)];
}

function exactSum(a: number, b: number): Pair {
  const high = a + b;
  const part = high - a;
  return [high, a - (high - part) + (b - part)];
}

function exactProduct(a: number, b: number): Pair {
  const [a1, b1] = [upperHalf(a), upperHalf(b)];
  const [a2, b2] = [a - a1, b - b1];
  const high = a * b;
  return [high, a2 * b2 - (high - a1 * b1 - a2 * b1 - a1 * b2)];
}

function upperHalf(a: number): number {
  const scaled = 134217729 * a;
  return scaled - (scaled - a);
}

function add(a: Pair, b: Pair): Pair {
  const [high, low] = exactSum(a[0], b[0]);
  return quickSum(high, low + a[1] + b[1]);
}

function multiply(a: Pair, b: Pair): Pair {
  const [high, low] = exactProduct(a[0], b[0]);
  return quickSum(high, low + a[0] * b[1] + a[1] * b[0]);
}

function divide(a: Pair, b: Pair): Pair {
  const first = a[0] / b[0];
  const [high, low] = exactProduct(first, b[0]);
  const rest = a[0] - high - low + a[1] - first * b[1];
  return quickSum(first, rest / b[0]);
}

const LN2: Pair = [Math.LN2, 2.3190468138462996e-17];
const THIRD = divide([1, 0], [3, 0]);
const FIFTH = divide([1, 0], [5, 0]);
const SEVENTH = divide([1, 0], [7, 0]);

/** For normal x > 0. */
export function log(x: number): number {
  let exponent = Math.round(Math.log2(x));
  let m = x / 2 ** exponent;
  // log2 may be rounded across the middle between two exponents, by no more than its own error.
  if (m < 0.7) {
    exponent--;
    m *= 2;
  }
  // ln m = 2 artanh s = 2 s (1 + z/3 + z²/5 + ...) with s = (m - 1) / (m + 1), |s| < 0.18, z = s².
  const s = divide([m - 1, 0], exactSum(m, 1));
  const z = multiply(s, s);
  // The terms from z⁴ on are small enough for one number.
  let tail = 0;
  for (let k = 27; k >= 9; k -= 2) tail = tail * z[0] + 1 / k;
  let series = add(SEVENTH, multiply(z, [tail, 0]));
  series = add(FIFTH, multiply(z, series));
  series = add(THIRD, multiply(z, series));
  series = add([1, 0], multiply(z, series));
  const [high, low] = multiply(s, series);
  const product = exactProduct(exponent, LN2[0]);
  const sum = add(quickSum(product[0], product[1] + exponent * LN2[1]), [2 * high, 2 * low]);
  return sum[0];
}
