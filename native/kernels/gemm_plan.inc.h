// Matmul, the plan: which factor gives rows and which columns, how C is cut into blocks, and what is packed. Nothing
// here touches the order in which an element is summed. Kernel layer; included by gemm.inc.h only.
#pragma once
#include "gemm_pack.inc.h"
#include "gemm_tile.inc.h"
#include "gemm_turned.inc.h"
#include "loops.inc.h"

namespace chainrule {
namespace {

// The longest K block. Shorter ones mean another round of reading and writing C: at 1024^3, 9 % with a quarter of this.
template <class T>
constexpr int64_t kMaxBlockK = 4096 / sizeof(T);
// Of A, packed at a time: 16 MiB.
constexpr int64_t kMaxPackedRows = 4096;
constexpr int64_t kSlabRows = 16;  // up to here B is packed a few steps at a time, into the first-level cache
constexpr int64_t kSlabSteps = 64;
constexpr int64_t kL1Strip = 36 << 10;  // a strip that stays in the first-level cache, beside a few rows of A
constexpr int64_t kL1Rows = 24 << 10;   // rows of A that stay there while all strips of a small B are used on them
constexpr int64_t kL1Bytes = 64 << 10;
constexpr int64_t kSmallB = 256 << 10;
constexpr int64_t kNarrow = 32;       // columns for which packing A does not pay
constexpr int64_t kPackedRows = 128;  // fewer are not worth packing a strip of B once more
// Up to here it does not pay to copy B, if it can be read in place at all.
constexpr int64_t kDirectRows = 48;
// A larger B and few rows: the time is that of reading B, so it is read in the order of memory, some steps at a time.
constexpr int64_t kSweepBytes = 1 << 20;
constexpr int64_t kSweepRows = 16;
constexpr int64_t kSweepSteps = 32;
constexpr int64_t kSweepStrips = 22;
constexpr int64_t kChunkWork = 66000;  // multiply-adds that are worth handing to another thread: about 1 us
constexpr int64_t kChunksEach = 4;     // aimed at, for each of several threads
constexpr int64_t kMaxChunks = 256;

constexpr int64_t kDeskOnStack = 8 << 10;  // bytes that a chunk packs into its stack, and not into scratch

inline int64_t round_up(int64_t n, int64_t multiple) { return ceil_div(n, multiple) * multiple; }
inline void exchange(int64_t& x, int64_t& y) {
  const int64_t was = x;
  x = y;
  y = was;
}

// The longest of as few equal parts of n as are no longer than `most`.
inline int64_t even_part(int64_t n, int64_t most) { return n <= most ? n : ceil_div(n, ceil_div(n, most)); }

// K blocks are equal but for the last; they depend on k alone.
template <class T>
int64_t k_block(int64_t k) {
  return even_part(k, kMaxBlockK<T>);
}

// n things in parts as equal as can be, of at most `most`, the longer ones first.
struct Split {
  int64_t count, size, longer;  // the first `longer` parts hold size + 1 things
  Split() = default;
  Split(int64_t n, int64_t most) : count(ceil_div(n, most)), size(n / count), longer(n - size * count) {}
  int64_t begin(int64_t part) const { return part * size + min_of(part, longer); }
  int64_t of(int64_t part) const { return size + (part < longer); }
};

template <class T>
struct Gemm {
  int64_t m, n, k, a_rs, a_cs, b_rs, b_cs, c_rs, c_cs;
  int64_t l2_bytes;
  T alpha, beta;
  const T* bias;           // to each column, or, exchanged, to each row
  bool exchanged = false;  // a and b, and with them the two directions of C, have changed places
  bool pack_a, pack_b;
  bool turn_b = false;  // in registers, instead of packing it
  bool small;           // one strip after the other, nothing divided; panels and strips are not set
  int64_t block_k;
  int64_t sweep_steps;        // of k that are done for all strips of a block before the next
  int64_t slab_steps;         // of k that are packed and done for all rows of a strip before the next
  Split vectors;              // of a row of C, in strips of at most kTileVectors
  Split panels, strips;       // of C, in blocks; a panel is kTileRows rows
  Split tiles[kTileVectors];  // of the rows of a tallest block, for strips of so many vectors, from one on

