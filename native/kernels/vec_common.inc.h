// The part of the vector layer that is the same on every instruction set, written with GCC/clang vector extensions.
// Kernel layer. Included by each vec_*.h after it has set CR_VECTOR_BYTES; nothing else includes it.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace chainrule {
namespace {

constexpr size_t kVectorBytes = CR_VECTOR_BYTES;

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(CR_VECTOR_BYTES)));
};
// A register of T. + - * / and comparisons are operators, and mix with a scalar T; a C-style cast between
// vectors of the same size keeps the bits.
template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
constexpr size_t kLanes = kVectorBytes / sizeof(T);
// What a comparison gives: signed integers of the lane's width, -1 where true and 0 where false.
template <class V>
using Mask = decltype(V{} < V{});
template <class V>
using Element = decltype(+V{}[0]);
template <class V>
constexpr bool kIsFloat = Element<V>(0.5) != 0;
template <size_t kBytes>
struct UnsignedOf;
template <>
struct UnsignedOf<4> {
  using Type = uint32_t;
};
template <>
struct UnsignedOf<8> {
  using Type = uint64_t;
};
// The lanes' bits as unsigned integers, in which arithmetic wraps.
template <class V>
using Bits = Vec<typename UnsignedOf<sizeof(Element<V>)>::Type>;

// `v - 0` broadcasts in one instruction; `v + 0` would cost an addition, for it must turn -0 into 0.
template <class T>
inline Vec<T> set1(T v) {
  return v - Vec<T>{};
}

// p, of which the compiler no longer knows what it was computed from: it keeps it in a register of its own.
template <class T>
inline T* opaque(T* p) {
  asm("" : "+r"(p));
  return p;
}

template <class T>
inline Vec<T> load(const T* p) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline void store(T* p, Vec<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
// load_n and store_n for instruction sets without masked memory operations.
template <class T>
inline Vec<T> load_by_copy(const T* p, size_t n) {
  Vec<T> v{};
  __builtin_memcpy(&v, p, n * sizeof(T));
  return v;
}
template <class T>
inline void store_by_copy(T* p, Vec<T> v, size_t n) {
  __builtin_memcpy(p, &v, n * sizeof(T));
}

// As many elements as a register holds doubles.
template <class T>
inline Vec<double> load_as_double(const T* p) {
  typedef T Narrow __attribute__((vector_size(kLanes<double> * sizeof(T))));
  Narrow v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, Vec<double>);
}

template <class V>
inline V select(Mask<V> m, V a, V b) {
  return m ? a : b;
}

// Signed overflow is undefined in vectors too: these three wrap for integers, and are the plain operators for floats.
template <class V>
inline V add(V a, V b) {
  if constexpr (kIsFloat<V>)
    return a + b;
  else
    return (V)((Bits<V>)a + (Bits<V>)b);
}
template <class V>
inline V sub(V a, V b) {
  if constexpr (kIsFloat<V>)
    return a - b;
  else
    return (V)((Bits<V>)a - (Bits<V>)b);
}
template <class V>
inline V mul(V a, V b) {
  if constexpr (kIsFloat<V>)
    return a * b;
  else
    return (V)((Bits<V>)a * (Bits<V>)b);
}
template <class V>
inline V neg(V a) {
  if constexpr (kIsFloat<V>)
    return -a;
  else
    return sub(V{}, a);
}

// Floats: the sign bit alone. Integers: abs(INT32_MIN) is INT32_MIN.
template <class V>
inline V abs(V a) {
  if constexpr (kIsFloat<V>)
    return (V)((Mask<V>)a & ~(Mask<V>)-V{});
  else
    return select(a < 0, neg(a), a);
}
template <class V>
inline V copysign(V magnitude, V sign) {
  const Mask<V> bit = (Mask<V>)-V{};
  return (V)(((Mask<V>)magnitude & ~bit) | ((Mask<V>)sign & bit));
}

// 0 for NaN, as PyTorch.
template <class V>
inline V sign(V a) {
  return select(a > 0, set1(Element<V>(1)), select(a < 0, set1(Element<V>(-1)), V{}));
}

// NaN in either operand gives NaN.
template <class V>
inline V max(V a, V b) {
  return select((a > b) | (a != a), a, b);
}
template <class V>
inline V min(V a, V b) {
  return select((a < b) | (a != a), a, b);
}

// Adding 2^23 (2^52) leaves no bits for a fraction, so the addition rounds, half to even; larger |x| are whole already.
template <class V>
inline V round_even(V x) {
  const Element<V> whole = sizeof(Element<V>) == 4 ? 0x1p23 : 0x1p52;
  const V a = abs(x);
  return select(a < whole, copysign((a + whole) - whole, x), x);
}
template <class V>
inline V floor(V x) {
  const V r = round_even(x);
  return select(r > x, r - 1, r);
}
template <class V>
inline V ceil(V x) {
  const V r = round_even(x);
  return select(r < x, copysign(r + 1, x), r);
}

// Integers as the low bits of the float 1.5 * 2^23 (2^52): valid for |x| <= 2^22 (2^51). to_int rounds half to even.
template <class V>
constexpr Element<V> kIntegerBase = sizeof(Element<V>) == 4 ? 0x1.8p23 : 0x1.8p52;
template <class V>
inline Mask<V> to_int(V x) {
  const V base = set1(kIntegerBase<V>);
  return (Mask<V>)((Bits<V>)(x + base) - (Bits<V>)base);
}
template <class V>
inline V to_float(Mask<V> i) {
  const V base = set1(kIntegerBase<V>);
  return (V)((Bits<V>)i + (Bits<V>)base) - base;
}

// 2^n for whole n as a float, where that is a normal number.
template <class V>
inline V power_of_two(V n) {
  constexpr int kBits = sizeof(Element<V>) == 4 ? 23 : 52, kBias = sizeof(Element<V>) == 4 ? 127 : 1023;
  return (V)(((Bits<V>)to_int(n) + kBias) << kBits);
}
// v * 2^n for whole n as a float. In two steps, so that the result may be infinite or subnormal though v is about 1.
template <class V>
inline V scale_by_powers(V v, V n) {
  const V half = n * Element<V>(0.5), first = (half + kIntegerBase<V>)-kIntegerBase<V>;
  return v * power_of_two(first) * power_of_two(n - first);
}

// Sum of the lanes, by halves: always the same order.
template <class V>
inline Element<V> reduce_add(V v) {
  for (size_t half = sizeof(V) / sizeof(v[0]) / 2; half != 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) v[i] += v[i + half];
  }
  return v[0];
}

}  // namespace
}  // namespace chainrule
