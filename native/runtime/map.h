// An elementwise command, decoded: what map.cc hands to map_walk.cc. Runtime layer.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../kernels/table.h"

namespace chainrule::map {

constexpr int kMaxOperands = 1 + kMaxMapInputs;
constexpr int kMaxDims = 8;
constexpr size_t kBlockBytes = 3584;        // whole cache lines; four blocks on a stack that may be small
constexpr size_t kStreamBlockBytes = 2048;  // on the way past the cache: reads and writes that alternate sooner
constexpr size_t kCacheLine = 64;
constexpr int64_t kChunk = 16 * 1024;  // elements one thread claims at a time

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Operand {
  DType dtype;
  bool immediate = false;
  double value;  // immediate only
  char* base;
  int64_t stride[kMaxDims];
};

// Not zeroed as a whole: for a small op that would take as long as its arithmetic.
struct Map {
  MapFn kernel;
  LoadFn load[kMaxMapInputs];
  StoreFn store;
  int32_t type;
  int inputs, dims;
  int64_t size[kMaxDims];
  Operand operand[kMaxOperands];  // [0] is the output
  double params[kMaxMapParams] = {};
  int64_t block;                                                       // elements of the compute type in a Block
  void (*stream)(void* dst, const void* src, size_t bytes) = nullptr;  // null: the output goes through the cache
  void (*stream_fence)() = nullptr;
  TransposeFn transpose;
  int turned = 0;        // bit i: input i is walked in tiles: its fast dimension is the last but one
  bool turns_only;       // and the op is a copy of it
  int64_t inner_blocks;  // pieces of kChunk elements that the innermost dimension is cut into
  int64_t rows;          // product of the outer dimensions
  int64_t rows_per_chunk;
};

// Runs one chunk of a Map: of inner_blocks for each rows_per_chunk rows.
void run_chunk(void* map, size_t chunk);
// The same for a Map with inputs to turn; of turned_chunks.
void run_turned(void* map, size_t chunk);
size_t turned_chunks(const Map& map);

}  // namespace chainrule::map
