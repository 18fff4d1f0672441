// Vector layer, AVX-512 (F, BW, VL, DQ): 64 bytes.
// Kernel layer; included by isa_avx512.cc only.
#pragma once
#include <immintrin.h>
#define CR_VECTOR_BYTES 64
#include "vec_common.inc.h"

namespace chainrule {
namespace {

constexpr bool kFusedMultiplyAdd = true;

// n <= kLanes<T>: the other lanes are zero, and memory past n is not touched.
template <class T>
inline Vec<T> load_n(const T* p, size_t n) {
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_loadu_epi32((__mmask16)((1u << n) - 1), p);
  else
    return (Vec<T>)_mm512_maskz_loadu_epi64((__mmask8)((1u << n) - 1), p);
}
template <class T>
inline void store_n(T* p, Vec<T> v, size_t n) {
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_epi32(p, (__mmask16)((1u << n) - 1), (__m512i)v);
  else
    _mm512_mask_storeu_epi64(p, (__mmask8)((1u << n) - 1), (__m512i)v);
}

// The 16-byte pieces at p, p + stride, ... Written out, because GCC 12 would load each piece by itself and then shuffle
// it into its place, on the one port that shuffles; straight from memory any port can do it.
template <class T>
inline Vec<T> load_pieces(const T* p, ptrdiff_t stride) {
  const auto piece = [=](int i) -> const __m128i_u& { return *(const __m128i_u*)(p + i * stride); };
  __m512i v = _mm512_castsi128_si512(piece(0));
  asm("vinserti32x4 $1, %1, %0, %0" : "+v"(v) : "m"(piece(1)));
  asm("vinserti32x4 $2, %1, %0, %0" : "+v"(v) : "m"(piece(2)));
  asm("vinserti32x4 $3, %1, %0, %0" : "+v"(v) : "m"(piece(3)));
  return (Vec<T>)v;
}

// GCC 12 makes two conversions and two shuffles of the generic one.
inline Vec<double> load_as_double(const float* p) {
  return (Vec<double>)_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(p));
}

inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}

// The unmasked forms of these, and of sqrt, warn of an uninitialized variable in GCC 12.
// a where it is the lesser (greater), else b: b where one is NaN, or both are zeros.
inline Vec<float> lesser(Vec<float> a, Vec<float> b) {
  return (Vec<float>)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
}
inline Vec<double> lesser(Vec<double> a, Vec<double> b) {
  return (Vec<double>)_mm512_maskz_min_pd(0xff, (__m512d)a, (__m512d)b);
}
inline Vec<float> greater(Vec<float> a, Vec<float> b) {
  return (Vec<float>)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
}
inline Vec<double> greater(Vec<double> a, Vec<double> b) {
  return (Vec<double>)_mm512_maskz_max_pd(0xff, (__m512d)a, (__m512d)b);
}

// v * 2^n for whole n as a float, rounded once: what scale_by_powers gives.
inline Vec<float> scale(Vec<float> v, Vec<float> n) {
  return (Vec<float>)_mm512_maskz_scalef_ps(0xffff, (__m512)v, (__m512)n);
}
inline Vec<double> scale(Vec<double> v, Vec<double> n) {
  return (Vec<double>)_mm512_maskz_scalef_pd(0xff, (__m512d)v, (__m512d)n);
}

inline Vec<float> sqrt(Vec<float> x) { return (Vec<float>)_mm512_maskz_sqrt_ps(0xffff, (__m512)x); }
inline Vec<double> sqrt(Vec<double> x) { return (Vec<double>)_mm512_maskz_sqrt_pd(0xff, (__m512d)x); }

// Past the cache, to an aligned address; stream_fence makes it visible to other threads.
inline void stream(int32_t* p, Vec<int32_t> v) { _mm512_stream_si512((__m512i*)p, (__m512i)v); }
inline void stream_fence() { _mm_sfence(); }

template <class M>
inline bool any(M mask) {
  return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
}

}  // namespace
}  // namespace chainrule
