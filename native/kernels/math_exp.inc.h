// Exponential and hyperbolic functions. Part of math.inc.h.
#pragma once

namespace chainrule {
namespace {

// x = n ln 2 + r with |r| <= ln(2)/2, and q = e^r - 1. ln 2 in two pieces, the first short enough that n times it is
// exact. |x| must stay below 2^20 for float, 2^40 for double; callers clamp.
template <class V>
struct ReducedExp {
  V n, q;
};
template <class V>
inline ReducedExp<V> reduce_exp(V x) {
  const V base = constant<V>(kIntegerBase<V>);
  const V n = (x * Element<V>(0x1.71547652b82fep+0) + base) - base;
  V r, p;
  if constexpr (kSingle<V>) {
    r = fma(n, constant<V>(-0x1.0bfbe8e7bcd5ep-15), fma(n, constant<V>(-0x1.62ep-1), x));
    p = poly(r, 0.5, 0.166666672, 0.0416664667, 0.00833328627, 0.00139336521, 0.000199075876);  // 2^-29
  } else {
    r = fma(n, constant<V>(-0x1.a39ef35793c76p-33), fma(n, constant<V>(-0x1.62e42feep-1), x));
    p = poly(r, 0.5, 0.16666666666666671, 0.041666666666666685, 0.0083333333333261341, 0.0013888888888874394,
             0.00019841269874822109, 2.4801587347343801e-05, 2.7557255398566312e-06, 2.7557252911354708e-07,
             2.5105217610026381e-08, 2.0921589006149914e-09);  // 2^-59
  }
  return {n, fma(r * r, p, r)};
}
template <class V>
inline V clamp_exp(V x) {
  return kSingle<V> ? at_most(at_least(x, -105), 90) : at_most(at_least(x, -747), 711);
}

// Error 1.0, 1.0 ulp. exp(-inf) = 0, exp(inf) = inf; results below the smallest normal are rounded once.
template <class V>
inline V exp(V x) {
  const ReducedExp<V> e = reduce_exp(clamp_exp(x));
  return scale(1 + e.q, e.n);
}
// e^(hi + lo).
template <class V>
inline V exp(Pair<V> x) {
  const ReducedExp<V> e = reduce_exp(clamp_exp(x.hi));
  return scale(1 + fma(1 + e.q, x.lo, e.q), e.n);
}
// e^x / 2, which is finite a little longer than e^x.
template <class V>
inline V half_exp(V x) {
  const ReducedExp<V> e = reduce_exp(clamp_exp(x));
  return scale(1 + e.q, e.n - 1);
}

// Error 1.5, 1.8 ulp. expm1(-inf) = -1, expm1(-0) = -0.
template <class V>
inline V expm1(V x) {
  const ReducedExp<V> e = reduce_exp(at_most(at_least(x, -40), kSingle<V> ? 89 : 710));
  // 2^n q + (2^n - 1), halved until the end because 2^n may be infinite; n is at most 128 for float, 1024 for double.
  const V half = scale(constant<V>(0.5), e.n);
  const V y = 2 * fma(half, e.q, half - Element<V>(0.5));
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

// Error 2.4, 2.4 ulp. tanh(+-inf) = +-1, tanh(-0) = -0.
template <class V>
inline V tanh(V x) {
  const V t = expm1(2 * at_most(abs(x), kSingle<V> ? 10 : 20));
  return copysign(t / (t + 2), x);
}

// Error 2.0, 2.0 ulp. sigmoid(-inf) = 0, sigmoid(inf) = 1; the negative tail keeps its relative precision.
template <class V>
inline V sigmoid(V x) {
  const V e = exp(-abs(x));
  return select(x < 0, e, constant<V>(1)) / (1 + e);
}

}  // namespace
}  // namespace chainrule
