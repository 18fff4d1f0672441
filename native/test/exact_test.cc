// Test layer: 5,000 random shapes of matmul and as many of every reduction, on every instruction set and 1 to 4
// threads, against plain loops over integers, bit for bit: their sums are exact in any order. All memory ends at guard
// pages.
#include <cstdlib>
#include <string>

#include "gemm_problem.h"

namespace chainrule {
namespace {

using namespace test;
using Rng = std::mt19937_64;

// Under emulation 5,000 would take many minutes: the arm64 preset asks for fewer.
const char* const asked = getenv("CR_TEST_SHAPES");
const int kShapes = asked ? atoi(asked) : 5000;
constexpr const char* kTypeNames[] = {"float32", "float64", "int32"};

int64_t of(Rng& rng, std::initializer_list<int64_t> values) { return values.begin()[rng() % values.size()]; }

// Zero and one, primes, and all that lies around the widths of registers and tiles, up to about `most`.
int64_t extent(Rng& rng, int64_t most) {
  switch (rng() % 8) {
    case 0:
      return of(rng, {0, 1, 1, 1});
    case 1:
    case 2:
    case 3:
      return std::min(most, of(rng, {2,  3,  5,  7,  11, 13, 17, 19,  23,  29,  31,  37,  41,  43,
                                     47, 53, 61, 67, 71, 83, 97, 101, 127, 131, 193, 257, 521, 1031}));
    case 4:
      return std::min(most, (int64_t{1} << rng() % 9) + of(rng, {-1, 0, 1}));
    default:
      return 1 + static_cast<int64_t>(rng() % most);
  }
}

// ---- matmul -------------------------------------------------------------------------------------------------------

Case random_case(Rng& rng) {
  // Mostly small; one in 32 is packed, cut into slabs and chunks, or crosses a block of k.
  const bool large = rng() % 32 == 0;
  const int64_t most = large ? 300 : 48;
  Case c{extent(rng, most), extent(rng, most), extent(rng, large ? 160 : 64)};
  if (rng() % 128 == 0) c.k = 1000 + static_cast<int64_t>(rng() % 100), c.m = std::min<int64_t>(c.m, 40);
  c.a_layout = static_cast<Layout>(rng() % kLayoutCount);
  c.b_layout = static_cast<Layout>(rng() % kLayoutCount);
  if (!large && rng() % 4 == 0) {
    c.dims = 1 + static_cast<int>(rng() % 3);
    for (int d = 0; d < c.dims; ++d) c.batch[d] = of(rng, {1, 2, 2, 3, 5});
    c.a_broadcast = static_cast<unsigned>(rng() % 8);
    c.b_broadcast = static_cast<unsigned>(rng() % 8);
  }
  c.alpha = static_cast<double>(of(rng, {2, 2, 4, -2, 1})) / 2;
  c.beta = static_cast<double>(of(rng, {0, 0, 2, 1, -4})) / 2;
  c.c_gap = of(rng, {0, 0, 1, 7});
  c.at_end = rng() % 4 != 0;
  return c;
}

void products() {
  Rng rng(11);
  for (int i = 0; i < kShapes; ++i) {
    const Case c = random_case(rng);
    pool::set_threads(1 + i % 4);
    for_each_isa([&](const KernelTable& table) {
      TestContext scratch(TestContext::kForward);
      exact<float>(table, c, i, pool_context(scratch));
      exact<double>(table, c, i, pool_context(scratch));
    });
  }
}

// ---- reductions and running sums: [outer, reduce, inner] ----------------------------------------------------------

struct Shape {
  int64_t outer, reduce, inner;
  int64_t results() const { return outer * inner; }
  int64_t elements() const { return outer * reduce * inner; }
  int64_t at(int64_t result, int64_t j) const { return (result / inner * reduce + j) * inner + result % inner; }
};

Shape random_shape(Rng& rng) {
  const Shape s = rng() % 32 == 0 ? Shape{extent(rng, 5), extent(rng, 9000), extent(rng, 9)}
                                  : Shape{extent(rng, 24), extent(rng, 90), extent(rng, rng() % 2 ? 70 : 1)};
  return s.elements() < 200'000 ? s : Shape{1, s.reduce, s.inner};
}

// Sums and extremes of -8 ... 8, with ties. Products of ones, their signs, and so few threes in a row that all is
// exact.
enum Values { kSmall, kFactors };
int value_at(Values values, uint64_t seed, int64_t j) {
  const uint64_t hash = (seed + static_cast<uint64_t>(j) * 0x9E3779B97F4A7C15u) * 0xD1B54A32D192ED03u >> 33;
  if (values == kSmall) return static_cast<int>(hash % 17) - 8;
  return (j % 97 < 1 && j < 1000 ? 3 : 1) * (hash % 2 ? 1 : -1);
}

int64_t expected(ReduceOp op, const std::vector<int>& row) {
  int64_t sum = 0, product = 1;
  size_t best = 0;
  for (size_t j = 0; j < row.size(); ++j) {
    sum += row[j];
    if (op == kProd) product *= row[j];
    if (op == kAmax || op == kArgmax ? row[j] > row[best] : row[j] < row[best]) best = j;
  }
  if (op == kArgmax || op == kArgmin) return static_cast<int64_t>(best);
  return op == kSum ? sum : op == kProd ? product : row[best];
}

template <class T>
struct Axis {
  Axis(const Shape& s, Values values, uint64_t seed) : shape(s), seed(seed), x(s.elements(), at_end()) {
    for (int64_t r = 0; r < s.results(); ++r) {
      for (int64_t j = 0; j < s.reduce; ++j) x.data()[s.at(r, j)] = T(value_at(values, seed + r, j));
    }
  }
  bool at_end() const { return seed % 4 != 0; }
  std::vector<int> row(int64_t r) {
    std::vector<int> values(shape.reduce);
    for (int64_t j = 0; j < shape.reduce; ++j) values[j] = static_cast<int>(x.data()[shape.at(r, j)]);
    return values;
  }
  // What `kernel(table)` makes of it on every instruction set.
  template <class Out, class Kernel>
  void check(const char* what, const std::vector<Out>& want, AxisArgs args, const Kernel& kernel) {
    Guarded<Out> out(want.size(), at_end());
    args.x = x.data(), args.out = out.data();
    args.outer = shape.outer, args.reduce = shape.reduce, args.inner = shape.inner;
    for_each_isa([&](const KernelTable& table) {
      memset(out.data(), 0xff, want.size() * sizeof(Out));
      TestContext scratch(TestContext::kForward);
      const Status status = kernel(table)(pool_context(scratch), args);
      const bool equal = want.empty() || !memcmp(out.data(), want.data(), want.size() * sizeof(Out));
      CHECK(status == kOk && equal, "%s %s %s [%ld,%ld,%ld]", table.isa, what, kTypeNames[type_index<T>()],
            long(shape.outer), long(shape.reduce), long(shape.inner));
    });
  }
  Shape shape;
  uint64_t seed;
  Guarded<T> x;
};

template <class T, class Out>
void reduction(Axis<T>& input, ReduceOp op) {
  constexpr const char* kNames[] = {"sum", "prod", "amax", "amin", "argmax", "argmin"};
  if (op != kSum && op != kProd && input.shape.reduce == 0) return;  // refused by the runtime
  AxisArgs args{};
  args.scale = op == kSum && type_index<T>() != kI32 && input.seed % 2 ? 2 : 1;
  std::vector<Out> want(input.shape.results());
  for (int64_t r = 0; r < input.shape.results(); ++r) {
    want[r] = Out(args.scale * static_cast<double>(expected(op, input.row(r))));
  }
  input.check(kNames[op], want, args, [op](const KernelTable& table) { return table.reduce[op][type_index<T>()]; });
}

template <class T>
void running_sum(Axis<T>& input) {
  const Shape& s = input.shape;
  AxisArgs args{};
  args.reverse = input.seed % 2;
  std::vector<T> want(s.elements());
  for (int64_t r = 0; r < s.results(); ++r) {
    int64_t sum = 0;
    for (int64_t j = 0; j < s.reduce; ++j) {
      const int64_t i = s.at(r, args.reverse ? s.reduce - 1 - j : j);
      want[i] = T(sum += static_cast<int64_t>(input.x.data()[i]));
    }
  }
  input.check("cumsum", want, args, [](const KernelTable& table) { return table.cumsum[type_index<T>()]; });
}

// The parts of a list are the rows of the shape.
template <class T>
void sum_of_squares(Axis<T>& input) {
  const Shape& s = input.shape;
  std::vector<ListItem> items(s.outer);
  for (int64_t i = 0; i < s.outer; ++i) {
    items[i].n = s.reduce * s.inner;
    items[i].grad = input.x.data() + i * items[i].n;
  }
  double want = 7;  // is added to
  for (int64_t i = 0; i < s.elements(); ++i) want += double(input.x.data()[i]) * double(input.x.data()[i]);
  for_each_isa([&](const KernelTable& table) {
    TestContext scratch(TestContext::kForward);
    double got = 7;
    const Status status =
        table.list_sum_squares[type_index<T>()](pool_context(scratch), items.data(), items.size(), &got);
    CHECK(status == kOk && got == want, "%s sum of squares %s [%ld,%ld,%ld]: %g instead of %g", table.isa,
          kTypeNames[type_index<T>()], long(s.outer), long(s.reduce), long(s.inner), got, want);
  });
}

template <class T>
void reductions() {
  Rng rng(13);
  for (int i = 0; i < kShapes; ++i) {
    pool::set_threads(1 + i % 4);
    const Shape s = random_shape(rng);
    Axis<T> small(s, kSmall, rng()), factors(s, kFactors, rng());
    for (const ReduceOp op : {kSum, kAmax, kAmin}) reduction<T, T>(small, op);
    for (const ReduceOp op : {kArgmax, kArgmin}) reduction<T, int32_t>(small, op);
    reduction<T, T>(factors, kProd);
    running_sum(small);
    if constexpr (type_index<T>() != kI32) sum_of_squares(small);
  }
}

}  // namespace
}  // namespace chainrule

int main() {
  chainrule::products();
  chainrule::reductions<float>();
  chainrule::reductions<double>();
  chainrule::reductions<int32_t>();
  return chainrule::test::report();
}
