// Test layer: the arena. Classes, alignment, accounting, the limit, refusals, many threads.
#include "runtime/arena.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>

#include "kernel_test.h"

namespace chainrule {
namespace {

constexpr int64_t kMiB = 1 << 20;

void size_classes() {
  CHECK(arena::rounded(0) == 64 && arena::rounded(1) == 64 && arena::rounded(64) == 64, "the least block");
  CHECK(arena::rounded(65) == 128 && arena::rounded(257) == 320 && arena::rounded(kMiB + 1) == 5 * kMiB / 4, "steps");
  CHECK(arena::rounded(SIZE_MAX) == 0 && arena::rounded(SIZE_MAX / 2) == 0, "overflow");
  CHECK(!arena::allocate(SIZE_MAX) && !arena::allocate(SIZE_MAX - 63), "overflow");
  std::mt19937_64 rng(1);
  for (int i = 0; i < 10000; ++i) {
    const size_t bytes = 1 + (rng() >> (16 + rng() % 40));
    const size_t size = arena::rounded(bytes);
    const bool tight = size >= bytes && (size <= bytes + 63 || size <= bytes + bytes / 4);
    CHECK(tight && size % 64 == 0 && arena::rounded(size) == size, "%zu -> %zu", bytes, size);
  }
}

void blocks_are_apart() {
  struct Held {
    unsigned char* block;
    size_t bytes;
    unsigned char tag;
  };
  const arena::Stats before = arena::stats();
  std::mt19937_64 rng(2);
  std::vector<Held> held;
  int64_t live = before.live_bytes;
  bool intact = true, aligned = true, counted = true;
  const auto drop = [&](size_t i) {
    const Held h = held[i];
    intact &= std::all_of(h.block, h.block + h.bytes, [&](unsigned char c) { return c == h.tag; });
    arena::release(h.block, h.bytes);
    live -= arena::rounded(h.bytes);
    held[i] = held.back();
    held.pop_back();
  };
  for (int i = 0; i < 4000; ++i) {
    if (held.size() > 100) drop(rng() % held.size());
    const size_t bytes = 1 + rng() % (size_t{1} << (rng() % 23));
    auto* block = static_cast<unsigned char*>(arena::allocate(bytes));
    CHECK(block, "%zu bytes", bytes);
    if (!block) return;
    aligned &= reinterpret_cast<uintptr_t>(block) % 64 == 0;
    memset(block, i & 255, bytes);
    held.push_back({block, bytes, static_cast<unsigned char>(i)});
    live += arena::rounded(bytes);
    counted &= arena::stats().live_bytes == live;
    if (i % 1000 == 999) arena::trim();
  }
  while (!held.empty()) drop(0);
  CHECK(intact, "a block was written through another");
  CHECK(aligned, "64 bytes");
  CHECK(counted && arena::stats().live_bytes == before.live_bytes, "live bytes");
  arena::trim();
  CHECK(arena::stats().cached_bytes == 0, "%ld bytes stay cached", long(arena::stats().cached_bytes));
  arena::release(nullptr, 100);
  CHECK(arena::stats().live_bytes == before.live_bytes, "releasing null");
}

void reuse() {
#if !defined(__SANITIZE_ADDRESS__)
  for (const size_t bytes : {size_t{100}, size_t{100} << 10, size_t{5} << 20}) {
    void* first = arena::allocate(bytes);
    arena::release(first, bytes);
    CHECK(arena::stats().cached_bytes >= static_cast<int64_t>(arena::rounded(bytes)), "%zu kept", bytes);
    void* second = arena::allocate(bytes - 1);
    CHECK(first == second, "%zu reused", bytes);
    arena::release(second, bytes - 1);
  }
  // Slabs with a block in use stay; the idle ones go.
  std::vector<void*> blocks(5000);
  for (void*& block : blocks) block = arena::allocate(64);
  for (size_t i = 1; i < blocks.size(); ++i) arena::release(blocks[i], 64);
  arena::trim();
  CHECK(arena::stats().cached_bytes < 64 << 10, "%ld bytes for one block", long(arena::stats().cached_bytes));
  void* again = arena::allocate(64);
  memset(again, 0, 64);
  arena::release(again, 64);
  arena::release(blocks[0], 64);
#endif
}

void peak() {
  arena::reset_peak();
  const int64_t base = arena::stats().live_bytes;
  CHECK(arena::stats().peak_bytes == base, "after reset");
  arena::release(arena::allocate(3 * kMiB), 3 * kMiB);
  CHECK(arena::stats().peak_bytes == base + 3 * kMiB && arena::stats().live_bytes == base, "peak");
}

void limit() {
  arena::trim();
  const int64_t before = arena::stats().limit;
  CHECK(before > 0, "default limit");
  arena::set_limit(64 * kMiB);
  void* half = arena::allocate(32 * kMiB);
  CHECK(half, "half of the limit");
  for (int i = 0; i < 1000; ++i) {
    if (arena::allocate(33 * kMiB)) CHECK(false, "above the limit");
  }
  void* rest = arena::allocate(28 * kMiB);
  CHECK(rest, "library usable after refusals");
  arena::release(rest, 28 * kMiB);
  arena::release(half, 32 * kMiB);
  CHECK(arena::stats().cached_bytes <= 16 * kMiB, "the cache is held to a quarter of the limit");
  // What is cached makes room for what is asked: trimmed, not refused.
  for (size_t bytes = 64; bytes <= 4 * kMiB; bytes *= 2) arena::release(arena::allocate(bytes), bytes);
  void* all = arena::allocate(64 * kMiB);
  CHECK(all, "the whole limit");
  const arena::Stats full = arena::stats();
  CHECK(full.live_bytes + full.cached_bytes <= full.limit, "%ld + %ld", long(full.live_bytes), long(full.cached_bytes));
  CHECK(!arena::allocate(1), "not a byte more");
  arena::release(all, 64 * kMiB);
  arena::set_limit(before);
}

void many_threads() {
  const int64_t live = arena::stats().live_bytes;
  std::atomic<int> damaged{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t, &damaged] {
      std::mt19937_64 rng(t);
      for (int i = 0; i < 3000; ++i) {
        const size_t n = 1 + rng() % (rng() % 16 ? 300 : 200000);
        auto* block = static_cast<uint32_t*>(arena::allocate(n * 4));
        std::fill_n(block, n, t);
        if (i % 8 == 0) sched_yield();
        damaged += std::count(block, block + n, t) != static_cast<ptrdiff_t>(n);
        arena::release(block, n * 4);
        if (i % 500 == 0) arena::trim();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(damaged == 0 && arena::stats().live_bytes == live, "%d blocks shared", damaged.load());
}

// The environment is read at first use: these run before anything else, each in a process of its own.
void in_child(const char* name, const char* value, const std::function<bool()>& test) {
  const pid_t child = fork();
  if (child == 0) {
    setenv(name, value, 1);
    _exit(test() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s=%s: status %d", name, value, status);
}

void environment() {
  in_child("CHAINRULE_MEMORY_LIMIT", "1000000",
           [] { return arena::stats().limit == 1000000 && !arena::allocate(1000000) && arena::allocate(500000); });
  in_child("CHAINRULE_FAIL_ALLOC", "3",
           [] { return arena::allocate(64) && arena::allocate(kMiB) && !arena::allocate(64) && arena::allocate(64); });
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which reserve address space themselves
  in_child("CHAINRULE_MEMORY_LIMIT", "1000000000000", [] {
    const rlimit address_space{size_t{1} << 30, size_t{1} << 30};
    setrlimit(RLIMIT_AS, &address_space);
    const bool refused = !arena::allocate(size_t{2} << 30);
    const arena::Stats stats = arena::stats();
    return refused && stats.live_bytes == 0 && stats.cached_bytes == 0 && arena::allocate(kMiB);
  });
#endif
}

}  // namespace
}  // namespace chainrule

int main() {
  chainrule::environment();
  chainrule::size_classes();
  chainrule::blocks_are_apart();
  chainrule::reuse();
  chainrule::peak();
  chainrule::limit();
  chainrule::many_threads();
  return chainrule::test::report();
}
