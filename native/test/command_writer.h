// Test layer: commands written by hand, word by word, in the layouts of runtime/{map,commands}.cc, and a machine that
// runs them. Knows nothing of what the commands compute.
#pragma once
#include <optional>

#include "kernel_test.h"
#include "runtime/executor.h"

namespace chainrule::test {

using Words = std::vector<int32_t>;

class Command {
 public:
  explicit Command(int32_t opcode) : words_{opcode} {}
  // A program's command.
  Command(const int32_t* words, size_t length) : words_(words, words + length) { words_[0] &= 0xffff; }

  Command& add(std::initializer_list<int64_t> values) {
    for (const int64_t value : values) words_.push_back(static_cast<int32_t>(value));
    return *this;
  }
  Command& number(double value) {
    int32_t halves[2];
    memcpy(halves, &value, sizeof halves);
    return add({halves[0], halves[1]});
  }
  Command& slot(int32_t id, int64_t offset = 0) { return add({id, offset}); }

  int32_t opcode() const { return words_[0]; }
  // The words after the head.
  size_t size() const { return words_.size() - 1; }
  int32_t& operator[](size_t i) { return words_[i + 1]; }
  void resize(size_t n) { words_.resize(n + 1); }

  void append_to(Words& program) const {
    program.push_back(words_[0] | static_cast<int32_t>(words_.size() << 16));
    program.insert(program.end(), words_.begin() + 1, words_.end());
  }

 private:
  Words words_;
};

struct Operand {
  int32_t dtype = kF32;
  int32_t slot = 0;
  std::vector<int32_t> strides = {1};
  int64_t offset = 0;
  std::optional<double> immediate = {};
};

inline Operand immediate(double value) { return {.strides = {}, .immediate = value}; }

inline Command map(int32_t op, int32_t type, const std::vector<int64_t>& sizes, const Operand& out,
                   const std::vector<Operand>& inputs, const std::vector<double>& params = {}) {
  Command command(op);
  int64_t flags = static_cast<int64_t>(sizes.size() | inputs.size() << 4 | params.size() << 24);
  flags |= type << 6 | out.dtype << 8;
  for (size_t i = 0; i < inputs.size(); ++i) {
    flags |= (inputs[i].immediate ? 8 : inputs[i].dtype) << (12 + 4 * i);
  }
  command.add({flags});
  for (const int64_t size : sizes) command.add({size});
  for (const int32_t stride : out.strides) command.add({stride});
  for (const Operand& input : inputs) {
    for (const int32_t stride : input.strides) command.add({stride});
  }
  for (const double param : params) command.number(param);
  command.slot(out.slot, out.offset);
  for (const Operand& input : inputs) {
    if (input.immediate) {
      command.number(*input.immediate);
    } else {
      command.slot(input.slot, input.offset);
    }
  }
  return command;
}

struct BatchDim {
  int64_t size, a, b, c;
};

struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  int64_t a_rs = 0, a_cs = 0, b_rs = 0, b_cs = 0, c_rs = 0;
  std::vector<BatchDim> batch = {};
  double alpha = 1, beta = 0;
  int32_t bias = -1;  // a slot
};

inline Command matmul(int32_t dtype, const Gemm& g, int32_t out, int32_t a, int32_t b) {
  Command command(kCommand_matmul);
  command.add({dtype | static_cast<int64_t>(g.batch.size() << 8) | (g.bias >= 0) << 12, g.m, g.n, g.k});
  command.add({g.a_rs, g.a_cs, g.b_rs, g.b_cs, g.c_rs});
  for (const BatchDim& dim : g.batch) command.add({dim.size, dim.a, dim.b, dim.c});
  command.number(g.alpha).number(g.beta).slot(out).slot(a).slot(b);
  if (g.bias >= 0) command.slot(g.bias);
  return command;
}

// An executor with storage that tests fill and look at.
class Machine {
 public:
  explicit Machine(const KernelTable& kernels) : executor(kernels) {}

  template <class T>
  void define(int32_t slot, const std::vector<T>& values) {
    const size_t bytes = values.size() * sizeof(T);
    CHECK(executor.slots().define(slot, bytes) == SlotTable::Defined::kYes, "slot %d", slot);
    if (bytes > 0) memcpy(executor.slots().find(slot)->block, values.data(), bytes);
  }
  // All that the slot holds; empty when it holds nothing.
  template <class T>
  std::vector<T> read(int32_t slot) const {
    const SlotTable::Slot* found = executor.slots().find(slot);
    if (!found) return {};
    const T* values = reinterpret_cast<const T*>(found->block);
    return {values, values + found->bytes / sizeof(T)};
  }
  bool run(const std::vector<Command>& commands) {
    Words words;
    for (const Command& command : commands) command.append_to(words);
    return run(words);
  }
  bool run(const Words& words) { return executor.execute(words.data(), static_cast<int64_t>(words.size())); }

  Executor executor;
};

}  // namespace chainrule::test
