// The executor: validates and runs programs, command by command, on the calling thread and the pool.
// One per environment. Runtime layer, no JavaScript types.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "../kernels/table.h"
#include "arena.h"
#include "chain.h"
#include "program.h"

namespace chainrule {

class Executor {
 public:
  explicit Executor(const KernelTable& kernels);
  // On the storage of another executor, which must not change what these programs name meanwhile. None is defined or
  // freed: commands that would are refused.
  Executor(const KernelTable& kernels, SlotTable& slots);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Runs the commands in words[0, count), chains of them together. Any words are safe: a fault stops the batch before
  // the faulty command, or its chain, has changed anything, and failure() tells. What is before has run.
  // Stops before the next command or chain once `stop` is set: then it returns false without a failure.
  bool execute(const int32_t* words, int64_t count, const std::atomic<bool>* stop = nullptr);
  const Failure& failure() const { return failure_; }

  SlotTable& slots() { return slots_; }
  const SlotTable& slots() const { return slots_; }
  const KernelTable& kernels() const { return kernels_; }

 private:
  class Scratch;
  static void* allocate_scratch(void* self, size_t bytes);
  int64_t take(Reader& reader, const int32_t* words, int64_t left, const Context& context);
  void run(int32_t opcode, Reader& reader, const Context& context);

  const KernelTable& kernels_;
  SlotTable own_;
  SlotTable& slots_;
  const bool fixed_;
  Failure failure_;
  std::unique_ptr<Scratch> scratch_;
  Chain chain_;
};

struct OpName {
  const char* name;
  Saves saves;
};
// Every opcode's name, in opcode order; kOpcodeCount of them.
const OpName* op_names();
// The kernels for a level name ("avx2"), or for the best level when name is null or empty; null when not available.
const KernelTable* select_kernels(const char* name);

// Decoders, one per row of ops.def and one for all elementwise ops.
void run_map(Reader& reader, const KernelTable& kernels, const Context& context, int32_t op);
// Whether so many bytes are more than the cache keeps for whoever reads them next: stores had better go past it.
bool past_cache(int64_t bytes);

}  // namespace chainrule
