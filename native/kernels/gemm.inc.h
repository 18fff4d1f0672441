// Matmul: divides C into chunks of tiles, and decides which operands are read in place and which are packed first.
// Kernel layer. Divides the work over batch, rows and columns of C only, never over k.
#pragma once
#include "gemm_pack.inc.h"
#include "gemm_tile.inc.h"
#include "loops.inc.h"

namespace chainrule {
namespace {

// The longest K block. Shorter ones mean another round of reading and writing C: at 1024^3, 9 % with a quarter of this.
template <class T>
constexpr int64_t kMaxBlockK = 4096 / sizeof(T);
// With so many rows a strip of B (196 KiB) is read from L2, not from L3, most of the time; both fit into 1 MiB.
constexpr int64_t kBlockRows = 96;
constexpr int64_t kBlockStrips = 7;       // strips of kTileCols columns in a chunk
constexpr int64_t kMaxPackedRows = 1024;  // of A, and columns of B, packed at a time: 4 MiB each
constexpr int64_t kMaxPackedCols = 1056;
constexpr int64_t kFewRows = 48;          // up to here it does not pay to copy B, if it can be read in place
constexpr int64_t kSlabRows = 128;        // up to here each chunk does all rows, and packs B for itself
constexpr int64_t kSlabSteps = 64;        // steps of B packed at a time, into a strip on the stack: 12 KiB
constexpr int64_t kCacheBytes = 2 << 20;  // a B of this size may be read in place in any order
// A larger B and few rows: the time is that of reading B, so it is read in the order of memory, some steps at a time.
constexpr int64_t kSweepBytes = 1 << 20;
constexpr int64_t kSweepRows = 16;
constexpr int64_t kSweepSteps = 16;
constexpr int64_t kSweepStrips = 22;
constexpr int64_t kChunkWork = 66000;  // multiply-adds that are worth handing to another thread: about 1 us
constexpr int64_t kMinChunks = 16;     // aimed at, so that any usual number of threads is kept busy
constexpr int64_t kMaxChunks = 256;

inline int64_t round_up(int64_t n, int64_t multiple) { return ceil_div(n, multiple) * multiple; }

// K blocks are equal but for the last; they depend on k alone.
template <class T>
int64_t k_block(int64_t k) {
  return k == 0 ? 0 : ceil_div(k, ceil_div(k, kMaxBlockK<T>));
}

// One batch entry, or its part that a phase works on.
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

// Where one operand is read. In place, or from strips of `width` rows (A) or columns (B), `strip` elements each.
template <class T>
struct Packed {
  T* data = nullptr;  // null: in place
  int64_t strip = 0;
};

// A part of one entry's C, for some steps of k.
struct Range {
  int64_t i0, i1, j0, j1, p0, p1;
};

template <class T>
struct Gemm {
  int64_t m, n, k, a_rs, a_cs, b_rs, b_cs, c_rs;
  T alpha, beta;
  bool pack_a, pack_b;  // in advance, for all chunks
  bool slabs;           // B is packed by each chunk for itself, kSlabSteps at a time
  int64_t steps;        // of k that are done for all tiles of a chunk before the next
  int64_t block_rows, block_cols;

