// Walks an elementwise command and feeds its kernel with contiguous blocks. Runtime layer.
// Kernels see only contiguous blocks of their compute type; strided, broadcast and converted operands, and outputs on
// their way past the cache, pass through a block of scratch that stays in the first-level cache.
#include <algorithm>

#include "map.h"

namespace chainrule::map {
namespace {

struct alignas(64) Block {
  char bytes[kBlockBytes];
};

void prefetch(const char* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kCacheLine) __builtin_prefetch(from + i, 0, 2);
}

// n elements of the innermost dimension, from the given operand positions.
void run_span(const Map& map, const int64_t* at, int64_t n, Block* scratch, int filled) {
  const Operand& out = map.operand[0];
  const int inner = map.dims - 1;
  const size_t out_width = kDTypeBytes[out.dtype], type_width = kDTypeBytes[map.type];
  const bool direct_out = out.dtype == map.type && out.stride[inner] == 1 && !map.stream;
  bool whole = direct_out;
  bool direct_in[kMaxMapInputs];
  for (int i = 0; i < map.inputs; ++i) {
    const Operand& in = map.operand[i + 1];
    direct_in[i] = !in.immediate && in.dtype == map.type && in.stride[inner] == 1;
    whole = whole && direct_in[i];
  }
  const int64_t step = whole ? n : map.block;
  for (int64_t done = 0; done < n; done += step) {
    const size_t count = static_cast<size_t>(std::min(step, n - done));
    const void* in[kMaxMapInputs];
    for (int i = 0; i < map.inputs; ++i) {
      const Operand& operand = map.operand[i + 1];
      if (direct_in[i]) {
        in[i] = operand.base + (at[i + 1] + done) * static_cast<int64_t>(type_width);
        continue;
      }
      in[i] = &scratch[i];
      // A constant is laid out once; so is an element that the whole innermost dimension shares.
      if (filled & 1 << i) continue;
      const int64_t stride = operand.stride[inner];
      if (stride == 0 && done > 0) continue;
      const size_t width = kDTypeBytes[operand.dtype];
      const char* source = operand.base + (at[i + 1] + done * stride) * static_cast<int64_t>(width);
      const size_t fill = stride == 0 ? static_cast<size_t>(std::min(n, map.block)) : count;
      map.load[i](&scratch[i], source, stride, fill);
    }
    char* target = out.base + (at[0] + done * out.stride[inner]) * static_cast<int64_t>(out_width);
    if (direct_out) {
      map.kernel(target, in, count, map.params);
    } else {
      Block result;
      map.kernel(&result, in, count, map.params);
      if (map.stream) {
        // The next block's inputs come while this one leaves: 8 % more bytes a second at 256 MiB.
        for (int i = 0; i < map.inputs; ++i) {
          if (direct_in[i]) prefetch(static_cast<const char*>(in[i]) + count * type_width, count * type_width);
        }
        map.stream(target, &result, count * out_width);
      } else {
        map.store(target, out.stride[inner], &result, count);
      }
    }
  }
}

// Blocks of the immediate inputs for spans of up to `longest` elements, and a bit for each.
int lay_out_immediates(const Map& map, int64_t longest, Block* scratch) {
  const int64_t n = std::min(longest, map.block);
  int filled = 0;
  for (int i = 0; i < map.inputs; ++i) {
    const Operand& in = map.operand[i + 1];
    if (!in.immediate) continue;
    map.load[i](&scratch[i], &in.value, 0, static_cast<size_t>(n));
    filled |= 1 << i;
  }
  return filled;
}

}  // namespace

