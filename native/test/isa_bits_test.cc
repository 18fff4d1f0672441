// Test layer: kernels whose results are the same bits on every instruction set that has fused multiply-adds, over
// lengths on both sides of every threshold and register width.
#include "kernel_test.h"

using namespace chainrule;
using namespace chainrule::test;

namespace {

std::vector<const KernelTable*> fused_tables() {
  std::vector<const KernelTable*> tables;
  for_each_isa([&](const KernelTable& table) {
    if (strcmp(table.isa, "baseline") != 0) tables.push_back(&table);
  });
  return tables;
}

struct Shape {
  int64_t outer, reduce, inner;
  int64_t elements() const { return outer * reduce * inner; }
};

std::vector<Shape> shapes() {
  std::vector<Shape> list = {{1, 70001, 1}, {3, 4099, 1}, {1, 1 << 17, 1}, {1, 40961, 3}, {2, 300, 67}, {1, 1031, 515}};
  for (int64_t n = 1; n < 80; ++n) list.push_back({3, n, 1});
  for (const int64_t n : {127, 128, 129, 255, 256, 257, 300, 511, 512, 513, 527, 576, 1000, 1031, 2048, 2053}) {
    list.push_back({5, n, 1});
    list.push_back({2, n, 5});
  }
  return list;
}

// Calls run(table, out) for every table; all must leave the bits of the first.
template <class T, class Run>
void same_on_all(int64_t elements, const char* what, const Shape& s, const Run& run) {
  const std::vector<const KernelTable*> tables = fused_tables();
  Buffer<T> first(elements);
  for (size_t i = 0; i < tables.size(); ++i) {
    Buffer<T> out(elements, i != 0);
    CHECK(run(*tables[i], out.data()) == kOk, "%s %s", tables[i]->isa, what);
    if (i == 0) memcpy(first.data(), out.data(), elements * sizeof(T));
    CHECK(first.same_bits(out), "%s and %s differ: %s %ld bytes [%ld,%ld,%ld]", tables[0]->isa, tables[i]->isa, what,
          sizeof(T), s.outer, s.reduce, s.inner);
  }
}

template <class T>
Buffer<T> drawn(int64_t n, uint64_t seed) {
  std::mt19937_64 rng(seed);
  Buffer<T> x(n, true);
  for (int64_t i = 0; i < n; ++i) x[i] = draw<T>(rng);
  return x;
}

AxisArgs axis(const Shape& s, const void* x, void* out, const void* g = nullptr) {
  return {x, g, out, s.outer, s.reduce, s.inner, 1, false};
}

template <class T>
void test_reductions() {
  constexpr int type = type_index<T>();
  for (const Shape& s : shapes()) {
    const Buffer<T> x = drawn<T>(s.elements(), 1);
    for (int op = 0; op < kReduceOpCount; ++op) {
      const auto run = [&](const KernelTable& table, void* out) {
        TestContext context(TestContext::kForward);
        return table.reduce[op][type](context, axis(s, x.data(), out));
      };
      if (op == kArgmax || op == kArgmin)
        same_on_all<int32_t>(s.outer * s.inner, "index of an extreme", s, run);
      else
        same_on_all<T>(s.outer * s.inner, "reduction", s, run);
    }
    same_on_all<T>(s.elements(), "cumsum", s, [&](const KernelTable& table, void* out) {
      TestContext context(TestContext::kForward);
      return table.cumsum[type](context, axis(s, x.data(), out));
    });
  }
}

template <class T>
void test_softmax() {
  constexpr int type = type_index<T>();
  for (const Shape& s : shapes()) {
    const Buffer<T> x = drawn<T>(s.elements(), 2), g = drawn<T>(s.elements(), 3);
    for (const auto kernel :
         {&KernelTable::softmax, &KernelTable::log_softmax, &KernelTable::softmax_vjp, &KernelTable::log_softmax_vjp}) {
      same_on_all<T>(s.elements(), "softmax", s, [&](const KernelTable& table, void* out) {
        TestContext context(TestContext::kForward);
        return (table.*kernel)[type](context, axis(s, x.data(), out, g.data()));
      });
    }
  }
}

template <class T>
void test_rows() {
  constexpr int type = type_index<T>();
  for (const Shape& s : shapes()) {
    if (s.inner != 1) continue;
    const int64_t rows = s.outer, n = s.reduce;
    const Buffer<T> x = drawn<T>(rows * n, 4), g = drawn<T>(rows * n, 5), w = drawn<T>(n, 6), b = drawn<T>(n, 7);
    Buffer<int32_t> target(rows);
    for (int64_t row = 0; row < rows; ++row) target[row] = static_cast<int32_t>((row * 7 + 1) % n);
    int64_t bad[2];
    // Forward into stats, then back.
    same_on_all<T>(rows * n + 1 + 2 * rows, "cross-entropy", s, [&](const KernelTable& table, T* out) {
      TestContext context(TestContext::kForward);
      CrossEntropyArgs args{x.data(), target.data(), g.data(), out + rows * n + 1, out + rows * n, rows, n,
                            -1,       kLossMean,     bad};
      const Status status = table.cross_entropy[type](context, args);
      args.out = out;
      return status == kOk ? table.cross_entropy_vjp[type](context, args) : status;
    });
    same_on_all<T>(2 * rows * n + 2 * n + 2 * rows, "layer norm", s, [&](const KernelTable& table, T* out) {
      TestContext context(TestContext::kForward);
      T* gx = out + rows * n;
      T* gw = gx + rows * n;
      T* stats = gw + 2 * n;
      const Status status =
          table.layer_norm[type](context, {x.data(), w.data(), b.data(), out, stats, rows, n, 1e-5, false});
      if (status != kOk) return status;
      return table.layer_norm_vjp[type](context, {g.data(), x.data(), stats, w.data(), gx, gw, gw + n, rows, n, false});
    });
  }
}

// x, weight and gradient along a line of n, of n channels, and into n of them.
template <class T>
void test_convolutions() {
  constexpr int type = type_index<T>();
  for (int64_t n = 1; n < 72; ++n) {
    for (int form = 0; form < 3; ++form) {
      const int64_t stride = 1 + n % 3, across = form == 0 ? n : 20;
      ConvArgs c{};
      c.n = 2, c.groups = 1, c.in_channels = form == 1 ? n : 3, c.out_channels = form == 2 ? n : 5;
      c.y = {7, 7, 3, 1, 1, 1}, c.x = {across, across / stride + 1, 2, stride, 1, 1};
      const int64_t inputs = 2 * c.in_channels * 7 * across, outputs = 2 * c.out_channels * 7 * c.x.out;
      const int64_t weights = c.out_channels * c.in_channels * 6;
      const Buffer<T> x = drawn<T>(inputs, 4), weight = drawn<T>(weights, 5), g = drawn<T>(outputs, 6);
      const Buffer<T> bias = drawn<T>(c.out_channels, 7);
      const auto same = [&](auto kernel, int64_t elements, const T* in, const char* what) {
        same_on_all<T>(elements, what, {n, form, stride}, [&](const KernelTable& table, void* out) {
          TestContext context(TestContext::kForward);
          ConvArgs args = c;
          args.x_in = in, args.weight = weight.data(), args.g = g.data(), args.result = out;
          args.bias = kernel == &KernelTable::convolution ? bias.data() : nullptr;
          return (table.*kernel)[type](context, args);
        });
      };
      same(&KernelTable::convolution, outputs, x.data(), "convolution");
      same(&KernelTable::convolution_input, inputs, g.data(), "gradient for the input of a convolution");
      same(&KernelTable::convolution_weight, weights, x.data(), "gradient for the weight of a convolution");
    }
  }
}

}  // namespace

int main() {
  test_reductions<float>();
  test_reductions<double>();
  test_reductions<int32_t>();
  test_softmax<float>();
  test_softmax<double>();
  test_rows<float>();
  test_rows<double>();
  test_convolutions<float>();
  test_convolutions<double>();
  return report();
}
