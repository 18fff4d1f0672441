// The error function and the activations built on it or on exp and log. Part of math.inc.h.
// Where x times a factor that vanishes would be inf * 0, x is clamped to a range beyond which the factor is 0 or 1.
#pragma once
#include "math_exp.inc.h"
#include "math_log.inc.h"

namespace chainrule {
namespace {

// e^(a^2/2) Phi(-a) for a >= 0, Phi the normal distribution function. All coefficients of the quotient are positive.
inline Vec<float> scaled_tail(Vec<float> a) {
  return poly(a, 0.5, 0.43928325, 0.18396899, 0.0408810973, 0.00415322743) /
         poly(a, 1, 1.67645144, 1.20554781, 0.471408308, 0.10247983, 0.0104104858);  // 2^-26.6, a <= 15
}
// In double precision 1/(a + k) times a polynomial in (a - k)/(a + k), with the k that makes it shortest.
inline Vec<double> scaled_tail(Vec<double> a) {
  using V = Vec<double>;
  constexpr double k = 6.5;
  // Near a = 0 the polynomial magnifies the error of q threefold: the reciprocal of a rounded sum would not do.
  const Pair<V> sum = two_sum(a, constant<V>(k));
  const V w = 1 / sum.hi;
  const V w_lo = w * fma(-w, sum.lo, fma(-w, sum.hi, constant<V>(1)));
  const V q = fma(w_lo, constant<V>(-2 * k), fma(w, constant<V>(-2 * k), constant<V>(1)));
  return w * poly(q, 0.78020377946123376, -0.71382224390663307, 0.5967716099073811, -0.45468743486355523,
                  0.31435526887374005, -0.1959145835126872, 0.10898017885634831, -0.053287075856853522,
                  0.022332557008550399, -0.0076532135893977666, 0.0019171452500144673, -0.00021182288280847313,
                  -8.1919891205109276e-05, 5.0002177953595531e-05, -8.9877998544129127e-06, -2.371012207545525e-06,
                  1.6592539431171373e-06, -1.6253652626555255e-07, -1.6360875311386402e-07, 5.3064999510150668e-08,
                  1.4803702585368278e-08, -6.9311286633106023e-09, -1.9639459129347704e-09);  // 2^-58, a <= 38.8
}

// Error 2.8, 2.8 ulp. erf(+-inf) = +-1.
template <class V>
inline V erf(V x) {
  const V a = at_most(abs(x), 10), z = a * a;
  V small;
  if constexpr (kSingle<V>) {
    small = poly(z, 1.12837923, -0.376126289, 0.112835549, -0.0268452708, 0.00514002843, -0.000696453382);  // 2^-30
  } else {
    small = poly(z, 1.1283791670955126, -0.37612638903183743, 0.11283791670954375, -0.026866170644891784,
                 0.0052239776215196295, -0.00085483266483326497, 0.00012055310589800245, -1.4924790106868316e-05,
                 1.6440801376774382e-06, -1.6035361548426011e-07, 1.1853538152581299e-08);  // 2^-62
  }
  const V large = 1 - 2 * scaled_tail(a * Element<V>(1.4142135623730951)) * exp(-z);
  return copysign(select(a < Element<V>(0.7), a * small, large), x);
}
template <class V>
inline V erf_derivative(V x) {
  const V a = at_most(abs(x), kSingle<V> ? 10.5 : 28);
  const ReducedExp<V> e = reduce_exp(-a, a);
  return scale(Element<V>(1.1283791670955126) * exp_reduced(e.r), e.n);
}

// ---- x times a gate that rises from 0 to 1 -------------------------------------------------------------------------
// The gate of x < 0 is tail(|x|), that of -x is 1 - tail(|x|): so the tail is computed, which keeps its relative
// precision, and x gate(x) = max(x, 0) - |x| tail(|x|). `a` is |x|, held below where the tail vanishes: inf * 0 is NaN.
// Tails are kLift times as large as they are, because |x| tail may be normal where the tail itself no longer is.
constexpr double kLift = 0x1p10;
template <class V>
inline V gated(V x, V a, V lifted_tail) {
  // Of two zeros `greater` takes x.
  return fma(a * lifted_tail, constant<V>(-1 / kLift), greater(constant<V>(-0.0), x));
}
// The derivative on the side of x < 0 gives that of the other, too.
template <class V>
inline V gate_slope(V x, V left) {
  return select(x < 0, left, 1 - left);
}

// gelu = x Phi(x), the tail e^(-a^2/2) scaled_tail(a).
template <class V>
inline V gelu_range(V x) {
  return at_most(abs(x), kSingle<V> ? 15 : 40);
}
// Error 7.7, 8.2 ulp; 6.5, 4.8 with FMA. gelu(-inf) = -0, gelu(inf) = inf.
template <class V>
inline V gelu(V x) {
  const V a = gelu_range(x);
  const ReducedExp<V> e = reduce_exp(a * Element<V>(-0.5), a);
  return gated(x, a, scale(exp_reduced(e.r, kLift) * scaled_tail(a), e.n));
}
template <class V>
inline V gelu_derivative(V x) {
  const V a = gelu_range(x);
  const ReducedExp<V> e = reduce_exp(a * Element<V>(-0.5), a);
  const V factor = fma(a, constant<V>(-0.39894228040143268), scaled_tail(a));
  return gate_slope(x, scale(exp_reduced(e.r) * factor, e.n));
}

// The logistic function's tail e / (1 + e), e = e^-u, and the slope of u tail(u); e and the tail lifted.
template <class V>
inline V logistic_tail(V e) {
  return e / fma(e, constant<V>(1 / kLift), constant<V>(1));
}
template <class V>
inline V logistic_slope(V u, V tail) {
  const V rest = fma(tail, constant<V>(-1 / kLift), constant<V>(1));
  return tail * fma(-u, rest, constant<V>(1)) * Element<V>(1 / kLift);
}

// 0.5 (1 + tanh(u)) = sigmoid(2 u), 2 u = x (k0 + k1 x^2), k1 = 0.044715 k0, k0 = 2 sqrt(2 / pi).
template <class V>
inline V gelu_tanh_range(V x) {
  return at_most(abs(x), kSingle<V> ? 11 : 25);
}
// e^-2u for u >= 0, lifted. 2^-2u has the exponent as a sum, because its error is magnified |2u| times: k0 and k1, over
// ln 2, as pairs, and k0.hi with bits to spare, so that what the sum adds to it is exact.
template <class V>
inline V gelu_tanh_exp(V a) {
  const Pair<double> k0 = kSingle<V> ? Pair<double>{0x1.26aecp+1, 0x1.0de73ap-22}
                                     : Pair<double>{0x1.26aec21bce76p+1, -0x1.ad12d7a64bcebp-49};
  const Pair<double> k1 = kSingle<V> ? Pair<double>{0x1.a5a7dp-4, -0x1.151aaep-29}
                                     : Pair<double>{0x1.a5a7cf7572a98p-4, -0x1.b91c940e4cfcfp-58};
  const V k0_hi = constant<V>(k0.hi), k1_hi = constant<V>(k1.hi);
  const Pair<V> square = two_product(a, a);
  const V sum = fma(k1_hi, square.hi, k0_hi);
  const V lost = fma(k1_hi, square.lo, fma(constant<V>(k1.lo), square.hi, constant<V>(k0.lo)));
  const V rest = fma_cancelling(k1_hi, square.hi, k0_hi - sum) + lost;
  const V n = nearest(a * sum, -1);
  const V f = fma(a, rest, fma_cancelling(a, sum, n));
  return scale(exp_reduced(f * Element<V>(-0.69314718055994531), kLift), n);
}
// Error 3.4, 3.1 ulp. Ends as gelu.
template <class V>
inline V gelu_tanh(V x) {
  const V a = gelu_tanh_range(x);
  return gated(x, a, logistic_tail(gelu_tanh_exp(a)));
}
template <class V>
inline V gelu_tanh_derivative(V x) {
  const V a = gelu_tanh_range(x);
  const V slope = fma(a * a, constant<V>(3 * 0x1.2444f2a4d8b4bp-4), constant<V>(0x1.9884533d43651p+0));
  return gate_slope(x, logistic_slope(a * slope, logistic_tail(gelu_tanh_exp(a))));
}

template <class V>
inline V silu_range(V x) {
  return at_most(abs(x), kSingle<V> ? 112 : 760);
}
// Error 3.3, 3.0 ulp. silu(-inf) = -0.
template <class V>
inline V silu(V x) {
  const V a = silu_range(x);
  return gated(x, a, logistic_tail(exp_clamped(-a, kLift)));
}
template <class V>
inline V silu_derivative(V x) {
  const V a = silu_range(x);
  return gate_slope(x, logistic_slope(a, logistic_tail(exp_clamped(-a, kLift))));
}

// Error 2.9, 3.4 ulp.
template <class V>
inline V selu(V x) {
  return Element<V>(1.0507009873554805) * select(x > 0, x, Element<V>(1.6732632423543772) * expm1(x));
}
template <class V>
inline V selu_derivative(V x) {
  return Element<V>(1.0507009873554805) * select(x > 0, constant<V>(1), Element<V>(1.6732632423543772) * exp(x));
}

// log(1 + e^x); x itself above 20, as PyTorch. Error 1.8, 1.7 ulp.
template <class V>
inline V softplus(V x) {
  return select(x > 20, x, log1p(exp(at_most(x, 20))));
}
template <class V>
inline V softplus_derivative(V x) {
  return select(x > 20, constant<V>(1), sigmoid(x));
}

// Error 1.8, 1.6 ulp. logSigmoid(-inf) = -inf, logSigmoid(inf) = 0.
template <class V>
inline V log_sigmoid(V x) {
  return at_most(x, 0) - log1p(exp(-abs(x)));
}

// x tanh(log(1 + e^x)) = x w / (w + 2) with w = e^x (e^x + 2). Error 3.8, 3.5 ulp.
// mish(-inf) = -0.
template <class V>
inline V mish(V x) {
  // The gate lifted, as above. Beyond 20 it is 1, and x itself would overflow under it.
  const V b = at_most(at_least(x, kSingle<V> ? -112 : -760), 20);
  const V lifted = exp_clamped(b, kLift), w = lifted * fma(lifted, constant<V>(1 / kLift), constant<V>(2));
  const V gate = w / fma(w, constant<V>(1 / kLift), constant<V>(2));
  return fma(b * gate, constant<V>(1 / kLift), greater(constant<V>(-0.0), x - 20));
}
template <class V>
inline V mish_derivative(V x) {
  const V b = at_most(at_least(x, -800), 20), e = exp(b), w = e * (e + 2), d = w + 2;
  return fma(4 * b, e * (1 + e) / (d * d), w / d);
}

}  // namespace
}  // namespace chainrule
