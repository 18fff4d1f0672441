// Matmul: packs A where that pays, and shares out the blocks of C, or small products as they are.
// Kernel layer. Divides the work over batch, rows and columns of C only, never over k.
#pragma once
#include "gemm_block.inc.h"

namespace chainrule {
namespace {

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
      : context_(context), args_(args), g_(gemm), batch_(batch) {}

  Status run() {
    if (g_.small) {
      run_small();
      return kOk;
    }
    b_size_ = round_up(g_.b_size(), 64 / sizeof(T));
    const int64_t each = round_up((b_size_ + g_.carry_size()) * int64_t{sizeof(T)}, 64);
    desk_bytes_ = each <= kDeskOnStack ? 0 : each;
    if (desk_bytes_) {
      desk_count_ = static_cast<int64_t>(context_.runners);
      desks_ = context_.scratch(context_.self, Desks::bytes(desk_count_, desk_bytes_));
      if (!desks_) return kOutOfMemory;
    }
    if (g_.pack_a) return run_packed();
    run_blocks(0, batch_, 0, g_.panels.count, 0, g_.k, nullptr);
    return kOk;
  }

 private:
  // Small entries, one after the other, without the machinery of blocks: at these sizes it would take as long as the
  // arithmetic.
  void run_small() const {
    const int64_t grain = max_of(kChunkWork / (g_.m * g_.n * g_.k + 1), ceil_div(batch_, kMaxChunks));
    for_chunks(context_, batch_, max_of(1, grain), [&](int64_t begin, int64_t end) {
      for (int64_t s = 0; s < g_.vectors.count; ++s) run_small_strips(s, begin, end);
    });
  }

  // A strip of each entry. What they have in common is looked up once.
  void run_small_strips(int64_t s, int64_t begin, int64_t end) const {
    const int64_t lanes = kLanes<T>, j = g_.column(s), wide = g_.vectors.of(s), cols = min_of(wide * lanes, g_.n - j);
    const TileFn<T>* const tiles = kTiles<T>.of(g_.a_rs, wide, cols == wide * lanes);
    const Split rows = g_.tiles[wide - 1];
    alignas(64) T packed[kDeskOnStack / sizeof(T)];
    Tile<T> t{};
    t.a_rs = g_.a_rs, t.a_cs = g_.a_cs, t.c_rs = g_.c_rs, t.k = g_.k;
    t.b = packed, t.b_rs = g_.pack_b ? wide * lanes : g_.b_rs;
    t.alpha = g_.alpha, t.beta = g_.beta;
    t.from = g_.bias ? g_.bias + j : nullptr, t.from_rs = g_.bias ? 0 : g_.c_rs;
    t.tail = static_cast<size_t>(cols - (wide - 1) * lanes);
    t.ahead_step = 64 / sizeof(T), t.ahead_run = g_.k;
    BatchCursor<T> cursor(args_, begin);
    for (int64_t item = begin; item < end; ++item, cursor.next()) {
      const Entry<T>& e = cursor.entry();
      const T* const b = e.b + j * g_.b_cs;
      if (g_.pack_b) {
        pack_strip(packed, t.b_rs, b, g_.b_rs, g_.b_cs, g_.k, cols);
      } else {
        t.b = b;
      }
      t.a = e.a, t.c = e.c + j;
      for (int64_t tile = 0; tile < rows.count; ++tile) {
        const int64_t height = rows.of(tile);
        // All its rows of A are read at the first step: the next ones come closer meanwhile, in the end those of the
        // next entry.
        t.ahead = t.a + height * g_.a_rs;
        if (!g_.bias) t.from = t.c;
        tiles[height - 1](t);
        t.a += height * g_.a_rs, t.c += height * g_.c_rs;
      }
    }
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
          __builtin_memcpy(panels + i * k + p * kTileRows, a + i + p * g_.a_cs, kTileRows * sizeof(T));
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
  const int64_t batch_;
  int64_t b_size_ = 0, desk_bytes_ = 0, desk_count_ = 0;
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
