// Convolution's gradient for the weight: the products of all positions, as a matmul whose rows are the taps, packed a
// few at a time. Kernel layer. Divides the work over elements of the weight only.
#pragma once
#include "conv_source.inc.h"
#include "gemm.inc.h"

namespace chainrule {
namespace {

// Positions are added up in chains of about so many: whole images, or whole rows of one; the chains in order. They
// follow from shapes alone.
constexpr int64_t kConvChain = 512;
constexpr int64_t kConvTapRows = 192;  // taps that are worth packing the gradient for
constexpr int64_t kConvStrips = 3;     // of output channels that are worth packing the taps for

template <class T>
class ConvWeight {
 public:
  ConvWeight(const Context& context, const ConvArgs& args)
      : context_(context),
        c_(args),
        source_(args, false),
        taps_(args.y.kernel * args.x.kernel),
        strips_(ceil_div(args.out_channels, kLanes<T>), int64_t{kTileVectors}),
        tile_rows_(kTileRowsOf[strips_.of(0) - 1]) {
    const int64_t rows = max_of(1, kConvChain / c_.x.out), images = max_of(1, kConvChain / (c_.y.out * c_.x.out));
    rows_ = even_part(c_.y.out, rows);
    images_ = max_of(1, even_part(c_.n, images));
    source_.set_rows(rows_);
    positions_ = images_ * rows_ * c_.x.out;
    // Rows of packed taps: not a multiple of 4 KiB apart.
    a_pitch_ = round_up(positions_, 64 / int64_t{sizeof(T)}) + 64 / int64_t{sizeof(T)};
    in_place_ = taps_ == 1 && source_.is_copy() && images_ == 1 && c_.y.in * c_.x.in * sizeof(T) % 4096 != 0;
    channels_ = max_of(1, min_of(c_.in_channels, kConvTapRows / taps_));
    together_ = min_of(strips_.count, kConvStrips);
    const int64_t wanted = context.runners > 1 ? kChunksEach * static_cast<int64_t>(context.runners) : 1;
    while (parts() < wanted && channels_ * together_ > 1) {
      int64_t& longer = channels_ > 1 && (together_ == 1 || channels_ * taps_ > 2 * tile_rows_) ? channels_ : together_;
      longer = (longer + 1) / 2;
    }
  }

  Status run() {
    const int64_t columns = together_ * kTileCols<T>;
    source_size_ =
        source_.is_copy() ? 0 : round_up(images_ * channels_ * source_.channel() + kLanes<T>, 64 / sizeof(T));
    a_size_ = round_up(tile_rows_ * a_pitch_, 64 / sizeof(T));
    b_size_ = round_up(positions_ * columns, 64 / sizeof(T));
    const int64_t c_size = channels_ * taps_ * columns;
    const int64_t bytes = round_up((source_size_ + a_size_ + b_size_ + c_size) * int64_t{sizeof(T)}, 64);
    const int64_t count = static_cast<int64_t>(context_.runners);
    void* const memory = context_.scratch(context_.self, Desks::bytes(count, bytes));
    if (!memory) return kOutOfMemory;
    const Desks desks(memory, count, bytes);
    for_chunks(context_, parts(), 1, [&](int64_t begin, int64_t end) {
      const int64_t desk = desks.take();
      for (int64_t part = begin; part < end; ++part) run_part(part, reinterpret_cast<T*>(desks.at(desk)));
      desks.give_back(desk);
    });
    return kOk;
  }

 private:
  int64_t channel_blocks() const { return ceil_div(c_.in_channels, channels_); }
  int64_t strip_blocks() const { return ceil_div(strips_.count, together_); }
  int64_t parts() const { return c_.groups * channel_blocks() * strip_blocks(); }
  int64_t column(int64_t strip) const { return strips_.begin(strip) * int64_t{kLanes<T>}; }

  struct Part {
    int64_t group, channel, channels;  // of the input
    int64_t strip, strips;             // of the output channels
    int64_t pitch;                     // of their columns
    T *source, *a, *b, *c;
  };
  // Rows of an image, and where its positions are in a chain.
  struct Piece {
    int64_t image, row, rows, at;
    const T* source;  // as its taps read it
    int64_t channel;  // from one channel of the source to the next
  };

  void run_part(int64_t index, T* memory) const {
    const int64_t block = index % strip_blocks(), rest = index / strip_blocks();
    Part p;
    p.group = rest / channel_blocks();
    p.channel = rest % channel_blocks() * channels_;
    p.channels = min_of(channels_, c_.in_channels - p.channel);
    p.strip = block * together_;
    p.strips = min_of(together_, strips_.count - p.strip);
    p.pitch = column(p.strip + p.strips) - column(p.strip);
    p.source = memory, p.a = p.source + source_size_, p.b = p.a + a_size_, p.c = p.b + b_size_;
    const int64_t taps = p.channels * taps_, first = column(p.strip);
    for_vectors<T>(0, taps * p.pitch, [&](auto at) { at.store(p.c, Vec<T>{}); });
    for (int64_t image = 0; image < c_.n; image += images_) {
      for (int64_t row = 0; row < c_.y.out; row += rows_) add_chain(p, image, row);
    }
    T* const out =
        static_cast<T*>(c_.result) + ((p.group * c_.out_channels + first) * c_.in_channels + p.channel) * taps_;
    const int64_t width = min_of(p.pitch, c_.out_channels - first);
    for (int64_t t = 0; t < taps; t += kLanes<T>) {
      const size_t lanes = static_cast<size_t>(min_of(kLanes<T>, taps - t));
      pack_vector(out + t, c_.in_channels * taps_, p.c + t * p.pitch, 1, p.pitch, width, lanes, lanes);
    }
  }

