// Matmul: a block of C, the part that one chunk computes: it packs what it needs of B for itself.
// Kernel layer; included by gemm.inc.h only.
#pragma once
#include "gemm_plan.inc.h"

namespace chainrule {
namespace {

// One batch entry.
template <class T>
struct Entry {
  const T* a;
  const T* b;
  T* c;
};

// Walks over the batch entries in order; broadcast dimensions have stride 0.
template <class T>
class BatchCursor {
 public:
  BatchCursor(const GemmArgs& g, int64_t at)
      : g_(g), entry_{static_cast<const T*>(g.a), static_cast<const T*>(g.b), static_cast<T*>(g.c)} {
    for (int d = g.batch_dims - 1; d >= 0; --d) {
      index_[d] = at % g.batch[d];
      at /= g.batch[d];
      move(d, index_[d]);
    }
  }
  const Entry<T>& entry() const { return entry_; }
  void next() {
    for (int d = g_.batch_dims - 1; d >= 0; --d) {
      move(d, 1);
      if (++index_[d] < g_.batch[d]) return;
      move(d, -index_[d]);
      index_[d] = 0;
    }
  }

 private:
  void move(int d, int64_t steps) {
    entry_.a += steps * g_.a_bs[d];
    entry_.b += steps * g_.b_bs[d];
    entry_.c += steps * g_.c_bs[d];
  }
  const GemmArgs& g_;
  Entry<T> entry_;
  int64_t index_[6];
};

// A part of C that one chunk computes: of one entry, rows from i0 on and strips from s0 on.
template <class T>
class Block {
 public:
  struct Space {
    T *b, *carry;          // packed B, accumulators
    const T* panels;       // of packed A, or null
    const Entry<T>* next;  // the next one, if it is small enough to be fetched ahead
  };
  Block(const Gemm<T>& gemm, const Space& space, const Entry<T>& entry, int64_t panel_block, int64_t strip_block)
      : g_(gemm),
        space_(space),
        e_(entry),
        i0_(gemm.panels.begin(panel_block) * kTileRows),
        rows_(min_of(gemm.m - i0_, gemm.panels.of(panel_block) * kTileRows)),
        s0_(gemm.strips.begin(strip_block)),
        s1_(s0_ + gemm.strips.of(strip_block)) {}

  // The K block [p0, p1).
  void run(int64_t p0, int64_t p1) const {
    int64_t p = p0;
    do {
      const int64_t to = min_of(p1, p + g_.sweep_steps);
      for (int64_t s = s0_; s < s1_; ++s) run_strip(s, p0, p1, p, to);
      p = to;
    } while (p < p1);
  }

 private:
  // store_turned reads whole squares, whatever the rows.
  static constexpr int64_t kStoredRows = kMostTileRows + int64_t{kLanes<T>};

  // Steps [from, to) of the K block [p0, p1) for the rows of the block and the columns of a strip.
  void run_strip(int64_t s, int64_t p0, int64_t p1, int64_t from, int64_t to) const {
    constexpr int64_t lanes = kLanes<T>;
    const int64_t j = g_.column(s), vectors = g_.vectors.of(s), cols = min_of(vectors * lanes, g_.n - j);
    const int64_t a_rs = space_.panels ? 1 : g_.a_rs;
    const TileFn<T>* const tiles = kTiles<T>.of(a_rs, vectors, cols == vectors * lanes);
    const T* const next = g_.b_cs == 1 && s + 1 < s1_ ? e_.b + from * g_.b_rs + g_.column(s + 1) : nullptr;
    if (g_.turn_b) return turn_strip(s, p0, p1);
    T* const carry = space_.carry + (g_.sweep_steps < g_.block_k ? (s - s0_) * g_.strip_carry() : 0);
    alignas(64) T turned[kStoredRows * kTileCols<T>];
    // What store_turned multiplies and drops must not be subnormal, as what lies on a stack often is: that takes a
    // microcode assist of some 150 cycles for each vector.
    const int64_t stored = g_.c_cs != 1 ? round_up(g_.tile_rows(vectors), lanes) * vectors : 0;
    for (int64_t i = 0; i < stored; ++i) store(turned + i * lanes, Vec<T>{});
    Tile<T> t;
    t.c_rs = g_.c_rs;
    const bool biased = g_.bias && p0 == 0;
    t.from_rs = from_rs(biased);
    t.alpha = g_.alpha;
    t.beta = p0 == 0 ? g_.beta : T(1);
    t.tail = static_cast<size_t>(cols - (vectors - 1) * lanes);
    int64_t p = from;
    do {
      t.k = min_of(g_.slab_steps, to - p);
      if (g_.pack_b) {
        t.b = space_.b;
        t.b_rs = vectors * lanes;
        pack_strip(space_.b, t.b_rs, e_.b + p * g_.b_rs + j * g_.b_cs, g_.b_rs, g_.b_cs, t.k, cols);
      } else {
        t.b = e_.b + p * g_.b_rs + j;
        t.b_rs = g_.b_rs;
      }
      run_tiles(t, tiles, p, p0, p1,
                {s - s0_, vectors, cols,
                 p + t.k == to ? next
                 : g_.pack_b   ? nullptr
                               : t.b + t.k * g_.b_rs,
                 carry, turned, j, biased});
      p += t.k;
    } while (p < to);
  }

