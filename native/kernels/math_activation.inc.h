// The error function and the activations built on it or on exp and log. Part of math.inc.h.
// Where x times a factor that vanishes would be inf * 0, x is clamped to a range beyond which the factor is 0 or 1.
#pragma once
#include "math_exp.inc.h"
#include "math_log.inc.h"

namespace chainrule {
namespace {

// e^(-x^2 scale), scale 1 or 1/2, with the rounding error of x^2 compensated: at x^2 = 700 it would be magnified 700
// times.
template <class V>
inline V exp_of_minus_square(V x, double scale) {
  const V a = at_most(abs(x), 40);
  const Pair<V> square = two_product(a, a);
  return exp(Pair<V>{square.hi * Element<V>(-scale), square.lo * Element<V>(-scale)});
}

// e^(a^2/2) Phi(-a) for a >= 0, Phi the normal distribution function: 1/(a + k) times a polynomial in (a - k)/(a + k),
// with the k that makes it shortest.
template <class V>
inline V scaled_tail(V a) {
  const Element<V> k = kSingle<V> ? 3.5 : 6.5;
  // Near a = 0 the polynomial magnifies the error of q threefold: the reciprocal of a rounded sum would not do.
  const Pair<V> sum = two_sum(a, constant<V>(k));
  const V w = 1 / sum.hi;
  const V w_lo = w * fma(-w, sum.lo, fma(-w, sum.hi, constant<V>(1)));
  const V q = fma(w_lo, constant<V>(-2 * k), fma(w, constant<V>(-2 * k), constant<V>(1)));
  if constexpr (kSingle<V>) {
    return w * poly(q, 0.744416058, -0.565561771, 0.315425068, -0.116053067, 0.017406268, 0.00649324572, -0.00317481114,
                    -0.000494976644, 0.000421165489, 0.000110284258);  // 2^-27, a <= 14.6
  } else {
    return w * poly(q, 0.78020377946123376, -0.71382224390663307, 0.5967716099073811, -0.45468743486355523,
                    0.31435526887374005, -0.1959145835126872, 0.10898017885634831, -0.053287075856853522,
                    0.022332557008550399, -0.0076532135893977666, 0.0019171452500144673, -0.00021182288280847313,
                    -8.1919891205109276e-05, 5.0002177953595531e-05, -8.9877998544129127e-06, -2.371012207545525e-06,
                    1.6592539431171373e-06, -1.6253652626555255e-07, -1.6360875311386402e-07, 5.3064999510150668e-08,
                    1.4803702585368278e-08, -6.9311286633106023e-09, -1.9639459129347704e-09);  // 2^-58, a <= 38.8
  }
}

// Error 2.5, 2.8 ulp. erf(+-inf) = +-1.
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
  return Element<V>(1.1283791670955126) * exp_of_minus_square(x, 1);
}

// The normal distribution function, and gelu = x Phi(x) with it: no 1 - 1 in the negative tail.
template <class V>
inline V normal_cdf(V x) {
  const V a = at_most(abs(x), 40);
  const V tail = scaled_tail(a) * exp_of_minus_square(a, 0.5);
  return select(x < 0, tail, 1 - tail);
}
// Error 5.6, 8.2 ulp where the result is normal. gelu(-inf) = -0, gelu(inf) = inf.
template <class V>
inline V gelu(V x) {
  return at_least(x, -40) * normal_cdf(x);
}
template <class V>
inline V gelu_derivative(V x) {
  const V density = Element<V>(0.39894228040143268) * exp_of_minus_square(x, 0.5);
  return fma(at_most(at_least(x, -40), 40), density, normal_cdf(x));
}

// 0.5 (1 + tanh(u)) = sigmoid(2 u), 2 u = x (k0 + k1 x^2), k1 = 0.044715 k0, k0 = 2 sqrt(2 / pi).
// The exponent is a pair, because e^-|2u| magnifies its error |2u| times.
template <class V>
struct TanhGate {
  V e, gate;  // e^-|2u|, sigmoid(2 u)
};
template <class V>
inline TanhGate<V> tanh_gate(V x) {
  const Pair<V> k0 = kSingle<V> ? Pair<V>{constant<V>(0x1.988454p+0), constant<V>(-0x1.857936p-25)}
                                : Pair<V>{constant<V>(0x1.9884533d43651p+0), constant<V>(-0x1.cbc0d30ebfd15p-54)};
  const Pair<V> k1 = kSingle<V> ? Pair<V>{constant<V>(0x1.2444f2p-4), constant<V>(0x1.49b16ap-29)}
                                : Pair<V>{constant<V>(0x1.2444f2a4d8b4bp-4), constant<V>(-0x1.6c843a29d1c7p-61)};
  const V a = at_most(abs(x), 25);
  const Pair<V> cubic = multiply(k1, two_product(a, a));
  const Pair<V> sum = two_sum(k0.hi, cubic.hi);
  const Pair<V> u2 = multiply(fast_two_sum(sum.hi, sum.lo + (k0.lo + cubic.lo)), {a, V{}});
  const V e = exp(Pair<V>{-u2.hi, -u2.lo});
  return {e, select(x < 0, e, constant<V>(1)) / (1 + e)};
}
// Error 3.1, 3.1 ulp where the result is normal. Ends as gelu.
template <class V>
inline V gelu_tanh(V x) {
  return at_least(x, -25) * tanh_gate(x).gate;
}
template <class V>
inline V gelu_tanh_derivative(V x) {
  const TanhGate<V> t = tanh_gate(x);
  const V b = at_most(at_least(x, -25), 25), d = 1 + t.e;
  const V slope = fma(b * b, constant<V>(3 * 0x1.2444f2a4d8b4bp-4), constant<V>(0x1.9884533d43651p+0));
  return fma(b * slope, t.e / (d * d), t.gate);
}

// Error 2.8, 2.9 ulp where the result is normal. silu(-inf) = -0.
template <class V>
inline V silu(V x) {
  return at_least(x, -800) * sigmoid(x);
}
template <class V>
inline V silu_derivative(V x) {
  const V b = at_most(at_least(x, -800), 800), e = exp(-abs(x)), d = 1 + e;
  return fma(b, e / (d * d), sigmoid(x));
}

// Error 2.8, 3.4 ulp.
template <class V>
inline V selu(V x) {
  return Element<V>(1.0507009873554805) * select(x > 0, x, Element<V>(1.6732632423543772) * expm1(x));
}
template <class V>
inline V selu_derivative(V x) {
  return Element<V>(1.0507009873554805) * select(x > 0, constant<V>(1), Element<V>(1.6732632423543772) * exp(x));
}

// log(1 + e^x); x itself above 20, as PyTorch. Error 1.5, 1.7 ulp.
template <class V>
inline V softplus(V x) {
  return select(x > 20, x, log1p(exp(at_most(x, 20))));
}
template <class V>
inline V softplus_derivative(V x) {
  return select(x > 20, constant<V>(1), sigmoid(x));
}

// Error 1.6, 1.6 ulp. logSigmoid(-inf) = -inf, logSigmoid(inf) = 0.
template <class V>
inline V log_sigmoid(V x) {
  return at_most(x, 0) - log1p(exp(-abs(x)));
}

// x tanh(log(1 + e^x)) = x w / (w + 2) with w = e^x (e^x + 2). Error 3.8, 3.5 ulp where the result is normal.
// mish(-inf) = -0.
template <class V>
inline V mish(V x) {
  const V e = exp(at_most(x, 20)), w = e * (e + 2);
  return at_least(x, -800) * (w / (w + 2));
}
template <class V>
inline V mish_derivative(V x) {
  const V b = at_most(at_least(x, -800), 20), e = exp(b), w = e * (e + 2), d = w + 2;
  return fma(4 * b, e * (1 + e) / (d * d), w / d);
}

}  // namespace
}  // namespace chainrule
