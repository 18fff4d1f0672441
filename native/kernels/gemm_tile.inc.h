// Matmul, the tile kernel: a few rows by a few vectors of C, held in registers while k runs.
// Kernel layer; included by gemm.inc.h only.
#pragma once
#include "table.h"

namespace chainrule {
namespace {

// Rows of a tile by its vectors, from one on: as many accumulators as leave registers for a row of B and a broadcast of
// A, of 32 registers (AVX-512, NEON), of 16 (AVX2), of 16 where the product needs one of its own (baseline). Fewer
// vectors get more rows: some ten chains are needed to hide the latency of a multiply-add.
constexpr int kTileRowsOf[] = {kVectorBytes == 32  ? 12
                               : kFusedMultiplyAdd ? 16
                                                   : 8,
                               kVectorBytes == 32  ? 6
                               : kFusedMultiplyAdd ? 14
                                                   : 4,
                               8};
constexpr int kTileVectors = kVectorBytes != 32 && kFusedMultiplyAdd ? 3 : 2;
constexpr int kTileRows = kTileRowsOf[kTileVectors - 1];  // of the widest tile, and of a strip of packed A
constexpr int kMostTileRows = kTileRowsOf[0];
template <class T>
constexpr int64_t kTileCols = int64_t{kTileVectors * kLanes<T>};

// Without masked loads, a variable-length copy in the inner loop would cost more than the tile: there B must be
// readable, and is packed if need be, up to a whole number of vectors.
constexpr bool kMaskedLoads = kVectorBytes > 16;

constexpr int64_t kLongChain = 256;  // steps in which a line can come from beyond the caches

template <class T>
struct Tile {
  const T* a;  // row i, step p: a[i * a_rs + p * a_cs]
  const T* b;  // step p: b[p * b_rs] and the columns after it
  T* c;
  const T* from;  // what beta multiplies: c, or a bias
  int64_t a_rs, a_cs, b_rs, c_rs, from_rs, k;
  size_t tail;  // columns in the last vector
  T alpha, beta;
  const T* carry_in;  // accumulators that an earlier part of k left; null: zeros
  T* carry_out;       // for a later part of k, or for another way to store; null: update c
  const T* ahead;     // fetched into the second-level cache meanwhile, a line at each step
  int64_t ahead_step;
  int64_t ahead_run, ahead_jump;  // after so many steps, how much further besides
};

// c = alpha * acc + beta * from
template <class T, int kRows, int kVectors, bool kHasTail>
inline void store_tile(const Tile<T>& t, const Vec<T> (&acc)[kRows][kVectors]) {
  constexpr int64_t n = kLanes<T>;
  const Vec<T> alpha = set1(t.alpha), beta = set1(t.beta);
  const bool read = t.beta != 0;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      T* const c = t.c + i * t.c_rs + j * n;
      const T* const from = t.from + i * t.from_rs + j * n;
      if (kHasTail && j == kVectors - 1) {
        store_n(c, read ? fma(alpha, acc[i][j], beta * load_n(from, t.tail)) : alpha * acc[i][j], t.tail);
      } else {
        store(c, read ? fma(alpha, acc[i][j], beta * load(from)) : alpha * acc[i][j]);
      }
    }
  }
}

// Note [One chain of multiply-adds]
// Every element of C is, per K block, one chain acc = fma(a[p], b[p], acc) from zero over p in order, wherever in a
// tile it lies, however many rows the tile has and whether or not the chain passes through memory (the carry). K blocks
// depend on k alone (see k_block) and are added in order. So the bits do not depend on threads, on tiles, on how many
// rows are computed together, or on strides; nor on the instruction set among those that fuse.
template <class T, int kRows, int kVectors, bool kHasTail, bool kColumns>
void run_tile(const Tile<T>& t) {
  using V = Vec<T>;
  constexpr size_t n = kLanes<T>;
  const T* const carry_in = t.carry_in;
  T* const carry_out = t.carry_out;
  V acc[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      acc[i][j] = carry_in ? load(carry_in + (i * kVectors + j) * n) : V{};
    }
  }
  const int64_t a_rs = kColumns ? 1 : t.a_rs, a_cs = t.a_cs, b_rs = t.b_rs;
  const size_t tail = t.tail;
  // Four rows to a pointer, so that two more registers with a_rs and three times a_rs address all of them. Rows next to
  // each other need one pointer and constants: a broadcast from an indexed address is not fused with its multiply-add,
  // and with one vector there is one for each.
  constexpr int kGroup = kColumns ? kRows : 4, kGroups = (kRows + kGroup - 1) / kGroup;
  const T* a[kGroups];
#pragma GCC unroll 4
  for (int g = 0; g < kGroups; ++g) a[g] = opaque(t.a + g * kGroup * a_rs);
  const T* b = t.b;
  if (!carry_out && t.k >= kLongChain) {
    // What will be written comes nearer meanwhile.
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) __builtin_prefetch(t.c + i * t.c_rs + j * static_cast<int64_t>(n), 1, 3);
    }
  }
  const T* ahead = t.ahead;
  const int64_t ahead_step = t.ahead_step;
  for (int64_t p = t.k, run = t.ahead_run; p > 0; --p) {
    V row[kVectors];
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      row[j] = kMaskedLoads && kHasTail && j == kVectors - 1 ? load_n(b + j * n, tail) : load(b + j * n);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const V x = set1(a[i / kGroup][i % kGroup * a_rs]);
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) acc[i][j] = fma(x, row[j], acc[i][j]);
    }
    __builtin_prefetch(ahead, 0, kVectors > 1 ? 2 : 3);
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) a[g] += a_cs;
    b += b_rs;
    ahead += ahead_step;
    if (--run == 0) run = t.ahead_run, ahead += t.ahead_jump;
  }
  if (carry_out) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) store(carry_out + (i * kVectors + j) * n, acc[i][j]);
    }
    return;
  }
  store_tile<T, kRows, kVectors, kHasTail>(t, acc);
}

template <class T>
using TileFn = void (*)(const Tile<T>&);

// [rows of A are known to be next to each other][the last vector is partial][vectors - 1][rows - 1]
template <class T>
struct TileTable {
  TileFn<T> run[2][2][kTileVectors][kMostTileRows];

  constexpr TileTable() : run() { fill<1, 1>(); }
  // Of one number of vectors, by rows - 1.
  const TileFn<T>* of(int64_t a_rs, int64_t vectors, bool whole) const { return run[a_rs == 1][!whole][vectors - 1]; }

 private:
  template <int kVectors, int kRows>
  constexpr void fill() {
    run[0][0][kVectors - 1][kRows - 1] = run_tile<T, kRows, kVectors, false, false>;
    run[0][1][kVectors - 1][kRows - 1] = run_tile<T, kRows, kVectors, true, false>;
    run[1][0][kVectors - 1][kRows - 1] = run_tile<T, kRows, kVectors, false, kVectors == 1>;
    run[1][1][kVectors - 1][kRows - 1] = run_tile<T, kRows, kVectors, true, kVectors == 1>;
    if constexpr (kRows < kTileRowsOf[kVectors - 1])
      fill<kVectors, kRows + 1>();
    else if constexpr (kVectors < kTileVectors)
      fill<kVectors + 1, 1>();
  }
};
template <class T>
constexpr TileTable<T> kTiles{};

}  // namespace
}  // namespace chainrule
