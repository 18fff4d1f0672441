// Size classes over three sources: slabs for small blocks, the C heap, the system's pages for large ones.
// Runtime layer, no JavaScript types.
#include "arena.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "cgroup.h"

namespace chainrule::arena {
namespace {

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
// Under AddressSanitizer every block is one of its own, of exactly the bytes asked for.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kExact = true;
#else
constexpr bool kExact = false;
#endif

constexpr size_t kAlign = 64;
constexpr size_t kSlabBytes = 64 << 10;
constexpr size_t kMaxSlabBlock = 8 << 10;  // at most an eighth of a slab is lost to its header
constexpr size_t kMinPageBlock = 1 << 20;  // from here on mmap; every class above is a multiple of 256 KiB
constexpr size_t kHugePage = 2 << 20;
constexpr size_t kMaxBytes = size_t{1} << 48;

// Four classes between powers of two, all multiples of 64: 64 128 192 256, 320 384 448 512, 640 768 896 1024, ...
constexpr size_t class_of(size_t bytes) {
  const size_t units = (bytes - 1) / kAlign;  // bytes in (64 * units, 64 * (units + 1)]
  if (units < 4) return units;
  const auto shift = static_cast<int>(std::bit_width(units)) - 3;  // the three leading bits name the class
  return 4 * shift + (units >> shift);
}
constexpr size_t bytes_of(size_t c) {
  if (c < 4) return (c + 1) * kAlign;
  const size_t shift = c / 4 - 1;
  return ((c % 4 + 4 + 1) << shift) * kAlign;
}
constexpr size_t kClasses = class_of(kMaxBytes) + 1;
constexpr size_t kSlabClasses = class_of(kMaxSlabBlock) + 1;
static_assert(bytes_of(class_of(kMaxBytes)) == kMaxBytes && bytes_of(class_of(1025)) == 1280);

struct Block {
  Block* next;
};
struct alignas(kAlign) Slab {
  Slab* next;
  size_t idle;  // trim() counts here
};

class SpinLock {
 public:
  void lock() {
    while (flag_.test_and_set(std::memory_order_acquire)) sched_yield();
  }
  void unlock() { flag_.clear(std::memory_order_release); }

