// The arena: 64-byte aligned blocks in size classes, cached and counted. Runtime layer, no JavaScript types.
#pragma once
#include <cstddef>
#include <cstdint>

namespace chainrule::arena {

struct Stats {
  int64_t live_bytes;    // handed out, rounded up to the size class
  int64_t cached_bytes;  // kept for reuse
  int64_t peak_bytes;    // highest live_bytes since reset_peak()
  int64_t limit;         // live + cached never exceeds it
  int64_t calls;         // of allocate(), since the process began
};

// Rounded-up size that allocate(bytes) would take. bytes == 0 counts as 1. 0 on overflow.
size_t rounded(size_t bytes);
// Null when the limit (after trimming the cache) or the system refuses. Thread-safe.
void* allocate(size_t bytes);
void release(void* block, size_t bytes);  // bytes as asked for
void trim();                              // gives all cached blocks back to the system
Stats stats();
void reset_peak();
// CHAINRULE_MEMORY_LIMIT in bytes; default 80 % of the smaller of the cgroup's limit and the machine's memory.
void set_limit(int64_t bytes);

}  // namespace chainrule::arena
