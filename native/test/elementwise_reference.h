// Test layer: what elementwise_test and exhaustive compare with: each op and its pullback in long double, or what
// CR_REFERENCE_REAL says, the range of its samples, and the error allowed. An op that is missing here is still held to
// its bounds and, by the op samples, to its values.
#pragma once
#include <cmath>
#include <limits>

#include "kernel_test.h"

namespace chainrule::test {

#if defined(CR_REFERENCE_REAL)
using Real = CR_REFERENCE_REAL;
#else
using Real = long double;
#endif
using Function = Real (*)(Real, Real p0, Real p1);

struct Reference {
  const char* name;
  int op;
  Saves saves;
  double low, high;  // of the samples; special values come on top
  double ulp32, ulp64;
  double pullback_ulp;  // on top of these
  Function forward;
  Function pullback;                      // factor on g, as a function of what is saved
  Function pullback_magnitude = nullptr;  // where terms of the factor cancel: their size
  double p0 = 0, p1 = 0;
  double underflow_steps =
      0;  // of the pullback beyond its bound, in steps of the subnormals, where x times one is tiny
};

// The error of y in units in the last place of T at `magnitude`; below the normal numbers, in steps there.
template <class T>
inline double ulps(T y, Real exact, Real magnitude) {
  if (std::isnan(y) || std::isnan(exact)) return std::isnan(y) == std::isnan(exact) ? 0 : INFINITY;
  if (y == T(exact)) return 0;
  using L = std::numeric_limits<T>;
  const Real beyond = std::ldexp(Real(1), L::max_exponent);
  const Real got = std::isinf(y) ? std::copysign(beyond, static_cast<Real>(y)) : y;
  const Real want = std::isinf(exact) ? std::copysign(beyond, exact) : exact;
  const int exponent = magnitude == 0 ? L::min_exponent : std::max(std::ilogb(magnitude) + 1, L::min_exponent);
  return double(std::fabs(got - want) / std::ldexp(Real(1), std::min(exponent, L::max_exponent) - L::digits));
}

constexpr double kMax = std::numeric_limits<double>::max();
constexpr Real kPi = 3.14159265358979323846264338327950288L;

inline Real sigmoid(Real x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
inline Real density(Real x) { return std::exp(-x * x / 2) / std::sqrt(2 * kPi); }
inline Real cdf(Real x) { return std::erfc(-x / std::sqrt(Real(2))) / 2; }
inline Real gate(Real x) { return sigmoid(2 * std::sqrt(2 / kPi) * (x + Real(0.044715L) * x * x * x)); }
inline Real gate_slope(Real x) {
  if (std::isinf(x)) return 0;
  return gate(x) * gate(-x) * 2 * std::sqrt(2 / kPi) * (1 + 3 * Real(0.044715L) * x * x);
}
constexpr Real kBelowOverflow = sizeof(Real) > sizeof(double) ? 2000 : 300;  // of e^2x
inline Real mish_gate(Real x) {
  const Real e = std::exp(std::min(x, kBelowOverflow));
  return e * (e + 2) / (e * (e + 2) + 2);
}
inline Real mish_slope(Real x) {
  if (std::isinf(x)) return 0;
  const Real e = std::exp(std::min(x, kBelowOverflow)), d = e * (e + 2) + 2;
  return 4 * e * (1 + e) / (d * d);
}
// x times a factor that vanishes faster than x grows.
inline Real times(Real x, Real factor) { return std::isinf(x) && factor == 0 ? std::copysign(Real(0), x) : x * factor; }
constexpr Real kSeluScale = 1.0507009873554804934193349852946L, kSeluAlpha = 1.6732632423543772848170429916717L;

// What the pullback's factor is a function of: nothing, x or y.
#define X [](Real x, [[maybe_unused]] Real p0, [[maybe_unused]] Real p1) -> Real
#define Y [](Real y, Real, Real) -> Real
#define NONE [](Real, Real, Real) -> Real
#define OP(name) #name, kMap_##name
constexpr Reference kReferences[] = {{OP(copy), SAVES_NONE, -kMax, kMax, 0, 0, 0, X{return x;
}  // namespace chainrule::test
, NONE { return 1; }
}
, {OP(neg), SAVES_NONE, -kMax, kMax, 0, 0, 0, X{return -x;
}
, NONE { return -1; }
}
, {OP(abs), SAVES_X, -kMax, kMax, 0, 0, 0, X{return std::fabs(x);
}
, X { return (x > 0) - (x < 0); }
}
, {OP(sign), SAVES_NONE, -kMax, kMax, 0, 0, 0, X{return (x > 0) - (x < 0);
}
, NONE { return 0; }
}
, {OP(square), SAVES_X, -kMax, kMax, 0.5, 0.5, 0, X{return x * x;
}
, X { return 2 * x; }
}
, {OP(sqrt), SAVES_Y, -1, kMax, 0.5, 0.5, 0, X{return std::sqrt(x);
}
, Y { return 1 / (2 * y); }
}
, {OP(rsqrt), SAVES_Y, -1, kMax, 1.75, 1.75, 0.75, X{return 1 / std::sqrt(x);
}
, Y { return -y * y * y / 2; }
}
, {OP(reciprocal), SAVES_Y, -kMax, kMax, 0.5, 0.5, 1.5, X{return 1 / x;
}
, Y { return -y * y; }
}
, {OP(floor), SAVES_NONE, -kMax, kMax, 0, 0, 0, X{return std::floor(x);
}
, NONE { return 0; }
}
, {OP(ceil), SAVES_NONE, -kMax, kMax, 0, 0, 0, X{return std::ceil(x);
}
, NONE { return 0; }
}
, {OP(round), SAVES_NONE, -kMax, kMax, 0, 0, 0, X{return std::nearbyint(x);
}
, NONE { return 0; }
}
, {OP(exp), SAVES_Y, -800, 800, 1.25, 1.25, 0, X{return std::exp(x);
}
, Y { return y; }
}
, {OP(expm1), SAVES_Y, -50, 800, 1.75, 2, 0, X{return std::expm1(x);
}
, Y { return y + 1; }
}
, {OP(log), SAVES_X, -1, kMax, 1, 1, 0, X{return std::log(x);
}
, X { return 1 / x; }
}
, {OP(log1p), SAVES_X, -2, kMax, 1.75, 1.5, 0, X{return std::log1p(x);
}
, X { return 1 / (1 + x); }
}
, {OP(log2), SAVES_X, -1, kMax, 1.875, 1.5, 0.25, X{return std::log2(x);
}
, X { return 1 / (x * std::log(Real(2))); }
}
, {OP(sinh), SAVES_X, -720, 720, 0.75, 2.5, 0.75, X{return std::sinh(x);
}
, X { return std::cosh(x); }
}
, {OP(cosh), SAVES_X, -720, 720, 0.75, 1.75, 1.75, X{return std::cosh(x);
}
, X { return std::sinh(x); }
}
, {OP(tanh), SAVES_Y, -30, 30, 2.75, 2.75, 0, X{return std::tanh(x);
}
, Y { return (1 - y) * (1 + y); }
}
, {OP(sin), SAVES_X, -kMax, kMax, 0.75, 1.25, 0.75, X{return std::sin(x);
}
, X { return std::cos(x); }
}
, {OP(cos), SAVES_X, -1e6, 1e6, 0.75, 1.25, 0.75, X{return std::cos(x);
}
, X { return -std::sin(x); }
}
, {OP(tan), SAVES_Y, -1e5, 1e5, 0.75, 2.5, 1.25, X{return std::tan(x);
}
, Y { return 1 + y * y; }
}
, {OP(asin), SAVES_X, -1.1, 1.1, 0.75, 2.5, 1.5, X{return std::asin(x);
}
, X { return 1 / std::sqrt((1 - x) * (1 + x)); }
}
, {OP(acos), SAVES_X, -1.1, 1.1, 0.75, 1.5, 1.5, X{return std::acos(x);
}
, X { return -1 / std::sqrt((1 - x) * (1 + x)); }
}
, {OP(atan), SAVES_X, -1e18, 1e18, 0.75, 2.25, 1.75, X{return std::atan(x);
}
, X { return 1 / (1 + x * x); }
}
, {OP(erf), SAVES_X, -7, 7, 2.875, 3, 0.5, X{return std::erf(x);
}
, X { return 2 / std::sqrt(kPi) * std::exp(-x * x); }
}
, {OP(sigmoid), SAVES_Y, -750, 750, 2.5, 2.25, 0, X{return sigmoid(x);
}
, Y { return y * (1 - y); }
}
, {OP(logSigmoid), SAVES_X, -800, 800, 1.875, 1.75, 1.25,
   X{return std::min(x, Real(0)) - std::log1p(std::exp(-std::fabs(x)));
}
, X { return sigmoid(-x); }
}
, {OP(softplus), SAVES_X, -750, 50, 1.875, 2, 1.25, X{return x > 20 ? x : std::log1p(std::exp(x));
}
, X { return x > 20 ? 1 : sigmoid(x); }
}
, {OP(relu), SAVES_Y, -kMax, kMax, 0, 0, 0, X{return x <= 0 ? 0 : x;
}
, Y { return y <= 0 ? 0 : 1; }
}
, {OP(relu6), SAVES_X, -10, 10, 0, 0, 0, X{return x <= 0 ? 0 : x >= 6 ? 6 : x;
}
, X { return x <= 0 || x >= 6 ? 0 : 1; }
}
, {OP(leakyRelu), SAVES_X, -kMax, kMax, 0.5, 0.5, 0, X{return x > 0 ? x : p0* x;
}
, X { return x > 0 ? 1 : p0; }
, nullptr, 0.01
}
, {OP(elu), SAVES_X, -750, kMax, 2.375, 2, 1.5, X{return x > 0 ? x : p0* std::expm1(x);
}
, X { return x > 0 ? 1 : p0 * std::exp(x); }
, nullptr, 1.3
}
, {OP(selu), SAVES_X, -750, kMax, 3, 3.75, 0, X{return kSeluScale * (x > 0 ? x : kSeluAlpha * std::expm1(x));
}
, X { return kSeluScale * (x > 0 ? 1 : kSeluAlpha * std::exp(x)); }
}
, {OP(gelu), SAVES_X, -40, 40, 7.75, 8.5, 0.5, X{return times(x, cdf(x));
}
, X { return cdf(x) + times(x, density(x)); }
, X { return cdf(x) + std::fabs(times(x, density(x))); }
}
, {OP(geluTanh), SAVES_X, -25, 40, 3.5, 3.25, 2.5, X{return times(x, gate(x));
}
, X { return gate(x) + times(x, gate_slope(x)); }
, X { return gate(x) + std::fabs(times(x, gate_slope(x))); }
}
, {OP(silu), SAVES_X, -750, 750, 3.25, 3.25, 1.25, X{return times(x, sigmoid(x));
}
, X { return sigmoid(x) + times(x, sigmoid(x) * sigmoid(-x)); }
, X { return sigmoid(x) + std::fabs(times(x, sigmoid(x) * sigmoid(-x))); }
}
, {OP(mish), SAVES_X, -750, 750, 4, 3.75, 3.5, X{return times(x, mish_gate(x));
}
, X { return mish_gate(x) + times(x, mish_slope(x)); }
, X { return mish_gate(x) + std::fabs(times(x, mish_slope(x))); }
, 0, 0, 5000
}
, {OP(hardtanh), SAVES_X, -3, 3, 0, 0, 0, X{return x <= p0 ? p0 : x >= p1 ? p1 : x;
}
, X { return x <= p0 || x >= p1 ? 0 : 1; }
, nullptr, -0.5, 2
}
, {OP(clamp), SAVES_X, -3, 3, 0, 0, 0, X{return x < p0 ? p0 : x > p1 ? p1 : x;
}
, X { return x >= p0 && x <= p1 ? 1 : 0; }
, nullptr, -0.5, 2
}
, {OP(powScalar), SAVES_X, -kMax, kMax, 1.5, 1.5, 1.5, NONE{return 1;
}
, NONE { return 0; }
}
, {OP(powScalar), SAVES_X, -kMax, kMax, 1.5, 1.5, 1.5, X{return x;
}
, NONE { return 1; }
, nullptr, 1
}
, {OP(powScalar), SAVES_X, -kMax, kMax, 1.5, 1.5, 1.5, X{return x * x;
}
, X { return 2 * x; }
, nullptr, 2, 0, 5
}
, {OP(powScalar), SAVES_X, -kMax, kMax, 1.5, 1.5, 1.5, X{return x * x * x;
}
, X { return 3 * x * x; }
, nullptr, 3, 0, 5
}
, {OP(powScalar), SAVES_X, -kMax, kMax, 1.5, 1.5, 1.5, X{return 1 / x;
}
, X { return -1 / (x * x); }
, nullptr, -1, 0, 5
}
, {OP(powScalar), SAVES_X, -kMax, kMax, 1.5, 1.5, 1.5, X{return std::pow(x, Real(0.5));
}
, X { return std::pow(x, Real(-0.5)) / 2; }
, nullptr, 0.5, 0, 5
}
, {OP(powScalar), SAVES_X, -kMax, kMax, 1.5, 1.5, 1.5, X{return std::pow(x, p0);
}
, X { return p0 * std::pow(x, p0 - 1); }
, nullptr, 2.5, 0, 5
}
, {OP(powScalar), SAVES_X, -kMax, kMax, 1.5, 1.5, 1.5, X{return std::pow(x, p0);
}
, X { return p0 * std::pow(x, p0 - 1); }
, nullptr, -3, 0, 5
}
,
}
;
#undef X
#undef Y
#undef NONE
#undef OP

}  // namespace chainrule::test