 private:
  std::atomic_flag flag_;  // clear, since C++20
};

struct Arena {
  SpinLock lock;  // held for list operations only, never for a system call but the first
  Block* cache[kClasses] = {};
  Stats stats = {};
  int64_t until_failure = 0;  // CHAINRULE_FAIL_ALLOC: allocations up to the one that fails; 0: none
};

// Constant initialisation and no destructor: usable before main and while the process exits.
constinit Arena arena;

int64_t from_environment(const char* name) {
  const char* text = getenv(name);
  return text ? std::max<int64_t>(strtoll(text, nullptr, 10), 0) : 0;
}

int64_t default_limit() {
  if (const int64_t asked = from_environment("CHAINRULE_MEMORY_LIMIT")) return asked;
  const int64_t machine = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  return std::min(cgroup::memory_bytes(), machine) / 5 * 4;
}

// Every entry point goes through here, so that the limit is known before anything else happens.
std::unique_lock<SpinLock> locked() {
  std::unique_lock lock(arena.lock);
  if (arena.stats.limit == 0) [[unlikely]] {
    arena.stats.limit = default_limit();
    arena.until_failure = from_environment("CHAINRULE_FAIL_ALLOC");
  }
  return lock;
}

void* map_pages(size_t bytes) {
  const size_t slack = bytes >= kHugePage ? kHugePage : 0;
  void* mapped = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  if (!slack) return mapped;
  // Huge pages make fresh memory five times cheaper, if a block begins where one can begin.
  char* const begin = static_cast<char*>(mapped);
  const size_t head = -reinterpret_cast<uintptr_t>(begin) % kHugePage;
  if (head) munmap(begin, head);
  if (slack - head) munmap(begin + head + bytes, slack - head);
#if defined(MADV_HUGEPAGE)
  madvise(begin + head, bytes, MADV_HUGEPAGE);
#endif
  return begin + head;
}

void* from_system(size_t size, size_t alignment) {
  if (size >= kMinPageBlock && !kExact) return map_pages(size);
  void* memory;
  return posix_memalign(&memory, alignment, size) == 0 ? memory : nullptr;
}
void to_system(void* memory, size_t size) {
  if (size >= kMinPageBlock && !kExact) {
    munmap(memory, size);
  } else {
    free(memory);
  }
}

// A slab begins at a multiple of kSlabBytes and leaves the C heap room for its own header before the next one.
constexpr size_t kSlabUsed = kSlabBytes - kAlign;

Slab* slab_of(Block* block) { return reinterpret_cast<Slab*>(reinterpret_cast<uintptr_t>(block) & ~(kSlabBytes - 1)); }
constexpr size_t slab_capacity(size_t c) { return (kSlabUsed - sizeof(Slab)) / bytes_of(c); }

void carve_slab(void* memory, size_t c) {
  char* const blocks = reinterpret_cast<char*>(new (memory) Slab{} + 1);
  for (size_t i = slab_capacity(c); i-- > 0;) {
    arena.cache[c] = new (blocks + i * bytes_of(c)) Block{arena.cache[c]};
  }
}

// Takes the slabs of which every block is cached out of class c.
Slab* unlink_idle_slabs(size_t c) {
  Slab* idle = nullptr;
  for (Block* block = arena.cache[c]; block; block = block->next) {
    Slab* slab = slab_of(block);
    if (++slab->idle < slab_capacity(c)) continue;
    slab->next = idle;
    idle = slab;
    arena.stats.cached_bytes -= kSlabBytes;
  }
  Block** link = &arena.cache[c];
  for (Block* block = *link; block; block = block->next) {
    Slab* slab = slab_of(block);
    if (slab->idle == slab_capacity(c)) continue;
    slab->idle = 0;
    *link = block;
    link = &block->next;
  }
  *link = nullptr;
  return idle;
}

void count_live(int64_t bytes) {
  arena.stats.live_bytes += bytes;
  arena.stats.peak_bytes = std::max(arena.stats.peak_bytes, arena.stats.live_bytes);
}

Block* pop(size_t c) {
  Block* block = arena.cache[c];
  arena.cache[c] = block->next;
  arena.stats.cached_bytes -= bytes_of(c);
  count_live(bytes_of(c));
  return block;
}

// `asked` bytes from the system, counted as `size`. They count as cached until they are a block or a slab, so that
// the lock need not be held meanwhile.
void* try_fresh(size_t size, size_t asked, size_t alignment) {
  Stats& s = arena.stats;
  {
    const auto lock = locked();
    if (static_cast<int64_t>(size) > s.limit - s.live_bytes - s.cached_bytes) return nullptr;
    s.cached_bytes += size;
  }
  void* memory = from_system(asked, alignment);
  if (!memory) {
    const auto lock = locked();
    s.cached_bytes -= size;
  }
  return memory;
}

void* fresh(size_t size, size_t asked, size_t alignment) {
  if (void* memory = try_fresh(size, asked, alignment)) return memory;
  trim();
  return try_fresh(size, asked, alignment);
}

void* allocate_block(size_t bytes) {
  const size_t c = class_of(bytes);
  const size_t size = bytes_of(c);
  const bool slab = c < kSlabClasses && !kExact;
  {
    const auto lock = locked();
    if (arena.until_failure > 0 && --arena.until_failure == 0) return nullptr;
    if (arena.cache[c]) return pop(c);
  }
  void* memory = slab ? fresh(kSlabBytes, kSlabUsed, kSlabBytes) : fresh(size, kExact ? bytes : size, kAlign);
  if (!memory) return nullptr;
  const auto lock = locked();
  if (slab) {
    carve_slab(memory, c);
    return pop(c);
  }
  arena.stats.cached_bytes -= size;
  count_live(size);
  return memory;
}

}  // namespace

size_t rounded(size_t bytes) { return bytes > kMaxBytes ? 0 : bytes_of(class_of(std::max<size_t>(bytes, 1))); }

namespace {
constinit std::atomic<int64_t> calls{0};
}  // namespace

void* allocate(size_t bytes) {
  calls.fetch_add(1, std::memory_order_relaxed);
  if (bytes > kMaxBytes) return nullptr;
  void* block = allocate_block(std::max<size_t>(bytes, 1));
#if defined(CR_POISON)
  // A signalling NaN as float32, conspicuous as anything else.
  if (block) std::fill_n(static_cast<uint32_t*>(block), bytes / sizeof(uint32_t), 0x7FBADBADu);
#endif
  return block;
}

void release(void* block, size_t bytes) {
  if (!block) return;
  const size_t c = class_of(std::max<size_t>(bytes, 1));
  const size_t size = bytes_of(c);
  {
    const auto lock = locked();
    Stats& s = arena.stats;
    s.live_bytes -= size;
    if (!kExact && (c < kSlabClasses || s.cached_bytes + static_cast<int64_t>(size) <= s.limit / 4)) {
      s.cached_bytes += size;
      arena.cache[c] = new (block) Block{arena.cache[c]};
      return;
    }
  }
  to_system(block, size);
}

void trim() {
  for (size_t c = 0; c < kClasses; ++c) {
    if (c < kSlabClasses) {
      Slab* slab;
      {
        const auto lock = locked();
        slab = unlink_idle_slabs(c);
      }
      while (slab) free(std::exchange(slab, slab->next));
      continue;
    }
    Block* block;
    {
      const auto lock = locked();
      block = std::exchange(arena.cache[c], nullptr);
      for (Block* b = block; b; b = b->next) arena.stats.cached_bytes -= bytes_of(c);
    }
    while (block) to_system(std::exchange(block, block->next), bytes_of(c));
  }
#ifdef __GLIBC__
  malloc_trim(0);  // what was freed above stays in the heap of the C library otherwise
#endif
}

Stats stats() {
  const auto lock = locked();
  Stats stats = arena.stats;
  stats.calls = calls.load(std::memory_order_relaxed);
  return stats;
}

void reset_peak() {
  const auto lock = locked();
  arena.stats.peak_bytes = arena.stats.live_bytes;
}

void set_limit(int64_t bytes) {
  bool over;
  {
    const auto lock = locked();
    Stats& s = arena.stats;
    s.limit = std::max<int64_t>(bytes, 1);
    over = s.live_bytes + s.cached_bytes > s.limit;
  }
  if (over) trim();
}

}  // namespace chainrule::arena
