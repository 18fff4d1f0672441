// Slots: the numbers that programs use for storage, mapped to arena blocks. Runtime layer, no JavaScript types.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace chainrule {

// A slot id is generation << 24 | index, never negative. The issuer of ids raises the generation each time it
// reuses an index, so a stale id is refused instead of reading another tensor's memory.
class SlotTable {
 public:
  struct Slot {
    char* block = nullptr;
    size_t bytes = 0;
    int32_t id = -1;
    uint64_t serial = 0;  // never used twice, where ids come round after 128 reuses of an index
  };

  SlotTable() = default;
  SlotTable(const SlotTable&) = delete;
  SlotTable& operator=(const SlotTable&) = delete;
  ~SlotTable();

  // The live slot with this id, or null.
  const Slot* find(int32_t id) const;
  enum class Defined { kYes, kOutOfMemory, kBadId };
  // Gives an unused id a block of at least `bytes`.
  Defined define(int32_t id, size_t bytes);
  bool release(int32_t id);

  int64_t live() const { return live_; }
  int64_t bytes() const { return bytes_; }
  int64_t peak() const { return peak_; }
  void reset_peak() { peak_ = bytes_; }

 private:
  // Two levels, so that a program naming a far index costs one page and not a table of 2^24 slots.
  static constexpr int kIndexBits = 24, kPageBits = 12, kPages = 1 << (kIndexBits - kPageBits);
  using Page = std::unique_ptr<Slot[]>;
  Slot* at(int32_t id) const;

  std::unique_ptr<Page[]> pages_;
  uint64_t serials_ = 0;
  int64_t live_ = 0;
  int64_t bytes_ = 0;  // as the arena counts them
  int64_t peak_ = 0;   // highest bytes_ since reset_peak()
};

}  // namespace chainrule
