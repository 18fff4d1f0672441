// Test layer: gather and scatter-add on every instruction set of this machine, against plain loops; indices that are
// out of range leave everything untouched.
#include "kernel_test.h"

using namespace chainrule;
using namespace chainrule::test;

namespace {

struct Shape {
  int64_t outer, rows, count, inner;
  int64_t source() const { return outer * rows * inner; }
  int64_t lines() const { return outer * count * inner; }
};

constexpr Shape kShapes[] = {{0, 3, 2, 4},   {1, 3, 0, 4},    {2, 3, 4, 0},    {1, 1, 1, 1},       {1, 5, 7, 1},
                             {3, 5, 7, 1},   {3, 5, 7, 2},    {2, 4, 9, 17},   {1, 50, 40, 64},    {2, 6, 5, 131},
                             {1, 3, 2, 300}, {4, 7, 3000, 1}, {2, 9, 301, 33}, {1, 100, 20000, 1}, {300, 4, 3, 20}};

std::vector<int32_t> draw_indices(const Shape& s, bool per_element, std::mt19937_64& rng) {
  std::vector<int32_t> index(per_element ? s.lines() : s.count);
  for (int32_t& i : index) i = static_cast<int32_t>(rng() % s.rows);
  return index;
}

IndexArgs arguments(const Shape& s, bool per_element, const void* x, const std::vector<int32_t>& index, void* out,
                    int64_t* bad) {
  return {x, index.data(), out, s.outer, s.rows, s.count, s.inner, per_element, bad};
}

// Calls fn(position in [outer, count, inner], position in [outer, rows, inner]) in ascending order.
template <class Fn>
void walk(const Shape& s, bool per_element, const std::vector<int32_t>& index, const Fn& fn) {
  for (int64_t line = 0; line < s.outer * s.count; ++line) {
    for (int64_t i = 0; i < s.inner; ++i) {
      const int64_t row = index[per_element ? line * s.inner + i : line % s.count];
      fn(line * s.inner + i, (line / s.count * s.rows + row) * s.inner + i);
    }
  }
}

template <class T>
void test_gather(const KernelTable& table) {
  std::mt19937_64 rng(1);
  for (const Shape& s : kShapes) {
    for (const bool per_element : {false, true}) {
      const std::vector<int32_t> index = draw_indices(s, per_element, rng);
      Buffer<T> x(s.source(), true);
      for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(rng());
      for (const TestContext::Order order : {TestContext::kReverse, TestContext::kThreads}) {
        TestContext context(order);
        Buffer<T> out(s.lines(), true);
        int64_t bad[2];
        const IndexArgs args = arguments(s, per_element, x.data(), index, out.data(), bad);
        bool right = table.gather(context, args, sizeof(T)) == kOk && out.canaries_intact();
        walk(s, per_element, index, [&](int64_t line, int64_t source) { right &= out[line] == x[source]; });
        CHECK(right, "%s gather of %zu bytes [%ld,%ld,%ld,%ld] %d", table.isa, sizeof(T), s.outer, s.rows, s.count,
              s.inner, per_element);
      }
    }
  }
}

// The order of additions is part of the contract, so the results have the reference's bits.
template <class T>
void test_scatter_add(const KernelTable& table) {
  std::mt19937_64 rng(2);
  for (const Shape& s : kShapes) {
    for (const bool per_element : {false, true}) {
      const std::vector<int32_t> index = draw_indices(s, per_element, rng);
      Buffer<T> x(s.lines(), true), want(s.source());
      for (size_t i = 0; i < x.size(); ++i) x[i] = draw<T>(rng);
      for (const TestContext::Order order : {TestContext::kReverse, TestContext::kThreads}) {
        TestContext context(order);
        Buffer<T> out(s.source(), true);
        for (size_t i = 0; i < out.size(); ++i) out[i] = want[i] = draw<T>(rng);
        walk(s, per_element, index, [&](int64_t line, int64_t target) {
          if constexpr (type_index<T>() == kI32)
            want[target] = static_cast<T>(static_cast<uint32_t>(want[target]) + static_cast<uint32_t>(x[line]));
          else
            want[target] += x[line];
        });
        int64_t bad[2];
        const IndexArgs args = arguments(s, per_element, x.data(), index, out.data(), bad);
        const Status status = table.scatter_add[type_index<T>()](context, args);
        CHECK(status == kOk && out.same_bits(want) && out.canaries_intact(), "%s scatter_add [%ld,%ld,%ld,%ld] %d",
              table.isa, s.outer, s.rows, s.count, s.inner, per_element);
      }
    }
  }
}

void test_bad_indices(const KernelTable& table) {
  std::mt19937_64 rng(3);
  for (const Shape& s : {Shape{2, 5, 3001, 1}, {3, 5, 7, 9}, {1, 5, 2, 1}}) {
    for (const bool per_element : {false, true}) {
      std::vector<int32_t> index = draw_indices(s, per_element, rng);
      const int64_t last = static_cast<int64_t>(index.size()) - 1;
      for (const int32_t value : {-1, 5, 6, INT32_MIN, INT32_MAX}) {
        for (const int64_t place : {int64_t{0}, last / 2, last}) {
          const int32_t kept = index[place], kept_last = index[last];
          index[last] = 77;  // a second one, that must not be the one reported unless it is the first
          index[place] = value;
          Buffer<float> small(s.source()), large(s.lines()), small_before(s.source()), large_before(s.lines());
          for (size_t i = 0; i < small.size(); ++i) small[i] = small_before[i] = static_cast<float>(i);
          for (size_t i = 0; i < large.size(); ++i) large[i] = large_before[i] = static_cast<float>(i);
          TestContext context(TestContext::kThreads);
          int64_t bad[2] = {-9, -9};
          IndexArgs args = arguments(s, per_element, small.data(), index, large.data(), bad);
          CHECK(table.gather(context, args, 4) == kIndexOutOfRange && bad[0] == place && bad[1] == value,
                "%s gather: [%ld] = %ld", table.isa, bad[0], bad[1]);
          bad[0] = bad[1] = -9;
          args = arguments(s, per_element, large.data(), index, small.data(), bad);
          CHECK(table.scatter_add[kF32](context, args) == kIndexOutOfRange && bad[0] == place && bad[1] == value,
                "%s scatter_add: [%ld] = %ld", table.isa, bad[0], bad[1]);
          CHECK(small.same_bits(small_before) && large.same_bits(large_before), "%s: written in spite of", table.isa);
          index[last] = kept_last;
          index[place] = kept;
        }
      }
    }
  }
  // No row at all: every index is out of range.
  const std::vector<int32_t> index = {0};
  TestContext context(TestContext::kForward);
  float out = 1;
  int64_t bad[2] = {-9, -9};
  CHECK(table.gather(context, arguments({1, 0, 1, 1}, false, nullptr, index, &out, bad), 4) == kIndexOutOfRange &&
            bad[0] == 0 && bad[1] == 0 && out == 1,
        "%s gather from nothing", table.isa);
}

}  // namespace

int main() {
  for_each_isa([](const KernelTable& table) {
    test_gather<uint8_t>(table);
    test_gather<uint16_t>(table);
    test_gather<uint32_t>(table);
    test_gather<uint64_t>(table);
    test_scatter_add<float>(table);
    test_scatter_add<double>(table);
    test_scatter_add<int32_t>(table);
    test_bad_indices(table);
  });
  return report();
}