  void turn_strip(int64_t s, int64_t p0, int64_t p1) const {
    constexpr int64_t lanes = kLanes<T>;
    const int64_t j = g_.column(s), vectors = g_.vectors.of(s), cols = min_of(vectors * lanes, g_.n - j);
    alignas(64) T spread[kTurnedRows * kTileCols<T>];
    const bool biased = g_.bias && p0 == 0;
    Tile<T> t{};
    t.a = e_.a + i0_ * g_.a_rs + p0 * g_.a_cs, t.a_rs = g_.a_rs, t.a_cs = g_.a_cs, t.k = p1 - p0;
    t.b = e_.b + p0 + j * g_.b_cs;
    t.c = e_.c + i0_ * g_.c_rs + j, t.c_rs = g_.c_rs;
    t.from = biased ? bias_of(i0_, rows_, j, cols, spread) : t.c;
    t.from_rs = from_rs(biased);
    t.alpha = g_.alpha, t.beta = p0 == 0 ? g_.beta : T(1);
    t.tail = static_cast<size_t>(cols - (vectors - 1) * lanes);
    kTurned<T>.run[vectors - 1][rows_ - 1](t, g_.b_cs);
  }

  int64_t from_rs(bool biased) const { return !biased ? g_.c_rs : g_.exchanged ? kTileCols<T> : 0; }

  static constexpr int64_t kLine = 64 / sizeof(T);

