// Test layer: random programs. Whatever the words, the executor returns, and memory stays sound: a sanitizer watches.
// `program_fuzz_test [programs]`: as many for the weakest and for the best instruction set; 200,000 unless told.
#include <algorithm>

#include "command_writer.h"
#include "runtime/arena.h"
#include "runtime/pool.h"

namespace chainrule::test {
namespace {

constexpr int64_t kMemory = 8 << 20;
constexpr int kPrograms = 500;  // that one executor lives for

// Draws fields: mostly what makes sense, now and then what should not.
class Draw {
 public:
  explicit Draw(uint64_t seed) : bits_(seed) {}

  int64_t below(int64_t n) { return static_cast<int64_t>(bits_() % static_cast<uint64_t>(n)); }
  bool chance(int percent) { return below(100) < percent; }
  template <class T, size_t n>
  T of(const T (&values)[n]) {
    return values[below(static_cast<int64_t>(n))];
  }
  int64_t anything() {
    static constexpr int64_t kExtremes[] = {0,  1,         2,         -1,         -2,         7,       64,
                                            65, INT32_MIN, INT32_MAX, 0x40000000, 0x00ffffff, 1 << 16, 1 << 20};
    return chance(20) ? static_cast<int32_t>(bits_()) : of(kExtremes);
  }
  int64_t size() {
    static constexpr int64_t kSizes[] = {0, 1, 1, 2, 2, 3, 4, 5, 8, 9, 16, 17, 33, 70, 200};
    return chance(2) ? anything() : of(kSizes);
  }
  int64_t stride() {
    static constexpr int64_t kStrides[] = {0, 1, 1, 1, 2, 3, 4, -1, -2, 17, 40, 600};
    return chance(3) ? anything() : of(kStrides);
  }
  int64_t offset() { return chance(85) ? 0 : chance(70) ? size() : anything(); }
  // Of sixteen slots each in its first generation; else a stale, far or negative one.
  int32_t slot() {
    return static_cast<int32_t>(chance(97) ? below(16) : chance(50) ? below(16) | 1 << 24 : anything());
  }
  int32_t dtype() { return static_cast<int32_t>(chance(2) ? below(16) : below(kDTypeCount)); }
  int32_t type(int64_t types) { return static_cast<int32_t>(chance(2) ? below(8) : below(types)); }
  double number() {
    static const double kNumbers[] = {0,      1,   -1,   0.5,      2,         1e-3, 1e300, -1e300,
                                      1e-310, 4e9, 7.25, INFINITY, -INFINITY, NAN,  -0.0,  0.999};
    return of(kNumbers);
  }
  int32_t word() { return static_cast<int32_t>(bits_()); }

