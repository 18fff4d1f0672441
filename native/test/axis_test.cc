// Test layer: reductions, cumsum and the softmax family along one axis, on every instruction set of this machine,
// against plain loops in long double.
#include <math.h>

#include "kernel_test.h"

using namespace chainrule;
using namespace chainrule::test;

namespace {

constexpr const char* kTypeNames[] = {"float32", "float64", "int32"};
constexpr const char* kOpNames[] = {"sum", "prod", "amax", "amin", "argmax", "argmin"};

struct Shape {
  int64_t outer, reduce, inner;
  int64_t elements() const { return outer * reduce * inner; }
  int64_t results() const { return outer * inner; }
  // Element j of what is reduced to one result.
  int64_t at(int64_t result, int64_t j) const { return (result / inner * reduce + j) * inner + result % inner; }
};

// Short rows, rows one and four vectors wide, strips with and without a partial vector, several blocks of 64 rows.
std::vector<Shape> shapes(int64_t lanes) {
  std::vector<Shape> list = {{0, 3, 1},    {3, 0, 1},     {3, 0, 5},    {2, 5, 0},    {0, 0, 0},
                             {1, 1, 1},    {1, 70000, 1}, {2, 4097, 1}, {1, 4099, 3}, {3, 521, 7},
                             {129, 10, 1}, {1, 1031, 67}, {1, 9, 1031}};
  for (const int64_t n : {2, 3, 4, 5, 6, 7, 8, 9, 13, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 300, 1031}) {
    for (const int64_t outer : {int64_t{1}, lanes - 1, lanes, lanes + 1}) list.push_back({outer, n, 1});
  }
  for (const int64_t n : {1, 2, 7, 8, 9, 63, 64, 65, 71, 200}) {
    for (const int64_t inner : {int64_t{2}, lanes - 1, lanes, lanes + 1, 4 * lanes + 3}) list.push_back({2, n, inner});
  }
  return list;
}

AxisArgs axis(const Shape& s, const void* x, void* out, const void* g = nullptr) {
  return {x, g, out, s.outer, s.reduce, s.inner, 1, false};
}

bool close(long double got, long double want, long double error) {
  return got == want || (got != got && want != want) || fabsl(got - want) <= error;
}

// ---- reductions ---------------------------------------------------------------------------------------------------

struct Expected {
  long double value, error;  // error: what the kernel may be off by
};

template <class T>
Expected expected(const Shape& s, const T* x, int64_t result, ReduceOp op) {
  const long double unit = sizeof(T) == 8 ? 0x1p-53L : 0x1p-24L, n = s.reduce;
  long double sum = 0, magnitude = 0, product = 1;
  uint32_t whole_sum = 0, whole_product = 1;
  int64_t best = 0;
  for (int64_t j = 0; j < s.reduce; ++j) {
    const T v = x[s.at(result, j)], extreme = x[s.at(result, best)];
    const bool better = op == kAmax || op == kArgmax ? v > extreme : v < extreme;
    if (extreme == extreme && (better || v != v)) best = j;
    if constexpr (type_index<T>() == kI32) {
      whole_sum += static_cast<uint32_t>(v), whole_product *= static_cast<uint32_t>(v);
    } else {
      sum += v, magnitude += fabsl(v), product *= v;
    }
  }
  if (op == kArgmax || op == kArgmin) return {static_cast<long double>(best), 0};
  if (op == kAmax || op == kAmin) return {static_cast<long double>(x[s.at(result, best)]), 0};
  if (type_index<T>() == kI32) return {static_cast<long double>(int32_t(op == kSum ? whole_sum : whole_product)), 0};
  if (op == kSum) return {sum, n < 2 ? 0 : 2 * unit * log2l(n) * magnitude};
  return {product, n * unit * fabsl(product)};
}

template <class T, class Out>
void check_reduce_to(const KernelTable& table, ReduceOp op, const Shape& s, const Buffer<T>& x, const char* what) {
  Buffer<Out> out(s.results(), true);
  TestContext context(TestContext::kReverse);
  const Status status = table.reduce[op][type_index<T>()](context, axis(s, x.data(), out.data()));
  int64_t bad = status == kOk ? -1 : 0;
  for (int64_t r = 0; r < s.results() && bad < 0; ++r) {
    const Expected want = expected(s, x.data(), r, op);
    if (!close(out[r], want.value, want.error)) bad = r;
  }
  CHECK(bad < 0 && out.canaries_intact(), "%s %s %s [%ld,%ld,%ld] %s: result %ld is wrong", table.isa, kOpNames[op],
        kTypeNames[type_index<T>()], s.outer, s.reduce, s.inner, what, bad);
}

template <class T>
void check_reduce(const KernelTable& table, ReduceOp op, const Shape& s, const Buffer<T>& x, const char* what) {
  if (op == kArgmax || op == kArgmin)
    check_reduce_to<T, int32_t>(table, op, s, x, what);
  else
    check_reduce_to<T, T>(table, op, s, x, what);
}

template <class T>
void test_reduce(const KernelTable& table) {
  std::mt19937_64 rng(1);
  for (const Shape& s : shapes(table.vector_bytes / sizeof(T))) {
    Buffer<T> x(s.elements(), true), whole(s.elements()), near_one(s.elements());
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = draw<T>(rng);
      whole[i] = static_cast<T>(static_cast<int>(rng() % 17) - 8);  // tied extremes
      near_one[i] = type_index<T>() == kI32 ? draw<T>(rng) : static_cast<T>(1 + draw<T>(rng) / 1024);
    }
    check_reduce(table, kSum, s, x, "random");
    check_reduce(table, kProd, s, near_one, "near one");
    for (const ReduceOp op : {kAmax, kAmin, kArgmax, kArgmin}) {
      if (s.reduce == 0 && s.results() > 0) continue;  // refused by the runtime
      check_reduce(table, op, s, x, "random");
      check_reduce(table, op, s, whole, "ties");
    }
  }
}

