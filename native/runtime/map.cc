// Elementwise commands: decode, validate, merge dimensions, and feed kernels with contiguous blocks. Runtime layer.
// Kernels see only contiguous blocks of their compute type; strided, broadcast and converted operands pass
// through a block of scratch that stays in the first-level cache.
#include <algorithm>
#include <cstdlib>

#include "executor.h"

namespace chainrule {

namespace {

constexpr int64_t kBlock = 448;         // elements: four float64 blocks, 14 KiB, on a stack that may be small
constexpr int64_t kChunk = 16 * 1024;   // elements one thread claims at a time
constexpr int64_t kInline = 32 * 1024;  // below this a hand-off costs more than it saves
constexpr int kMaxOperands = 1 + kMaxMapInputs;
constexpr int kMaxDims = 8;

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

struct Operand {
  DType dtype;
  bool immediate;
  double value;  // immediate only
  char* base;
  int64_t stride[kMaxDims];
};

struct Map {
  MapFn kernel;
  LoadFn load[kMaxMapInputs];
  StoreFn store;
  int32_t type;
  int inputs, dims;
  int64_t size[kMaxDims];
  Operand operand[kMaxOperands];  // [0] is the output
  double params[kMaxMapParams];
  int64_t inner_blocks;  // pieces of kChunk elements that the innermost dimension is cut into
  int64_t rows;          // product of the outer dimensions
  int64_t rows_per_chunk;
};

// Removes dimensions of size 1 and joins neighbours that every operand walks as one.
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

struct alignas(64) Block {
  double values[kBlock];
};

// n elements of the innermost dimension, from the given operand positions.
void run_span(const Map& map, const int64_t* at, int64_t n, Block* scratch, int filled) {
  const Operand& out = map.operand[0];
  const int inner = map.dims - 1;
  const size_t out_width = kDTypeBytes[out.dtype], type_width = kDTypeBytes[map.type];
  const bool direct_out = out.dtype == map.type && out.stride[inner] == 1;
  bool direct = direct_out;
  bool direct_in[kMaxMapInputs];
  for (int i = 0; i < map.inputs; ++i) {
    const Operand& in = map.operand[i + 1];
    direct_in[i] = !in.immediate && in.dtype == map.type && in.stride[inner] == 1;
    direct = direct && (direct_in[i] || in.immediate);
  }
  bool constants = false;
  for (int i = 0; i < map.inputs; ++i) constants = constants || !direct_in[i];
  const int64_t step = direct && !constants ? n : kBlock;
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
      const size_t fill = stride == 0 ? static_cast<size_t>(std::min(n, kBlock)) : count;
      map.load[i](&scratch[i], source, stride, fill);
    }
    char* target = out.base + (at[0] + done * out.stride[inner]) * static_cast<int64_t>(out_width);
    if (direct_out) {
      map.kernel(target, in, count, map.params);
    } else {
      Block result;
      map.kernel(&result, in, count, map.params);
      map.store(target, out.stride[inner], &result, count);
    }
  }
}

void run_chunk(void* arg, size_t chunk) {
  const Map& map = *static_cast<const Map*>(arg);
  const int inner = map.dims - 1;
  Block scratch[kMaxMapInputs];
  int filled = 0;
  for (int i = 0; i < map.inputs; ++i) {
    const Operand& in = map.operand[i + 1];
    if (!in.immediate) continue;
    const int64_t n = std::min(map.size[inner], kBlock);
    map.load[i](&scratch[i], &in.value, 0, static_cast<size_t>(n));
    filled |= 1 << i;
  }
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
}

}  // namespace

// flags: dims | inputs << 4 | compute type << 6 | out dtype << 8 | per input i (dtype | 8 if immediate) << (12 + 4 i)
//        | params << 24
// dims sizes, out strides, per slot input its strides, params, out, inputs (an immediate is its value)
void run_map(Reader& reader, const KernelTable& kernels, const Context& context, int32_t op) {
  Map map{};
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
    if (operand.immediate) continue;
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
  for (int i = 0; i < map.inputs; ++i) map.load[i] = kernels.load[map.operand[i + 1].dtype][map.type];
  map.store = kernels.store[map.type][map.operand[0].dtype];

  merge_dimensions(map);
  const int64_t inner = map.size[map.dims - 1];
  map.rows = elements / inner;
  map.inner_blocks = inner > kChunk ? (inner + kChunk - 1) / kChunk : 1;
  map.rows_per_chunk = elements < kInline ? map.rows : std::max<int64_t>(1, kChunk / inner);
  if (elements < kInline) map.inner_blocks = 1;
  const int64_t row_chunks = (map.rows + map.rows_per_chunk - 1) / map.rows_per_chunk;
  const size_t chunks = static_cast<size_t>(row_chunks * map.inner_blocks);
  if (chunks == 1) {
    run_chunk(&map, 0);
  } else {
    context.parallel(context.self, chunks, run_chunk, &map);
  }
}

}  // namespace chainrule
