// Vector layer, NEON on 64-bit ARM: 16 bytes.
// Kernel layer; included by isa_neon.cc only.
#pragma once
#include <arm_neon.h>
#define CR_VECTOR_BYTES 16
#include "vec_common.inc.h"

namespace chainrule {
namespace {

constexpr bool kFusedMultiplyAdd = true;

// The 16-byte pieces at p, p + stride, ...: here one.
template <class T>
inline Vec<T> load_pieces(const T* p, ptrdiff_t) {
  return load(p);
}

// n <= kLanes<T>: the other lanes are zero, and memory past n is not touched.
template <class T>
inline Vec<T> load_n(const T* p, size_t n) {
  return load_by_copy(p, n);
}
template <class T>
inline void store_n(T* p, Vec<T> v, size_t n) {
  store_by_copy(p, v, n);
}

inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}

// a where it is the lesser (greater), else b: b where one is NaN, or both are zeros.
template <class V>
inline V lesser(V a, V b) {
  return select(a < b, a, b);
}
template <class V>
inline V greater(V a, V b) {
  return select(a > b, a, b);
}

template <class V>
inline V scale(V v, V n) {
  return scale_by_powers(v, n);
}

inline Vec<float> sqrt(Vec<float> x) { return (Vec<float>)vsqrtq_f32((float32x4_t)x); }
inline Vec<double> sqrt(Vec<double> x) { return (Vec<double>)vsqrtq_f64((float64x2_t)x); }

// Past the cache where the instruction set can ask for it.
inline void stream(int32_t* p, Vec<int32_t> v) { store(p, v); }
inline void stream_fence() {}

template <class M>
inline bool any(M mask) {
  return vmaxvq_u32((uint32x4_t)mask) != 0;
}

}  // namespace
}  // namespace chainrule