// A special value in every place of a row, and a second one after it.
template <class T>
void test_special_values(const KernelTable& table) {
  const int64_t lanes = table.vector_bytes / sizeof(T);
  const Shape list[] = {{1, 5, 1}, {3, 16, 1}, {1, 9 * lanes + 3, 1}, {1, 64 * lanes + 5, 1}, {2, 11, lanes + 1}};
  for (const Shape& s : list) {
    for (const double special : {double{NAN}, double{INFINITY}, -double{INFINITY}, -0.0}) {
      for (int64_t place = 0; place < s.elements(); ++place) {
        Buffer<T> x(s.elements());
        for (int64_t i = 0; i < s.elements(); ++i) x[i] = static_cast<T>((i * 7 % 11) - 5);
        x[place] = static_cast<T>(special);
        if (place + 2 * s.inner < s.elements()) x[place + 2 * s.inner] = static_cast<T>(special);
        for (const ReduceOp op : {kSum, kAmax, kAmin, kArgmax, kArgmin}) check_reduce(table, op, s, x, "special");
      }
    }
  }
}

// The same bits in any order of chunks, and for a row alone as among others.
template <class T>
void test_same_bits(const KernelTable& table) {
  const int type = type_index<T>();
  std::mt19937_64 rng(2);
  for (const Shape& s : {Shape{1, 1 << 20, 1}, {1, 262147, 3}, {5, 150001, 1}, {20, 70001, 1}, {2, 40001, 17}}) {
    Buffer<T> x(s.elements());
    for (size_t i = 0; i < x.size(); ++i) x[i] = draw<T>(rng);
    for (int op = 0; op < kReduceOpCount; ++op) {
      const AxisFn reduce = table.reduce[op][type];
      const bool to_index = op == kArgmax || op == kArgmin;
      Buffer<T> forward(s.results()), reverse(s.results()), threads(s.results()), alone(s.results());
      const auto run = [&](TestContext::Order order, Buffer<T>& out) {
        TestContext context(order);
        CHECK(reduce(context, axis(s, x.data(), out.data())) == kOk, "%s", kOpNames[op]);
        CHECK(context.chunks() > 1, "%s %s: nothing for a second thread", table.isa, kOpNames[op]);
      };
      run(TestContext::kForward, forward);
      run(TestContext::kReverse, reverse);
      run(TestContext::kThreads, threads);
      CHECK(forward.same_bits(reverse) && forward.same_bits(threads), "%s %s %s [%ld,%ld,%ld]: order of chunks",
            table.isa, kOpNames[op], kTypeNames[type], s.outer, s.reduce, s.inner);

      const Shape slice = {1, s.reduce, s.inner};
      const int64_t slice_bytes = s.inner * (to_index ? sizeof(int32_t) : sizeof(T));
      for (int64_t o = 0; o < s.outer; ++o) {
        TestContext context(TestContext::kForward);
        char* out = reinterpret_cast<char*>(alone.data()) + o * slice_bytes;
        reduce(context, axis(slice, x.data() + o * slice.elements(), out));
      }
      CHECK(alone.same_bits(forward), "%s %s %s depends on other rows", table.isa, kOpNames[op], kTypeNames[type]);

      TestContext poor(TestContext::kForward, true);
      if (s.outer == 1 || to_index) {
        CHECK(reduce(poor, axis(s, x.data(), forward.data())) == kOutOfMemory, "%s %s", table.isa, kOpNames[op]);
      }
    }
  }
}

