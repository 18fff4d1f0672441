// Test layer: what the kernel tests share: counting checks, contexts that run chunks in several orders, memory
// between canaries. No framework; a test is a program that prints `N passed, N failed`.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "kernels/table.h"
#include "runtime/pool.h"

namespace chainrule::test {

inline int g_passed = 0;
inline int g_failed = 0;

#define CHECK(condition, ...)                                \
  do {                                                       \
    if (condition) {                                         \
      ++::chainrule::test::g_passed;                         \
    } else if (++::chainrule::test::g_failed <= 20) {        \
      printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      printf(__VA_ARGS__);                                   \
      printf("\n");                                          \
    }                                                        \
  } while (0)

inline int report() {
  printf("%d passed, %d failed\n", g_passed, g_failed);
  return g_failed == 0 && g_passed > 0 ? 0 : 1;
}

// A stand-in for the runtime: `order` says how the chunks of a parallel call are run.
class TestContext {
 public:
  enum Order { kForward, kReverse, kThreads };

  explicit TestContext(Order order, bool out_of_memory = false) : order_(order), out_of_memory_(out_of_memory) {}
  ~TestContext() {
    for (void* block : blocks_) free(block);
  }
  TestContext(const TestContext&) = delete;
  TestContext& operator=(const TestContext&) = delete;

  operator Context() { return {this, parallel, scratch, 4, 1 << 20}; }
  // Chunks of the largest parallel call: 0 says that everything ran inline.
  size_t chunks() const { return chunks_; }

 private:
  static void parallel(void* self, size_t chunks, void (*fn)(void*, size_t), void* arg) {
    TestContext& context = *static_cast<TestContext*>(self);
    if (chunks > context.chunks_) context.chunks_ = chunks;
    if (context.order_ == kForward) {
      for (size_t i = 0; i < chunks; ++i) fn(arg, i);
    } else if (context.order_ == kReverse) {
      for (size_t i = chunks; i-- > 0;) fn(arg, i);
    } else {
      std::atomic<size_t> next{0};
      const auto drain = [&] {
        for (size_t i; (i = next.fetch_add(1)) < chunks;) fn(arg, i);
      };
      std::thread first(drain), second(drain);
      drain();
      first.join();
      second.join();
    }
  }

  static void* scratch(void* self, size_t bytes) {
    TestContext& context = *static_cast<TestContext*>(self);
    if (context.out_of_memory_) return nullptr;
    const size_t rounded = (bytes + 63) / 64 * 64 + 64;
    void* block = aligned_alloc(64, rounded);
    memset(block, 0xff, rounded);  // NaN, whatever the type: memory that was never written shows
    context.blocks_.push_back(block);
    return block;
  }

  Order order_;
  bool out_of_memory_;
  size_t chunks_ = 0;
  std::vector<void*> blocks_;
};

// `scratch`'s memory, and the chunks on the pool's threads.
inline Context pool_context(TestContext& scratch) {
  Context context = scratch;
  context.parallel = [](void*, size_t chunks, void (*fn)(void*, size_t), void* arg) {
    pool::parallel(chunks, fn, arg);
  };
  return context;
}

// n elements between two canaries; starts one element past a 64-byte boundary when `shifted`.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t n, bool shifted = false) : n_(n), memory_(n + 2 * kPad + 16) {
    memset(memory_.data(), kCanary, memory_.size() * sizeof(T));
    const uintptr_t base = reinterpret_cast<uintptr_t>(memory_.data() + kPad);
    data_ = memory_.data() + kPad + ((64 - base % 64) % 64) / sizeof(T) + (shifted ? 1 : 0);
  }
  Buffer(Buffer&&) = default;  // the memory stays where it is
  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return n_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  bool same_bits(const Buffer& other) const { return n_ == other.n_ && !memcmp(data_, other.data_, n_ * sizeof(T)); }
  bool canaries_intact() const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(memory_.data());
    const auto* begin = reinterpret_cast<const unsigned char*>(data_);
    const auto* end = reinterpret_cast<const unsigned char*>(data_ + n_);
    for (const auto* p = bytes; p < begin; ++p) {
      if (*p != kCanary) return false;
    }
    for (const auto* p = end; p < bytes + memory_.size() * sizeof(T); ++p) {
      if (*p != kCanary) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kPad = 64;
  static constexpr unsigned char kCanary = 0xff;
  size_t n_;
  std::vector<T> memory_;
  T* data_;
};

template <class T>
constexpr int type_index() {
  return sizeof(T) == 8 ? kF64 : T(0.5) != 0 ? kF32 : kI32;
}

template <class T>
T draw(std::mt19937_64& rng) {
  if constexpr (type_index<T>() == kI32) {
    return static_cast<T>(rng());
  } else {
    return static_cast<T>(std::normal_distribution<double>()(rng));
  }
}

template <class Fn>
void for_each_isa(const Fn& fn) {
  size_t count = 0;
  const IsaLevel* levels = available_isas(&count);
  for (size_t i = 0; i < count; ++i) {
    if (levels[i].table) fn(*levels[i].table);
  }
}

}  // namespace chainrule::test
