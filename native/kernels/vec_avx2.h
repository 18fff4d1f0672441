// Vector layer, AVX2 with FMA: 32 bytes.
// Kernel layer; included by isa_avx2.cc only.
#pragma once
#include <immintrin.h>
#define CR_VECTOR_BYTES 32
#include "vec_common.inc.h"

namespace chainrule {
namespace {

constexpr bool kFusedMultiplyAdd = true;

inline __m256i first_lanes32(size_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i first_lanes64(size_t n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)n), _mm256_setr_epi64x(0, 1, 2, 3));
}

// n <= kLanes<T>: the other lanes are zero, and memory past n is not touched.
template <class T>
inline Vec<T> load_n(const T* p, size_t n) {
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm256_maskload_epi32((const int*)p, first_lanes32(n));
  else
    return (Vec<T>)_mm256_maskload_epi64((const long long*)p, first_lanes64(n));
}
template <class T>
inline void store_n(T* p, Vec<T> v, size_t n) {
  if constexpr (sizeof(T) == 4)
    _mm256_maskstore_epi32((int*)p, first_lanes32(n), (__m256i)v);
  else
    _mm256_maskstore_epi64((long long*)p, first_lanes64(n), (__m256i)v);
}

// The 16-byte pieces at p and p + stride.
template <class T>
inline Vec<T> load_pieces(const T* p, ptrdiff_t stride) {
  return (Vec<T>)_mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)p)),
                                         _mm_loadu_si128((const __m128i*)(p + stride)), 1);
}

// GCC 12 makes two conversions and two shuffles of the generic one.
inline Vec<double> load_as_double(const float* p) { return (Vec<double>)_mm256_cvtps_pd(_mm_loadu_ps(p)); }

inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}

// a where it is the lesser (greater), else b: b where one is NaN, or both are zeros.
inline Vec<float> lesser(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm256_min_ps((__m256)a, (__m256)b); }
inline Vec<double> lesser(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm256_min_pd((__m256d)a, (__m256d)b); }
inline Vec<float> greater(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm256_max_ps((__m256)a, (__m256)b); }
inline Vec<double> greater(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm256_max_pd((__m256d)a, (__m256d)b); }

template <class V>
inline V scale(V v, V n) {
  return scale_by_powers(v, n);
}

inline Vec<float> sqrt(Vec<float> x) { return (Vec<float>)_mm256_sqrt_ps((__m256)x); }
inline Vec<double> sqrt(Vec<double> x) { return (Vec<double>)_mm256_sqrt_pd((__m256d)x); }

// Past the cache, to an aligned address; stream_fence makes it visible to other threads.
inline void stream(int32_t* p, Vec<int32_t> v) { _mm256_stream_si256((__m256i*)p, (__m256i)v); }
inline void stream_fence() { _mm_sfence(); }

template <class M>
inline bool any(M mask) {
  return _mm256_movemask_epi8((__m256i)mask) != 0;
}

}  // namespace
}  // namespace chainrule
