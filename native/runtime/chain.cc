// Chain. See chain.h.
#include "chain.h"

#include <algorithm>

namespace chainrule {

using map::ceil_div;
using map::kChunk;
using map::Map;
using map::Operand;

namespace {

// Elements that all commands pass over before the next: they stay in the first-level cache.
constexpr int64_t kNear = map::kBlockBytes / 2;

// As a map of rows and columns; false when it is none of so many.
bool shape(Map& map, int64_t rows, int64_t columns) {
  if (map.elements != rows * columns) return false;
  if (map.dims == 1) {
    map.dims = 2;
    for (int o = 0; o <= map.inputs; ++o) {
      int64_t* const stride = map.operand[o].stride;
      stride[1] = stride[0];
      stride[0] *= columns;
    }
    map.size[0] = rows, map.size[1] = columns;
  }
  return map.dims == 2 && map.size[0] == rows && map.size[1] == columns;
}

bool reads(const Map& map, const char* base) {
  return std::any_of(map.operand + 1, map.operand + 1 + map.inputs,
                     [&](const Operand& in) { return !in.immediate && in.base == base; });
}

}  // namespace

bool Chain::add(const Map& map) {
  if (count_ == kMost) return false;
  maps_[count_++] = map;
  return true;
}

// Finds rows and columns that all have. Inputs may be broadcast along either.
bool Chain::line_up() {
  rows_ = 1, columns_ = maps_[0].elements;
  for (Map* map = maps_; map < maps_ + count_; ++map) {
    map::merge_dimensions(*map);
    if (map->dims == 2 && rows_ == 1) rows_ = map->size[0], columns_ = map->size[1];
  }
  for (int i = 0; i < count_; ++i) {
    if (!shape(maps_[i], rows_, columns_)) return false;
    const char* const out = maps_[i].operand[0].base;
    const bool read = std::any_of(maps_ + i + 1, maps_ + count_, [&](const Map& later) { return reads(later, out); });
    map::choose_stores(maps_[i], !read);
  }
  return true;
}

void Chain::run(const Context& context) {
  if (count_ == 0) return;
  if (!line_up()) {
    for (int i = 0; i < count_; ++i) map::run(maps_[i], context);
    return;
  }
  struct Job {
    const Chain& chain;
    int64_t rows, columns, across;  // of a chunk; chunks side by side
  } job{*this, std::max<int64_t>(1, kChunk / columns_), std::min(columns_, kChunk), ceil_div(columns_, kChunk)};
  const auto run_chunk = [](void* arg, size_t chunk) {
    const Job& job = *static_cast<const Job*>(arg);
    const Chain& chain = job.chain;
    const int64_t at = static_cast<int64_t>(chunk), row = at / job.across * job.rows;
    const int64_t column = at % job.across * job.columns;
    const int64_t last_row = std::min(chain.rows_, row + job.rows);
    const int64_t last_column = std::min(chain.columns_, column + job.columns);
    const int64_t wide = std::min(job.columns, kNear), high = kNear / wide;
    for (int64_t r = row; r < last_row; r += high) {
      for (int64_t c = column; c < last_column; c += wide) {
        chain.run_part(r, c, std::min(high, last_row - r), std::min(wide, last_column - c));
      }
    }
  };
  map::run_chunks(context, maps_[0].elements, static_cast<size_t>(ceil_div(rows_, job.rows) * job.across), run_chunk,
                  &job);
}

void Chain::run_part(int64_t row, int64_t column, int64_t rows, int64_t columns) const {
  for (const Map* map = maps_; map < maps_ + count_; ++map) map::run_part(*map, row, column, rows, columns);
}

}  // namespace chainrule
