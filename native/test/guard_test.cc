// Test layer: every command against unreadable pages. This program brings its own arena in place of runtime/arena.cc:
// each block, operand or scratch, ends where an unreadable page begins, or begins where one ends. An access outside is
// a crash. Sizes run through every alignment of a vector and every tail.
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <map>
#include <mutex>

#include "program_samples.h"
#include "runtime/arena.h"

namespace chainrule::arena {
namespace {

enum class Side { kEnd, kBegin };
Side side = Side::kEnd;  // changed only while no block is live
std::mutex lock;
std::map<size_t, std::vector<char*>> idle;  // by bytes: what lies between two unreadable pages

const size_t kPage = static_cast<size_t>(sysconf(_SC_PAGESIZE));
size_t space_for(size_t bytes) { return (bytes / kPage + (bytes % kPage != 0 || bytes == 0)) * kPage; }

char* map_between_guards(size_t bytes) {
  void* mapped = mmap(nullptr, bytes + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(mapped) + kPage;
  return mprotect(begin, bytes, PROT_READ | PROT_WRITE) == 0 ? begin : nullptr;
}

}  // namespace

size_t rounded(size_t bytes) { return bytes; }
void* allocate(size_t bytes) {
  const std::lock_guard guard(lock);
  const size_t space = space_for(bytes);
  std::vector<char*>& free = idle[space];
  if (free.empty()) free.push_back(map_between_guards(space));
  char* begin = free.back();
  free.pop_back();
  if (begin) memset(begin, 0xff, space);
  return begin && side == Side::kEnd ? begin + space - bytes : begin;
}
void release(void* block, size_t bytes) {
  const std::lock_guard guard(lock);
  const size_t space = space_for(bytes);
  char* at = static_cast<char*>(block);
  idle[space].push_back(side == Side::kEnd ? at + bytes - space : at);
}
void trim() {}
Stats stats() { return {}; }
void reset_peak() {}
void set_limit(int64_t) {}

}  // namespace chainrule::arena

namespace chainrule::test {
namespace {

constexpr int64_t kMost = 70;
enum : int32_t { kX, kY, kZ, kIndices, kTo, kTo2, kTo3, kTo4, kTo5 };

template <class T>
std::vector<T> values(int64_t n, int seed) {
  std::vector<T> result(n);
  for (int64_t i = 0; i < n; ++i) result[i] = T((i * 7 + seed) % 11 + 1);
  return result;
}

// Operands of exactly `n` elements, and `count` indices below `rows`.
void define(Machine& machine, int32_t dtype, int64_t n, int64_t count = 0, int64_t rows = 1) {
  for (const int32_t slot : {kX, kY, kZ}) {
    if (kDTypeBytes[dtype] == 1) machine.define(slot, values<uint8_t>(n, slot));
    if (kDTypeBytes[dtype] == 2) machine.define(slot, values<uint16_t>(n, slot));
    if (dtype == kF32) machine.define(slot, values<float>(n, slot));
    if (dtype == kF64) machine.define(slot, values<double>(n, slot));
    if (dtype == kI32) machine.define(slot, values<int32_t>(n, slot));
  }
  std::vector<int32_t> indices(count);
  for (int64_t i = 0; i < count; ++i) indices[i] = static_cast<int32_t>((i * 5 + 3) % rows);
  machine.define(kIndices, indices);
}

// ---- what runs, by opcode: the test fails for a command that never did
// -------------------------------------------------

struct Walk {
  explicit Walk(const KernelTable& table) : kernels(table), ran(kOpcodeCount) {}
  // The opcode counts as run if the executor took the command.
  bool run(Machine& machine, const Command& command) {
    const bool done = machine.run({command});
    ran[command.opcode()] += done;
    return done;
  }
  void must(Machine& machine, const Command& command, int64_t n) {
    CHECK(run(machine, command), "%s %s of %ld: %s", kernels.isa, op_names()[command.opcode()].name, long(n),
          machine.executor.failure().reason);
  }
  const KernelTable& kernels;
  std::vector<int> ran;
};

void samples(Walk& walk) {
  for (const Sample& sample : all_samples()) {
    Machine machine(walk.kernels);
    prepare(machine);
    CHECK(walk.run(machine, sample.command) && sample.right(machine), "%s %s", walk.kernels.isa, sample.name);
  }
}

// Contiguous, backwards, every other element, and converted to and from every dtype.
void elementwise(Walk& walk) {
  for (int32_t op = 0; op < kMapOpCount; ++op) {
    for (int32_t type = 0; type < kComputeTypes; ++type) {
      if (!walk.kernels.map[op][type]) continue;
      for (int64_t n = 0; n <= kMost; ++n) {
        Machine machine(walk.kernels);
        define(machine, type, n);
        const Operand x{type, kX}, y{type, kY}, z{type, kZ};
        const int32_t results[] = {type, kBool};
        bool done = false;
        for (const int32_t result : results) {
          for (const std::vector<Operand>& in : {std::vector{x}, {x, y}, {x, y, z}}) {
            done = done || walk.run(machine, map(op, type, {n}, {result, kTo}, in, {1, 2}));
          }
        }
        CHECK(done, "%s %s of %ld", walk.kernels.isa, op_names()[op].name, long(n));
      }
    }
  }
  for (int32_t from = 0; from < kDTypeCount; ++from) {
    for (int32_t to = 0; to < kDTypeCount; ++to) {
      for (int64_t n = 1; n <= kMost; ++n) {
        for (const int32_t stride : {1, -1, 2, 0}) {
          Machine machine(walk.kernels);
          define(machine, from, stride == 0 ? 1 : (n - 1) * abs(stride) + 1);
          const Operand x{from, kX, {stride}, stride < 0 ? n - 1 : 0};
          const int32_t type = from == kF64 || to == kF64 ? kF64 : kF32;
          walk.must(machine, map(kMap_copy, type, {n}, {to, kTo}, {x}), n);
          walk.must(machine, map(kMap_copy, type, {n}, {to, kTo2, {3}}, {x}), n);
        }
      }
    }
  }
}

// [outer, reduce, inner] with one of them n.
void along_an_axis(Walk& walk) {
  for (int32_t opcode = kCommand_sum; opcode <= kCommand_logSoftmaxVjp; ++opcode) {
    for (int32_t type = 0; type < (opcode < kCommand_softmax ? kComputeTypes : kFloatTypes); ++type) {
      for (int64_t n = 1; n <= kMost; ++n) {
        for (const auto& [outer, reduce, inner] :
             {std::array<int64_t, 3>{1, n, 1}, {5, n, 1}, {n, 3, 1}, {2, 9, n}, {1, n, 7}, {1, n, 17}}) {
          Machine machine(walk.kernels);
          define(machine, type, outer * reduce * inner);
          Command command(opcode);
          command.add({type, outer, reduce, inner});
          if (opcode < kCommand_cumsum) command.number(1);
          if (opcode == kCommand_cumsum) command.add({n % 2});
          command.slot(kTo).slot(kX);
          if (opcode >= kCommand_softmaxVjp) command.slot(kY);
          walk.must(machine, command, n);
        }
      }
    }
  }
}

// n rows, or rows of n.
void rows(Walk& walk) {
  for (int32_t type = 0; type < kFloatTypes; ++type) {
    for (int64_t n = 1; n <= kMost; ++n) {
      for (const auto& [rows, size] : {std::array<int64_t, 2>{1, n}, {3, n}, {n, 3}, {70, n}}) {
        for (const int32_t reduction : {kLossEach, kLossMean}) {
          Machine machine(walk.kernels);
          define(machine, type, rows * size, rows, size);
          Command forward = Command(kCommand_crossEntropy).add({type, rows, size, -1, reduction});
          walk.must(machine, forward.slot(kTo).slot(kTo2).slot(kX).slot(kIndices), n);
          Command pullback = Command(kCommand_crossEntropyVjp).add({type, rows, size, -1, reduction});
          walk.must(machine, pullback.slot(kTo3).slot(kTo).slot(kX).slot(kIndices).slot(kTo2), n);
        }
        // Every combination of weight and bias, and of the gradients that are wanted.
        for (int32_t flags = 0; flags < 16; ++flags) {
          Machine machine(walk.kernels);
          define(machine, type, rows * size);
          Command forward = Command(kCommand_layerNorm).add({type, flags & 3, rows, size}).number(1);
          forward.slot(kTo).slot(kTo2).slot(kX);
          for (int32_t bit = 1; bit <= 2; bit *= 2) {
            if (flags & bit) forward.slot(kY, (rows - 1) * size);
          }
          walk.must(machine, forward, n);
          Command pullback = Command(kCommand_layerNormVjp).add({type, flags, rows, size});
          for (int32_t bit = 2, to = kTo3; bit <= 8; bit *= 2, ++to) {
            if (flags & bit) pullback.slot(to);
          }
          pullback.slot(kY).slot(kX).slot(kTo2);
          if (flags & 1) pullback.slot(kZ, (rows - 1) * size);
          walk.must(machine, pullback, n);
        }
      }
    }
  }
}

void products(Walk& walk) {
  for (int32_t type = 0; type < kFloatTypes; ++type) {
    for (int64_t n = 1; n <= kMost; ++n) {
      for (int shape = 0; shape < 24; ++shape) {
        const int64_t sizes[][3] = {{n, 5, 3}, {3, n, 17}, {4, 35, n}, {n, 1, 9}, {1, n, 9}, {n, n, 2}};
        const auto [rows, columns, k] = sizes[shape % 6];
        Gemm g{.m = rows, .n = columns, .k = k};
        const bool a_turned = shape / 6 % 2, b_turned = shape / 12;
        g.a_rs = a_turned ? 1 : k, g.a_cs = a_turned ? rows : 1;
        g.b_rs = b_turned ? 1 : columns, g.b_cs = b_turned ? k : 1;
        g.c_rs = columns;
        Machine machine(walk.kernels);
        const auto operands = [&]<class T>(T) {
          machine.define(kX, values<T>(rows * k, 1));
          machine.define(kY, values<T>(k * columns, 2));
          machine.define(kZ, values<T>(columns, 3));
        };
        type == kF32 ? operands(float{}) : operands(double{});
        walk.must(machine, matmul(type, g, kTo, kX, kY), n);
        g.beta = 1, g.bias = kZ;
        walk.must(machine, matmul(type, g, kTo, kX, kY), n);
      }
    }
  }
}

// Windows, channels and strides that end everywhere in a vector and in a tile.
void convolutions(Walk& walk) {
  struct Case {
    int64_t groups, in, out;
    ConvDim y, x;
  };
  const auto dim = [](int64_t size, int64_t kernel, int64_t stride = 1, int64_t pad = 0, int64_t dilation = 1) {
    return ConvDim{size, (size + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1, kernel, stride, pad, dilation};
  };
  for (int32_t type = 0; type < kFloatTypes; ++type) {
    for (int64_t n = 1; n <= kMost; ++n) {
      for (const Case& c : {Case{1, 2, 3, dim(3, 3, 1, 1), dim(n, 3, 1, 1)},
                            {1, 3, 2, dim(n, 1), dim(1, 1)},
                            {2, 2, 2, dim(n, 2, 3, 2), dim(9, 2, 2, 1)},
                            {1, 1, 1, dim(4, 2, 1, 2, 3), dim(n, 2, 3, 2, 2)},
                            {1, n, 5, dim(2, 1), dim(5, 1)},
                            {1, 2, n, dim(3, 2), dim(3, 2)},
                            {n, 1, 1, dim(5, 3, 1, 1), dim(5, 3, 1, 1)}}) {
        const int64_t images = 2 * c.groups, weights = c.groups * c.out * c.in * c.y.kernel * c.x.kernel;
        const int64_t sizes[] = {images * c.in * c.y.in * c.x.in, weights, images * c.out * c.y.out * c.x.out,
                                 c.groups * c.out};
        Machine machine(walk.kernels);
        for (int32_t slot = 0; slot < 4; ++slot) {
          if (type == kF32) machine.define(slot, values<float>(sizes[slot], slot));
          if (type == kF64) machine.define(slot, values<double>(sizes[slot], slot));
        }
        const auto command = [&](int32_t opcode) {
          Command command(opcode);
          command.add({type, 2, c.groups, c.in, c.out});
          for (const ConvDim& d : {c.y, c.x}) command.add({d.in, d.out, d.kernel, d.stride, d.pad, d.dilation});
          return command;
        };
        walk.must(machine, command(kCommand_convolution).add({1}).slot(4).slot(0).slot(1).slot(3), n);
        walk.must(machine, command(kCommand_convolutionInput).slot(5).slot(2).slot(1), n);
        walk.must(machine, command(kCommand_convolutionWeight).slot(6).slot(0).slot(2), n);
      }
    }
  }
}

void indexing_and_sorting(Walk& walk) {
  for (int64_t n = 1; n <= kMost; ++n) {
    for (int32_t dtype = 0; dtype < kDTypeCount; ++dtype) {
      for (const int64_t inner : {int64_t{1}, n}) {
        Machine machine(walk.kernels);
        define(machine, dtype, n * inner, 9, n);
        walk.must(machine, Command(kCommand_gather).add({dtype, 0, 1, n, 9, inner}).slot(kTo).slot(kX).slot(kIndices),
                  n);
        if (dtype >= kComputeTypes) continue;
        Machine back(walk.kernels);
        define(back, dtype, n * inner, n, 4);
        back.run({Command(kCommand_allocate).add({dtype, 4 * inner}).slot(kTo)});
        walk.must(back, Command(kCommand_scatterAdd).add({dtype, 0, 1, 4, n, inner}).slot(kTo).slot(kX).slot(kIndices),
                  n);
        Machine sorted(walk.kernels);
        define(sorted, dtype, n * inner);
        const Command sort = Command(kCommand_sort).add({dtype, 1, n, inner, (n + 1) / 2, n % 2});
        walk.must(sorted, Command(sort).slot(kTo).slot(kTo2).slot(kX), n);
      }
    }
  }
}

void sources(Walk& walk) {
  for (int64_t n = 0; n <= kMost; ++n) {
    for (int32_t type = 0; type < kComputeTypes; ++type) {
      for (int32_t opcode = kCommand_arange; opcode <= kCommand_randint; ++opcode) {
        Machine machine(walk.kernels);
        Command command(opcode);
        command.add({type, n});
        if (opcode != kCommand_arange) command.add({1, 2, 3, 4});
        walk.run(machine, command.number(0).number(1).slot(kTo));
      }
    }
  }
}

// Every optimizer with all its state, on a list of two tensors.
void lists(Walk& walk) {
  constexpr int kNumbers[] = {4, 7, 5, 3, 4}, kOperands[] = {3, 5, 5, 3, 4}, kFlags[] = {4, 8, 4, 0, 0};
  for (int32_t type = 0; type < kFloatTypes; ++type) {
    for (int64_t n = 0; n <= kMost; ++n) {
      for (int32_t opcode = kCommand_sgd; opcode <= kCommand_adadelta; ++opcode) {
        Machine machine(walk.kernels);
        const int kind = opcode - kCommand_sgd;
        Command command(opcode);
        command.add({type, kFlags[kind]});
        for (int i = 0; i < kNumbers[kind]; ++i) command.number(0.5);
        command.add({2});
        for (int32_t slot = 0, item = 0; item < 2; ++item) {
          command.add({n});
          for (int o = 0; o < kOperands[kind]; ++o, ++slot) {
            if (type == kF32) machine.define(slot, values<float>(n, slot));
            if (type == kF64) machine.define(slot, values<double>(n, slot));
            command.slot(slot);
          }
        }
        walk.must(machine, command, n);
      }
      Machine machine(walk.kernels);
      define(machine, type, n);
      machine.define<double>(kTo, {0});
      walk.must(machine, Command(kCommand_sumSquares).add({type}).slot(kTo).add({2, n}).slot(kX).add({n}).slot(kY), n);
    }
  }
}

}  // namespace
}  // namespace chainrule::test

int main() {
  using namespace chainrule::test;
  for (const auto side : {chainrule::arena::Side::kEnd, chainrule::arena::Side::kBegin}) {
    chainrule::arena::side = side;
    for_each_isa([](const chainrule::KernelTable& table) {
      Walk walk(table);
      for (const auto part :
           {samples, elementwise, along_an_axis, rows, products, convolutions, indexing_and_sorting, sources, lists})
        part(walk);
      for (int op = 0; op < chainrule::kOpcodeCount; ++op) {
        CHECK(walk.ran[op] > 0, "%s %s never ran", table.isa, chainrule::op_names()[op].name);
      }
    });
  }
  return report();
}