template <class T>
void test_mean(const KernelTable& table) {
  for (int64_t n = 1; n < 300; ++n) {
    for (const Shape& s : {Shape{2, n, 1}, {1, n, 3}}) {
      Buffer<T> x(s.elements()), mean(s.results()), scaled(s.results());
      for (size_t i = 0; i < x.size(); ++i) x[i] = 3;
      TestContext context(TestContext::kForward);
      AxisArgs args = axis(s, x.data(), mean.data());
      args.scale = 1.0 / n;
      table.reduce[kSum][type_index<T>()](context, args);
      args.out = scaled.data(), args.scale = -2.75;
      table.reduce[kSum][type_index<T>()](context, args);
      for (int64_t r = 0; r < s.results(); ++r) {
        CHECK(mean[r] == 3 && scaled[r] == T(-8.25) * n, "%s mean of %ld", table.isa, n);
      }
    }
  }
}

template <class T>
void test_cumsum(const KernelTable& table) {
  using Sum = std::conditional_t<type_index<T>() == kI32, uint32_t, double>;
  std::mt19937_64 rng(3);
  for (const Shape& s : shapes(table.vector_bytes / sizeof(T))) {
    Buffer<T> x(s.elements()), out(s.elements(), true);
    for (size_t i = 0; i < x.size(); ++i) x[i] = draw<T>(rng);
    for (const bool reverse : {false, true}) {
      TestContext context(TestContext::kReverse);
      AxisArgs args = axis(s, x.data(), out.data());
      args.reverse = reverse;
      bool right = table.cumsum[type_index<T>()](context, args) == kOk && out.canaries_intact();
      for (int64_t r = 0; r < s.results(); ++r) {
        Sum sum = 0;
        for (int64_t j = 0; j < s.reduce; ++j) {
          const int64_t i = s.at(r, reverse ? s.reduce - 1 - j : j);
          right &= out[i] == static_cast<T>(sum += static_cast<Sum>(x[i]));
        }
      }
      CHECK(right, "%s cumsum %s [%ld,%ld,%ld]", table.isa, kTypeNames[type_index<T>()], s.outer, s.reduce, s.inner);
    }
  }
}

// ---- softmax ------------------------------------------------------------------------------------------------------

enum SoftmaxOp { kSoftmax, kLogSoftmax, kSoftmaxVjp, kLogSoftmaxVjp, kSoftmaxOpCount };

AxisFn softmax_kernel(const KernelTable& table, int op, int type) {
  const AxisFn kernels[] = {table.softmax[type], table.log_softmax[type], table.softmax_vjp[type],
                            table.log_softmax_vjp[type]};
  return kernels[op];
}

// What one row or column gives; `scale` is the magnitude that errors are relative to.
template <class T>
void expected_softmax(const Shape& s, int op, const T* x, const T* g, int64_t r, long double* want,
                      long double* scale) {
  long double top = -INFINITY, sum = 0, magnitude = 0;
  for (int64_t j = 0; j < s.reduce; ++j) {
    const long double v = x[s.at(r, j)];
    if (v > top || v != v) top = v;
  }
  for (int64_t j = 0; j < s.reduce; ++j) {
    const long double v = x[s.at(r, j)], gradient = g[s.at(r, j)];
    const long double term = op < kSoftmaxVjp ? expl(v - top) : op == kSoftmaxVjp ? v * gradient : gradient;
    sum += term, magnitude += fabsl(term);
  }
  for (int64_t j = 0; j < s.reduce; ++j) {
    const long double v = x[s.at(r, j)], gradient = g[s.at(r, j)];
    if (op == kSoftmax) want[j] = expl(v - top) / sum, scale[j] = want[j];
    if (op == kLogSoftmax) want[j] = v - top - logl(sum), scale[j] = 1 + fabsl(want[j]);
    if (op == kSoftmaxVjp) want[j] = v * (gradient - sum), scale[j] = fabsl(v) * (fabsl(gradient) + magnitude);
    if (op == kLogSoftmaxVjp) want[j] = gradient - expl(v) * sum, scale[j] = fabsl(gradient) + expl(v) * magnitude;
  }
}

