// Test layer: chains of elementwise commands. Whatever the chain, all that its commands leave is, bit for bit, what
// they leave one after the other; what cannot be a chain is refused.
#include <algorithm>

#include "command_writer.h"
#include "runtime/arena.h"
#include "runtime/pool.h"

namespace chainrule::test {
namespace {

constexpr int32_t kReadOnly = 3;  // slots 0, 1 and 2: a matrix, a row, a column
constexpr int32_t kSlots = 9;     // the others are matrices that commands write

struct Shape {
  int64_t rows, columns;
};

// One dimension or two, and such as end within the parts that a chain is run in.
constexpr Shape kShapes[] = {{1, 1},    {1, 17},   {1, 1791}, {1, 1792},  {1, 1793},  {1, 40000}, {2, 3},    {37, 1000},
                             {5000, 7}, {3, 1792}, {2, 1793}, {3, 20000}, {1000, 64}, {1, 16384}, {2, 16385}};

// A machine whose slots hold random matrices, some of them not yet.
void fill(Machine& machine, Shape shape, uint64_t seed) {
  std::mt19937_64 rng(seed);
  for (int32_t slot = 0; slot < kSlots - 2; ++slot) {
    const int64_t n = slot == 1 ? shape.columns : slot == 2 ? shape.rows : shape.rows * shape.columns;
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) value = draw<float>(rng);
    machine.define<float>(slot, values);
  }
}

// Commands that write one of the matrices from others, from a row, a column, or a number.
std::vector<Command> random_chain(std::mt19937_64& rng, Shape shape, bool flat) {
  const auto below = [&](int32_t n) { return static_cast<int32_t>(rng() % static_cast<uint64_t>(n)); };
  const int32_t columns = static_cast<int32_t>(shape.columns);
  const std::vector<int32_t> dense = flat ? std::vector<int32_t>{1} : std::vector<int32_t>{columns, 1};
  const std::vector<int64_t> sizes =
      flat ? std::vector<int64_t>{shape.rows * shape.columns} : std::vector<int64_t>{shape.rows, shape.columns};
  std::vector<int32_t> defined = {0, 3, 4, 5, 6};
  const auto input = [&]() -> Operand {
    const int32_t kind = below(8);
    if (kind == 0) return immediate(below(5) - 2);
    if (kind == 1 && !flat) return {kF32, 1, {0, 1}};
    if (kind == 2 && !flat) return {kF32, 2, {1, 0}};
    return {kF32, defined[static_cast<size_t>(below(static_cast<int32_t>(defined.size())))], dense};
  };
  constexpr int32_t kUnary[] = {kMap_neg, kMap_abs, kMap_square, kMap_tanh, kMap_relu, kMap_copy};
  constexpr int32_t kBinary[] = {kMap_add, kMap_sub, kMap_mul, kMap_maximum, kMap_lt, kMap_relu_vjp};
  std::vector<Command> commands;
  for (int32_t left = 2 + below(Chain::kMost - 1); left > 0; --left) {
    const int32_t to = kReadOnly + below(kSlots - kReadOnly);
    const Operand out{kF32, to, dense};
    switch (below(5)) {
      case 0:
        commands.push_back(map(kUnary[below(6)], kF32, sizes, out, {input()}));
        break;
      case 1:
        commands.push_back(map(kMap_where, kF32, sizes, out, {input(), input(), input()}));
        break;
      default:
        commands.push_back(map(kBinary[below(6)], kF32, sizes, out, {input(), input()}));
    }
    if (std::find(defined.begin(), defined.end(), to) == defined.end()) defined.push_back(to);
  }
  return commands;
}

Words joined(const std::vector<Command>& commands) {
  Words words;
  for (size_t i = 0; i < commands.size(); ++i) {
    const size_t head = words.size();
    commands[i].append_to(words);
    if (i + 1 < commands.size()) words[head] |= kJoined;
  }
  return words;
}

void compare(const KernelTable& kernels, Shape shape, uint64_t seed, const std::vector<Command>& commands) {
  Machine together(kernels), apart(kernels);
  fill(together, shape, seed);
  fill(apart, shape, seed);
  CHECK(apart.run(commands), "%s", apart.executor.failure().reason);
  CHECK(together.run(joined(commands)), "%s", together.executor.failure().reason);
  for (int32_t slot = 0; slot < kSlots; ++slot) {
    CHECK(together.read<int32_t>(slot) == apart.read<int32_t>(slot), "%s [%ld, %ld] seed %lu: slot %d", kernels.isa,
          long(shape.rows), long(shape.columns), static_cast<unsigned long>(seed), slot);
  }
}

void random_chains(const KernelTable& kernels) {
  std::mt19937_64 rng(11);
  for (const Shape shape : kShapes) {
    for (uint64_t seed = 0; seed < 8; ++seed) compare(kernels, shape, seed, random_chain(rng, shape, seed % 4 == 3));
  }
}

// Operands in columns, outputs of other dtypes, and commands of different sizes: which no parts line up.
void what_does_not_line_up(const KernelTable& kernels) {
  constexpr Shape kShape = {30, 50};
  const Operand in{kF32, 0, {50, 1}}, out{kF32, 3, {50, 1}};
  const Operand in_columns{kF32, 0, {1, 30}}, out_columns{kF32, 4, {1, 30}};
  const std::vector<int64_t> sizes = {30, 50};
  compare(kernels, kShape, 1,
          {map(kMap_add, kF32, sizes, out, {in, in_columns}), map(kMap_neg, kF32, sizes, out, {out})});
  compare(kernels, kShape, 2,
          {map(kMap_neg, kF32, sizes, out_columns, {in}), map(kMap_square, kF32, sizes, out, {in_columns})});
  compare(kernels, kShape, 3,
          {map(kMap_neg, kF32, {30, 2, 25}, {kF32, 3, {50, 25, 1}}, {{kF32, 0, {50, 25, 1}}}),
           map(kMap_neg, kF32, {2, 25}, {kF32, 4, {25, 1}}, {{kF32, 3, {25, 1}}}),
           map(kMap_neg, kF32, {0}, {kF32, 4}, {{kF32, 3}})});
  compare(kernels, kShape, 4,
          {map(kMap_lt, kF32, sizes, {kBool, kSlots - 1, {50, 1}}, {in, immediate(0)}),
           map(kMap_where, kF32, sizes, out, {{kBool, kSlots - 1, {50, 1}}, in, immediate(7)}),
           map(kMap_copy, kF64, sizes, {kF64, kSlots - 2, {50, 1}}, {out})});
}

// Outputs that go past the cache, and such as are read again.
void large(const KernelTable& kernels) {
  constexpr int64_t kElements = (9 << 20) + 77;
  const auto run = [&](bool join) {
    Machine machine(kernels);
    const Operand first{kF32, 0}, second{kF32, 1}, third{kF32, 2};
    machine.run({Command(kCommand_uniform).add({kF32, kElements, 1, 2, 3, 0}).number(-1).number(1).slot(0)});
    const std::vector<Command> commands = {map(kMap_mul, kF32, {kElements}, second, {first, immediate(3)}),
                                           map(kMap_relu, kF32, {kElements}, third, {second}),
                                           map(kMap_add, kF32, {kElements}, second, {second, first})};
    CHECK(join ? machine.run(joined(commands)) : machine.run(commands), "%s", machine.executor.failure().reason);
    std::vector<int32_t> all = machine.read<int32_t>(1);
    const std::vector<int32_t> rest = machine.read<int32_t>(2);
    all.insert(all.end(), rest.begin(), rest.end());
    return all;
  };
  CHECK(run(true) == run(false), "%s", kernels.isa);
}

// Each command of the longest chain makes a slot.
void all_new(const KernelTable& kernels) {
  Machine machine(kernels);
  fill(machine, {1, 100}, 1);
  std::vector<Command> commands;
  for (int32_t i = 0; i < Chain::kMost; ++i) {
    commands.push_back(map(kMap_neg, kF32, {100}, {kF32, kSlots + i}, {{kF32, i ? kSlots + i - 1 : 0}}));
  }
  CHECK(machine.run(joined(commands)), "%s", machine.executor.failure().reason);
  CHECK(machine.read<float>(kSlots + Chain::kMost - 1) == machine.read<float>(0), "%s", kernels.isa);
}

// A chain that is refused has done nothing, and has defined nothing.
void faults() {
  const auto refused = [](const char* name, const Words& words, int32_t command) {
    Machine machine(*select_kernels("baseline"));
    fill(machine, {2, 3}, 1);
    const std::vector<int32_t> before = machine.read<int32_t>(3);
    const int64_t live = machine.executor.slots().live();
    CHECK(!machine.run(words), "%s: runs", name);
    const Failure& failure = machine.executor.failure();
    CHECK(failure.status == kInvalidProgram && failure.command == command, "%s: command %d", name, failure.command);
    CHECK(machine.read<int32_t>(3) == before && machine.executor.slots().live() == live, "%s: leaves a trace", name);
  };
  const Command good = map(kMap_neg, kF32, {6}, {kF32, 3}, {{kF32, 0}});
  const Command defines = map(kMap_neg, kF32, {6}, {kF32, kSlots - 1}, {{kF32, 0}});
  const Command too_far = map(kMap_neg, kF32, {7}, {kF32, 4}, {{kF32, 0}});
  Words open = joined({good, defines});
  open[0] |= kJoined;
  open[good.size() + 1] |= kJoined;
  refused("no end", open, 1);
  refused("a fault in the second", joined({defines, too_far}), 1);
  refused("a fault in the last", joined({good, defines, too_far}), 2);
  refused("a product first",
          joined({matmul(kF32, {.m = 1, .n = 1, .k = 1, .a_rs = 1, .b_rs = 1, .c_rs = 1}, 3, 0, 0), good}), 0);
  refused("a sum last", joined({good, Command(kCommand_sum).add({kF32, 1, 6, 1}).number(1).slot(4).slot(0)}), 1);
  refused("too many", joined(std::vector<Command>(Chain::kMost + 1, good)), Chain::kMost);
}

}  // namespace
}  // namespace chainrule::test

int main() {
  using namespace chainrule::test;
  for (const size_t threads : {1, 3}) {
    chainrule::pool::set_threads(threads);
    for_each_isa(random_chains);
    for_each_isa(what_does_not_line_up);
  }
  large(*chainrule::select_kernels(nullptr));
  for_each_isa(all_new);
  faults();
  return report();
}
