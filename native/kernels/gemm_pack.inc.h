// Matmul, packing: copies a strip of a matrix of any strides into the order in which the tile kernel reads it.
// Kernel layer; included by gemm.inc.h only.
#pragma once
#include "loops.inc.h"

namespace chainrule {
namespace {

// a0 b0 a1 b1 ... from the first halves of two vectors, and from their second halves.
template <class V>
inline V interleave_first(V a, V b) {
  constexpr int lanes = sizeof(V) / sizeof(a[0]);
  if constexpr (lanes == 2) return __builtin_shufflevector(a, b, 0, 2);
  if constexpr (lanes == 4) return __builtin_shufflevector(a, b, 0, 4, 1, 5);
  if constexpr (lanes == 8) return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  if constexpr (lanes == 16)
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
template <class V>
inline V interleave_second(V a, V b) {
  constexpr int lanes = sizeof(V) / sizeof(a[0]);
  if constexpr (lanes == 2) return __builtin_shufflevector(a, b, 1, 3);
  if constexpr (lanes == 4) return __builtin_shufflevector(a, b, 2, 6, 3, 7);
  if constexpr (lanes == 8) return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  if constexpr (lanes == 16)
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// Transposes the square that kLanes vectors make: each round of perfect shuffles moves one bit of the row number
// into the lane number.
template <class T>
inline void transpose(Vec<T> (&x)[kLanes<T>]) {
  constexpr size_t n = kLanes<T>;
#pragma GCC unroll 4
  for (size_t round = 1; round < n; round *= 2) {
    Vec<T> y[n];
#pragma GCC unroll 8
    for (size_t i = 0; i < n / 2; ++i) {
      y[2 * i] = interleave_first(x[i], x[i + n / 2]);
      y[2 * i + 1] = interleave_second(x[i], x[i + n / 2]);
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < n; ++i) x[i] = y[i];
  }
}

// dst[p * pitch + v] = src[p * k_stride + v * stride] for p < k and v < lanes, and 0 for lanes <= v < out.
// lanes <= out <= kLanes: one vector's width of a strip.
template <class T>
void pack_vector(T* dst, int64_t pitch, const T* src, int64_t k_stride, int64_t stride, int64_t k, size_t lanes,
                 size_t out) {
  constexpr size_t n = kLanes<T>;
  if (stride == 1 && lanes == n) {
    for (int64_t p = 0; p < k; ++p) store(dst + p * pitch, load(src + p * k_stride));
  } else if (stride == 1) {
    for (int64_t p = 0; p < k; ++p) store_n(dst + p * pitch, load_n(src + p * k_stride, lanes), out);
  } else if (k_stride == 1) {
    for (int64_t p = 0; p < k; p += n) {
      const size_t steps = k - p < int64_t{n} ? static_cast<size_t>(k - p) : n;
      Vec<T> x[n];
      if (lanes == n && steps == n) {
#pragma GCC unroll 16
        for (size_t v = 0; v < n; ++v) x[v] = load(src + static_cast<int64_t>(v) * stride + p);
      } else {
#pragma GCC unroll 16
        for (size_t v = 0; v < n; ++v) {
          x[v] = v < lanes ? load_n(src + static_cast<int64_t>(v) * stride + p, steps) : Vec<T>{};
        }
      }
      transpose<T>(x);
      T* const to = dst + p * pitch;
      if (out == n && steps == n) {
#pragma GCC unroll 16
        for (size_t q = 0; q < n; ++q) store(to + static_cast<int64_t>(q) * pitch, x[q]);
      } else {
#pragma GCC unroll 16
        for (size_t q = 0; q < n; ++q) {
          if (q < steps) store_n(to + static_cast<int64_t>(q) * pitch, x[q], out);
        }
      }
    }
  } else {
    for (int64_t p = 0; p < k; ++p) {
      for (size_t v = 0; v < out; ++v) {
        dst[p * pitch + static_cast<int64_t>(v)] =
            v < lanes ? src[p * k_stride + static_cast<int64_t>(v) * stride] : T(0);
      }
    }
  }
}

// A strip of `width` rows of A or columns of B, `stride` apart: at each of k steps `pitch` elements in a row, of which
// those from `width` on are zero.
template <class T>
void pack_strip(T* dst, int64_t pitch, const T* src, int64_t k_stride, int64_t stride, int64_t k, int64_t width) {
  constexpr int64_t n = kLanes<T>;
  for (int64_t v = 0; v < pitch; v += n) {
    const int64_t lanes = max_of(0, min_of(n, width - v));
    pack_vector(dst + v, pitch, src + v * stride, k_stride, stride, k, static_cast<size_t>(lanes),
                static_cast<size_t>(min_of(n, pitch - v)));
  }
}

}  // namespace
}  // namespace chainrule
