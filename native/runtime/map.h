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
  const KernelTable* kernels;
  int32_t op;
  int64_t elements;
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

// Removes dimensions of size 1 and joins neighbours that every operand walks as one; at least one is left.
void merge_dimensions(Map& map);
// Lets the output go past the cache, if it is one that exceeds what the cache could keep for its reader, and may.
void choose_stores(Map& map, bool may_stream);
// All of it.
void run(Map& map, const Context& context);
// Chunks of so many elements in all, on this thread alone where others are not worth asking.
void run_chunks(const Context& context, int64_t elements, size_t chunks, void (*run)(void*, size_t), void* arg);
// Of a Map of two dimensions the columns [column, column + columns) of some rows.
void run_part(const Map& map, int64_t row, int64_t column, int64_t rows, int64_t columns);
// Runs one chunk of a Map: of inner_blocks for each rows_per_chunk rows.
void run_chunk(void* map, size_t chunk);
// The same for a Map with inputs to turn; of turned_chunks.
void run_turned(void* map, size_t chunk);
size_t turned_chunks(const Map& map);

}  // namespace chainrule::map
