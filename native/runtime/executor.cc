// Executor. See executor.h.
#include "executor.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "pool.h"

namespace chainrule {

// Scratch blocks live until the command ends. Kernels ask for them on the calling thread only.
class Executor::Scratch {
 public:
  ~Scratch() {
    clear();
    std::free(kept_);
  }
  void* allocate(size_t bytes) {
    if (bytes <= kKeptBytes && kept_is_free_) {
      if (!kept_) kept_ = std::aligned_alloc(64, kKeptBytes);
      if (kept_) return kept_is_free_ = false, kept_;
    }
    void* memory = arena::allocate(bytes);
    if (memory) blocks_.push_back({memory, bytes});
    return memory;
  }
  void clear() {
    kept_is_free_ = true;
    for (const Block& block : blocks_) arena::release(block.memory, block.bytes);
    blocks_.clear();
  }

 private:
  // A small block is kept for the first need of each command: the arena is not asked for it. Not under a sanitizer,
  // which could not tell where scratch ends.
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kKeptBytes = 0;
#else
  static constexpr size_t kKeptBytes = 64 << 10;
#endif
  struct Block {
    void* memory;
    size_t bytes;
  };
  std::vector<Block> blocks_;
  void* kept_ = nullptr;
  bool kept_is_free_ = true;
};

Executor::Executor(const KernelTable& kernels)
    : kernels_(kernels), slots_(own_), fixed_(false), scratch_(new Scratch) {}
Executor::Executor(const KernelTable& kernels, SlotTable& slots)
    : kernels_(kernels), slots_(slots), fixed_(true), scratch_(new Scratch) {}
Executor::~Executor() = default;

void* Executor::allocate_scratch(void* self, size_t bytes) {
  return static_cast<Executor*>(self)->scratch_->allocate(bytes);
}

namespace {

size_t l2_bytes() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  static const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (bytes > 0) return static_cast<size_t>(bytes);
#endif
  return 1 << 20;
}

void run_parallel(void*, size_t chunks, void (*fn)(void* arg, size_t chunk), void* arg) {
  pool::parallel(chunks, fn, arg);
}

}  // namespace

char* Reader::operand(DType dtype, int64_t low, int64_t high, bool define) {
  const int32_t id = word();
  const int64_t offset = size();
  if (!ok()) return nullptr;
  const int64_t width = static_cast<int64_t>(kDTypeBytes[dtype]);
  const SlotTable::Slot* slot = slots_.find(id);
  if (!slot && define && !fixed_) {
    // low < 0 cannot be satisfied by a fresh block any more than by an old one: the check below refuses it.
    const size_t bytes = static_cast<size_t>((offset + high) * width);
    if (defined_count_ == kMostDefined) return fail("too many outputs"), nullptr;
    switch (slots_.define(id, bytes)) {
      case SlotTable::Defined::kYes:
        break;
      case SlotTable::Defined::kBadId:
        return fail("slot is in use by another storage"), nullptr;
      case SlotTable::Defined::kOutOfMemory:
        failure_.detail[0] = static_cast<int64_t>(bytes);
        return fail("out of memory", kOutOfMemory), nullptr;
    }
    defined_[defined_count_++] = id;
    slot = slots_.find(id);
  }
  if (!slot) return fail("slot holds no storage"), nullptr;
  if (offset + low < 0 || (offset + high) * width > static_cast<int64_t>(slot->bytes)) {
    return fail("operand reaches past its storage"), nullptr;
  }
  return slot->block + offset * width;
}

// Decodes a command, and runs it unless it is one of a chain. Returns its length.
int64_t Executor::take(Reader& reader, const int32_t* words, int64_t left, const Context& context) {
  const uint32_t head = static_cast<uint32_t>(words[0]);
  const int32_t opcode = static_cast<int32_t>(head & (kJoined - 1));
  const int64_t length = static_cast<int64_t>(head >> 16);
  failure_.opcode = opcode;
  if (opcode >= kOpcodeCount || length < 1 || length > left) {
    reader.fail(opcode >= kOpcodeCount ? "unknown opcode" : "bad command length");
    return 0;
  }
  reader.open(words + 1, words + length);
  run(opcode, reader, context);
  return length;
}

bool Executor::execute(const int32_t* words, int64_t count, const std::atomic<bool>* stop) {
  failure_ = Failure{};
  const Context context = {this, run_parallel, allocate_scratch, pool::own_threads(), l2_bytes()};
  for (int64_t at = 0; at < count;) {
    if (stop && stop->load(std::memory_order_relaxed)) return false;
    const bool chained = words[at] & kJoined;
    if (chained) chain_.clear();
    Reader reader(slots_, failure_, fixed_, chained ? &chain_ : nullptr);
    for (bool joined = true; joined && reader.ok();) {
      joined = words[at] & kJoined;
      at += take(reader, words + at, count - at, context);
      if (joined && at == count) reader.fail("a chain without an end");
      failure_.command += reader.ok();
    }
    if (chained && reader.ok()) chain_.run(context);
    scratch_->clear();
    if (!reader.ok()) {
      reader.undo();
      return false;
    }
  }
  return true;
}

const OpName* op_names() {
#define UNARY(name, forward, pullback, saves) {#name, saves}, {#name "Vjp", SAVES_NONE},
#define UNARY_INT(name, forward, pullback, saves) UNARY(name, forward, pullback, saves)
#define BINARY(name, forward) {#name, SAVES_NONE},
#define BINARY_INT(name, forward) {#name, SAVES_NONE},
#define COMPARE(name, forward) {#name, SAVES_NONE},
#define TERNARY(name, forward) {#name, SAVES_NONE},
#define COMMAND(name, decoder) {#name, SAVES_NONE},
  static constexpr OpName kNames[] = {
#include "../kernels/elementwise.def"
#include "../kernels/ops.def"
  };
  static_assert(sizeof kNames / sizeof *kNames == kOpcodeCount);
  return kNames;
}

const KernelTable* select_kernels(const char* name) {
  size_t count = 0;
  const IsaLevel* levels = available_isas(&count);
  if (!name || !*name) return count ? levels[count - 1].table : nullptr;
  for (size_t i = 0; i < count; ++i) {
    if (std::strcmp(levels[i].name, name) == 0) return levels[i].table;
  }
  return nullptr;
}

}  // namespace chainrule