  struct Strip {
    int64_t number, vectors, cols;
    const T* next;  // where the next strip begins, to have it nearer by then
    T *carry, *turned;
    int64_t j;
    bool biased;
  };
  void run_tiles(Tile<T>& t, const TileFn<T>* tiles, int64_t p, int64_t p0, int64_t p1, const Strip& strip) const {
    constexpr int64_t lanes = kLanes<T>;
    const bool last = p + t.k == p1;
    const Split split = g_.tiles_of(rows_, strip.vectors);
    t.carry_in = p == p0 ? nullptr : strip.carry;
    t.carry_out = !last ? strip.carry : g_.c_cs != 1 ? strip.turned : nullptr;
    t.c = e_.c + i0_ * g_.c_rs + strip.j * g_.c_cs;
    if (space_.panels) {
      t.a = space_.panels + i0_ * (p1 - p0) + (p - p0) * kTileRows;
      t.a_rs = 1;
      t.a_cs = kTileRows;
    } else {
      t.a = e_.a + i0_ * g_.a_rs + p * g_.a_cs;
      t.a_rs = g_.a_rs;
      t.a_cs = g_.a_cs;
    }
    for (int64_t tile = 0; tile < split.count; ++tile) {
      const int64_t height = space_.panels ? min_of(kTileRows, rows_ - tile * kTileRows) : split.of(tile);
      // What is needed next comes nearer meanwhile: the next B, one of a row's lines at each step, then the next rows
      // of A.
      const int64_t a_step = space_.panels ? kTileRows * (p1 - p0) : height * g_.a_rs;
      t.ahead_run = t.k;
      t.ahead_jump = 0;
      if (space_.next) {
        t.ahead = line_of(*space_.next, (strip.number * split.count + tile) * t.k);
        t.ahead_step = kLine;
      } else if (strip.next && tile < strip.vectors) {
        t.ahead = strip.next + tile * lanes;
        t.ahead_step = g_.b_rs;
      } else {
        const bool by_columns = !space_.panels && g_.a_rs == 1;
        t.ahead = t.a + (by_columns ? kLine : a_step);
        t.ahead_step = by_columns ? g_.a_cs : space_.panels || g_.a_cs == 1 ? height : 0;
        if (!space_.panels && g_.a_cs == 1 && g_.a_rs != t.k) {
          t.ahead_run = ceil_div(t.k, height);
          t.ahead_jump = g_.a_rs - t.ahead_run * height;
        }
      }
      const int64_t row = i0_ + (space_.panels ? tile * kTileRows : split.begin(tile));
      t.from = !strip.biased || !last ? t.c : bias_of(row, height, strip.j, strip.cols, strip.turned);
      tiles[height - 1](t);
      if (last && g_.c_cs != 1) store_turned(t, strip, height);
      const int64_t accumulators = height * strip.vectors * lanes;
      if (t.carry_in) t.carry_in += accumulators;
      if (!last) t.carry_out += accumulators;
      t.a += a_step;
      t.c += height * g_.c_rs;
    }
  }

  // A line of an entry's matrices, one after the other.
  const T* line_of(const Entry<T>& entry, int64_t line) const {
    const int64_t of_a = g_.m * g_.k / kLine, of_b = g_.k * g_.n / kLine;
    if (line < of_a) return entry.a + line * kLine;
    if (line < of_a + of_b) return entry.b + (line - of_a) * kLine;
    return entry.c + (line - of_a - of_b) * kLine;
  }

  // What takes the place of `height` rows of C from `row` on.
  const T* bias_of(int64_t row, int64_t height, int64_t column, int64_t cols, T* room) const {
    if (!g_.exchanged) return g_.bias + column;
    if (g_.c_cs != 1) return g_.bias + row;
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < cols; ++j) room[i * kTileCols<T> + j] = g_.bias[row + i];
    }
    return room;
  }

  // c[i + j * c_cs] from the accumulators of `height` rows: a column of them at a time.
  void store_turned(const Tile<T>& t, const Strip& strip, int64_t height) const {
    constexpr int64_t n = kLanes<T>;
    // In registers: a load among masked stores waits for those that lie a multiple of 4 KiB away.
    const int64_t vectors = strip.vectors, c_cs = g_.c_cs, from_cs = strip.biased ? 0 : c_cs;
    const Vec<T> alpha = set1(t.alpha), beta = set1(t.beta);
    const bool read = t.beta != 0;
    for (int64_t i = 0; i < height; i += n) {
      const size_t lanes = static_cast<size_t>(min_of(n, height - i));
      for (int64_t v = 0; v < vectors; ++v) {
        T* const c = t.c + i * t.c_rs + v * n * c_cs;
        const T* const from = t.from + i * t.c_rs + v * n * from_cs;
        const int64_t columns = min_of(n, strip.cols - v * n);
        // Rows from `height` on are not stored: zeros, or what a taller tile has left.
        Vec<T> x[n];
        transpose_square<T>(strip.turned + (i * vectors + v) * n, vectors * n,
                            [&](int64_t q, Vec<T> column) { x[q] = column; });
        for (int64_t q = 0; q < columns; ++q) {
          const Vec<T> sum = read ? fma(alpha, x[q], beta * load_n(from + q * from_cs, lanes)) : alpha * x[q];
          store_n(c + q * c_cs, sum, lanes);
        }
      }
    }
  }

  const Gemm<T>& g_;
  const Space& space_;
  const Entry<T>& e_;
  const int64_t i0_, rows_, s0_, s1_;
};

}  // namespace
}  // namespace chainrule
