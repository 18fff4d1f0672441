// Matmul, the tile kernel: a few rows by a few vectors of C, held in registers while k runs.
// Kernel layer; included by gemm.inc.h only.
#pragma once
#include "table.h"

namespace chainrule {
namespace {

// As many accumulators as leave registers for a row of B and a broadcast of A: 24 of 32 (AVX-512, NEON), 12 of 16
// (AVX2), 8 of 16 where the product needs a register of its own (baseline).
constexpr int kTileRows = kVectorBytes == 32 ? 6 : kFusedMultiplyAdd ? 8 : 4;
constexpr int kTileVectors = kVectorBytes != 32 && kFusedMultiplyAdd ? 3 : 2;
template <class T>
constexpr int64_t kTileCols = int64_t{kTileVectors * kLanes<T>};

// Without masked loads, a variable-length copy in the inner loop would cost more than the tile: there B must be
// readable, and is packed if need be, up to a whole number of vectors.
constexpr bool kMaskedLoads = kVectorBytes > 16;

template <class T>
struct Tile {
  const T* a;  // row i, step p: a[i * a_rs + p * a_cs]
  const T* b;  // step p: b[p * b_rs] and the columns after it
  T* c;
  int64_t a_rs, a_cs, b_rs, c_rs, k;
  size_t tail;  // columns in the last vector
  T alpha, beta;
  const T* carry_in;  // accumulators that an earlier part of k left; null: zeros
  T* carry_out;       // for a later part of k; null: this was the last, update c
};

// Note [One chain of multiply-adds]
// Every element of C is, per K block, one chain acc = fma(a[p], b[p], acc) from zero over p in order, wherever in a
// tile it lies, however many rows the tile has and whether or not the chain passes through memory (the carry). K blocks
// depend on k alone (see k_block) and are added in order. So the bits do not depend on threads, on tiles, on how many
// rows are computed together, or on strides; nor on the instruction set among those that fuse.
template <class T, int kRows, int kVectors, bool kHasTail>
void run_tile(const Tile<T>& t) {
  using V = Vec<T>;
  constexpr size_t n = kLanes<T>;
  const T* const carry_in = t.carry_in;
  T* const carry_out = t.carry_out;
  V acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      acc[i][j] = carry_in ? load(carry_in + (i * kVectors + j) * n) : V{};
    }
  }
  const int64_t a_rs = t.a_rs, a_cs = t.a_cs, b_rs = t.b_rs;
  const size_t tail = t.tail;
  const T* a = t.a;
  const T* b = t.b;
  for (int64_t p = t.k; p > 0; --p) {
    V row[kVectors];
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      row[j] = kMaskedLoads && kHasTail && j == kVectors - 1 ? load_n(b + j * n, tail) : load(b + j * n);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const V x = set1(a[i * a_rs]);
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) acc[i][j] = fma(x, row[j], acc[i][j]);
    }
    a += a_cs;
    b += b_rs;
  }
  if (carry_out) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) store(carry_out + (i * kVectors + j) * n, acc[i][j]);
    }
    return;
  }
  const V alpha = set1(t.alpha), beta = set1(t.beta);
  const bool read = t.beta != 0;
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      T* const c = t.c + i * t.c_rs + j * static_cast<int64_t>(n);
      if (kHasTail && j == kVectors - 1) {
        store_n(c, read ? fma(alpha, acc[i][j], beta * load_n(c, tail)) : alpha * acc[i][j], tail);
      } else {
        store(c, read ? fma(alpha, acc[i][j], beta * load(c)) : alpha * acc[i][j]);
      }
    }
  }
}

template <class T>
using TileFn = void (*)(const Tile<T>&);

template <class T>
struct TileTable {
  TileFn<T> full[kTileRows];                // [rows - 1]: kTileVectors whole vectors
  TileFn<T> tail[kTileVectors][kTileRows];  // [vectors - 1][rows - 1]: the last vector is partial

  constexpr TileTable() : full(), tail() { fill<kTileRows>(); }

 private:
  template <int kRows>
  constexpr void fill() {
    full[kRows - 1] = run_tile<T, kRows, kTileVectors, false>;
    tail[0][kRows - 1] = run_tile<T, kRows, 1, true>;
    tail[1][kRows - 1] = run_tile<T, kRows, 2, true>;
    if constexpr (kTileVectors == 3) tail[2][kRows - 1] = run_tile<T, kRows, 3, true>;
    if constexpr (kRows > 1) fill<kRows - 1>();
  }
};
template <class T>
constexpr TileTable<T> kTiles{};

}  // namespace
}  // namespace chainrule
