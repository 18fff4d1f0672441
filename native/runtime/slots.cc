// Slot table. See slots.h.
#include "slots.h"

#include <new>

#include "arena.h"

namespace chainrule {

SlotTable::~SlotTable() {
  if (!pages_) return;
  for (int p = 0; p < kPages; ++p) {
    if (!pages_[p]) continue;
    for (int i = 0; i < 1 << kPageBits; ++i) {
      if (pages_[p][i].block) arena::release(pages_[p][i].block, pages_[p][i].bytes);
    }
  }
}

SlotTable::Slot* SlotTable::at(int32_t id) const {
  if (id < 0 || !pages_) return nullptr;
  const int32_t index = id & ((1 << kIndexBits) - 1);
  const Page& page = pages_[index >> kPageBits];
  return page ? &page[index & ((1 << kPageBits) - 1)] : nullptr;
}

const SlotTable::Slot* SlotTable::find(int32_t id) const {
  const Slot* slot = at(id);
  return slot && slot->block && slot->id == id ? slot : nullptr;
}

SlotTable::Defined SlotTable::define(int32_t id, size_t bytes) {
  if (id < 0) return Defined::kBadId;
  if (!pages_) pages_.reset(new (std::nothrow) Page[kPages]);
  if (!pages_) return Defined::kOutOfMemory;
  Page& page = pages_[(id & ((1 << kIndexBits) - 1)) >> kPageBits];
  if (!page) page.reset(new (std::nothrow) Slot[1 << kPageBits]);
  if (!page) return Defined::kOutOfMemory;
  Slot* slot = at(id);
  if (slot->block) return Defined::kBadId;
  void* block = arena::allocate(bytes);
  if (!block) return Defined::kOutOfMemory;
  *slot = {static_cast<char*>(block), bytes, id, ++serials_};
  ++live_;
  bytes_ += static_cast<int64_t>(arena::rounded(bytes));
  if (bytes_ > peak_) peak_ = bytes_;
  return Defined::kYes;
}

bool SlotTable::release(int32_t id) {
  Slot* slot = at(id);
  if (!slot || !slot->block || slot->id != id) return false;
  arena::release(slot->block, slot->bytes);
  bytes_ -= static_cast<int64_t>(arena::rounded(slot->bytes));
  --live_;
  *slot = Slot{};
  return true;
}

}  // namespace chainrule
