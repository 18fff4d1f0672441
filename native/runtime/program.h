// Programs: how a command's words are read. A command is
//   opcode | kJoined if the next one runs together with it | length << 16,
// then words by the command's own layout (lib/program/commands.ts writes them).
// Every word may be hostile: a Reader never reads past the command, resolves slots and checks extents, and turns
// sticky on the first fault. Runtime layer, no JavaScript types.
#pragma once
#include <cstdint>
#include <cstring>

#include "../kernels/table.h"
#include "slots.h"

namespace chainrule {

enum Opcode : int32_t {
  kFirstCommand = kMapOpCount,
  kBeforeCommands = kFirstCommand - 1,
#define COMMAND(name, decoder) kCommand_##name,
#include "../kernels/ops.def"
  kOpcodeCount
};

constexpr int32_t kJoined = 1 << 15;
static_assert(kOpcodeCount <= kJoined);

struct Failure {
  Status status = kOk;
  int32_t command = 0;  // index of the command in its batch
  int32_t opcode = 0;
  int64_t detail[2] = {0, 0};  // out of memory: bytes asked. index out of range: position, value.
  const char* reason = "";
};

class Chain;

// Reads one command, or one after the other those of a chain.
class Reader {
 public:
  // `fixed`: slots are neither defined nor freed. `chain`: takes what is decoded, instead of its being run; or null.
  Reader(SlotTable& slots, Failure& failure, bool fixed, Chain* chain)
      : slots_(slots), failure_(failure), fixed_(fixed), chain_(chain) {}
  // The next command: its words after the head.
  void open(const int32_t* words, const int32_t* end) { next_ = words, end_ = end; }
  Chain* chain() const { return chain_; }

  bool ok() const { return failure_.status == kOk; }
  size_t remaining() const { return static_cast<size_t>(end_ - next_); }

  int32_t word() {
    if (next_ == end_) return fail("command is too short"), 0;
    return *next_++;
  }
  // A size or an offset in elements: unsigned.
  int64_t size() { return static_cast<uint32_t>(word()); }
  double number() {
    double value = 0;
    if (remaining() < 2) return fail("command is too short"), 0.0;
    std::memcpy(&value, next_, sizeof value);
    next_ += 2;
    return value;
  }
  DType dtype(int32_t code) {
    if (code < 0 || code >= kDTypeCount) return fail("unknown dtype"), kF32;
    return static_cast<DType>(code);
  }
  // A dtype that kernels compute in: below `types`.
  int32_t compute_type(int32_t code, int32_t types) {
    if (code < 0 || code >= types) return fail("the command is not defined for this dtype"), 0;
    return code;
  }

  // [slot, offset]: at least `extent` elements of the dtype from the offset on.
  const char* input(DType dtype, int64_t extent) { return operand(dtype, 0, extent, false); }
  // As input, for writing; an undefined slot is given its block here.
  char* output(DType dtype, int64_t extent) { return operand(dtype, 0, extent, true); }
  // For strided operands: elements offset + [low, high) must exist; low <= 0 <= high.
  char* strided(DType dtype, int64_t low, int64_t high, bool define) { return operand(dtype, low, high, define); }

  // a * b, refused when it does not fit in 2^48 (no tensor is that large).
  int64_t product(int64_t a, int64_t b) {
    int64_t result = 0;
    if (__builtin_mul_overflow(a, b, &result) || result < 0 || result > kMaxExtent) return fail("size overflows"), 0;
    return result;
  }

  bool finish() {
    if (ok() && next_ != end_) fail("command is too long");
    return ok();
  }
  void fail(const char* reason, Status status = kInvalidProgram) {
    if (!ok()) return;
    failure_.status = status;
    failure_.reason = reason;
  }
  void require(bool good, const char* reason) {
    if (!good) fail(reason);
  }
  // Takes back the slots that were defined.
  void undo() {
    for (int i = 0; i < defined_count_; ++i) slots_.release(defined_[i]);
  }
  bool release(int32_t id) { return !fixed_ && slots_.release(id); }
  Failure& failure() { return failure_; }

  static constexpr int64_t kMaxExtent = int64_t{1} << 48;

 private:
  char* operand(DType dtype, int64_t low, int64_t high, bool define);

  static constexpr int kMostDefined = 16;

  const int32_t* next_ = nullptr;
  const int32_t* end_ = nullptr;
  SlotTable& slots_;
  Failure& failure_;
  const bool fixed_;
  Chain* const chain_;
  int32_t defined_[kMostDefined];
  int defined_count_ = 0;
};

}  // namespace chainrule