  explicit Gemm(const GemmArgs& g, int64_t batch);
  // Elements of the accumulators that a chunk keeps between two passes over its tiles.
  int64_t carry_size() const {
    return steps >= k_block<T>(k) ? 0 : round_up(block_rows, kTileRows) * round_up(block_cols, kTileCols<T>);
  }
  void run(const Entry<T>& e, const Range& r, const Packed<T>& a, const Packed<T>& b, T* carry) const;
};

template <class T>
Gemm<T>::Gemm(const GemmArgs& g, int64_t batch)
    : m(g.m), n(g.n), k(g.k), a_rs(g.a_rs), a_cs(g.a_cs), b_rs(g.b_rs), b_cs(g.b_cs), c_rs(g.c_rs) {
  alpha = k == 0 ? T(0) : static_cast<T>(g.alpha);
  beta = static_cast<T>(g.beta);
  constexpr int64_t size = sizeof(T), lanes = kLanes<T>;
  const bool readable = b_cs == 1 && (kMaskedLoads || n % lanes == 0);
  // Rows a multiple of 2 KiB apart fall into the same few sets of the cache.
  const bool fits = k * n * size <= kCacheBytes && b_rs * size % 2048 != 0;
  const bool in_place = readable && (fits || m <= kFewRows);
  slabs = !in_place && m <= kSlabRows;
  pack_b = !in_place && !slabs && k > 0;
  // Rows of A are read in place, one element of each at a time; columns too as long as they are few.
  pack_a = a_cs != 1 && m > kSlabRows && n > 2 * kTileCols<T> && k > kSlabSteps;
  const bool sweep = in_place && m <= kSweepRows && k * n * size > kSweepBytes;
  steps = slabs ? kSlabSteps : sweep ? kSweepSteps : kMaxBlockK<T>;

  block_rows = slabs ? m : min_of(m, round_up(kBlockRows, kTileRows));
  block_cols = min_of(round_up(n, kTileCols<T>), kTileCols<T> * (sweep ? kSweepStrips : kBlockStrips));
  for (;;) {
    const int64_t chunks = batch * ceil_div(m, block_rows) * ceil_div(n, block_cols);
    if (chunks >= kMinChunks || block_rows * block_cols * k < kChunkWork) break;
    if (!slabs && block_rows > 2 * kTileRows) {
      block_rows = round_up(block_rows / 2, kTileRows);
    } else if (block_cols > kTileCols<T>) {
      block_cols = round_up(block_cols / 2, kTileCols<T>);
    } else {
      break;
    }
  }
}

template <class T>
void Gemm<T>::run(const Entry<T>& e, const Range& r, const Packed<T>& a, const Packed<T>& b, T* carry) const {
  alignas(64) T slab[kSlabSteps * kTileCols<T>];
  constexpr int64_t lanes = kLanes<T>;
  Tile<T> t;
  t.c_rs = c_rs;
  t.alpha = alpha;
  t.beta = r.p0 == 0 ? beta : T(1);
  int64_t p = r.p0;
  do {
    t.k = min_of(steps, r.p1 - p);
    T* carried = carry;
    for (int64_t j = r.j0; j < r.j1; j += kTileCols<T>) {
      const int64_t cols = min_of(kTileCols<T>, r.j1 - j), vectors = ceil_div(cols, lanes);
      t.tail = static_cast<size_t>(cols - (vectors - 1) * lanes);
      const TileFn<T>* const tiles = cols == kTileCols<T> ? kTiles<T>.full : kTiles<T>.tail[vectors - 1];
      if (slabs) {
        t.b = slab;
        t.b_rs = vectors * lanes;
        pack_strip(slab, t.b_rs, e.b + p * b_rs + j * b_cs, b_rs, b_cs, t.k, cols);
      } else if (b.data) {
        t.b = b.data + (j - r.j0) / kTileCols<T> * b.strip;
        t.b_rs = kTileCols<T>;
      } else {
        t.b = e.b + p * b_rs + j;
        t.b_rs = b_rs;
      }
      for (int64_t i = r.i0, rows; i < r.i1; i += rows) {
        const int64_t left = r.i1 - i;
        if (a.data) {
          rows = min_of(kTileRows, left);
          t.a = a.data + (i - r.i0) / kTileRows * a.strip;
          t.a_rs = 1;
          t.a_cs = kTileRows;
        } else {
          rows = ceil_div(left, ceil_div(left, kTileRows));  // even: 5 + 5 rather than 8 + 2
          t.a = e.a + i * a_rs + p * a_cs;
          t.a_rs = a_rs;
          t.a_cs = a_cs;
        }
        t.c = e.c + i * c_rs + j;
        t.carry_in = p > r.p0 ? carried : nullptr;
        t.carry_out = p + t.k < r.p1 ? carried : nullptr;
        tiles[rows - 1](t);
        if (carry) carried += kTileRows * kTileCols<T>;
      }
    }
    p += t.k;
  } while (p < r.p1);
}

// Everything read in place or packed by the chunk that needs it: one parallel phase over all batch entries.
template <class T>
Status run_entries(const Context& context, const GemmArgs& g, const Gemm<T>& gemm, int64_t batch) {
  const int64_t row_blocks = ceil_div(gemm.m, gemm.block_rows), col_blocks = ceil_div(gemm.n, gemm.block_cols);
  const int64_t per_entry = row_blocks * col_blocks, items = batch * per_entry;
  const int64_t work = max_of(1, gemm.m * gemm.n * gemm.k / per_entry);
  const int64_t grain = max_of(ceil_div(kChunkWork, work), ceil_div(items, kMaxChunks));
  T* carry = nullptr;
  if (const int64_t size = gemm.carry_size()) {
    carry =
        static_cast<T*>(context.scratch(context.self, static_cast<size_t>(ceil_div(items, grain) * size) * sizeof(T)));
    if (!carry) return kOutOfMemory;
  }
  for_chunks(context, items, grain, [&](int64_t begin, int64_t end) {
    BatchCursor<T> cursor(g, begin / per_entry);
    T* const own = carry ? carry + begin / grain * gemm.carry_size() : nullptr;
    const int64_t block_k = k_block<T>(gemm.k);
    for (int64_t item = begin, block = begin % per_entry; item < end; ++item) {
      const int64_t i = block / col_blocks * gemm.block_rows, j = block % col_blocks * gemm.block_cols;
      Range r{i, min_of(gemm.m, i + gemm.block_rows), j, min_of(gemm.n, j + gemm.block_cols), 0, block_k};
      do {
        gemm.run(cursor.entry(), r, {}, {}, own);
        r.p0 = r.p1;
        r.p1 = min_of(gemm.k, r.p0 + block_k);
      } while (r.p0 < gemm.k);
      if (++block == per_entry) {
        block = 0;
        cursor.next();
      }
    }
  });
  return kOk;
}

// Packs strips of `width` rows or columns, `stride` apart and `extent` in all. What is contiguous is read in that
// order: along k strip by strip, else a few steps of k for all strips.
template <class T>
void pack_strips(const Context& context, const Packed<T>& to, int64_t width, const T* from, int64_t k_stride,
                 int64_t stride, int64_t k, int64_t extent) {
  const bool along_k = stride != 1;
  const int64_t strips = ceil_div(extent, width), steps = along_k ? k : 16;
  const int64_t units = along_k ? strips : ceil_div(k, steps);
  const int64_t grain = max_of(1, 4 * kGrain * units / max_of(1, k * extent));
  for_chunks(context, units, grain, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t p = along_k ? 0 : u * steps;
      for (int64_t s = along_k ? u : 0; s < (along_k ? u + 1 : strips); ++s) {
        pack_strip(to.data + s * to.strip + p * width, width, from + s * width * stride + p * k_stride, k_stride,
                   stride, min_of(steps, k - p), min_of(width, extent - s * width));
      }
    }
  });
}

