// Matmul: runs the blocks of C. A block packs what it needs of A and B for itself, so there is one parallel phase.
// Kernel layer. Divides the work over batch, rows and columns of C only, never over k.
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
  static constexpr int64_t kTurnedRows = kMostTileRows + int64_t{kLanes<T>};

  // Steps [from, to) of the K block [p0, p1) for the rows of the block and the columns of a strip.
  void run_strip(int64_t s, int64_t p0, int64_t p1, int64_t from, int64_t to) const {
    constexpr int64_t lanes = kLanes<T>;
    const int64_t j = g_.column(s), vectors = g_.vectors.of(s), cols = min_of(vectors * lanes, g_.n - j);
    const auto& tiles = (cols == vectors * lanes ? kTiles<T>.full : kTiles<T>.tail)[vectors - 1];
    const T* const next = g_.b_cs == 1 && s + 1 < s1_ ? e_.b + from * g_.b_rs + g_.column(s + 1) : nullptr;
    T* const carry = space_.carry + (g_.sweep_steps < g_.block_k ? (s - s0_) * g_.strip_carry() : 0);
    alignas(64) T turned[kTurnedRows * kTileCols<T>];
    Tile<T> t;
    t.c_rs = g_.c_rs;
    const bool biased = g_.bias && p0 == 0;
    t.from_rs = !biased ? g_.c_rs : g_.exchanged ? kTileCols<T> : 0;
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
      if (space_.next) {
        t.ahead = line_of(*space_.next, (strip.number * split.count + tile) * t.k);
        t.ahead_step = kLine;
      } else if (strip.next && tile < strip.vectors) {
        t.ahead = strip.next + tile * lanes;
        t.ahead_step = g_.b_rs;
      } else {
        t.ahead = t.a + a_step;
        t.ahead_step = space_.panels || g_.a_cs == 1 ? height : 0;
      }
      t.from = !strip.biased || !last
                   ? t.c
                   : bias_of(strip, i0_ + (space_.panels ? tile * kTileRows : split.begin(tile)), height);
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
  const T* bias_of(const Strip& strip, int64_t row, int64_t height) const {
    if (!g_.exchanged) return g_.bias + strip.j;
    if (g_.c_cs != 1) return g_.bias + row;
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < strip.cols; ++j) strip.turned[i * kTileCols<T> + j] = g_.bias[row + i];
    }
    return strip.turned;
  }

  // c[i + j * c_cs] from the accumulators of `height` rows: a column of them at a time.
  void store_turned(const Tile<T>& t, const Strip& strip, int64_t height) const {
    constexpr int64_t n = kLanes<T>;
    const int64_t vectors = strip.vectors, from_cs = strip.biased ? 0 : g_.c_cs;
    const Vec<T> alpha = set1(t.alpha), beta = set1(t.beta);
    const bool read = t.beta != 0;
    for (int64_t i = 0; i < height; i += n) {
      const size_t lanes = static_cast<size_t>(min_of(n, height - i));
      for (int64_t v = 0; v < vectors; ++v) {
        T* const c = t.c + i * t.c_rs + v * n * g_.c_cs;
        const T* const from = t.from + i * t.c_rs + v * n * from_cs;
        const int64_t columns = min_of(n, strip.cols - v * n);
        // Rows from `height` on are not stored: whatever lies there.
        Vec<T> x[n];
        transpose_square<T>(strip.turned + (i * vectors + v) * n, vectors * n,
                            [&](int64_t q, Vec<T> column) { x[q] = column; });
        for (int64_t q = 0; q < columns; ++q) {
          const Vec<T> sum = read ? fma(alpha, x[q], beta * load_n(from + q * from_cs, lanes)) : alpha * x[q];
          store_n(c + q * g_.c_cs, sum, lanes);
        }
      }
    }
  }

  const Gemm<T>& g_;
  const Space& space_;
  const Entry<T>& e_;
  const int64_t i0_, rows_, s0_, s1_;
};

// Scratch for each chunk that runs at a time, and not for each chunk: what was used last is in the cache.
class Desks {
 public:
  // How many bytes `count` of them take.
  static size_t bytes(int64_t count, int64_t each) { return static_cast<size_t>(count * (kLine + each)); }
  Desks(void* memory, int64_t count, int64_t each) : memory_(static_cast<char*>(memory)), count_(count), each_(each) {
    for (int64_t d = 0; d < count; ++d) taken(d) = false;
  }
  int64_t take() const {
    int64_t d = 0;
    while (__atomic_exchange_n(&taken(d), true, __ATOMIC_ACQUIRE)) d = d + 1 < count_ ? d + 1 : 0;
    return d;
  }
  void give_back(int64_t desk) const { __atomic_store_n(&taken(desk), false, __ATOMIC_RELEASE); }
  char* at(int64_t desk) const { return memory_ + count_ * kLine + desk * each_; }

