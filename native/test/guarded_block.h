// Test layer: memory whose end is the end of what may be read, for kernels that must not look past their operands.
#pragma once
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

namespace chainrule::test {

// `bytes` that end where an unreadable page begins.
class GuardedBlock {
 public:
  explicit GuardedBlock(size_t bytes) {
    const size_t page = size_t(sysconf(_SC_PAGESIZE));
    size_ = (bytes + page - 1) / page * page + page;
    map_ = static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(map_ + size_ - page, page, PROT_NONE);
    end_ = map_ + size_ - page;
  }
  ~GuardedBlock() { munmap(map_, size_); }
  GuardedBlock(const GuardedBlock&) = delete;
  GuardedBlock& operator=(const GuardedBlock&) = delete;
  char* last(size_t bytes) { return end_ - bytes; }

 private:
  char *map_, *end_;
  size_t size_;
};

}  // namespace chainrule::test