  // The products of a chain: of some images from their `row` on.
  void add_chain(const Part& p, int64_t image, int64_t row) const {
    const int64_t rows = min_of(rows_, c_.y.out - row), images = min_of(images_, c_.n - image);
    for (int64_t i = 0; i < images; ++i) {
      const Piece piece = piece_of(p, image, row, rows, i);
      if (!source_.is_copy())
        source_.lay(p.source + i * p.channels * source_.channel(), x_of(p, piece.image), p.channels, row,
                    rows + source_.y.reach);
      for (int64_t s = p.strip; s < p.strip + p.strips; ++s) pack_gradient(p, piece, s);
    }
    Tile<T> t{};
    t.a_rs = in_place_ ? c_.y.in * c_.x.in : a_pitch_, t.a_cs = 1, t.c_rs = t.from_rs = p.pitch,
    t.k = t.ahead_run = images * rows * c_.x.out;
    t.tail = kLanes<T>, t.alpha = 1, t.beta = 1;
    t.a = t.ahead = p.a;
    const int64_t taps = p.channels * taps_;
    const Split tiles(taps, tile_rows_);
    for (int64_t tile = 0; tile < tiles.count; ++tile) {
      const int64_t first = tiles.begin(tile), height = tiles.of(tile);
      if (in_place_) t.a = t.ahead = piece_of(p, image, row, rows, 0).source + first * t.a_rs;
      for (int64_t i = 0; i < images && !in_place_; ++i) {
        const Piece piece = piece_of(p, image, row, rows, i);
        for (int64_t q = 0; q < height; ++q) pack_tap(p.a + q * a_pitch_, piece, first + q);
      }
      for (int64_t s = p.strip; s < p.strip + p.strips; ++s) {
        const int64_t at = column(s) - column(p.strip), vectors = strips_.of(s);
        t.b = p.b + at * positions_, t.b_rs = vectors * int64_t{kLanes<T>};
        t.c = p.c + first * p.pitch + at;
        t.from = t.c;
        kTiles<T>.of(t.a_rs, vectors, true)[height - 1](t);
      }
    }
  }

  const T* x_of(const Part& p, int64_t image) const {
    const int64_t first = (image * c_.groups + p.group) * c_.in_channels + p.channel;
    return static_cast<const T*>(c_.x_in) + first * c_.y.in * c_.x.in;
  }

  Piece piece_of(const Part& p, int64_t image, int64_t row, int64_t rows, int64_t i) const {
    const int64_t at = i * rows * c_.x.out;
    if (!source_.is_copy()) {
      const int64_t channel = source_.channel();
      return {image + i, row, rows, at, p.source + i * p.channels * channel, channel};
    }
    return {image + i, row, rows, at, x_of(p, image + i) + row * c_.x.in, c_.y.in * c_.x.in};
  }

  void pack_gradient(const Part& p, const Piece& piece, int64_t strip) const {
    const int64_t first = column(strip), plane = c_.y.out * c_.x.out;
    const int64_t pitch = strips_.of(strip) * int64_t{kLanes<T>};
    const T* const g = static_cast<const T*>(c_.g) +
                       ((piece.image * c_.groups + p.group) * c_.out_channels + first) * plane + piece.row * c_.x.out;
    pack_strip(p.b + (first - column(p.strip)) * positions_ + piece.at * pitch, pitch, g, 1, plane,
               piece.rows * c_.x.out, min_of(pitch, c_.out_channels - first));
  }

  // What one tap sees of a piece's positions.
  void pack_tap(T* dst, const Piece& piece, int64_t tap) const {
    const int64_t ty = tap % taps_ / c_.x.kernel, tx = tap % c_.x.kernel, cols = c_.x.out;
    const T* src = piece.source + tap / taps_ * piece.channel + source_.offset(0, 0, ty, tx);
    const bool together = cols == source_.cols;
    const int64_t rows = together ? 1 : piece.rows, n = together ? piece.rows * cols : cols;
    T* to = dst + piece.at;
    for (int64_t r = 0; r < rows; ++r, src += source_.cols, to += n) {
      if (source_.is_copy()) {
        for_vectors<T>(0, n, [&](auto at) { at.store(to, at.load(src)); });
      } else {
        // Whole vectors: what spills over is written afterwards, or not read.
        for (int64_t q = 0; q < n; q += kLanes<T>) store(to + q, load(src + q));
      }
    }
  }

  const Context& context_;
  const ConvArgs& c_;
  ConvSource source_;
  const int64_t taps_;
  const Split strips_;  // of output channels
  const int64_t tile_rows_;
  int64_t rows_, images_, positions_, a_pitch_, channels_, together_;
  bool in_place_;  // rows of a tile are channels of x
  int64_t source_size_ = 0, a_size_ = 0, b_size_ = 0;
};

template <class T>
Status convolution_weight(const Context& context, const ConvArgs& args) {
  if (args.groups * args.out_channels * args.in_channels == 0) return kOk;
  return ConvWeight<T>(context, args).run();
}

}  // namespace
}  // namespace chainrule
