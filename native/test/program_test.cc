// Test layer: programs. Every command's layout, encoded by hand, gives the right result; every kind of fault is
// refused and leaves the slots as they were. Random programs stand in program_fuzz_test.cc.
#include "program_samples.h"
#include "runtime/arena.h"
#include "runtime/pool.h"

namespace chainrule::test {
namespace {

using Bytes = std::vector<uint8_t>;

void known_programs(const KernelTable& kernels) {
  for (const Sample& sample : all_samples()) {
    Machine machine(kernels);
    prepare(machine);
    const bool ran = machine.run({sample.command});
    CHECK(ran, "%s %s: %s", kernels.isa, sample.name, machine.executor.failure().reason);
    CHECK(sample.right(machine), "%s %s", kernels.isa, sample.name);
  }
}

// Long enough for several chunks in both directions, and for blocks of constants that end in the middle.
void many_chunks(const KernelTable& kernels) {
  constexpr int64_t kRows = 37, kColumns = 20011;
  Machine machine(kernels);
  const Operand column{kI32, 0, {1, 0}}, each_row{kI32, 1, {0, -1}, kColumns - 1}, out{kF64, 2, {kColumns, 1}};
  CHECK(machine.run({Command(kCommand_arange).add({kI32, kRows}).number(0).number(1000000).slot(0),
                     Command(kCommand_arange).add({kI32, kColumns}).number(0).number(1).slot(1),
                     map(kMap_add, kI32, {kRows, kColumns}, out, {column, each_row})}),
        "%s", machine.executor.failure().reason);
  const std::vector<double> sums = machine.read<double>(2);
  size_t wrong = sums.size() != size_t{kRows * kColumns};
  for (size_t i = 0; !wrong && i < sums.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i) / kColumns, column = static_cast<int64_t>(i) % kColumns;
    wrong += sums[i] != static_cast<double>(row * 1000000 + kColumns - 1 - column);
  }
  CHECK(wrong == 0, "%s", kernels.isa);
}

// The generator's element i depends on key, counter + i / 4 and i % 4 alone.
void random_stream(const KernelTable& kernels) {
  const auto draw = [&](int64_t n, int64_t key, int64_t counter) {
    Machine machine(kernels);
    machine.run({Command(kCommand_uniform).add({kF32, n, key, 0, counter, 0}).number(0).number(1).slot(0)});
    return machine.read<float>(0);
  };
  const std::vector<float> stream = draw(40000, 7, 0), later = draw(1000, 7, 5);
  CHECK(std::vector<float>(stream.begin() + 20, stream.begin() + 1020) == later, "%s", kernels.isa);
  CHECK(later != draw(1000, 8, 5), "%s", kernels.isa);
}

// ---- faults -----------------------------------------------------------------------------------------------------

// What the slots hold, byte for byte.
std::vector<Bytes> contents(const Machine& machine) {
  std::vector<Bytes> all;
  for (int32_t slot = 0; slot < kSlots; ++slot) all.push_back(machine.read<uint8_t>(slot));
  return all;
}

// Runs a good command, then the faulty one: only the first must have left a trace.
void expect_refused(const char* name, const Words& faulty, Status status = kInvalidProgram) {
  Machine machine(*select_kernels("baseline"));
  prepare(machine);
  constexpr int32_t kBefore = 100;
  Words program;
  Command(kCommand_arange).add({kF32, 1}).number(0).number(1).slot(kBefore).append_to(program);
  program.insert(program.end(), faulty.begin(), faulty.end());
  const std::vector<Bytes> before = contents(machine);
  const int64_t live = machine.executor.slots().live();
  CHECK(!machine.run(program), "%s: runs", name);
  const Failure& failure = machine.executor.failure();
  CHECK(failure.status == status && failure.command == 1, "%s: status %d of command %d", name, failure.status,
        failure.command);
  CHECK(*failure.reason, "%s: no reason", name);
  CHECK(machine.executor.slots().live() == live + 1 && machine.read<float>(kBefore).size() == 1, "%s: slots", name);
  CHECK(contents(machine) == before, "%s: contents", name);
  CHECK(arena::stats().live_bytes == machine.executor.slots().bytes(), "%s: scratch", name);
}

void expect_refused(const char* name, const Command& command, Status status = kInvalidProgram) {
  Words words;
  command.append_to(words);
  expect_refused(name, words, status);
}

// Of every command: any length but its own.
void wrong_lengths() {
  for (const Sample& sample : all_samples()) {
    Command command = sample.command;
    const size_t length = command.size();
    for (size_t n = 0; n <= length + 2; ++n) {
      if (n == length) continue;
      command.resize(n);
      expect_refused(sample.name, command);
      command = sample.command;
    }
  }
  const auto head = [](int64_t opcode, int64_t length) { return static_cast<int32_t>(opcode | length << 16); };
  expect_refused("no length", Words{head(kCommand_free, 0), kRow});
  expect_refused("longer than the program", Words{head(kCommand_free, 3), kRow});
  expect_refused("longest", Words{head(kCommand_free, 0xffff), kRow});
  expect_refused("no opcode", Words{head(kOpcodeCount, 2), kRow});
  expect_refused("last opcode", Words{head(0xffff, 2), kRow});
}

void wrong_maps() {
  const Operand row{kF32, kRow}, out{kF32, kOut};
  const auto add = [](std::vector<int64_t> sizes, Operand to, Operand x) {
    return map(kMap_add, kF32, sizes, to, {x, immediate(1)});
  };
  expect_refused("output dtype", add({3}, {kDTypeCount, kOut}, row));
  expect_refused("input dtype", add({3}, out, {7, kRow}));
  expect_refused("compute type", map(kMap_copy, kComputeTypes, {3}, out, {row}));
  expect_refused("not for integers", map(kMap_exp, kI32, {4}, {kI32, kOut}, {{kI32, kInts}}));
  expect_refused("an input too few", map(kMap_add, kF32, {3}, out, {row}));
  expect_refused("an input too many", map(kMap_neg, kF32, {3}, out, {row, row}));
  expect_refused("no inputs", map(kMap_neg, kF32, {3}, out, {}));
  const std::vector<int32_t> ones(9, 1);
  expect_refused("dimensions", add(std::vector<int64_t>(9, 1), {kF32, kOut, ones}, {kF32, kRow, ones}));
  expect_refused("parameters", map(kMap_neg, kF32, {3}, out, {row}, {1, 2, 3}));
  expect_refused("undefined input", add({3}, out, {kF32, kOut + 1}));
  expect_refused("its own undefined output", add({3}, {kF32, kOut, {1}, 1}, {kF32, -1}));
  expect_refused("stale input", add({3}, out, {kF32, kStale}));
  expect_refused("stale output", add({3}, {kF32, kStale}, row));
  expect_refused("negative output", add({3}, {kF32, -1}, row));
  expect_refused("input too short", add({4}, out, row));
  expect_refused("output too short", add({3}, {kF32, kRow, {1}, 1}, row));
  expect_refused("wider than its storage", map(kMap_copy, kF64, {2}, {kF64, kOut}, {{kF64, kRow}}));
  expect_refused("offset", add({3}, out, {kF32, kRow, {1}, 0xffffffff}));
  expect_refused("stride", add({3}, out, {kF32, kRow, {2}}));
  expect_refused("before its storage", add({3}, out, {kF32, kRow, {-1}, 1}));
  expect_refused("output before its storage", add({3}, {kF32, kOut, {-1}, 1}, row));
  expect_refused("elements", add({0x80000000, 0x80000000}, {kF32, kOut, {0, 1}}, {kF32, kRow, {0, 0}}));
  // In bytes this input's reach is 2^64 less a little, which as a signed number lies before the storage.
  expect_refused("reach", map(kMap_copy, kF64, {0x40000001}, {kU8, kOut}, {{kF64, kDouble, {INT32_MAX}, 0xffffffff}}));
  expect_refused("sum of reaches", map(kMap_copy, kF64, {0xffffffff, 16}, {kU8, kOut, {16, 1}},
                                       {{kF64, kDouble, {INT32_MAX, INT32_MAX}}}));
  expect_refused("least stride", map(kMap_copy, kF32, {2}, out, {{kF32, kRow, {INT32_MIN}, 0xffffffff}}));
  expect_refused("shared outputs", add({3}, {kF32, kOut, {0}}, row));
  expect_refused("overlapping rows", add({2, 2}, {kF32, kOut, {1, 1}}, {kF32, kRow, {1, 1}}));
  expect_refused("overlapping, reversed", add({2, 2}, {kF32, kRow, {-1, 1}, 1}, {kF32, kRow, {1, 1}}));
  expect_refused("memory", add({0x7fffffff, 0x8000}, {kF32, kOut, {0x8000, 1}}, {kF32, kRow, {0, 0}}), kOutOfMemory);
}

void wrong_products() {
  const Gemm good{.m = 2, .n = 2, .k = 2, .a_rs = 1, .a_cs = 1, .b_rs = 1, .b_cs = 1, .c_rs = 2};
  const auto refuse = [](const char* name, const Gemm& g, Status status = kInvalidProgram) {
    expect_refused(name, matmul(kF32, g, kOut, kMatrix, kRow), status);
  };
  const auto with = [&](int64_t Gemm::*field, int64_t value) {
    Gemm g = good;
    g.*field = value;
    return g;
  };
  for (const auto field : {&Gemm::a_rs, &Gemm::a_cs, &Gemm::b_rs, &Gemm::b_cs, &Gemm::c_rs}) {
    refuse("negative stride", with(field, -1));
    if (field != &Gemm::c_rs) refuse("stride past the storage", with(field, 6));
    refuse("longest stride", with(field, INT32_MAX), field == &Gemm::c_rs ? kOutOfMemory : kInvalidProgram);
  }
  refuse("rows", with(&Gemm::m, 0xffffffff), kOutOfMemory);
  refuse("columns", with(&Gemm::n, 0xffffffff));
  refuse("depth", with(&Gemm::k, 0xffffffff));
  refuse("rows overlap", with(&Gemm::c_rs, 1));
  const auto batch = [&](std::vector<BatchDim> dims) {
    Gemm g = good;
    g.batch = dims;
    return g;
  };
  refuse("batch dimensions", batch(std::vector<BatchDim>(7, {1, 0, 0, 0})));
  refuse("products overlap", batch({{2, 0, 0, 3}}));
  refuse("outer products overlap", batch({{2, 0, 0, 4}, {2, 0, 0, 4}}));
  refuse("negative batch stride", batch({{2, 0, -1, 4}}));
  refuse("batch past the storage", batch({{3, 2, 0, 4}}));
  refuse("batch overflows", batch({{0xffffffff, 0, 0, 4}, {0xffffffff, 0, 0, 4}}));
  refuse("endless work", {.m = 0xffffffff, .n = 0xffff, .k = 0xffffffff, .c_rs = 0xffff});
  for (const int32_t dtype : {int32_t{kI32}, int32_t{kBF16}, 6, -1})
    expect_refused("dtype", matmul(dtype, good, kOut, kMatrix, kRow));
}

void wrong_axes() {
  const auto sum = [](std::initializer_list<int64_t> axis) {
    return Command(kCommand_sum).add(axis).number(1).slot(kOut).slot(kMatrix);
  };
  expect_refused("dtype of a sum", sum({kBF16, 1, 2, 3}));
  expect_refused("unknown dtype of a sum", sum({-1, 1, 2, 3}));
  expect_refused("outer", sum({kF32, 2, 2, 3}));
  expect_refused("overflow", sum({kF32, 0xffffffff, 0xffffffff, 0}));
  for (const int32_t opcode : {kCommand_amax, kCommand_amin, kCommand_argmax, kCommand_argmin}) {
    expect_refused("extreme of none", Command(opcode).add({kF32, 2, 0, 3}).number(1).slot(kOut).slot(kMatrix));
  }
  expect_refused("softmax of integers", Command(kCommand_softmax).add({kI32, 1, 4, 1}).slot(kOut).slot(kInts));
  expect_refused("normal integers", Command(kCommand_normal).add({kI32, 1, 0, 0, 0, 0}).number(0).number(1).slot(kOut));
}

void wrong_sorts() {
  const auto sort = [](std::initializer_list<int64_t> layout, int32_t out = kOut) {
    return Command(kCommand_sort).add(layout).slot(out).slot(kOut + 1).slot(kMatrix);
  };
  expect_refused("dtype of a sort", sort({kBF16, 1, 6, 1, 6, 0}));
  expect_refused("rows past the storage", sort({kF32, 2, 6, 1, 1, 0}));
  expect_refused("more results than elements", sort({kF32, 1, 6, 1, 7, 0}));
  expect_refused("results past the storage", sort({kF32, 1, 6, 1, 6, 0}, kRow));
  expect_refused("rows longer than an index", sort({kF32, 0, 0x80000000, 1, 0, 0}));
  expect_refused("rows of a sort overflow", sort({kF32, 0xffffffff, 0xffff, 0xffff, 0, 0}));
}

void wrong_indices() {
  const auto gather = [](std::initializer_list<int64_t> layout, int32_t out, int32_t x, int32_t index) {
    return Command(kCommand_gather).add(layout).slot(out).slot(x).slot(index);
  };
  expect_refused("index too large", gather({kF32, 0, 2, 3, 2, 1}, kOut, kMatrix, kFar), kIndexOutOfRange);
  expect_refused("negative index", gather({kF32, 0, 1, 6, 4, 1}, kOut, kMatrix, kInts), kIndexOutOfRange);
  expect_refused("no rows", gather({kF32, 0, 1, 0, 2, 3}, kOut, kMatrix, kIndex), kIndexOutOfRange);
  expect_refused("index too short", gather({kF32, 0, 1, 3, 3, 2}, kOut, kMatrix, kIndex));
  expect_refused("output is the index", gather({kI32, 0, 1, 3, 2, 1}, kIndex, kInts, kIndex));
  expect_refused("output is the input", gather({kF32, 0, 1, 3, 2, 2}, kMatrix, kMatrix, kIndex));
  expect_refused("rows overflow", gather({kU8, 0, 0xffffffff, 0xffffffff, 2, 1}, kOut, kBools, kIndex));
  const auto scatter = [](int32_t out, int32_t x, int32_t index) {
    return Command(kCommand_scatterAdd).add({kF32, 0, 1, 3, 2, 1}).slot(out).slot(x).slot(index);
  };
  expect_refused("scatter to nothing", scatter(kOut, kRow, kIndex));
  expect_refused("scatter too far", scatter(kMatrix, kRow, kFar), kIndexOutOfRange);
  expect_refused("scatter onto itself", scatter(kMatrix, kMatrix, kIndex));
  Machine machine(*select_kernels("baseline"));
  prepare(machine);
  machine.run({gather({kF32, 0, 2, 3, 2, 1}, kOut, kMatrix, kFar)});
  const Failure& failure = machine.executor.failure();
  CHECK(failure.detail[0] == 1 && failure.detail[1] == 3, "index %d at %d", int(failure.detail[1]),
        int(failure.detail[0]));
}

void wrong_rows() {
  const auto loss = [](std::initializer_list<int64_t> layout, int32_t out, int32_t stats, int32_t target) {
    return Command(kCommand_crossEntropy).add(layout).slot(out).slot(stats).slot(kMatrix).slot(target);
  };
  const int64_t mean = kLossMean;
  expect_refused("target too large", loss({kF32, 2, 3, -1, mean}, kOut, kOut + 1, kFar), kIndexOutOfRange);
  expect_refused("unknown reduction", loss({kF32, 2, 3, -1, 3}, kOut, kOut + 1, kIndex));
  expect_refused("no reduction", loss({kF32, 2, 3, -1, -1}, kOut, kOut + 1, kIndex));
  expect_refused("of integers", loss({kI32, 2, 3, -1, mean}, kOut, kOut + 1, kIndex));
  expect_refused("target too short", loss({kF32, 3, 2, -1, mean}, kOut, kOut + 1, kIndex));
  expect_refused("x too short", loss({kF32, 2, 4, -1, mean}, kOut, kOut + 1, kIndex));
  expect_refused("stats too short", loss({kF32, 2, 3, -1, mean}, kOut, kRow, kIndex));
  expect_refused("the loss is the target", loss({kF32, 1, 3, -1, mean}, kIndex, kOut, kIndex));
  expect_refused("the stats are the target", loss({kF32, 1, 3, -1, mean}, kOut, kIndex, kIndex));
  expect_refused("sizes overflow", loss({kF32, 0xffffffff, 0xffffffff, -1, mean}, kOut, kRow, kIndex));
  const auto pullback = [](int32_t out, int32_t target) {
    Command command = Command(kCommand_crossEntropyVjp).add({kF32, 1, 2, -1, kLossMean}).slot(out).slot(kRow);
    return command.slot(kMatrix).slot(target).slot(kMatrix);
  };
  expect_refused("target too large for the pullback", pullback(kOut, kInts), kIndexOutOfRange);
  expect_refused("the gradient is the target", pullback(kInts, kInts));

  const auto norm = [](std::initializer_list<int64_t> layout, int32_t stats) {
    return Command(kCommand_layerNorm).add(layout).number(1).slot(kOut).slot(stats).slot(kMatrix);
  };
  expect_refused("norm of integers", norm({kI32, 0, 2, 3}, kOut + 1));
  expect_refused("norm of too many rows", norm({kF32, 0, 3, 3}, kOut + 1));
  expect_refused("norm with short stats", norm({kF32, 0, 2, 3}, kRow));
  expect_refused("norm with a short weight", norm({kF32, 1, 1, 6}, kOut + 1).slot(kRow));
  expect_refused("norm without its bias", norm({kF32, 2, 2, 3}, kOut + 1));
  Command back = Command(kCommand_layerNormVjp).add({kF32, 2, 2, 3}).slot(kOut).slot(kMatrix).slot(kMatrix);
  expect_refused("norm pullback with short stats", back.slot(kRow));
}

void wrong_lists() {
  const auto sgd = [](int64_t count) {
    return Command(kCommand_sgd).add({kF32, 0}).number(1).number(0).number(0).number(0).add({count});
  };
  expect_refused("items", sgd(0xffffffff));
  expect_refused("an item missing", sgd(2).add({1}).slot(kMatrix).slot(kRow));
  expect_refused("undefined parameter", sgd(1).add({1}).slot(kOut).slot(kRow));
  expect_refused("gradient too short", sgd(1).add({4}).slot(kMatrix).slot(kRow));
  expect_refused("clipped by nothing", Command(kCommand_sgd)
                                           .add({kF32, 2})
                                           .number(1)
                                           .slot(kOut)
                                           .number(1)
                                           .number(0)
                                           .number(0)
                                           .number(0)
                                           .add({1, 1})
                                           .slot(kMatrix)
                                           .slot(kRow));
  expect_refused("squares of none", Command(kCommand_sumSquares).add({kF32}).slot(kDouble).add({1, 1}).slot(kOut));
  expect_refused("squares into nothing", Command(kCommand_sumSquares).add({kF32}).slot(kOut).add({1, 1}).slot(kRow));
  expect_refused("free of nothing", Command(kCommand_free).add({kOut}));
  expect_refused("free of a stale slot", Command(kCommand_free).add({kStale}));
  expect_refused("free of two", Command(kCommand_free).add({kRow, kMatrix}));
  expect_refused("allocate twice the memory", Command(kCommand_allocate).add({kF64, 0xffffffff}).slot(kOut),
                 kOutOfMemory);
}

}  // namespace
}  // namespace chainrule::test

int main() {
  using namespace chainrule::test;
  chainrule::arena::set_limit(64 << 20);
  for (const size_t threads : {1, 3}) {
    chainrule::pool::set_threads(threads);
    for_each_isa(known_programs);
    for_each_isa(many_chunks);
    for_each_isa(random_stream);
  }
  wrong_lengths();
  wrong_maps();
  wrong_products();
  wrong_axes();
  wrong_sorts();
  wrong_indices();
  wrong_rows();
  wrong_lists();
  return report();
}