// A block of B, of A or of both is packed in one parallel phase and used in the next.
template <class T>
Status run_phases(const Context& context, const GemmArgs& g, const Gemm<T>& gemm, int64_t batch) {
  const int64_t m = gemm.m, n = gemm.n, k = gemm.k, block_k = k_block<T>(k);
  const int64_t rows = gemm.pack_a ? round_up(ceil_div(m, ceil_div(m, kMaxPackedRows)), kTileRows) : m;
  const int64_t cols = gemm.pack_b ? round_up(ceil_div(n, ceil_div(n, kMaxPackedCols)), kTileCols<T>) : n;
  Packed<T> a{nullptr, kTileRows * block_k}, b{nullptr, kTileCols<T> * block_k};
  const auto reserve = [&](Packed<T>& packed, int64_t strips) {
    packed.data =
        static_cast<T*>(context.scratch(context.self, static_cast<size_t>(strips * packed.strip) * sizeof(T)));
    return packed.data != nullptr;
  };
  if (gemm.pack_a && !reserve(a, rows / kTileRows)) return kOutOfMemory;
  if (gemm.pack_b && !reserve(b, cols / kTileCols<T>)) return kOutOfMemory;
  BatchCursor<T> cursor(g, 0);
  for (int64_t at = 0; at < batch; ++at, cursor.next()) {
    const Entry<T>& e = cursor.entry();
    for (int64_t j0 = 0; j0 < n; j0 += cols) {
      const int64_t j1 = min_of(n, j0 + cols), col_blocks = ceil_div(j1 - j0, gemm.block_cols);
      for (int64_t p0 = 0; p0 < k; p0 += block_k) {
        const int64_t p1 = min_of(k, p0 + block_k);
        if (b.data) {
          pack_strips(context, b, kTileCols<T>, e.b + p0 * gemm.b_rs + j0 * gemm.b_cs, gemm.b_rs, gemm.b_cs, p1 - p0,
                      j1 - j0);
        }
        for (int64_t i0 = 0; i0 < m; i0 += rows) {
          const int64_t i1 = min_of(m, i0 + rows), row_blocks = ceil_div(i1 - i0, gemm.block_rows);
          if (a.data) {
            pack_strips(context, a, int64_t{kTileRows}, e.a + i0 * gemm.a_rs + p0 * gemm.a_cs, gemm.a_cs, gemm.a_rs,
                        p1 - p0, i1 - i0);
          }
          for_chunks(context, row_blocks * col_blocks, 1, [&](int64_t begin, int64_t end) {
            for (int64_t block = begin; block < end; ++block) {
              const int64_t i = i0 + block / col_blocks * gemm.block_rows,
                            j = j0 + block % col_blocks * gemm.block_cols;
              Packed<T> own_a = a, own_b = b;
              if (a.data) own_a.data += (i - i0) / kTileRows * a.strip;
              if (b.data) own_b.data += (j - j0) / kTileCols<T> * b.strip;
              gemm.run(e, {i, min_of(i1, i + gemm.block_rows), j, min_of(j1, j + gemm.block_cols), p0, p1}, own_a,
                       own_b, nullptr);
            }
          });
        }
      }
    }
  }
  return kOk;
}

template <class T>
Status gemm(const Context& context, const GemmArgs& args) {
  int64_t batch = 1;
  for (int d = 0; d < args.batch_dims; ++d) batch *= args.batch[d];
  if (args.m == 0 || args.n == 0 || batch == 0) return kOk;
  GemmArgs g = args;
  // A column is computed as a row, transposed: same chains, but whole vectors.
  if (g.n == 1 && g.c_rs == 1 && g.m > 1) {
    g.a = args.b;
    g.b = args.a;
    g.m = 1;
    g.n = args.m;
    g.a_rs = args.b_cs;
    g.a_cs = args.b_rs;
    g.b_rs = args.a_cs;
    g.b_cs = args.a_rs;
    for (int d = 0; d < g.batch_dims; ++d) {
      g.a_bs[d] = args.b_bs[d];
      g.b_bs[d] = args.a_bs[d];
    }
  }
  const Gemm<T> gemm(g, batch);
  return gemm.pack_a || gemm.pack_b ? run_phases(context, g, gemm, batch) : run_entries(context, g, gemm, batch);
}

}  // namespace
}  // namespace chainrule