  Gemm(const GemmArgs& g, int64_t batch, const Context& context);
  int64_t column(int64_t strip) const { return min_of(n, vectors.begin(strip) * int64_t{kLanes<T>}); }
  Split tiles_of(int64_t rows, int64_t wide) const {
    return rows == block_rows() ? tiles[wide - 1] : Split(rows, tile_rows(wide));
  }
  int64_t tile_rows(int64_t wide) const { return pack_a ? kTileRows : kTileRowsOf[wide - 1]; }
  int64_t block_rows() const { return min_of(m, panels.of(0) * kTileRows); }
  // Elements that a block packs of B at a time, and of accumulators that it keeps between steps.
  int64_t b_size() const { return pack_b ? kTileCols<T> * slab_steps : 0; }
  // Both factors, so that what follows can be fetched while they are used.
  bool fits_in_l1() const { return (m + n) * k * int64_t{sizeof(T)} <= kL1Bytes; }
  int64_t strip_carry() const { return block_rows() * kTileCols<T>; }
  int64_t carry_size() const {
    return sweep_steps < block_k ? strips.of(0) * strip_carry() : slab_steps < block_k ? strip_carry() : 0;
  }

 private:
  bool reads_a_in_place() const;
  bool reads_b_in_place() const;
  bool can_turn_b() const { return b_rs == 1 && c_cs == 1 && m <= kTurnedRows; }
  double cost() const;
  void turn();
  bool choose_small(int64_t batch, int64_t runners);
  void choose_blocks(int64_t batch, int64_t runners);
};

// By columns, a step reads a part of a line, which the next rows read again: it must still be near by then.
template <class T>
bool Gemm<T>::reads_a_in_place() const {
  return a_cs == 1 || m <= kMostTileRows || n <= kNarrow || k <= kSlabSteps / 4 ||
         (a_rs == 1 && block_k * a_cs * int64_t{sizeof(T)} <= l2_bytes / 4);
}

template <class T>
bool Gemm<T>::reads_b_in_place() const {
  if (b_cs != 1 || !(kMaskedLoads || n % int64_t{kLanes<T>} == 0)) return false;
  // Rows a multiple of 4 KiB apart fall into the same few sets of the caches.
  return m <= kDirectRows || (k * n * int64_t{sizeof(T)} <= l2_bytes / 8 * 7 && b_rs * int64_t{sizeof(T)} % 4096 != 0);
}

// Roughly, in cycles: two multiply-adds of whole vectors each, and what it takes to move an element.
template <class T>
double Gemm<T>::cost() const {
  constexpr double kCopy = 0.25, kTranspose = 0.3, kTurn = 0.2, kGather = 1, kScatter = 0.25;
  const double steps = static_cast<double>(k);
  double cycles = static_cast<double>(m) * static_cast<double>(ceil_div(n, kLanes<T>)) * steps / 2;
  if (!reads_b_in_place()) {
    const double each = b_cs == 1 ? kCopy : can_turn_b() ? kTurn : b_rs == 1 ? kTranspose : kGather;
    cycles += static_cast<double>(n) * steps * each;
  }
  if (!reads_a_in_place()) cycles += static_cast<double>(m) * steps * (a_rs == 1 ? 2 * kCopy : kGather);
  if (c_cs != 1) cycles += static_cast<double>(m) * static_cast<double>(n) * kScatter;
  return cycles;
}

// The transposed product has the same elements, by the same chains.
template <class T>
void Gemm<T>::turn() {
  exchanged = !exchanged;
  exchange(m, n), exchange(a_rs, b_cs), exchange(a_cs, b_rs), exchange(c_rs, c_cs);
}

template <class T>
Gemm<T>::Gemm(const GemmArgs& g, int64_t batch, const Context& context)
    : m(g.m), n(g.n), k(g.k), a_rs(g.a_rs), a_cs(g.a_cs), b_rs(g.b_rs), b_cs(g.b_cs), c_rs(g.c_rs), c_cs(1) {
  l2_bytes = static_cast<int64_t>(context.l2_bytes);
  alpha = k == 0 ? T(0) : static_cast<T>(g.alpha);
  beta = static_cast<T>(g.beta);
  bias = static_cast<const T*>(g.bias);
  block_k = k_block<T>(k);
  // Worth a thought for narrow products, and where B lies by columns.
  if (n < int64_t{kLanes<T>} || (b_rs == 1 && !reads_b_in_place())) {
    const double straight = cost();
    turn();
    if (cost() >= straight) turn();
  }
  pack_b = !reads_b_in_place() && k > 0;
  pack_a = !reads_a_in_place();
  const bool sweep = !pack_b && m <= kSweepRows && k * n * int64_t{sizeof(T)} > kSweepBytes;
  sweep_steps = sweep ? min_of(kSweepSteps, block_k) : block_k;
  slab_steps = pack_b && m <= kSlabRows ? min_of(kSlabSteps, block_k) : sweep_steps;
  // Rows that lie far apart share few sets of the cache: so many at a time that they stay in it.
  if (!pack_b && !sweep)
    slab_steps = even_part(block_k, max_of(kSlabSteps, l2_bytes / 4 / (b_rs * int64_t{sizeof(T)} + 1)));
  const int64_t runners = static_cast<int64_t>(context.runners);
  small = choose_small(batch, runners);
  if (small) return;
  turn_b = pack_b && can_turn_b();
  if (turn_b) pack_b = false, slab_steps = block_k;
  choose_blocks(batch, runners);
}

// A small product, or a batch of single tiles.
template <class T>
bool Gemm<T>::choose_small(int64_t batch, int64_t runners) {
  if (pack_a || c_cs != 1 || k == 0 || k > slab_steps || (exchanged && bias)) return false;
  vectors = Split(ceil_div(n, kLanes<T>), kTileVectors);
  const int64_t most = vectors.of(0);
  if (pack_b && most * kVectorBytes * k > kDeskOnStack) return false;
  const bool one_tile = vectors.count == 1 && m <= kTileRowsOf[most - 1];
  const bool one_chunk = fits_in_l1() && (runners == 1 || m * n * k < 2 * kChunkWork);
  if (!(batch > 1 ? one_tile : one_chunk)) return false;
  for (int64_t wide = vectors.size; wide <= most; ++wide) tiles[wide - 1] = Split(m, kTileRowsOf[wide - 1]);
  return true;
}

// A strip of B serves all rows of a block, so the blocks are as tall as can be; where there are threads to share them
// out to, they are halved, first in the direction in which nothing is packed again. No element depends on it.
template <class T>
void Gemm<T>::choose_blocks(int64_t batch, int64_t runners) {
  constexpr int64_t kTwo = min_of(2, kTileVectors);
  const int64_t across = ceil_div(n, kLanes<T>);
  // Tall tiles where columns of a tile are what is stored, and where they keep the strip in the first-level cache.
  const auto fits = [&](int64_t strip) { return block_k * strip * kVectorBytes <= kL1Strip; };
  const bool tall = c_cs != 1 || turn_b || (pack_b && !fits(kTileVectors) && fits(kTwo));
  vectors = Split(across, tall ? kTwo : kTileVectors);
  const int64_t down = ceil_div(m, kTileRows);
  const bool small_b = !pack_b && !(batch > 1 && fits_in_l1()) && k * n * int64_t{sizeof(T)} <= kSmallB;
  const int64_t rows_in_l1 = max_of(kDirectRows, kL1Rows / (k * int64_t{sizeof(T)} + 1));
  panels = Split(down, pack_a ? kMaxPackedRows / kTileRows : small_b ? ceil_div(rows_in_l1, kTileRows) : down);
  strips = Split(vectors.count, sweep_steps < block_k ? kSweepStrips : vectors.count);
  const int64_t least = ceil_div(pack_b ? kPackedRows : 2 * kMostTileRows, kTileRows);
  while (runners > 1 && batch * panels.count * strips.count < kChunksEach * runners) {
    const int64_t height = panels.of(0), width = strips.of(0);
    if (height * kTileRows * width * kTileCols<T> * k < 2 * kChunkWork) break;
    if (width > 1 && (pack_b || height < 2 * least)) {
      strips = Split(vectors.count, (width + 1) / 2);
    } else if (height >= 2 * least) {
      panels = Split(down, (height + 1) / 2);
    } else if (vectors.of(0) > kTwo) {
      vectors = Split(across, kTwo);
      strips = Split(vectors.count, 1);
    } else {
      break;
    }
  }
  for (int64_t wide = vectors.size; wide <= vectors.of(0); ++wide) {
    tiles[wide - 1] = Split(block_rows(), tile_rows(wide));
  }
}

}  // namespace
}  // namespace chainrule
