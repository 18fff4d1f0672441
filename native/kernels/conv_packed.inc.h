// Convolution over small planes: what the windows of several images see, packed so that no lane of a vector lies
// between rows, in strips that all output channels use. Kernel layer; included by conv.inc.h only. The same bits as
// without.
#pragma once
#include "conv_tile.inc.h"

namespace chainrule {
namespace {

constexpr int64_t kPackedPlane = 1024;     // positions: longer planes waste few lanes
constexpr int64_t kPackedPositions = 240;  // about so many together, whose strips stay in the second-level cache
constexpr int64_t kPackedSteps = 160;      // of a strip that stay in the first-level cache
constexpr int64_t kPackedParts = 64;       // tiles of channels whose weights and sums stay in the second-level one
constexpr int64_t kPackedCopy = 4;         // output channels that a vector is multiplied by while one is copied

// What a convolution has laid out before.
template <class T>
struct ConvPlan {
  const Context& context;
  const ConvArgs& c;
  const ConvSource& source;  // of whole planes
  const Split& channels;
  int64_t inputs, outputs, k;
  const T* weights;
  const int64_t* offsets;
};

// How many images to pack together; 0 where it does not pay.
template <class T>
int64_t packed_images(const Context& context, const ConvArgs& c, const ConvSource& source, int64_t outputs) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t rows = source.y.out, cols = source.x.out, plane = rows * cols;
  if (source.y.apart * source.x.apart > 1 || plane > kPackedPlane) return 0;
  const int64_t runners = static_cast<int64_t>(context.runners), wanted = runners > 1 ? kChunksEach * runners : 1;
  if (c.n * c.groups < wanted) return 0;
  const int64_t images = max_of(1, min_of(kPackedPositions / plane, c.n * c.groups / wanted));
  const int64_t n = even_part(c.n, images), flat = ceil_div((rows - 1) * source.cols + cols, lanes);
  const int64_t before = n * min_of(rows * ceil_div(cols, lanes), flat), after = ceil_div(n * plane, lanes);
  const int64_t copies = after + n * (cols == source.cols ? 1 : rows);
  return (before - after) * outputs > kPackedCopy * copies ? n : 0;
}

template <class T>
class PackedConvolution {
 public:
  PackedConvolution(const ConvPlan<T>& plan, int64_t images)
      : p_(plan),
        images_(images),
        plane_(plan.source.y.out * plan.source.x.out),
        block_(max_of(1, k_block<T>(plan.k))),
        parts_(min_of(plan.channels.count, kPackedParts)),
        source_size_(round_up(images * plan.inputs * plan.source.channel() + kLanes<T>, 64 / sizeof(T))),
        packed_size_(round_up(kPackedSteps * kTileCols<T> + kLanes<T>, 64 / sizeof(T))) {}

  Status run() {
    const Context& context = p_.context;
    const int64_t strips = ceil_div(ceil_div(images_ * plane_, kLanes<T>), int64_t{kTileVectors});
    const int64_t carried = p_.k > kPackedSteps ? strips * parts_ * kAccumulators : 0;
    const int64_t bytes = round_up((source_size_ + packed_size_ + carried) * int64_t{sizeof(T)}, 64);
    const int64_t count = static_cast<int64_t>(context.runners), blocks = ceil_div(p_.c.n, images_);
    void* const memory = context.scratch(context.self, Desks::bytes(count, bytes));
    if (!memory) return kOutOfMemory;
    for (int64_t p = 0; p < kPackedSteps; ++p) offsets_[p] = p * kTileCols<T>;
    const Desks desks(memory, count, bytes);
    for_chunks(context, p_.c.groups * blocks, 1, [&](int64_t begin, int64_t end) {
      const int64_t desk = desks.take();
      for (int64_t i = begin; i < end; ++i) {
        run_block(i % blocks * images_, i / blocks, reinterpret_cast<T*>(desks.at(desk)));
      }
      desks.give_back(desk);
    });
    return kOk;
  }

 private:
  static constexpr int64_t kAccumulators = kTileRows * kTileCols<T>;
  struct Block {
    int64_t group, images;
    T* out;
    T *source, *packed, *carry;
  };
  // Of a chain: a K block is added up from `start` to `end`, some steps at a time.
  struct Steps {
    int64_t first, n, start, end;
  };

