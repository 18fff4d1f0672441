// Exponential and hyperbolic functions. Part of math.inc.h.
#pragma once

namespace chainrule {
namespace {

// x = n ln 2 + r with |r| <= ln(2)/2. ln 2 in two pieces, the first short enough that n times it is exact.
// |x| must stay below 2^20 for float, 2^40 for double; callers clamp.
template <class V>
constexpr Element<V> kLn2Hi = kSingle<V> ? 0x1.62ep-1 : 0x1.62e42feep-1;
template <class V>
constexpr Element<V> kLn2Lo = kSingle<V> ? 0x1.0bfbe8e7bcd5ep-15 : 0x1.a39ef35793c76p-33;
template <class V>
struct ReducedExp {
  V n, r;
};
template <class V>
inline ReducedExp<V> reduce_exp(V x) {
  const V n = nearest(x, 0x1.71547652b82fep+0);
  return {n, fma(n, constant<V>(-kLn2Lo<V>), fma(n, constant<V>(-kLn2Hi<V>), x))};
}
// The same for p q unrounded: the exponential would magnify the error of the product |p q| times.
template <class V>
inline ReducedExp<V> reduce_exp(V p, V q) {
  const V n = nearest(p * q, 0x1.71547652b82fep+0);
  return {n, fma(n, constant<V>(-kLn2Lo<V>), fma_cancelling(p, q, n * -kLn2Hi<V>))};
}

// e^r - 1 and e^r for |r| <= ln(2)/2.
template <class V>
inline V expm1_reduced(V r) {
  V p;
  if constexpr (kSingle<V>)
    p = poly(r, 0.5, 0.166666672, 0.0416664667, 0.00833328627, 0.00139336521, 0.000199075876);  // 2^-29
  else
    p = poly(r, 0.5, 0.16666666666666671, 0.041666666666666685, 0.0083333333333261341, 0.0013888888888874394,
             0.00019841269874822109, 2.4801587347343801e-05, 2.7557255398566312e-06, 2.7557252911354708e-07,
             2.5105217610026381e-08, 2.0921589006149914e-09);  // 2^-59
  return fma(r * r, p, r);
}
// e^r times a power of two, which costs nothing in coefficients.
template <class V>
inline V exp_reduced(V r, double f = 1) {
  if constexpr (kSingle<V> && kFusedMultiplyAdd)
    return poly(r, f, f, f * 0.49999994, f * 0.16666521, f * 0.041668266, f * 0.008368689, f * 0.0013821088);  // 2^-28
  else
    return fma(expm1_reduced(r), constant<V>(f), constant<V>(f));
}

template <class V>
constexpr double kExpLow = kSingle<V> ? -105 : -747;  // e^x is 0 from here on
template <class V>
inline V clamp_exp(V x) {
  return at_most(at_least(x, kExpLow<V>), kSingle<V> ? 90 : 711);
}

template <class V>
inline V exp_clamped(V x, double factor = 1) {
  const ReducedExp<V> e = reduce_exp(x);
  return scale(exp_reduced(e.r, factor), e.n);
}
// Error 1.0, 1.0 ulp. exp(-inf) = 0, exp(inf) = inf; results below the smallest normal are rounded once.
template <class V>
inline V exp(V x) {
  return exp_clamped(clamp_exp(x));
}
// e^(hi + lo).
template <class V>
inline V exp(Pair<V> x) {
  const ReducedExp<V> e = reduce_exp(clamp_exp(x.hi));
  const V q = expm1_reduced(e.r);
  return scale(1 + fma(1 + q, x.lo, q), e.n);
}
// e^x / 2, which is finite a little longer than e^x.
template <class V>
inline V half_exp(V x) {
  const ReducedExp<V> e = reduce_exp(clamp_exp(x));
  return scale(exp_reduced(e.r), e.n - 1);
}

// Error 1.5, 1.8 ulp. expm1(-inf) = -1, expm1(-0) = -0.
template <class V>
inline V expm1(V x) {
  const ReducedExp<V> e = reduce_exp(at_most(at_least(x, -40), kSingle<V> ? 89 : 710));
  // 2^n q + (2^n - 1), halved until the end because 2^n may be infinite; n is at most 128 for float, 1024 for double.
  const V half = scale(constant<V>(0.5), e.n);
  const V y = 2 * fma(half, expm1_reduced(e.r), half - Element<V>(0.5));
  return select(x == 0, x, y);
}

// Error 0.51, 2.2 ulp.
template <class V>
inline V sinh(V x) {
  if constexpr (kSingle<V>)
    return in_double([](auto v) { return sinh(v); }, x);
  else {
    const V a = abs(x);
    const V t = expm1(at_most(a, 1));
    const V e = half_exp(a);
    return copysign(select(a < 1, (t + t / (t + 1)) * 0.5, e - 0.25 / e), x);
  }
}

// Error 0.51, 1.4 ulp.
template <class V>
inline V cosh(V x) {
  if constexpr (kSingle<V>)
    return in_double([](auto v) { return cosh(v); }, x);
  else {
    const V e = half_exp(abs(x));
    return e + 0.25 / e;
  }
}

// Error 2.5, 2.4 ulp. tanh(+-inf) = +-1, tanh(-0) = -0.
template <class V>
inline V tanh(V x) {
  // t / (t + 1) with t = (e^2|x| - 1) / 2.
  const ReducedExp<V> e = reduce_exp(2 * at_most(abs(x), kSingle<V> ? 10 : 20));
  const V half = power_of_two(e.n - 1);
  const V t = fma(half, expm1_reduced(e.r), half - Element<V>(0.5));
  return copysign(t / (t + 1), x);
}

// Error 2.5, 2.0 ulp. sigmoid(-inf) = 0, sigmoid(inf) = 1; the negative tail keeps its relative precision.
template <class V>
inline V sigmoid(V x) {
  const V e = exp_clamped(at_least(-abs(x), kExpLow<V>));
  return select(x < 0, e, constant<V>(1)) / (1 + e);
}

}  // namespace
}  // namespace chainrule
