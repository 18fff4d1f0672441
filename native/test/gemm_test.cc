// Test layer: matmul on every instruction set. Integers must come out exactly, and floats with the same bits however
// the work is divided; operands lie against pages that must not be touched.
#include <algorithm>
#include <array>
#include <cmath>

#include "gemm_problem.h"
#include "runtime/pool.h"

namespace chainrule {
namespace {

using namespace test;
using Rng = std::mt19937_64;

int64_t pick(Rng& rng, int64_t low, int64_t high) { return low + static_cast<int64_t>(rng() % (high - low + 1)); }
int64_t pick_of(Rng& rng, std::initializer_list<int64_t> values) { return values.begin()[rng() % values.size()]; }

// ---- integers: every sum is exact, so there is one right answer ----------------------------------------------------

template <class T>
void exact_shapes(const KernelTable& table) {
  uint64_t seed = 0;
  Rng rng(3);
  const auto run = [&](const Case& c) {
    TestContext context(static_cast<TestContext::Order>(++seed % 3));
    exact<T>(table, c, seed, context);
  };
  const auto with_layouts = [&](Case c) {
    c.a_layout = static_cast<Layout>(rng() % kLayoutCount);
    c.b_layout = static_cast<Layout>(rng() % kLayoutCount);
    c.alpha = static_cast<double>(pick_of(rng, {2, 2, 4, -2, 1})) / 2;
    c.beta = static_cast<double>(pick_of(rng, {0, 0, 2, 1, -4})) / 2;
    c.bias = rng() % 3 == 0;
    c.c_gap = pick_of(rng, {0, 0, 1, 7});
    c.at_end = rng() % 4 != 0;
    return c;
  };
  for (int i = 0; i < 400; ++i) {  // small: every edge of a tile
    run(with_layouts({pick(rng, 1, 20), pick(rng, 1, 100), pick_of(rng, {0, 1, 2, 3, 7, 16, 17, 31, 64, 65, 130})}));
  }
  for (int i = 0; i < 60; ++i) {  // middle: slabs, packing, several chunks
    run(with_layouts({pick_of(rng, {1, 16, 47, 49, 97, 127, 131, 193, 257}),
                      pick_of(rng, {1, 10, 31, 97, 144, 337, 401}), pick_of(rng, {0, 1, 5, 61, 64, 67, 129, 200})}));
  }
  for (const Layout a : {kRows, kColumns, kGaps}) {  // large: several blocks in each direction
    for (const Layout b : {kRows, kColumns, kGaps}) {
      for (const Case& shape : {Case{2, 53, 2100}, Case{9, 1200, 1025}, Case{131, 50, 1031}, Case{1030, 101, 70},
                                Case{140, 1100, 66}, Case{200, 512, 130}, Case{137, 101, 0}}) {
        Case c = shape;
        c.a_layout = a;
        c.b_layout = b;
        c.beta = static_cast<double>(rng() % 2);
        c.bias = rng() % 2;
        run(c);
      }
    }
  }
  for (int i = 0; i < 120; ++i) {  // batches, some dimensions broadcast
    Case c = with_layouts(
        {pick_of(rng, {1, 2, 8, 13, 64, 130}), pick_of(rng, {1, 3, 8, 17, 60}), pick_of(rng, {0, 1, 8, 33, 70})});
    c.dims = static_cast<int>(pick(rng, 1, 3));
    for (int d = 0; d < c.dims; ++d) c.batch[d] = pick(rng, 1, 4);
    c.a_broadcast = static_cast<unsigned>(rng() % 8);
    c.b_broadcast = static_cast<unsigned>(rng() % 8);
    run(c);
  }
  run({3, 5, 4, 6, {2, 1, 3, 2, 1, 2}});
}

// ---- floats: the same bits, however the work is divided
// ---------------------------------------------------------------

template <class T>
std::vector<T> product(const KernelTable& table, const Case& c, const Context& context) {
  Problem<T> problem(c, [](int operand, int64_t position) {
    const uint64_t hash = (position * 3 + operand + 1) * 0x9E3779B97F4A7C15u;
    return static_cast<double>(static_cast<int64_t>(hash ^ hash >> 29)) * 0x1p-63;
  });
  const Status status = table.gemm[type_index<T>()](context, problem.args);
  CHECK(status == kOk, "%s: %s", table.isa, c.text().c_str());
  return std::vector<T>(problem.c.data(), problem.c.data() + problem.c.size());
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
void same_bits_any_way(const KernelTable& table) {
  for (Case c : {Case{64, 64, 64}, Case{130, 210, 1100}, Case{33, 301, 200}, Case{12, 700, 1500}, Case{260, 100, 90}}) {
    c.alpha = 0.7;
    c.beta = 0.3;
    TestContext forward(TestContext::kForward);
    const std::vector<T> expected = product<T>(table, c, forward);
    CHECK(forward.chunks() > 1, "in one piece: %s", c.text().c_str());
    for (const size_t threads : {1, 2, 4}) {
      pool::set_threads(threads);
      TestContext scratch(TestContext::kForward);
      CHECK(same_bits(product<T>(table, c, pool_context(scratch)), expected), "%s, %zu threads: %s", table.isa, threads,
            c.text().c_str());
    }
    for (int layouts = 0; layouts < kLayoutCount * kLayoutCount; layouts += 5) {
      c.a_layout = static_cast<Layout>(layouts % kLayoutCount);
      c.b_layout = static_cast<Layout>(layouts / kLayoutCount);
      TestContext reverse(TestContext::kReverse);
      CHECK(same_bits(product<T>(table, c, reverse), expected), "%s: %s", table.isa, c.text().c_str());
    }
  }
}

// A part of C, computed alone, has the bits that it has in the whole.
template <class T>
void parts_alone(const KernelTable& table) {
  const Case whole{140, 170, 1100};
  for (const Layout layout : {kRows, kColumns, kGaps}) {
    Case c = whole;
    c.a_layout = c.b_layout = layout;
    const auto draw = [](int operand, int64_t position) { return sin(static_cast<double>(position) * 1.7 + operand); };
    Problem<T> all(c, draw);
    TestContext context(TestContext::kForward);
    table.gemm[type_index<T>()](context, all.args);
    for (const auto& [i, j, m, n] : {std::array<int64_t, 4>{0, 0, 1, 170},
                                     {139, 0, 1, 170},
                                     {7, 0, 5, 170},
                                     {60, 3, 40, 1},
                                     {0, 169, 140, 1},
                                     {11, 13, 17, 19},
                                     {64, 48, 1, 1},
                                     {0, 40, 130, 60}}) {
      Guarded<T> part(m * n, true);
      GemmArgs args = all.args;
      args.m = m;
      args.n = n;
      args.a = static_cast<const T*>(args.a) + i * args.a_rs;
      args.b = static_cast<const T*>(args.b) + j * args.b_cs;
      args.c = part.data();
      args.c_rs = n;
      table.gemm[type_index<T>()](context, args);
      bool equal = true;
      for (int64_t row = 0; row < m; ++row) {
        equal &= !memcmp(part.data() + row * n, all.c.data() + (i + row) * whole.n + j, n * sizeof(T));
      }
      CHECK(equal, "%s layout %d: %ld x %ld at (%ld, %ld)", table.isa, layout, long(m), long(n), long(i), long(j));
    }
  }
}

template <class T>
void same_bits_on_fused_sets() {
  std::vector<T> expected;
  Case c{100, 130, 1300};
  c.alpha = 0.7;
  c.beta = 0.3;
  for_each_isa([&](const KernelTable& table) {
    if (std::string(table.isa) == "baseline") return;  // rounds products
    TestContext context(TestContext::kForward);
    const std::vector<T> result = product<T>(table, c, context);
    if (expected.empty()) expected = result;
    CHECK(same_bits(result, expected), "%s", table.isa);
  });
}

// ---- the rest
// ---------------------------------------------------------------------------------------------------------

template <class T>
void special(const KernelTable& table) {
  for (const Case& empty : {Case{0, 5, 5}, Case{5, 0, 5}, Case{5, 5, 5, 1, {0}}}) {
    TestContext context(TestContext::kForward);
    Case c = empty;
    CHECK(table.gemm[type_index<T>()](context, Problem<T>(c, [](int, int64_t) { return 1; }).args) == kOk, "empty");
  }
  TestContext small(TestContext::kForward);
  product<T>(table, {16, 16, 16}, small);
  CHECK(small.chunks() == 0, "16^3 is not worth another thread");

  Case packed{300, 300, 300};
  packed.b_layout = kColumns;
  Problem<T> problem(packed, [](int, int64_t) { return 1; });
  TestContext poor(TestContext::kForward, true);
  CHECK(table.gemm[type_index<T>()](poor, problem.args) == kOutOfMemory, "no scratch memory");

  // NaN and infinity go into the rows and columns where they belong, and nowhere else.
  const Case c{19, 53, 40};
  Problem<T> spread(c, [](int operand, int64_t position) { return operand + static_cast<double>(position % 7); });
  const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
  spread.a.data()[3 * c.k + 39] = nan;
  spread.b.data()[11 * c.n + 52] = infinity;
  TestContext context(TestContext::kForward);
  table.gemm[type_index<T>()](context, spread.args);
  bool placed = true;
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      const T x = spread.c.data()[i * c.n + j];
      const bool finite = x - x == 0;
      placed &= i == 3 ? x != x : j == 52 ? !finite : finite;
    }
  }
  CHECK(placed, "%s: NaN in row 3, infinity in column 52", table.isa);
}

template <class T>
void all() {
  for_each_isa([](const KernelTable& table) {
    exact_shapes<T>(table);
    same_bits_any_way<T>(table);
    parts_alone<T>(table);
    special<T>(table);
  });
  same_bits_on_fused_sets<T>();
}

}  // namespace
}  // namespace chainrule

int main() {
  chainrule::all<float>();
  chainrule::all<double>();
  return chainrule::test::report();
}