template <class T>
void check_softmax(const KernelTable& table, int op, const Shape& s, const Buffer<T>& x, const Buffer<T>& g,
                   const char* what) {
  const int type = type_index<T>();
  // A few roundings; below the least normal number, a few steps.
  const long double unit = sizeof(T) == 8 ? 0x1p-53L : 0x1p-24L, least = sizeof(T) == 8 ? 0x1p-1072L : 0x1p-147L;
  Buffer<T> out(s.elements(), true), again(s.elements());
  TestContext context(TestContext::kReverse), threads(TestContext::kThreads);
  const Status status = softmax_kernel(table, op, type)(context, axis(s, x.data(), out.data(), g.data()));
  softmax_kernel(table, op, type)(threads, axis(s, x.data(), again.data(), g.data()));
  int64_t bad = status == kOk ? -1 : 0;
  std::vector<long double> want(s.reduce), scale(s.reduce);
  for (int64_t r = 0; r < s.results() && bad < 0; ++r) {
    expected_softmax(s, op, x.data(), g.data(), r, want.data(), scale.data());
    for (int64_t j = 0; j < s.reduce && bad < 0; ++j) {
      const int64_t i = s.at(r, j);
      if (!close(out[i], want[j], unit * (6 + 2 * log2l(s.reduce)) * scale[j] + least)) bad = i;
    }
  }
  CHECK(bad < 0 && out.canaries_intact(), "%s softmax op %d %s [%ld,%ld,%ld] %s: element %ld is %g", table.isa, op,
        kTypeNames[type], s.outer, s.reduce, s.inner, what, bad, static_cast<double>(bad < 0 ? 0 : out[bad]));
  CHECK(out.same_bits(again), "%s softmax op %d %s: other bits on threads", table.isa, op, kTypeNames[type]);
}

template <class T>
void test_softmax(const KernelTable& table) {
  std::mt19937_64 rng(4);
  for (const Shape& s : shapes(table.vector_bytes / sizeof(T))) {
    Buffer<T> x(s.elements(), true), y(s.elements()), g(s.elements()), wide(s.elements());
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = draw<T>(rng), g[i] = draw<T>(rng);
      wide[i] = x[i] * 40 + T(1e4);  // terms from 1 down to underflow, far from 0
    }
    for (const int op : {kSoftmax, kLogSoftmax}) {
      check_softmax(table, op, s, x, g, "random");
      check_softmax(table, op, s, wide, g, "wide");
      TestContext context(TestContext::kForward);
      softmax_kernel(table, op, type_index<T>())(context, axis(s, x.data(), y.data()));
      check_softmax(table, op + kSoftmaxVjp, s, y, g, "pullback");
    }
  }
}

template <class T>
void test_softmax_special_values(const KernelTable& table) {
  const int64_t lanes = table.vector_bytes / sizeof(T);
  for (const Shape& s : {Shape{2, 7, 1}, {2, 2 * lanes + 19, 1}, {1, 5, lanes + 1}}) {
    Buffer<T> x(s.elements()), out(s.elements());
    for (const double special : {double{NAN}, double{INFINITY}, -double{INFINITY}}) {
      for (int64_t place = 0; place < s.elements(); ++place) {
        for (int64_t i = 0; i < s.elements(); ++i) x[i] = static_cast<T>((i * 7 % 11) - 5);
        x[place] = static_cast<T>(special);
        for (const int op : {kSoftmax, kLogSoftmax}) check_softmax(table, op, s, x, x, "special");
      }
    }
    for (size_t i = 0; i < x.size(); ++i) x[i] = -INFINITY;
    for (const int op : {kSoftmax, kLogSoftmax}) {
      TestContext context(TestContext::kForward);
      softmax_kernel(table, op, type_index<T>())(context, axis(s, x.data(), out.data()));
      size_t nans = 0;
      for (size_t i = 0; i < out.size(); ++i) nans += out[i] != out[i];
      CHECK(nans == out.size(), "%s softmax op %d of -inf alone", table.isa, op);
    }
  }
}

}  // namespace

int main() {
  for_each_isa([](const KernelTable& table) {
    test_reduce<float>(table);
    test_reduce<double>(table);
    test_reduce<int32_t>(table);
    test_special_values<float>(table);
    test_special_values<double>(table);
    test_same_bits<float>(table);
    test_same_bits<double>(table);
    test_same_bits<int32_t>(table);
    test_mean<float>(table);
    test_mean<double>(table);
    test_cumsum<float>(table);
    test_cumsum<double>(table);
    test_cumsum<int32_t>(table);
    test_softmax<float>(table);
    test_softmax<double>(table);
    test_softmax_special_values<float>(table);
    test_softmax_special_values<double>(table);
  });
  return report();
}
