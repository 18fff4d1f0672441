// A chain: elementwise commands that run together, part by part, so that what one writes is near when the next reads
// it. Runtime layer.
#pragma once
#include "map.h"

namespace chainrule {

class Chain {
 public:
  static constexpr int kMost = 8;  // commands; lib/program/fuse.ts has the same

  void clear() { count_ = 0; }
  // A command, once decoded; false when there is no room.
  bool add(const map::Map& map);
  // Each element is that of the commands one after the other. Where elements of one do not line up with those of
  // another they do run one after the other.
  void run(const Context& context);

 private:
  bool line_up();
  void run_part(int64_t row, int64_t column, int64_t rows, int64_t columns) const;

  int count_ = 0;
  map::Map maps_[kMost];
  int64_t rows_, columns_;  // of each
};

}  // namespace chainrule
