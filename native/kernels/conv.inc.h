// Convolution and its gradient for the input: each window's products in registers, read straight from the laid source,
// without a matrix of columns. Kernel layer. Divides the work over images, groups and positions only.
#pragma once
#include "conv_packed.inc.h"

namespace chainrule {
namespace {

constexpr int64_t kConvSourceBytes = 512 << 10;  // of a block's source, so that it stays in the second-level cache

template <class T>
class Convolution {
 public:
  Convolution(const Context& context, const ConvArgs& args, bool back)
      : context_(context),
        c_(args),
        source_(args, back),
        back_(back),
        inputs_(back ? args.out_channels : args.in_channels),
        outputs_(back ? args.in_channels : args.out_channels),
        taps_(args.y.kernel * args.x.kernel),
        k_(inputs_ * taps_),
        channels_(outputs_, kTileRows) {}

  Status run() {
    const int64_t together = packed_images<T>(context_, c_, source_, outputs_);
    if (together > 0)
      source_.set_rows(source_.y.out);
    else
      choose_rows();
    const int64_t per_group = channels_.count * channels_.of(0) * k_;
    weights_ = static_cast<T*>(scratch(per_group * c_.groups * int64_t{sizeof(T)}));
    offsets_ = static_cast<int64_t*>(scratch((k_ + 1) * int64_t{sizeof(int64_t)}));
    if (!weights_ || !offsets_) return kOutOfMemory;
    for_chunks(context_, c_.groups * channels_.count, max_of(1, 4 * kGrain / (k_ * kTileRows + 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) pack(i / channels_.count, i % channels_.count);
               });
    for_phases([&](int64_t py, int64_t px, int64_t first, int64_t) { set_offsets(py, px, offsets_ + first); });
    if (together == 0) return run_blocks();
    const ConvPlan<T> plan{context_, c_, source_, channels_, inputs_, outputs_, k_, weights_, offsets_};
    return PackedConvolution<T>(plan, together).run();
  }

 private:
  void* scratch(int64_t bytes) const { return context_.scratch(context_.self, static_cast<size_t>(bytes)); }

  // fn(phase down, phase across, its first step, its steps): of all taps each belongs to one phase.
  template <class Fn>
  void for_phases(const Fn& fn) const {
    int64_t first = 0;
    for (int64_t py = 0; py < source_.y.phases; ++py) {
      for (int64_t px = 0; px < source_.x.phases; ++px) {
        int64_t down = 0, across = 0;
        for (int64_t t = 0; t < c_.y.kernel; ++t) down += source_.y.meets(py, t);
        for (int64_t t = 0; t < c_.x.kernel; ++t) across += source_.x.meets(px, t);
        const int64_t steps = inputs_ * down * across;
        fn(py, px, first, steps);
        first += steps;
      }
    }
  }
  template <class Fn>
  void for_taps(int64_t py, int64_t px, const Fn& fn) const {
    for (int64_t c = 0; c < inputs_; ++c) {
      for (int64_t ty = 0; ty < c_.y.kernel; ++ty) {
        if (!source_.y.meets(py, ty)) continue;
        for (int64_t tx = 0; tx < c_.x.kernel; ++tx) {
          if (source_.x.meets(px, tx)) fn(c, ty, tx);
        }
      }
    }
  }

  // As many rows of output as keep the source in the cache, and fewer where that would leave threads idle.
  void choose_rows() {
    const int64_t all = source_.y.count(0), wide = max_of(1, inputs_ * source_.channel() / source_.rows);
    rows_ = max_of(1, min_of(all, kConvSourceBytes / int64_t{sizeof(T)} / wide - source_.y.reach));
    const int64_t runners = static_cast<int64_t>(context_.runners), images = c_.n * c_.groups;
    const auto work = [&] { return rows_ * source_.x.out * outputs_ * k_; };
    while (runners > 1 && rows_ > 1 && images * ceil_div(all, rows_) < kChunksEach * runners &&
           work() >= 2 * kChunkWork) {
      rows_ = (rows_ + 1) / 2;
    }
    rows_ = max_of(1, even_part(all, rows_));
    source_.set_rows(rows_);
  }

  // Weights of a few output channels, a row of them at each step, of one phase after the other.
  void pack(int64_t group, int64_t part) const {
    const int64_t first = channels_.begin(part), n = channels_.of(part), pitch = channels_.of(0);
    T* to = weights_ + (group * channels_.count + part) * k_ * pitch;
    const T* const w = static_cast<const T*>(c_.weight) + group * c_.out_channels * c_.in_channels * taps_;
    const int64_t out_step = (back_ ? 1 : c_.in_channels) * taps_, in_step = (back_ ? c_.in_channels : 1) * taps_;
    if (!back_) return pack_strip(to, pitch, w + first * out_step, 1, out_step, k_, n);
    for_phases([&](int64_t py, int64_t px, int64_t, int64_t) {
      for_taps(py, px, [&](int64_t c, int64_t ty, int64_t tx) {
        const T* const from = w + c * in_step + ty * c_.x.kernel + tx + first * out_step;
        for (int64_t i = 0; i < n; ++i) to[i] = from[i * out_step];
        to += pitch;
      });
    });
  }

  void set_offsets(int64_t py, int64_t px, int64_t* to) const {
    for_taps(py, px, [&](int64_t c, int64_t ty, int64_t tx) {
      *to++ = c * source_.channel() + source_.offset(py, px, ty, tx);
    });
  }

