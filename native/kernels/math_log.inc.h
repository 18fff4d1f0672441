// Logarithms and powers. Part of math.inc.h.
#pragma once
#include "math_exp.inc.h"

namespace chainrule {
namespace {

// x = (1 + f) 2^k with sqrt(1/2) <= 1 + f < sqrt(2), for positive finite x, subnormals included.
template <class V>
struct Fraction {
  V f, k;
};
template <class V>
inline Fraction<V> split_exponent(V x) {
  constexpr int kBits = kMantissaBits<V>;
  const Mask<V> tiny = x < kSmallestNormal<V>;
  const V shift = select(tiny, constant<V>(kBits + 2), V{});
  const Bits<V> bits = (Bits<V>)select(tiny, x * Element<V>(1ull << (kBits + 2)), x);
  // Counted from sqrt(1/2), with one bias more to stay positive, the exponent field is k itself.
  const Bits<V> from_root =
      bits - (Bits<V>)constant<V>(0x1.6a09e667f3bcdp-1) + (Element<Bits<V>>(kExponentBias<V>) << kBits);
  const Bits<V> k = (from_root >> kBits) - kExponentBias<V>;
  return {(V)(bits - (k << kBits)) - 1, to_float<V>((Mask<V>)k) - shift};
}

// (log((1 + s) / (1 - s)) - 2 s) / s^3 as a function of s^2, for 1 + f = (1 + s) / (1 - s) in [sqrt(1/2), sqrt(2)].
template <class V>
inline V log_poly(V z) {
  if constexpr (kSingle<V>)
    return poly(z, 0.666666687, 0.400001228, 0.285506994, 0.233334184);  // 2^-30
  else {
    return poly(z, 0.66666666666666663, 0.4000000000000089, 0.28571428570794766, 0.22222222393603783,
                0.18181795448270979, 0.15386249681084868, 0.13268516288443394, 0.13089219145858638);  // 2^-59
  }
}

// k ln 2 + log(1 + f). log(1 + f) = f - (f^2/2 - s (f^2/2 + s^2 P)) keeps the rounding of s out of the leading term.
template <class V>
inline V log_fraction(V f, V k) {
  const V s = f / (2 + f), z = s * s, half_square = Element<V>(0.5) * f * f;
  const double ln2_hi = kSingle<V> ? 0x1.62ep-1 : 0x1.62e42feep-1;
  const double ln2_lo = kSingle<V> ? 0x1.0bfbe8e7bcd5ep-15 : 0x1.a39ef35793c76p-33;
  const V low = fma(s, half_square + z * log_poly(z), k * Element<V>(ln2_lo));
  return fma(k, constant<V>(ln2_hi), f - (half_square - low));
}
// log's values where split_exponent does not hold.
template <class V>
inline V log_special(V x, V y) {
  y = select(x == 0, constant<V>(-kInfinity<V>), y);
  y = select(x < 0, constant<V>(kNan<V>), y);
  return select((x == kInfinity<V>) | (x != x), x, y);
}

// Error 0.9, 0.8 ulp. log(+-0) = -inf, log(inf) = inf, NaN below zero.
template <class V>
inline V log(V x) {
  const Fraction<V> m = split_exponent(x);
  return log_special(x, log_fraction(m.f, m.k));
}

// Error 1.9, 1.3 ulp; exact at powers of two. Special values as log.
template <class V>
inline V log2(V x) {
  const Fraction<V> m = split_exponent(x);
  return log_special(x, fma(log_fraction(m.f, V{}), constant<V>(0x1.71547652b82fep+0), m.k));
}

// Error 1.4, 1.3 ulp. log1p(-1) = -inf, log1p(inf) = inf, NaN below -1, log1p(-0) = -0.
template <class V>
inline V log1p(V x) {
  const V u = 1 + x;
  const Fraction<V> m = split_exponent(u);
  // What 1 + x lost in rounding goes back into the fraction; for k = 0 this restores x itself.
  const V lost = select(x > 1, 1 - (u - x), x - (u - 1));
  const V y = log_special(u, log_fraction(m.f + scale(lost, -m.k), m.k));
  return select(x == 0, x, y);
}

// log of positive finite x to about 2^-65 of its value.
inline Pair<Vec<double>> log_pair(Vec<double> x) {
  using V = Vec<double>;
  const Fraction<V> m = split_exponent(x);
  const Pair<V> denominator = fast_two_sum(constant<V>(2), m.f);
  Pair<V> s{m.f / denominator.hi, V{}};
  const Pair<V> back = two_product(s.hi, denominator.hi);
  s.lo = (((m.f - back.hi) - back.lo) - s.hi * denominator.lo) / denominator.hi;
  const Pair<V> z = multiply(s, s);
  // The double-precision polynomial again, its constant term carried as a pair.
  Pair<V> p = fast_two_sum(
      constant<V>(0x1.5555555555555p-1),
      z.hi * poly(z.hi, 0.39999999999999991, 0.28571428571435464, 0.22222222219828258, 0.18181818597900093,
                  0.15384574812114113, 0.13335652034171655, 0.11687833649017405, 0.11884550009426996));  // 2^-66
  p.lo += 0x1.5555555555555p-55;
  const Pair<V> tail = multiply(multiply(s, z), p);
  const Pair<V> k = two_sum(m.k * 0x1.62e42feep-1, 2 * s.hi);
  const Pair<V> sum = two_sum(k.hi, tail.hi);
  return fast_two_sum(sum.hi, sum.lo + (k.lo + (fma(m.k, constant<V>(0x1.a39ef35793c76p-33), 2 * s.lo) + tail.lo)));
}

// Error 0.51, 1.2 ulp. The special values of IEEE 754: pow(x, 0) = pow(1, y) = 1 even for NaN, negative x only with
// whole y, pow(+-0, y < 0) = inf with the sign of x for odd y.
template <class V>
inline V pow(V x, V y) {
  if constexpr (kSingle<V>)
    return in_double([](auto a, auto b) { return pow(a, b); }, x, y);
  else {
    const V a = abs(x);
    Pair<V> log_a = log_pair(a);
    log_a.hi = log_special(a, log_a.hi);
    Pair<V> product = two_product(y, log_a.hi);
    // Beyond +-1000 the result is 0 or inf anyway, and the correction may be inf - inf.
    product.lo = select(abs(product.hi) < 1000, fma(y, log_a.lo, product.lo), V{});
    V result = select((a == 1) & (y == y), constant<V>(1), exp(product));

    const V half = y * 0.5;
    const Mask<V> whole = round_even(y) == y, odd = whole & (round_even(half) != half);
    result = select(odd, copysign(result, x), result);
    result = select((x < 0) & (a != kInfinity<V>)&~whole, constant<V>(kNan<V>), result);
    return select((x == 1) | (y == 0), constant<V>(1), result);
  }
}

// pow for one exponent; exact forms of the common ones, equal to pow within its error.
template <class V>
inline V pow_scalar(V x, V exponent) {
  const Element<V> p = exponent[0];
  if (p == 2) return x * x;
  if (p == 1) return x;
  if (p == 3) return x * x * x;
  if (p == -1) return 1 / x;
  // pow and sqrt differ at -0 and -inf.
  if (p == Element<V>(0.5)) return select(x == -kInfinity<V>, constant<V>(kInfinity<V>), sqrt(x + 0));
  return pow(x, exponent);
}

}  // namespace
}  // namespace chainrule
