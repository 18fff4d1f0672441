// Convolution, the tile kernel: a few output channels by a few vectors of positions, held in registers while the steps
// of a chain run, and where they are stored. Kernel layer; included by conv*.inc.h only.
#pragma once
#include "conv_source.inc.h"
#include "gemm.inc.h"

namespace chainrule {
namespace {

// A few output channels by a few vectors of positions.
template <class T>
struct ConvTile {
  const T* a;             // weights: step p, channel i: a[p * a_cs + i]
  const T* b[3];          // where the positions of each vector start in the source
  const int64_t* offset;  // of each step's tap
  T* sum[3];              // of each vector, in the first channel
  int64_t sum_rs;         // from one channel to the next
  int64_t a_cs, k;
  const T* bias;      // added, if any
  bool add;           // to what sum holds
  const T* carry_in;  // accumulators that an earlier part of the chain left; null: zeros
  T* carry_out;       // for a later part of it; null: the chain ends
};

// Note [One chain of multiply-adds] holds here, too: over input channels, kernel rows and kernel columns.
template <class T, int kRows, int kVectors>
void run_conv_tile(const ConvTile<T>& t) {
  constexpr int64_t n = kLanes<T>;
  Vec<T> acc[kRows][kVectors] = {};
  if (t.carry_in) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) acc[i][j] = load(t.carry_in + (i * kVectors + j) * n);
    }
  }
  const T* a = t.a;
  const T* b[kVectors];
  for (int j = 0; j < kVectors; ++j) b[j] = t.b[j];
  for (int64_t p = 0; p < t.k; ++p, a += t.a_cs) {
    const int64_t at = t.offset[p];
    Vec<T> row[kVectors];
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) row[j] = load(b[j] + at);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Vec<T> x = set1(a[i]);
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) acc[i][j] = fma(x, row[j], acc[i][j]);
    }
  }
  if (t.carry_out) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) store(t.carry_out + (i * kVectors + j) * n, acc[i][j]);
    }
    return;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      T* const sum = t.sum[j] + i * t.sum_rs;
      store(sum, t.add ? acc[i][j] + load(sum) : t.bias ? acc[i][j] + set1(t.bias[i]) : acc[i][j]);
    }
  }
}

// [vectors - 1][rows - 1]
template <class T>
struct ConvTiles {
  void (*of[kTileVectors][kTileRows])(const ConvTile<T>&);
  constexpr ConvTiles() : of() { fill<1, 1>(); }

 private:
  template <int kVectors, int kRows>
  constexpr void fill() {
    of[kVectors - 1][kRows - 1] = run_conv_tile<T, kRows, kVectors>;
    if constexpr (kRows < kTileRows)
      fill<kVectors, kRows + 1>();
    else if constexpr (kVectors < kTileVectors)
      fill<kVectors + 1, 1>();
  }
};
template <class T>
constexpr ConvTiles<T> kConvTiles{};

// Where the positions of one vector are stored: pieces of rows, from a column of the first on.
template <class T>
struct ConvPlace {
  T* out;  // in the first channel
  int64_t col, cols, pitch, rows;
  int64_t line, across;  // from one row to the next, and from one column

  bool holds(int64_t n) const { return across == 1 && cols - col >= n; }
  // fn(element, its lane, elements)
  template <class Fn>
  void for_pieces(const Fn& fn) const {
    constexpr int64_t lanes = kLanes<T>;
    T* to = out;
    int64_t at = 0, from = col;
    for (int64_t row = 0; at < lanes && row < rows; at += pitch - from, to += line - from * across, from = 0, ++row) {
      const int64_t piece = min_of(lanes - at, cols - from);
      if (piece > 0) fn(to, at, piece);
    }
  }
};

// What a tile adds up, where it belongs if its vectors lie in one piece each, else in a square that is copied.
template <class T>
class ConvTarget {
 public:
  // n channels from `channel` on, a plane apart
  ConvTarget(int64_t plane, int64_t channel, int64_t n, int64_t vectors_)
      : vectors(vectors_), plane_(plane), channel_(channel), n_(n) {}

  // The places must be known; holds what is there if the tile adds to it.
  void open(ConvTile<T>& t) {
    for (int64_t j = 0; j < vectors; ++j) whole_ &= place[j].holds(kLanes<T>);
    t.sum_rs = whole_ ? plane_ : kTileCols<T>;
    for (int64_t j = 0; j < vectors; ++j) {
      T* const out = place[j].out + channel_ * plane_;
      t.sum[j] = whole_ ? out : sum_ + j * kLanes<T>;
      // What will be written comes nearer meanwhile.
      for (int64_t i = 0; i < n_; ++i) __builtin_prefetch(out + i * plane_, 1, 3);
    }
    if (whole_ || !t.add) return;
    for_elements([](T* out, T* sum, size_t piece) { store_n(sum, load_n(out, piece), piece); },
                 [](T& out, T& sum) { sum = out; });
  }
  void close() {
    if (whole_) return;
    for_elements([](T* out, T* sum, size_t piece) { store_n(out, load_n(sum, piece), piece); },
                 [](T& out, T& sum) { out = sum; });
  }

  ConvPlace<T> place[kTileVectors];
  const int64_t vectors;

 private:
  // Calls several(in place, in the square, elements) or one(in place, in the square).
  template <class Several, class One>
  void for_elements(const Several& several, const One& one) {
    for (int64_t j = 0; j < vectors; ++j) {
      place[j].for_pieces([&](T* out, int64_t at, int64_t piece) {
        out += channel_ * plane_;
        T* sum = sum_ + j * kLanes<T> + at;
        for (int64_t i = 0; i < n_; ++i, out += plane_, sum += kTileCols<T>) {
          if (place[j].across == 1) {
            several(out, sum, static_cast<size_t>(piece));
          } else {
            for (int64_t q = 0; q < piece; ++q) one(out[q * place[j].across], sum[q]);
          }
        }
      });
    }
  }

  alignas(64) T sum_[kTileRows * kTileCols<T>];
  const int64_t plane_, channel_, n_;
  bool whole_ = true;
};

}  // namespace
}  // namespace chainrule
