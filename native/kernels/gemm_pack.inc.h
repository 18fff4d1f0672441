// Matmul, packing: copies a strip of a matrix of any strides into the order in which the tile kernel reads it.
// Kernel layer; elementwise kernels turn their operands with it, too.
#pragma once
#include "loops.inc.h"

namespace chainrule {
namespace {

// Within each 16 bytes of two vectors: their first halves interleaved, and their second halves. Shuffles inside 16
// bytes are the cheap ones, and a vector is put together of 16-byte pieces by the loads.
template <class T>
constexpr int kPiece = int{16 / sizeof(T)};
template <class T>
constexpr int kPieces = int{kVectorBytes / 16};

template <class V, int kSecond, size_t... I>
inline V interleave(V a, V b, Indices<I...>) {
  constexpr int piece = kPiece<Element<V>>, lanes = sizeof...(I);
  return __builtin_shufflevector(
      a, b, (int{I} / piece * piece + int{I} % piece / 2 + kSecond * piece / 2 + (I % 2 ? lanes : 0))...);
}

// Of rows of one piece's width, kPiece of them to a vector's group: lane i of x[j] becomes lane j of x[i] in each
// piece.
template <class T>
inline void transpose_pieces(Vec<T> (&x)[kPiece<T>]) {
  constexpr LaneIndices<T> lanes;
  if constexpr (kPiece<T> == 2) {
    const Vec<T> first = interleave<Vec<T>, 0>(x[0], x[1], lanes);
    x[1] = interleave<Vec<T>, 1>(x[0], x[1], lanes);
    x[0] = first;
  } else {
    const Vec<T> a = interleave<Vec<T>, 0>(x[0], x[2], lanes), b = interleave<Vec<T>, 0>(x[1], x[3], lanes);
    const Vec<T> c = interleave<Vec<T>, 1>(x[0], x[2], lanes), d = interleave<Vec<T>, 1>(x[1], x[3], lanes);
    x[0] = interleave<Vec<T>, 0>(a, b, lanes);
    x[1] = interleave<Vec<T>, 1>(a, b, lanes);
    x[2] = interleave<Vec<T>, 0>(c, d, lanes);
    x[3] = interleave<Vec<T>, 1>(c, d, lanes);
  }
}

// to(i, v) takes column i of a square of kLanes rows, `stride` apart: i < kLanes.
template <class T, class To>
inline void transpose_square(const T* src, int64_t stride, const To& to) {
#pragma GCC unroll 4
  for (int i = 0; i < kPieces<T>; ++i) {
    Vec<T> x[kPiece<T>];
#pragma GCC unroll 4
    for (int r = 0; r < kPiece<T>; ++r) {
      x[r] = load_pieces(src + r * stride + i * kPiece<T>, kPiece<T> * stride);
    }
    transpose_pieces<T>(x);
#pragma GCC unroll 4
    for (int r = 0; r < kPiece<T>; ++r) to(i * kPiece<T> + r, x[r]);
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
      T* const to = dst + p * pitch;
      if (lanes == n && steps == n && out == n) {
        transpose_square<T>(src + p, stride, [&](int64_t q, Vec<T> x) { store(to + q * pitch, x); });
        continue;
      }
      // An edge: what there is, in a square of its own.
      alignas(kVectorBytes) T square[n * n];
      for (size_t v = 0; v < n; ++v) {
        store(square + v * n, v < lanes ? load_n(src + static_cast<int64_t>(v) * stride + p, steps) : Vec<T>{});
      }
      transpose_square<T>(square, n, [&](int64_t q, Vec<T> x) {
        if (q < static_cast<int64_t>(steps)) store_n(to + q * pitch, x, out);
      });
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