  void run_block(int64_t image, int64_t group, T* memory) const {
    const ConvSource& source = p_.source;
    const int64_t entry = image * p_.c.groups + group, size = source.y.size * source.x.size;
    const Block b{group,  min_of(images_, p_.c.n - image), static_cast<T*>(p_.c.result) + entry * p_.outputs * plane_,
                  memory, memory + source_size_,           memory + source_size_ + packed_size_};
    for (int64_t i = 0; i < b.images; ++i) {
      source.lay(b.source + i * p_.inputs * source.channel(),
                 static_cast<const T*>(p_.c.x_in) + (entry + i * p_.c.groups) * p_.inputs * size, p_.inputs, 0,
                 source.rows);
    }
    const Split strips(ceil_div(b.images * plane_, kLanes<T>), int64_t{kTileVectors});
    for (int64_t part = 0; part < p_.channels.count; part += parts_) {
      const int64_t last = min_of(p_.channels.count, part + parts_);
      int64_t start = 0;
      do {
        const int64_t end = min_of(p_.k, start + block_);
        int64_t p = start;
        do {
          const Steps steps{p, min_of(kPackedSteps, end - p), start, end};
          for (int64_t s = 0; s < strips.count; ++s) {
            pack(b, strips, s, steps);
            for (int64_t i = part; i < last; ++i) run_tile_of(b, strips, s, i, steps);
          }
          p += steps.n;
        } while (p < end);
        start = end;
      } while (start < p_.k);
    }
  }

  // Some steps of a strip's positions: pieces of rows. Whole vectors, as what spills over is written afterwards.
  void pack(const Block& b, const Split& strips, int64_t s, const Steps& steps) const {
    constexpr int64_t lanes = kLanes<T>;
    struct Piece {
      const T* from;
      int64_t at, n;
    } pieces[kTileCols<T>];
    const ConvSource& source = p_.source;
    const int64_t begin = strips.begin(s) * lanes, width = strips.of(s) * lanes;
    const int64_t end = min_of(begin + width, b.images * plane_);
    const bool together = source.x.out == source.cols;
    const int64_t line = together ? plane_ : source.x.out;
    int64_t count = 0;
    for (int64_t at = begin; at < end; at += pieces[count++].n) {
      const int64_t row = at % plane_ / line, col = at % line;
      const T* const image = b.source + at / plane_ * p_.inputs * source.channel();
      pieces[count] = {image + row * source.cols + col, at - begin, min_of(line - col, end - at)};
    }
    T* to = b.packed;
    for (int64_t p = steps.first; p < steps.first + steps.n; ++p, to += kTileCols<T>) {
      const int64_t offset = p_.offsets[p];
      if (end < begin + width) store(to + width - lanes, Vec<T>{});
      for (int64_t i = 0; i < count; ++i) {
        const Piece& piece = pieces[i];
        for (int64_t q = 0; q < piece.n; q += lanes) store(to + piece.at + q, load(piece.from + offset + q));
      }
    }
  }

  void run_tile_of(const Block& b, const Split& strips, int64_t s, int64_t part, const Steps& steps) const {
    constexpr int64_t lanes = kLanes<T>;
    const int64_t n = p_.channels.of(part), pitch = p_.channels.of(0), channel = p_.channels.begin(part);
    const int64_t vectors = strips.of(s);
    const auto tile = kConvTiles<T>.of[vectors - 1][n - 1];
    ConvTile<T> t{};
    for (int64_t j = 0; j < vectors; ++j) t.b[j] = b.packed + j * lanes;
    t.a = p_.weights + ((b.group * p_.channels.count + part) * p_.k + steps.first) * pitch;
    t.a_cs = pitch, t.k = steps.n, t.offset = offsets_, t.add = steps.start > 0;
    T* const carry = b.carry + (s * parts_ + part % parts_) * kAccumulators;
    if (steps.first > steps.start) t.carry_in = carry;
    if (steps.first + steps.n < steps.end) {
      t.carry_out = carry;
      return tile(t);
    }
    ConvTarget<T> target(plane_, channel, n, vectors);
    for (int64_t j = 0; j < vectors; ++j) {
      const int64_t at = (strips.begin(s) + j) * lanes, image = at / plane_, next = p_.c.groups * p_.outputs * plane_;
      target.place[j] = {b.out + image * next + at % plane_, at % plane_, plane_, plane_, b.images - image, next, 1};
    }
    t.bias = p_.c.bias ? static_cast<const T*>(p_.c.bias) + b.group * p_.outputs + channel : nullptr;
    target.open(t);
    tile(t);
    target.close();
  }

  const ConvPlan<T>& p_;
  const int64_t images_, plane_, block_, parts_, source_size_, packed_size_;
  int64_t offsets_[kPackedSteps];
};

}  // namespace
}  // namespace chainrule
