// Vector layer, baseline: 16 bytes, what every x86-64 has (SSE2), or any other machine through vector extensions.
// Kernel layer; included by isa_baseline.cc only. No fused multiply-add: fma rounds twice here.
#pragma once
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#define CR_VECTOR_BYTES 16
#include "vec_common.inc.h"

namespace chainrule {
namespace {

constexpr bool kFusedMultiplyAdd = false;

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

template <class V>
inline V fma(V a, V b, V c) {
  return a * b + c;
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

#if defined(__SSE2__)
inline Vec<float> sqrt(Vec<float> x) { return (Vec<float>)_mm_sqrt_ps((__m128)x); }
inline Vec<double> sqrt(Vec<double> x) { return (Vec<double>)_mm_sqrt_pd((__m128d)x); }
// Past the cache, to an aligned address; stream_fence makes it visible to other threads.
inline void stream(int32_t* p, Vec<int32_t> v) { _mm_stream_si128((__m128i*)p, (__m128i)v); }
inline void stream_fence() { _mm_sfence(); }
template <class M>
inline bool any(M mask) {
  return _mm_movemask_epi8((__m128i)mask) != 0;
}
#else
inline Vec<float> sqrt(Vec<float> x) {
  for (size_t i = 0; i < kLanes<float>; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
inline Vec<double> sqrt(Vec<double> x) {
  for (size_t i = 0; i < kLanes<double>; ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
}
inline void stream(int32_t* p, Vec<int32_t> v) { store(p, v); }
inline void stream_fence() {}
template <class M>
inline bool any(M mask) {
  const Vec<uint64_t> m = (Vec<uint64_t>)mask;
  return (m[0] | m[1]) != 0;
}
#endif

}  // namespace
}  // namespace chainrule