 private:
  static constexpr int64_t kLine = 64;
  bool& taken(int64_t desk) const { return *reinterpret_cast<bool*>(memory_ + desk * kLine); }
  char* const memory_;
  const int64_t count_, each_;
};

template <class T>
class GemmRun {
 public:
  GemmRun(const Context& context, const GemmArgs& args, const Gemm<T>& gemm, int64_t batch)
      : context_(context), args_(args), g_(gemm), batch_(batch), b_size_(round_up(gemm.b_size(), 64 / sizeof(T))) {}

  Status run() {
    const int64_t each = round_up((b_size_ + g_.carry_size()) * int64_t{sizeof(T)}, 64);
    desk_bytes_ = each <= kDeskOnStack ? 0 : each;
    if (desk_bytes_) {
      desk_count_ = static_cast<int64_t>(context_.runners);
      desks_ = context_.scratch(context_.self, Desks::bytes(desk_count_, desk_bytes_));
      if (!desks_) return kOutOfMemory;
    }
    if (g_.pack_a) return run_packed();
    if (batch_ > 1 && g_.is_one_tile()) return run_tiles();
    run_blocks(0, batch_, 0, g_.panels.count, 0, g_.k, nullptr);
    return kOk;
  }

 private:
  // Entries of one tile each: what all have in common is looked up once.
  Status run_tiles() const {
    const int64_t lanes = kLanes<T>, wide = g_.vectors.of(0);
    const auto run = (g_.n == wide * lanes ? kTiles<T>.full : kTiles<T>.tail)[wide - 1][g_.m - 1];
    const int64_t grain = max_of(kChunkWork / (g_.m * g_.n * g_.k + 1), ceil_div(batch_, kMaxChunks));
    for_chunks(context_, batch_, max_of(1, grain), [&](int64_t begin, int64_t end) {
      alignas(64) T packed[kDeskOnStack / sizeof(T)];
      Tile<T> t{};
      t.a_rs = g_.a_rs, t.a_cs = g_.a_cs, t.c_rs = g_.c_rs, t.k = g_.k;
      t.from_rs = g_.bias ? 0 : g_.c_rs, t.ahead_step = 64 / sizeof(T);
      t.alpha = g_.alpha, t.beta = g_.beta;
      t.tail = static_cast<size_t>(g_.n - (wide - 1) * lanes);
      t.b = packed, t.b_rs = g_.pack_b ? wide * lanes : g_.b_rs;
      BatchCursor<T> cursor(args_, begin);
      for (int64_t item = begin; item < end; ++item, cursor.next()) {
        const Entry<T>& e = cursor.entry();
        if (g_.pack_b) {
          pack_strip(packed, t.b_rs, e.b, g_.b_rs, g_.b_cs, g_.k, g_.n);
        } else {
          t.b = e.b;
        }
        // All rows of A are read at the first step: those of the next entry come closer meanwhile.
        t.a = e.a, t.c = e.c, t.from = g_.bias ? g_.bias : e.c, t.ahead = e.a + g_.m * g_.k;
        run(t);
      }
    });
    return kOk;
  }

  // A is packed once for all blocks, a part at a time.
  Status run_packed() {
    const int64_t height = g_.panels.of(0), together = max_of(1, kMaxPackedRows / kTileRows / height);
    const int64_t most = min_of(together, g_.panels.count) * height * kTileRows * g_.block_k;
    T* const panels = static_cast<T*>(context_.scratch(context_.self, static_cast<size_t>(most) * sizeof(T)));
    if (!panels) return kOutOfMemory;
    for (int64_t entry = 0; entry < batch_; ++entry) {
      for (int64_t r0 = 0; r0 < g_.panels.count; r0 += together) {
        const int64_t r1 = min_of(g_.panels.count, r0 + together);
        for (int64_t p0 = 0; p0 < g_.k; p0 += g_.block_k) {
          const int64_t p1 = min_of(g_.k, p0 + g_.block_k);
          pack_panels(entry, g_.panels.begin(r0), g_.panels.begin(r1), p0, p1, panels);
          // Blocks count panels from the first row of C.
          run_blocks(entry, entry + 1, r0, r1, p0, p1, panels - g_.panels.begin(r0) * kTileRows * (p1 - p0));
        }
      }
    }
    return kOk;
  }