void run_chunk(void* arg, size_t chunk) {
  const Map& map = *static_cast<const Map*>(arg);
  const int inner = map.dims - 1;
  Block scratch[kMaxMapInputs];
  const int filled = lay_out_immediates(map, map.size[map.dims - 1], scratch);
  const int64_t row_chunk = static_cast<int64_t>(chunk) / map.inner_blocks;
  const int64_t begin = static_cast<int64_t>(chunk) % map.inner_blocks * kChunk;
  const int64_t span = map.inner_blocks == 1 ? map.size[inner] : std::min(kChunk, map.size[inner] - begin);
  const int64_t first = row_chunk * map.rows_per_chunk;
  const int64_t last = std::min(first + map.rows_per_chunk, map.rows);

  int64_t index[kMaxDims] = {}, at[kMaxOperands];
  for (int o = 0; o <= map.inputs; ++o) at[o] = begin * map.operand[o].stride[inner];
  for (int64_t d = inner - 1, rest = first; d >= 0; rest /= map.size[d], --d) {
    index[d] = rest % map.size[d];
    for (int o = 0; o <= map.inputs; ++o) at[o] += index[d] * map.operand[o].stride[d];
  }
  for (int64_t row = first; row < last; ++row) {
    run_span(map, at, span, scratch, filled);
    for (int d = inner - 1; d >= 0; --d) {
      for (int o = 0; o <= map.inputs; ++o) at[o] += map.operand[o].stride[d];
      if (++index[d] < map.size[d]) break;
      for (int o = 0; o <= map.inputs; ++o) at[o] -= map.operand[o].stride[d] * map.size[d];
      index[d] = 0;
    }
  }
  if (map.stream) map.stream_fence();
}

namespace {

// Rows of few elements that no operand has to be converted for: what run_span asks each time would take as long as the
// kernel.
void run_short_rows(const Map& map, const int64_t* at, int64_t rows, int64_t columns, const Block* scratch) {
  const size_t width = kDTypeBytes[map.type];
  const void* in[kMaxMapInputs];
  int64_t step[kMaxOperands];
  for (int o = 0; o <= map.inputs; ++o) {
    const Operand& operand = map.operand[o];
    step[o] = operand.immediate ? 0 : operand.stride[0] * static_cast<int64_t>(width);
    if (o == 0) continue;
    in[o - 1] = operand.immediate ? scratch[o - 1].bytes : operand.base + at[o] * static_cast<int64_t>(width);
  }
  char* out = map.operand[0].base + at[0] * static_cast<int64_t>(width);
  for (int64_t row = 0; row < rows; ++row) {
    map.kernel(out, in, static_cast<size_t>(columns), map.params);
    out += step[0];
    for (int i = 0; i < map.inputs; ++i) in[i] = static_cast<const char*>(in[i]) + step[i + 1];
  }
}

}  // namespace

void run_part(const Map& map, int64_t row, int64_t column, int64_t rows, int64_t columns) {
  // Whole rows of operands without gaps are one span.
  bool joined = columns == map.size[1], direct = !map.stream;
  int64_t at[kMaxOperands];
  for (int o = 0; o <= map.inputs; ++o) {
    const Operand& operand = map.operand[o];
    const int64_t* const stride = operand.stride;
    joined = joined && stride[0] == stride[1] * columns;
    direct = direct && (operand.immediate || (operand.dtype == map.type && stride[1] == 1));
    at[o] = row * stride[0] + column * stride[1];
  }
  if (joined) columns *= rows, rows = 1;
  Block scratch[kMaxMapInputs];
  const int filled = lay_out_immediates(map, columns, scratch);
  if (direct && columns <= map.block) return run_short_rows(map, at, rows, columns, scratch);
  for (; rows > 0; --rows) {
    run_span(map, at, columns, scratch, filled);
    for (int o = 0; o <= map.inputs; ++o) at[o] += map.operand[o].stride[0];
  }
  if (map.stream) map.stream_fence();
}

