// Matmul, few rows by a B that lies by columns: it is turned in registers and used at once, not packed.
// Kernel layer; included by gemm.inc.h only.
#pragma once
#include "gemm_pack.inc.h"
#include "gemm_tile.inc.h"

namespace chainrule {
namespace {

// With more rows than this a packed B is read often enough.
constexpr int kTurnedRows = 4;
// Vectors of C side by side: with one, a single row would wait for each multiply-add.
constexpr int kTurnedVectors = 2;

// As run_tile, by the same chains (Note [One chain of multiply-adds]), for b[p + j * b_cs].
template <class T, int kRows, int kVectors>
void run_turned(const Tile<T>& t, int64_t b_cs) {
  using V = Vec<T>;
  constexpr int64_t n = kLanes<T>;
  V acc[kRows][kVectors] = {};
  alignas(kVectorBytes) T square[n * n];
  const T* a = t.a;
  for (int64_t p = 0; p < t.k; p += n) {
    const int64_t steps = min_of(n, t.k - p);
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      const auto add = [&](int64_t q, V x) {
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i) acc[i][j] = fma(set1(a[i * t.a_rs + q * t.a_cs]), x, acc[i][j]);
      };
      const T* const b = t.b + p + j * n * b_cs;
      const size_t lanes = j + 1 < kVectors ? static_cast<size_t>(n) : t.tail;
      if (steps == n && lanes == n) {
        transpose_square<T>(b, b_cs, add);
      } else {
        pack_vector<T>(square, n, b, 1, b_cs, steps, lanes, n);
        for (int64_t q = 0; q < steps; ++q) add(q, load(square + q * n));
      }
    }
    a += n * t.a_cs;
  }
  store_tile<T, kRows, kVectors, true>(t, acc);
}

template <class T>
using TurnedFn = void (*)(const Tile<T>&, int64_t);

// [vectors - 1][rows - 1]
template <class T>
struct TurnedTable {
  TurnedFn<T> run[kTurnedVectors][kTurnedRows];

  constexpr TurnedTable() : run() { fill<1>(); }

 private:
  template <int kRows>
  constexpr void fill() {
    run[0][kRows - 1] = run_turned<T, kRows, 1>;
    run[1][kRows - 1] = run_turned<T, kRows, 2>;
    if constexpr (kRows < kTurnedRows) fill<kRows + 1>();
  }
};
template <class T>
constexpr TurnedTable<T> kTurned{};

}  // namespace
}  // namespace chainrule