  void pack_panels(int64_t entry, int64_t first, int64_t last, int64_t p0, int64_t p1, T* panels) const {
    const T* const a = BatchCursor<T>(args_, entry).entry().a + p0 * g_.a_cs;
    const int64_t k = p1 - p0, together = max_of(1, int64_t{kLanes<T>} * 2 / kTileRows);
    const int64_t grain = max_of(1, 4 * kGrain / (k * kTileRows * together));
    for_chunks(context_, ceil_div(last - first, together), grain, [&](int64_t begin, int64_t end) {
      for (int64_t panel = begin * together; panel < min_of(end * together, last - first); panel += together) {
        const int64_t i = (first + panel) * kTileRows, rows = min_of(g_.m, (last * kTileRows)) - i;
        pack_together(panels + panel * kTileRows * k, a + i * g_.a_rs, k, min_of(together * kTileRows, rows));
      }
    });
  }

  // A few panels that lie side by side. Rows next to each other share lines, which are read once for all panels.
  void pack_together(T* panels, const T* a, int64_t k, int64_t rows) const {
    if (g_.a_rs == 1 && rows % kTileRows == 0) {
      for (int64_t p = 0; p < k; ++p) {
        for (int64_t i = 0; i < rows; i += kTileRows) {
          pack_strip(panels + i * k + p * kTileRows, int64_t{kTileRows}, a + i + p * g_.a_cs, 1, 1, 1,
                     int64_t{kTileRows});
        }
      }
      return;
    }
    for (int64_t i = 0; i < rows; i += kTileRows) {
      pack_strip(panels + i * k, int64_t{kTileRows}, a + i * g_.a_rs, g_.a_cs, g_.a_rs, k, min_of(kTileRows, rows - i));
    }
  }

  // Entries [e0, e1), blocks of panels [r0, r1), steps [p0, p1) of k.
  void run_blocks(int64_t e0, int64_t e1, int64_t r0, int64_t r1, int64_t p0, int64_t p1, const T* panels) const {
    const int64_t across = g_.strips.count, per_entry = (r1 - r0) * across, items = (e1 - e0) * per_entry;
    const int64_t work = g_.block_rows() * g_.strips.of(0) * kTileCols<T> * (p1 - p0);
    const int64_t grain = max_of(work < kChunkWork ? kChunkWork / max_of(1, work) : 1, ceil_div(items, kMaxChunks));
    const Desks desks(desks_, desk_count_, desk_bytes_);
    for_chunks(context_, items, grain, [&](int64_t begin, int64_t end) {
      alignas(64) char stack[kDeskOnStack];
      const int64_t desk = desk_count_ ? desks.take() : 0;
      T* const own = reinterpret_cast<T*>(desk_count_ ? desks.at(desk) : stack);
      typename Block<T>::Space space{own, own + b_size_, panels, nullptr};
      BatchCursor<T> cursor(args_, e0 + begin / per_entry), following = cursor;
      following.next();
      if (per_entry == 1 && batch_ > 1 && g_.fits_in_l1()) space.next = &following.entry();
      for (int64_t item = begin, at = begin % per_entry; item < end; ++item) {
        const Block<T> block(g_, space, cursor.entry(), r0 + at / across, at % across);
        int64_t p = p0;
        do {
          const int64_t to = min_of(p1, p + g_.block_k);
          block.run(p, to);
          p = to;
        } while (p < p1);
        if (++at == per_entry) {
          at = 0;
          cursor.next();
          following.next();
        }
      }
      if (desk_count_) desks.give_back(desk);
    });
  }

  const Context& context_;
  const GemmArgs& args_;
  const Gemm<T>& g_;
  const int64_t batch_, b_size_;
  int64_t desk_bytes_ = 0, desk_count_ = 0;
  void* desks_ = nullptr;
};

template <class T>
Status gemm(const Context& context, const GemmArgs& args) {
  int64_t batch = 1;
  for (int d = 0; d < args.batch_dims; ++d) batch *= args.batch[d];
  if (args.m == 0 || args.n == 0 || batch == 0) return kOk;
  const Gemm<T> gemm(args, batch, context);
  if (!gemm.exchanged) return GemmRun<T>(context, args, gemm, batch).run();
  GemmArgs g = args;
  g.a = args.b;
  g.b = args.a;
  for (int d = 0; d < g.batch_dims; ++d) {
    g.a_bs[d] = args.b_bs[d];
    g.b_bs[d] = args.a_bs[d];
  }
  return GemmRun<T>(context, g, gemm, batch).run();
}

}  // namespace
}  // namespace chainrule