namespace {

// ---- transposed operands -------------------------------------------------------------------------------------------
// An input whose fast dimension is not the output's is turned tile by tile: whole cache lines of both. A tile lies in
// the input's block of scratch, and the rest sees it as an operand like any other.
constexpr int64_t kTileColumns = 48, kTileBytes = kCacheLine;  // per row; down a column
static_assert(kTileColumns * kTileBytes <= int64_t{kBlockBytes});
constexpr int64_t kTurnRows = 1024;  // of a chunk of one tile's columns: each of them is read in one go

// One tile: rows [row, row + rows) and columns [column, column + columns) of the two last dimensions, at `at`.
void run_tile(const Map& map, const int64_t* at, int64_t rows, int64_t columns, Map& tile, Block* scratch, int filled) {
  const int inner = map.dims - 1;
  const int64_t width = static_cast<int64_t>(kDTypeBytes[map.type]);
  if (map.turns_only) {
    const Operand &out = map.operand[0], &in = map.operand[1];
    const int64_t pitch = out.stride[inner - 1];
    char* const to = out.base + at[0] * width;
    const char* const from = in.base + at[1] * width;
    if (!map.stream) return map.transpose(to, pitch, from, in.stride[inner], rows, columns);
    map.transpose(&scratch[0], kTileColumns, from, in.stride[inner], rows, columns);
    for (int64_t row = 0; row < rows; ++row) {
      const char* const line = scratch[0].bytes + row * kTileColumns * width;
      map.stream(to + row * pitch * width, line, static_cast<size_t>(columns * width));
    }
    return;
  }
  for (int i = 0; i < map.inputs; ++i) {
    if (!(map.turned & 1 << i)) continue;
    const Operand& in = map.operand[i + 1];
    map.transpose(&scratch[i], kTileColumns, in.base + at[i + 1] * width, in.stride[inner], rows, columns);
  }
  for (int64_t row = 0; row < rows; ++row) {
    int64_t here[kMaxOperands];
    for (int o = 0; o <= map.inputs; ++o) {
      const bool turned = o > 0 && map.turned & 1 << (o - 1);
      here[o] = turned ? row * kTileColumns : at[o] + row * map.operand[o].stride[inner - 1];
    }
    run_span(tile, here, columns, scratch, filled);
  }
}

}  // namespace

void run_turned(void* arg, size_t chunk) {
  const Map& map = *static_cast<const Map*>(arg);
  const int inner = map.dims - 1;
  Block scratch[kMaxMapInputs];
  const int filled = lay_out_immediates(map, map.size[map.dims - 1], scratch);
  Map tile = map;
  for (int i = 0; i < map.inputs; ++i) {
    if (!(map.turned & 1 << i)) continue;
    tile.operand[i + 1].base = scratch[i].bytes;
    tile.operand[i + 1].stride[inner] = 1;
  }
  int64_t rest = static_cast<int64_t>(chunk), at[kMaxOperands] = {};
  const auto take = [&](int d, int64_t grain) {
    const int64_t pieces = ceil_div(map.size[d], grain), first = rest % pieces * grain;
    rest /= pieces;
    for (int o = 0; o <= map.inputs; ++o) at[o] += first * map.operand[o].stride[d];
    return std::min(grain, map.size[d] - first);
  };
  const int64_t columns = take(inner, kTileColumns), rows = take(inner - 1, kTurnRows);
  for (int d = inner - 2; d >= 0; --d) take(d, 1);
  const int64_t step = kTileBytes / static_cast<int64_t>(kDTypeBytes[map.type]);
  for (int64_t row = 0; row < rows; row += step) {
    run_tile(map, at, std::min(step, rows - row), columns, tile, scratch, filled);
    for (int o = 0; o <= map.inputs; ++o) at[o] += step * map.operand[o].stride[inner - 1];
  }
  if (map.stream) map.stream_fence();
}

size_t turned_chunks(const Map& map) {
  const int inner = map.dims - 1;
  int64_t chunks = ceil_div(map.size[inner], kTileColumns) * ceil_div(map.size[inner - 1], kTurnRows);
  for (int d = 0; d < inner - 1; ++d) chunks *= map.size[d];
  return static_cast<size_t>(chunks);
}

}  // namespace chainrule::map
