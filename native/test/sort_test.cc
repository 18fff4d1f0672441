// Test layer: sorts along one axis, on every instruction set of this machine, against the standard library's stable
// sort of indices.
#include <math.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernel_test.h"

using namespace chainrule;
using namespace chainrule::test;

namespace {

struct Shape {
  int64_t outer, reduce, inner;
  int64_t elements() const { return outer * reduce * inner; }
};

// Around the length up to which rows are sorted by insertion; single rows, columns, and enough rows for every chunk.
constexpr Shape kShapes[] = {{0, 3, 1},    {3, 0, 2},   {2, 5, 0},     {1, 1, 1},     {1, 2, 1},
                             {5, 7, 1},    {3, 47, 1},  {3, 48, 2},    {3, 49, 1},    {2, 49, 3},
                             {1, 255, 1},  {2, 257, 5}, {1, 3, 90},    {1, 70000, 1}, {2, 999, 4},
                             {2, 2048, 3}, {700, 3, 1}, {9000, 10, 2}, {300, 100, 1}};

// NaN is the largest: after all others, before none.
template <class T>
bool before(T a, T b, bool descending) {
  const bool less = a < b || (a == a && b != b), greater = b < a || (b == b && a != a);
  return descending ? greater : less;
}

template <class T>
void check(const KernelTable& table, const Shape& s, int64_t count, bool descending, const Buffer<T>& x,
           const char* what) {
  for (const TestContext::Order order : {TestContext::kReverse, TestContext::kThreads}) {
    Buffer<T> values(s.outer * count * s.inner, true);
    Buffer<int32_t> indices(values.size(), true);
    TestContext context(order);
    const SortArgs args = {x.data(), values.data(), indices.data(), s.outer, s.reduce, s.inner, count, descending};
    bool right = table.sort[type_index<T>()](context, args) == kOk && values.canaries_intact();
    right &= indices.canaries_intact() && context.chunks() <= 64;
    std::vector<int32_t> wanted(s.reduce);
    for (int64_t row = 0; row < s.outer * s.inner; ++row) {
      const auto at = [&](int64_t n, int64_t i) { return (row / s.inner * n + i) * s.inner + row % s.inner; };
      std::iota(wanted.begin(), wanted.end(), 0);
      std::stable_sort(wanted.begin(), wanted.end(), [&](int32_t i, int32_t j) {
        return before(x[at(s.reduce, i)], x[at(s.reduce, j)], descending);
      });
      for (int64_t i = 0; i < count && right; ++i) {
        const T value = x[at(s.reduce, wanted[i])];
        right = indices[at(count, i)] == wanted[i] && !memcmp(&values[at(count, i)], &value, sizeof value);
      }
    }
    CHECK(right, "%s sort of type %d [%ld,%ld,%ld], %ld %s, %s", table.isa, type_index<T>(), s.outer, s.reduce, s.inner,
          count, descending ? "descending" : "ascending", what);
  }
}

template <class T>
std::vector<T> specials() {
  using Limits = std::numeric_limits<T>;
  if constexpr (type_index<T>() == kI32) {
    return {0, 1, -1, 255, 256, -256, 65536, Limits::min(), Limits::max()};
  } else {
    const T nan = Limits::quiet_NaN();
    return {0,
            T(-0.0),
            nan,
            -nan,
            T(INFINITY),
            T(-INFINITY),
            Limits::denorm_min(),
            -Limits::denorm_min(),
            1,
            -1,
            Limits::max(),
            Limits::lowest()};
  }
}

template <class T>
void test_type(const KernelTable& table) {
  std::mt19937_64 rng(1);
  const std::vector<T> special = specials<T>();
  for (const Shape& s : kShapes) {
    Buffer<T> random(s.elements(), true), few(s.elements()), sorted(s.elements());
    for (size_t i = 0; i < random.size(); ++i) {
      random[i] = draw<T>(rng);
      few[i] = special[rng() % special.size()];
      sorted[i] = static_cast<T>(i);
    }
    for (const bool descending : {false, true}) {
      check(table, s, s.reduce, descending, random, "random");
      check(table, s, s.reduce, descending, few, "special values");
      check(table, s, s.reduce / 3, descending, few, "special values");
      check(table, s, s.reduce / 5, descending, few, "special values");
      check(table, s, s.reduce / 5, descending, random, "random");
      check(table, s, s.reduce, descending, sorted, "in order");
    }
  }
}

void test_out_of_memory(const KernelTable& table) {
  const float x[] = {2, 1};
  Buffer<float> values(2);
  Buffer<int32_t> indices(2);
  TestContext context(TestContext::kForward, true);
  const SortArgs args = {x, values.data(), indices.data(), 1, 2, 1, 2, false};
  CHECK(table.sort[kF32](context, args) == kOutOfMemory, "%s without memory", table.isa);
}

}  // namespace

int main() {
  for_each_isa([](const KernelTable& table) {
    test_type<float>(table);
    test_type<double>(table);
    test_type<int32_t>(table);
    test_out_of_memory(table);
  });
  return report();
}