 private:
  std::mt19937_64 bits_;
};

Command random_map(Draw& draw) {
  const int32_t op = static_cast<int32_t>(draw.below(kMapOpCount));
  // Most ops take one input, and two for their pullback; what does not fit is refused.
  const size_t inputs = static_cast<size_t>(draw.chance(2) ? draw.below(4) : op == kMap_where ? 3 : 1 + draw.below(2));
  const size_t dims = static_cast<size_t>(draw.chance(2) ? draw.below(16) : draw.below(4));
  std::vector<int64_t> sizes;
  for (size_t d = 0; d < dims; ++d) sizes.push_back(draw.size());
  const auto strides = [&](bool dense) {
    std::vector<int32_t> result(dims);
    uint32_t step = 1;
    for (size_t d = dims; d-- > 0; step *= static_cast<uint32_t>(sizes[d])) {
      result[d] = static_cast<int32_t>(dense ? step : draw.stride());
    }
    return result;
  };
  const Operand out{draw.dtype(), draw.slot(), strides(draw.chance(80)), draw.offset()};
  std::vector<Operand> in;
  for (size_t i = 0; i < inputs; ++i) {
    in.push_back(draw.chance(20) ? immediate(draw.number())
                                 : Operand{draw.dtype(), draw.slot(), strides(draw.chance(60)), draw.offset()});
  }
  std::vector<double> params(static_cast<size_t>(draw.below(draw.chance(2) ? 4 : 3)));
  for (double& param : params) param = draw.number();
  return map(op, draw.type(kComputeTypes), sizes, out, in, params);
}

Command random_matmul(Draw& draw) {
  Gemm g;
  g.m = draw.size(), g.n = draw.size(), g.k = draw.size();
  const bool plain = draw.chance(70), a_transposed = draw.chance(40), b_transposed = draw.chance(40);
  g.a_rs = plain ? (a_transposed ? 1 : g.k) : draw.stride();
  g.a_cs = plain ? (a_transposed ? g.m : 1) : draw.stride();
  g.b_rs = plain ? (b_transposed ? 1 : g.n) : draw.stride();
  g.b_cs = plain ? (b_transposed ? g.k : 1) : draw.stride();
  g.c_rs = draw.chance(80) ? g.n : draw.stride();
  // Any k is allowed where both operands stand still, and takes years.
  if (g.k > 1000 && g.a_cs == 0 && g.b_rs == 0) g.b_rs = 1;
  for (int64_t d = draw.chance(3) ? draw.below(9) : draw.below(2); d > 0; --d) {
    g.batch.push_back({draw.size(), draw.chance(50) ? g.m * g.k : draw.stride(), draw.chance(50) ? 0 : draw.stride(),
                       draw.chance(80) ? g.m * g.n : draw.stride()});
  }
  g.alpha = draw.number(), g.beta = draw.number();
  return matmul(draw.type(kFloatTypes), g, draw.slot(), draw.slot(), draw.slot());
}

Command random_convolution(Draw& draw, int32_t opcode) {
  const auto small = [&] { return draw.chance(2) ? draw.size() : 1 + draw.below(3); };
  Command command(opcode);
  command.add({draw.type(kFloatTypes), small(), small(), small(), small()});
  for (int d = 0; d < 2; ++d) {
    const int64_t in = draw.size(), kernel = small(), stride = small(), pad = draw.chance(60) ? 0 : small();
    const int64_t dilation = draw.chance(70) ? 1 : small(), left = in + 2 * pad - (kernel - 1) * dilation - 1;
    const int64_t out = draw.chance(2) || stride == 0 ? draw.size() : left / stride + 1;
    command.add({in, out, kernel, stride, pad, dilation});
  }
  const bool bias = opcode == kCommand_convolution && draw.chance(50);
  if (opcode == kCommand_convolution) command.add({bias});
  for (int operand = 0; operand < 3 + bias; ++operand) command.slot(draw.slot(), draw.offset());
  return command;
}

Command random_axis(Draw& draw, int32_t opcode) {
  const bool floats = opcode >= kCommand_softmax;
  Command command(opcode);
  command.add({draw.type(floats ? kFloatTypes : kComputeTypes), draw.size(), draw.size(), draw.size()});
  if (opcode == kCommand_cumsum) command.add({draw.below(2)});
  if (opcode < kCommand_cumsum) command.number(draw.number());
  command.slot(draw.slot(), draw.offset()).slot(draw.slot(), draw.offset());
  if (opcode == kCommand_softmaxVjp || opcode == kCommand_logSoftmaxVjp) command.slot(draw.slot(), draw.offset());
  return command;
}

Command random_rows(Draw& draw, int32_t opcode) {
  Command command(opcode);
  command.add({draw.type(kFloatTypes)});
  const int64_t flags = draw.below(16);
  int operands = 0;
  if (opcode < kCommand_layerNorm) {
    command.add({draw.size(), draw.size(), draw.chance(50) ? 0 : -1});
    command.add({draw.chance(5) ? draw.word() : draw.below(kLossReductionCount)});
    operands = opcode == kCommand_crossEntropyVjp ? 5 : 4;
  } else {
    const bool forward = opcode == kCommand_layerNorm;
    command.add({flags, draw.size(), draw.size()});
    if (forward) command.number(draw.number());
    for (int bit = 0; bit < (forward ? 2 : 4); ++bit) operands += flags >> bit & 1;
    operands += 3;
  }
  for (; operands > 0; --operands) command.slot(draw.slot(), draw.offset());
  return command;
}

Command random_indexing(Draw& draw, int32_t opcode) {
  return Command(opcode)
      .add({opcode == kCommand_gather ? draw.dtype() : draw.type(kComputeTypes), draw.below(2)})
      .add({draw.size(), draw.size(), draw.size(), draw.size()})
      .slot(draw.slot(), draw.offset())
      .slot(draw.slot(), draw.offset())
      .slot(draw.slot(), draw.offset());
}

Command random_sort(Draw& draw) {
  const int64_t n = draw.size();
  return Command(kCommand_sort)
      .add({draw.type(kComputeTypes), draw.size(), n, draw.size()})
      .add({draw.chance(70) ? n : draw.size(), draw.below(2)})
      .slot(draw.slot(), draw.offset())
      .slot(draw.slot(), draw.offset())
      .slot(draw.slot(), draw.offset());
}

Command random_source(Draw& draw, int32_t opcode) {
  if (opcode == kCommand_allocate) return Command(opcode).add({draw.dtype(), draw.size()}).slot(draw.slot());
  Command command(opcode);
  command.add({draw.type(kComputeTypes), draw.size()});
  if (opcode != kCommand_arange) command.add({draw.word(), draw.word(), draw.anything(), draw.anything()});
  return command.number(draw.number()).number(draw.number()).slot(draw.slot(), draw.offset());
}

Command random_list(Draw& draw, int32_t opcode) {
  Command command(opcode);
  command.add({draw.type(kFloatTypes)});
  int operands = 1;
  if (opcode == kCommand_sumSquares) {
    command.slot(draw.slot(), draw.offset());
  } else {
    const int64_t flags = draw.below(16);
    command.add({flags});
    if (flags & 2) command.number(draw.number()).slot(draw.slot(), draw.offset());
    const double momentum = draw.chance(50) ? 0 : draw.number();
    // In the order of ops.def. Momentum is the second number of those that have it.
    const int kind = opcode - kCommand_sgd, velocity = momentum != 0;
    constexpr int kNumbers[] = {4, 7, 5, 3, 4};
    const int kOperands[] = {2 + velocity, 4 + int(flags >> 3 & 1), 3 + int(flags >> 2 & 1) + velocity, 3, 4};
    for (int i = 0; i < kNumbers[kind]; ++i) command.number(i == 1 ? momentum : draw.number());
    operands = kOperands[kind];
  }
  const int64_t items = draw.below(4);
  command.add({draw.chance(3) ? draw.anything() : items});
  for (int64_t i = 0; i < items; ++i) {
    command.add({draw.size()});
    for (int o = 0; o < operands; ++o) command.slot(draw.slot(), draw.offset());
  }
  return command;
}

Command random_command(Draw& draw) {
  if (draw.chance(40)) return random_map(draw);
  if (draw.chance(10)) return random_matmul(draw);
  const int32_t opcode = static_cast<int32_t>(kFirstCommand + draw.below(kOpcodeCount - kFirstCommand));
  if (opcode == kCommand_free) return Command(opcode).add({draw.slot()});
  if (opcode == kCommand_matmul) return random_matmul(draw);
  if (opcode == kCommand_sort) return random_sort(draw);
  if (opcode >= kCommand_convolution) return random_convolution(draw, opcode);
  if (opcode < kCommand_matmul) return random_source(draw, opcode);
  if (opcode < kCommand_crossEntropy) return random_axis(draw, opcode);
  if (opcode < kCommand_gather) return random_rows(draw, opcode);
  if (opcode < kCommand_arange) return random_indexing(draw, opcode);
  if (opcode < kCommand_sgd) return random_source(draw, opcode);
  return random_list(draw, opcode);
}

// Changes words of a command, or its length. A matmul's are left alone but for its last, the operands: others might ask
// for years of work.
void mutate(Draw& draw, Command& command) {
  const int64_t n = static_cast<int64_t>(command.size());
  const int64_t first = command.opcode() == kCommand_matmul ? std::max<int64_t>(0, n - 10) : 0;
  for (int64_t changes = 1 + draw.below(3); changes > 0 && first < n; --changes) {
    int32_t& word = command[static_cast<size_t>(first + draw.below(n - first))];
    word = draw.chance(50) ? static_cast<int32_t>(draw.anything())
                           : static_cast<int32_t>(static_cast<uint32_t>(word) ^ 1u << draw.below(32));
  }
  if (draw.chance(10)) command.resize(static_cast<size_t>(draw.below(n + 4)));
}

Words random_program(Draw& draw) {
  Words words;
  if (draw.chance(20)) {
    words.resize(static_cast<size_t>(draw.below(64)));
    for (int32_t& word : words) word = draw.word();
    // Heads that are not refused at once.
    if (!words.empty() && draw.chance(80)) {
      words[0] = static_cast<int32_t>(draw.below(kOpcodeCount + 1) | static_cast<int64_t>(words.size()) << 16);
    }
    return words;
  }
  for (int64_t commands = 1 + draw.below(4); commands > 0; --commands) {
    Command command = random_command(draw);
    if (draw.chance(25)) mutate(draw, command);
    const size_t head = words.size();
    command.append_to(words);
    if (draw.chance(command.opcode() < kMapOpCount ? 30 : 2)) words[head] |= kJoined;
  }
  return words;
}

// What most programs need: some slots that hold something.
void fill_slots(Machine& machine) {
  for (int32_t slot = 0; slot < 12; ++slot) {
    machine.run({Command(slot % 2 ? kCommand_normal : kCommand_randint)
                     .add({slot % 2 ? kF64 : kI32, 500 << slot % 3, 1, 2, slot, 0})
                     .number(0)
                     .number(slot % 4 ? 3 : 100)
                     .slot(slot)});
  }
}

void fuzz(const KernelTable& kernels, int64_t programs) {
  Draw draw(programs);
  std::vector<int64_t> succeeded(kOpcodeCount);
  for (int64_t done = 0; done < programs;) {
    Machine machine(kernels);
    const SlotTable& slots = machine.executor.slots();
    const int64_t end = std::min(programs, done + kPrograms);
    for (; done < end && slots.bytes() < kMemory / 2; ++done) {
      if (done % 50 == 0) fill_slots(machine);
      const Words words = random_program(draw);
      const bool ran = machine.run(words);
      const Failure& failure = machine.executor.failure();
      size_t at = 0;
      for (int32_t c = 0; c < failure.command; ++c) {
        ++succeeded[static_cast<size_t>(words[at] & (kJoined - 1))];
        at += static_cast<uint32_t>(words[at]) >> 16;
      }
      CHECK(ran == (failure.status == kOk) && ran == (at == words.size()), "status %d after %d", failure.status,
            failure.command);
      CHECK(ran || *failure.reason, "status %d without a reason", failure.status);
      CHECK(arena::stats().live_bytes == slots.bytes() && slots.bytes() <= kMemory, "%ld bytes", long(slots.bytes()));
    }
  }
  // A fuzzer whose commands are all refused tests little.
  for (int32_t opcode = 0; opcode < kOpcodeCount && programs >= 100000; ++opcode) {
    CHECK(succeeded[opcode] >= 20, "%s: %s ran %ld times", kernels.isa, op_names()[opcode].name,
          long(succeeded[opcode]));
  }
}

}  // namespace
}  // namespace chainrule::test

int main(int argc, char** argv) {
  using namespace chainrule::test;
  const long programs = argc > 1 ? atol(argv[1]) : 200000;
  chainrule::arena::set_limit(kMemory);
  chainrule::pool::set_threads(2);
  fuzz(*chainrule::select_kernels("baseline"), programs);
  fuzz(*chainrule::select_kernels(nullptr), programs);
  return report();
}