  Status run_blocks() const {
    const int64_t desk_bytes = round_up((inputs_ * source_.channel() + kLanes<T>)*int64_t{sizeof(T)}, 64);
    const int64_t count = static_cast<int64_t>(context_.runners);
    void* const memory = scratch(static_cast<int64_t>(Desks::bytes(count, desk_bytes)));
    if (!memory) return kOutOfMemory;
    const int64_t all = source_.y.count(0), down = ceil_div(all, rows_);
    const int64_t work = rows_ * source_.x.out * outputs_ * k_;
    const Desks desks(memory, count, desk_bytes);
    for_chunks(context_, c_.n * c_.groups * down, max_of(1, kChunkWork / (work + 1)), [&](int64_t begin, int64_t end) {
      const int64_t desk = desks.take();
      for (int64_t item = begin; item < end; ++item) {
        run_block(item / down / c_.groups, item / down % c_.groups, item % down * rows_,
                  reinterpret_cast<T*>(desks.at(desk)));
      }
      desks.give_back(desk);
    });
    return kOk;
  }

  struct Block {
    int64_t group, rows, cols;  // of positions
    const T* source;
    T* out;  // of the phase's first position in the first channel
    int64_t first, steps;
  };

  void run_block(int64_t image, int64_t group, int64_t row, T* source) const {
    const int64_t rows = min_of(rows_, source_.y.count(0) - row), plane = source_.y.size * source_.x.size;
    const int64_t entry = image * c_.groups + group;
    source_.lay(source, static_cast<const T*>(c_.x_in) + entry * inputs_ * plane, inputs_, row, rows + source_.y.reach);
    T* const out = static_cast<T*>(c_.result) + entry * outputs_ * source_.y.out * source_.x.out;
    for_phases([&](int64_t py, int64_t px, int64_t first, int64_t steps) {
      const Block b{group,
                    min_of(rows, source_.y.count(py) - row),
                    source_.x.count(px),
                    source,
                    out + (row * source_.y.apart + py) * source_.x.out + px,
                    first,
                    steps};
      if (b.rows > 0 && b.cols > 0) run_positions(b);
    });
  }

  // Vectors of positions run on over the ends of rows where that takes fewer of them; what lies between is not stored.
  void run_positions(const Block& b) const {
    constexpr int64_t lanes = kLanes<T>;
    const int64_t each = ceil_div(b.cols, lanes), flat = (b.rows - 1) * source_.cols + b.cols;
    const bool by_rows = b.rows * each <= ceil_div(flat, lanes);
    const Split strips(by_rows ? b.rows * each : ceil_div(flat, lanes), int64_t{kTileVectors});
    for (int64_t s = 0; s < strips.count; ++s) {
      int64_t start[kTileVectors];
      const int64_t vectors = strips.of(s);
      for (int64_t j = 0; j < vectors; ++j) {
        const int64_t v = strips.begin(s) + j;
        start[j] = by_rows ? v / each * source_.cols + v % each * lanes : v * lanes;
      }
      for (int64_t part = 0; part < channels_.count; ++part) run_tile_of(b, part, start, vectors);
    }
  }

  ConvPlace<T> place_of(const Block& b, int64_t start) const {
    const int64_t across = source_.x.apart, line = source_.y.apart * source_.x.out;
    if (b.cols == line && line == source_.cols && across == 1) {
      const int64_t all = b.rows * line;
      return {b.out + start, start, all, all, 1, 0, 1};
    }
    const int64_t row = start / source_.cols, col = start % source_.cols;
    return {b.out + row * line + col * across, col, b.cols, source_.cols, b.rows - row, line, across};
  }

  void run_tile_of(const Block& b, int64_t part, const int64_t* start, int64_t vectors) const {
    const int64_t n = channels_.of(part), pitch = channels_.of(0), channel = channels_.begin(part);
    ConvTarget<T> target(source_.y.out * source_.x.out, channel, n, vectors);
    ConvTile<T> t{};
    for (int64_t j = 0; j < vectors; ++j) {
      target.place[j] = place_of(b, start[j]);
      t.b[j] = b.source + start[j];
    }
    t.a = weights_ + ((b.group * channels_.count + part) * k_ + b.first) * pitch;
    t.a_cs = pitch;
    t.bias = c_.bias ? static_cast<const T*>(c_.bias) + b.group * outputs_ + channel : nullptr;
    t.offset = offsets_ + b.first;
    target.open(t);
    int64_t left = b.steps;
    const int64_t block = max_of(1, k_block<T>(b.steps));
    do {
      t.k = min_of(block, left);
      kConvTiles<T>.of[vectors - 1][n - 1](t);
      t.a += t.k * pitch, t.offset += t.k, t.add = true;
      left -= t.k;
    } while (left > 0);
    target.close();
  }

  const Context& context_;
  const ConvArgs& c_;
  ConvSource source_;
  const bool back_;
  const int64_t inputs_, outputs_, taps_, k_;
  const Split channels_;  // of the output
  int64_t rows_ = 1;
  T* weights_ = nullptr;
  int64_t* offsets_ = nullptr;
};

template <class T>
Status convolution(const Context& context, const ConvArgs& args) {
  if (args.n * args.groups * args.out_channels * args.y.out * args.x.out == 0) return kOk;
  return Convolution<T>(context, args, false).run();
}

template <class T>
Status convolution_input(const Context& context, const ConvArgs& args) {
  if (args.n * args.groups * args.in_channels * args.y.in * args.x.in == 0) return kOk;
  return Convolution<T>(context, args, true).run();
}

}  // namespace
}  // namespace chainrule
