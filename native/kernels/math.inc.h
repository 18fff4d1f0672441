// Elementary functions on vectors, float and double, from basic arithmetic only: no libm, and the same operations for
// every lane. This file: the tools; the functions are in the math_*.inc.h at its end. Kernel layer.
//
// Each function states its largest error in units in the last place (ulp), float then double, and what it does at
// special values; measured by `elementwise_test --ulp`, a million samples on each instruction set, the worst of them.
// NaN gives NaN everywhere. Polynomials are minimax fits (Remez exchange) over the stated interval; the error given
// there is the polynomial's own.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace chainrule {
namespace {

template <class V>
constexpr bool kSingle = sizeof(Element<V>) == 4;
template <class V>
constexpr Element<V> kInfinity = __builtin_huge_valf();
template <class V>
constexpr Element<V> kNan = __builtin_nanf("");
template <class V>
constexpr Element<V> kSmallestNormal = kSingle<V> ? 0x1p-126 : 0x1p-1022;
template <class V>
constexpr int kMantissaBits = kSingle<V> ? 23 : 52;
template <class V>
constexpr int kExponentBias = kSingle<V> ? 127 : 1023;

template <class V>
inline V constant(double value) {
  return set1(Element<V>(value));
}

// Horner's scheme, constant term first.
template <class V>
inline V poly(V, double c0) {
  return constant<V>(c0);
}
template <class V, class... C>
inline V poly(V x, double c0, C... rest) {
  return fma(x, poly(x, double(rest)...), constant<V>(c0));
}

// Clamps that let NaN through.
template <class V>
inline V at_least(V x, double low) {
  return greater(constant<V>(low), x);
}
template <class V>
inline V at_most(V x, double high) {
  return lesser(constant<V>(high), x);
}

// The whole number next to x * factor, for magnitudes up to 2^22 (2^51).
template <class V>
inline V nearest(V x, double factor) {
  const V base = constant<V>(kIntegerBase<V>);
  return fma(x, constant<V>(factor), base) - base;
}

// An unevaluated sum, |lo| at most about an ulp of hi: twice the precision.
template <class V>
struct Pair {
  V hi, lo;
};

template <class V>
inline Pair<V> two_sum(V a, V b) {
  const V sum = a + b;
  const V b_part = sum - a;
  return {sum, (a - (sum - b_part)) + (b - b_part)};
}

// The same for |a| >= |b|, or a == 0.
template <class V>
inline Pair<V> fast_two_sum(V a, V b) {
  const V sum = a + b;
  return {sum, b - (sum - a)};
}

// The product exactly, short of overflow and underflow.
template <class V>
inline Pair<V> two_product(V a, V b) {
  const V product = a * b;
  if constexpr (kFusedMultiplyAdd) {
    return {product, fma(a, b, -product)};
  } else {
    // Dekker: halves of each factor, whose products are exact.
    const Element<V> split = kSingle<V> ? 0x1p12 + 1 : 0x1p27 + 1;
    const V a_hi = a * split - (a * split - a), a_lo = a - a_hi;
    const V b_hi = b * split - (b * split - b), b_lo = b - b_hi;
    return {product, ((a_hi * b_hi - product) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo};
  }
}

// a * b + c where the two nearly cancel and the rounding of the product would be most of what is left.
template <class V>
inline V fma_cancelling(V a, V b, V c) {
  if constexpr (kFusedMultiplyAdd) {
    return fma(a, b, c);
  } else {
    const Pair<V> p = two_product(a, b);
    return (p.hi + c) + p.lo;
  }
}

template <class V>
inline Pair<V> multiply(Pair<V> a, Pair<V> b) {
  const Pair<V> p = two_product(a.hi, b.hi);
  return fast_two_sum(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}

// Evaluates a double-precision function on floats: for functions too rare to deserve a float form of their own.
// Within 0.51 ulp, since only the last rounding counts.
template <class F, class... Floats>
inline Vec<float> in_double(F f, Floats... x) {
  typedef float HalfVec __attribute__((vector_size(CR_VECTOR_BYTES / 2)));
  const auto half = [](Vec<float> v, size_t i) {
    HalfVec h;
    __builtin_memcpy(&h, (const char*)&v + i * sizeof h, sizeof h);
    return __builtin_convertvector(h, Vec<double>);
  };
  const HalfVec halves[2] = {__builtin_convertvector(f(half(x, 0)...), HalfVec),
                             __builtin_convertvector(f(half(x, 1)...), HalfVec)};
  Vec<float> result;
  __builtin_memcpy(&result, halves, sizeof result);
  return result;
}

}  // namespace
}  // namespace chainrule

#include "math_activation.inc.h"
#include "math_exp.inc.h"
#include "math_log.inc.h"
#include "math_trig.inc.h"
