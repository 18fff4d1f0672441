// Elementwise commands: decode, validate, merge dimensions, and choose how to walk them (map_walk.cc). Runtime layer.
#include "map.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "chain.h"
#include "executor.h"

namespace chainrule {

using namespace map;

namespace {

// Bytes of output from which stores go past the cache: measured, a chain of two ops over 16 MiB is 8 % slower for it,
// one over 64 MiB 55 % faster; but no more than the last cache holds.
constexpr int64_t kStreamBytes = 32 << 20;
constexpr int64_t kStreamRun = 1024;    // bytes: shorter rows are mostly ends of lines
constexpr int64_t kInline = 32 * 1024;  // elements below which a hand-off costs more than it saves
constexpr int64_t kTurnLeast = 8;       // rows and columns below which elements go one by one

// Inputs per elementwise op, in opcode order.
constexpr int8_t kMapInputs[] = {
#define UNARY(name, forward, pullback, saves) 1, saves == SAVES_NONE ? 1 : 2,
#define UNARY_INT(name, forward, pullback, saves) UNARY(name, forward, pullback, saves)
#define BINARY(name, forward) 2,
#define BINARY_INT(name, forward) 2,
#define COMPARE(name, forward) 2,
#define TERNARY(name, forward) 3,
#include "../kernels/elementwise.def"
};

// Whether two elements of the output may share an address: then threads would race, and a small block could ask for
// any amount of work. They cannot if each stride steps over all that the smaller ones span.
bool elements_overlap(const Map& map) {
  struct Step {
    int64_t stride, size;
  } steps[kMaxDims];
  int count = 0;
  for (int d = 0; d < map.dims; ++d) {
    if (map.size[d] == 1) continue;
    const Step step = {std::abs(map.operand[0].stride[d]), map.size[d]};
    int at = count++;
    for (; at > 0 && steps[at - 1].stride > step.stride; --at) steps[at] = steps[at - 1];
    steps[at] = step;
  }
  int64_t span = 0;
  for (int i = 0; i < count; ++i) {
    if (steps[i].stride <= span) return true;
    span += steps[i].stride * (steps[i].size - 1);
  }
  return false;
}

// Finds the inputs to turn, and makes their fast dimension the last but one.
void find_turned(Map& map) {
  const int inner = map.dims - 1;
  if (map.operand[0].stride[inner] != 1 || map.size[inner] < kTurnLeast) return;
  int fast = -1;
  for (int i = 0; i < map.inputs; ++i) {
    const Operand& in = map.operand[i + 1];
    if (in.immediate || in.dtype != map.type || std::abs(in.stride[inner]) <= 1) continue;
    for (int d = 0; d < inner; ++d) {
      if (in.stride[d] != 1 || map.size[d] < kTurnLeast || (fast >= 0 && d != fast)) continue;
      fast = d;
      map.turned |= 1 << i;
    }
  }
  if (fast < 0) return;
  std::swap(map.size[fast], map.size[inner - 1]);
  for (int o = 0; o <= map.inputs; ++o) std::swap(map.operand[o].stride[fast], map.operand[o].stride[inner - 1]);
}

// ---- the command ---------------------------------------------------------------------------------------------------
// Whether the output is to go past the cache: one that exceeds what the cache could keep for its reader, in runs of
// whole lines, none of which an input has just brought in.
bool streams(const Map& map) {
  const Operand& out = map.operand[0];
  const int inner = map.dims - 1;
  const int64_t width = static_cast<int64_t>(kDTypeBytes[map.type]);
  if (!past_cache(map.elements * width) || out.dtype != map.type || out.stride[inner] != 1) return false;
  if (map.size[inner] * width < kStreamRun) return false;
  for (int i = 1; i <= map.inputs; ++i) {
    if (!map.operand[i].immediate && map.operand[i].base == out.base) return false;
  }
  return true;
}

}  // namespace

bool past_cache(int64_t bytes) {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  static const int64_t last_cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  if (last_cache > 0) return bytes >= std::min(last_cache, kStreamBytes);
#endif
  return bytes >= kStreamBytes;
}

namespace map {

void merge_dimensions(Map& map) {
  int kept = 0;
  for (int d = 0; d < map.dims; ++d) {
    if (map.size[d] == 1) continue;
    bool joins = kept > 0;
    for (int o = 0; joins && o <= map.inputs; ++o) {
      joins = map.operand[o].stride[kept - 1] == map.operand[o].stride[d] * map.size[d];
    }
    const int to = joins ? kept - 1 : kept++;
    map.size[to] = joins ? map.size[to] * map.size[d] : map.size[d];
    for (int o = 0; o <= map.inputs; ++o) map.operand[o].stride[to] = map.operand[o].stride[d];
  }
  if (kept == 0) {
    map.size[0] = 1;
    for (int o = 0; o <= map.inputs; ++o) map.operand[o].stride[0] = 1;
    kept = 1;
  }
  map.dims = kept;
}

void choose_stores(Map& map, bool may_stream) {
  if (may_stream && streams(map)) {
    map.stream = map.kernels->stream;
    map.stream_fence = map.kernels->stream_fence;
  }
  map.block = static_cast<int64_t>((map.stream ? kStreamBlockBytes : kBlockBytes) / kDTypeBytes[map.type]);
}

void run_chunks(const Context& context, int64_t elements, size_t chunks, void (*run)(void*, size_t), void* arg) {
  if (elements >= kInline) return context.parallel(context.self, chunks, run, arg);
  for (size_t chunk = 0; chunk < chunks; ++chunk) run(arg, chunk);
}

void run(Map& map, const Context& context) {
  merge_dimensions(map);
  const int64_t inner = map.size[map.dims - 1];
  choose_stores(map, true);
  find_turned(map);
  if (map.turned) {
    map.transpose = map.kernels->transpose[map.type];
    map.turns_only = map.op == kMap_copy && map.operand[0].dtype == map.type;
    return run_chunks(context, map.elements, turned_chunks(map), run_turned, &map);
  }
  map.rows = map.elements / inner;
  map.inner_blocks = inner > kChunk ? ceil_div(inner, kChunk) : 1;
  map.rows_per_chunk = map.elements < kInline ? map.rows : std::max<int64_t>(1, kChunk / inner);
  if (map.elements < kInline) map.inner_blocks = 1;
  const int64_t row_chunks = ceil_div(map.rows, map.rows_per_chunk);
  const size_t chunks = static_cast<size_t>(row_chunks * map.inner_blocks);
  run_chunks(context, map.elements, chunks, run_chunk, &map);
}

}  // namespace map

// flags: dims | inputs << 4 | compute type << 6 | out dtype << 8 | per input i (dtype | 8 if immediate) << (12 + 4 i)
//        | params << 24
// dims sizes, out strides, per slot input its strides, params, out, inputs (an immediate is its value)
void run_map(Reader& reader, const KernelTable& kernels, const Context& context, int32_t op) {
  Map map;
  const int32_t flags = reader.word();
  map.dims = flags & 15;
  map.inputs = flags >> 4 & 3;
  const int params = flags >> 24 & 3;
  if (map.dims > kMaxDims) return reader.fail("too many dimensions");
  if (params > kMaxMapParams) return reader.fail("too many parameters");
  map.type = reader.compute_type(flags >> 6 & 3, kComputeTypes);
  map.operand[0].dtype = reader.dtype(flags >> 8 & 15);
  int64_t elements = 1;
  for (int d = 0; d < map.dims; ++d) {
    map.size[d] = reader.size();
    elements = reader.product(elements, map.size[d]);
  }
  int64_t low[kMaxOperands] = {}, high[kMaxOperands] = {};
  for (int o = 0; o <= map.inputs; ++o) {
    Operand& operand = map.operand[o];
    if (o > 0) {
      const int32_t code = flags >> (8 + 4 * o) & 15;
      operand.immediate = code & 8;
      operand.dtype = operand.immediate ? kF64 : reader.dtype(code);
    }
    if (operand.immediate) {
      std::fill_n(operand.stride, map.dims, 0);
      continue;
    }
    for (int d = 0; d < map.dims; ++d) {
      operand.stride[d] = reader.word();
      if (elements == 0) continue;
      const int64_t reach = reader.product(std::abs(operand.stride[d]), map.size[d] - 1);
      if (operand.stride[d] < 0) {
        low[o] -= reach;
      } else {
        high[o] += reach;
      }
    }
    if (elements > 0) ++high[o];
  }
  for (int p = 0; p < params; ++p) map.params[p] = reader.number();
  if (!reader.ok()) return;
  if (elements > 0 && elements_overlap(map)) return reader.fail("output elements overlap");
  map.kernel = kernels.map[op][map.type];
  if (!map.kernel) return reader.fail("the op is not defined for this dtype");
  if (map.inputs != kMapInputs[op]) return reader.fail("wrong number of inputs");
  for (int o = 0; o <= map.inputs; ++o) {
    Operand& operand = map.operand[o];
    if (operand.immediate) {
      operand.value = reader.number();
    } else {
      operand.base = reader.strided(operand.dtype, low[o], high[o], o == 0);
    }
  }
  if (!reader.finish() || elements == 0) return;
  map.kernels = &kernels;
  map.op = op;
  map.elements = elements;
  for (int i = 0; i < map.inputs; ++i) map.load[i] = kernels.load[map.operand[i + 1].dtype][map.type];
  map.store = kernels.store[map.type][map.operand[0].dtype];

  if (Chain* chain = reader.chain()) return reader.require(chain->add(map), "too many commands in a chain");
  map::run(map, context);
}

}  // namespace chainrule
