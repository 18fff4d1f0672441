// Test layer: cross-entropy and layer normalisation against sums in long double, with rows computed alone, chunks in
// several orders, and targets that are no classes.
#include <math.h>

#include "kernel_test.h"

using namespace chainrule;
using namespace chainrule::test;

namespace {

using Real = long double;
constexpr int32_t kIgnored = -100;

template <class T>
Buffer<T> drawn(int64_t n, uint64_t seed, double scale = 1, double shift = 0) {
  std::mt19937_64 rng(seed);
  Buffer<T> x(n, true);
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<T>(draw<T>(rng) * scale + shift);
  return x;
}

// Rounding errors allowed, in units of the largest magnitude that enters a result.
template <class T>
constexpr double kUnit = sizeof(T) == 4 ? 0x1p-23 : 0x1p-51;

template <class T>
void check_near(const KernelTable& table, const char* what, T got, Real want, Real size, double units, int64_t i) {
  const bool near = fabsl(got - want) <= units * kUnit<T> * (fabsl(want) + size);
  CHECK(near, "%s %zu bytes: %s at %ld is %.9g, not %.9Lg", table.isa, sizeof(T), what, i, double(got), want);
}

// ---- cross-entropy
// ----------------------------------------------------------------------------------------------------
template <class T>
struct LossProblem {
  int64_t rows, classes;
  Buffer<T> x;
  Buffer<int32_t> target;

  LossProblem(int64_t rows, int64_t classes, double scale, double shift = 0)
      : rows(rows), classes(classes), x(drawn<T>(rows * classes, 7, scale, shift)), target(rows, true) {
    std::mt19937_64 rng(8);
    for (int64_t i = 0; i < rows; ++i) target[i] = i % 5 == 3 ? kIgnored : static_cast<int32_t>(rng() % classes);
  }
  CrossEntropyArgs args(int64_t row, int64_t count, LossReduction reduction, int64_t* bad) const {
    CrossEntropyArgs args{};
    args.x = x.data() + row * classes, args.target = target.data() + row;
    args.rows = count, args.classes = classes, args.ignored = kIgnored, args.reduction = reduction, args.bad = bad;
    return args;
  }
};

template <class T>
void test_losses(const KernelTable& table, int64_t rows, int64_t classes, double scale, double shift = 0) {
  constexpr int type = type_index<T>();
  const LossProblem<T> p(rows, classes, scale, shift);
  int64_t bad[2];
  Buffer<T> stats(2 * rows), losses(rows, true), gradient(rows * classes, true), g = drawn<T>(rows, 9);
  CrossEntropyArgs args = p.args(0, rows, kLossEach, bad);
  args.stats = stats.data(), args.out = losses.data();
  TestContext context(TestContext::kForward);
  CHECK(table.cross_entropy[type](context, args) == kOk, "%s", table.isa);
  args.out = gradient.data(), args.g = g.data();
  CHECK(table.cross_entropy_vjp[type](context, args) == kOk, "%s", table.isa);
  CHECK(losses.canaries_intact() && gradient.canaries_intact() && stats.canaries_intact(), "%s", table.isa);

  Real total = 0, counted = 0, largest = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const T* x = p.x.data() + row * classes;
    Real top = x[0], sum = 0;
    for (int64_t j = 0; j < classes; ++j) top = fmaxl(top, x[j]);
    for (int64_t j = 0; j < classes; ++j) sum += expl(x[j] - top);
    const bool counts = p.target[row] != kIgnored;
    const Real loss = counts ? logl(sum) + top - x[p.target[row]] : 0;
    check_near<T>(table, "loss", losses[row], loss, 1, 8, row);
    total += loss, counted += counts, largest = fmaxl(largest, fabsl(loss));
    for (int64_t j = 0; j < classes; ++j) {
      const Real share = expl(x[j] - top) / sum - (j == p.target[row]);
      // x - top is rounded, which the exponential magnifies by its size.
      check_near<T>(table, "gradient", gradient[row * classes + j], counts ? share * g[row] : 0,
                    counts ? fabsl(g[row]) : 0, 8 + 2 * log2(1 + double(classes)), row * classes + j);
    }
  }
  for (const LossReduction reduction : {kLossSum, kLossMean}) {
    T all = 0;
    CrossEntropyArgs reduced = p.args(0, rows, reduction, bad);
    reduced.stats = stats.data(), reduced.out = &all;
    CHECK(table.cross_entropy[type](context, reduced) == kOk, "%s", table.isa);
    const Real divisor = reduction == kLossMean ? counted : 1;
    if (counted > 0) check_near<T>(table, "total", all, total / divisor, rows * largest / divisor, 16, reduction);
    const T whole = T(1.5);
    Buffer<T> reduced_gradient(rows * classes), each(rows * classes);
    reduced.out = reduced_gradient.data(), reduced.g = &whole;
    table.cross_entropy_vjp[type](context, reduced);
    for (int64_t i = 0; i < rows; ++i) g[i] = whole / static_cast<T>(divisor);
    args.out = each.data();
    table.cross_entropy_vjp[type](context, args);
    CHECK(counted == 0 || reduced_gradient.same_bits(each), "%s: gradient of a reduced loss", table.isa);
  }
  const Buffer<T> first = drawn<T>(rows, 9);
  memcpy(g.data(), first.data(), rows * sizeof(T));

  // Rows alone, and chunks on threads, have the bits of all of them in order.
  for (int64_t row = 0; row < rows; row += 1 + rows / 7) {
    T loss, moments[2];
    Buffer<T> own(classes);
    CrossEntropyArgs alone = p.args(row, 1, kLossEach, bad);
    alone.stats = moments, alone.out = &loss, alone.g = &g[row];
    table.cross_entropy[type](context, alone);
    alone.out = own.data();
    table.cross_entropy_vjp[type](context, alone);
    CHECK(!memcmp(&loss, &losses[row], sizeof loss), "%s: row %ld alone", table.isa, row);
    CHECK(!memcmp(own.data(), &gradient[row * classes], classes * sizeof(T)), "%s: row %ld alone", table.isa, row);
  }
  for (const auto order : {TestContext::kReverse, TestContext::kThreads}) {
    TestContext other(order);
    Buffer<T> again(rows, true), gradient_again(rows * classes, true);
    args.out = again.data();
    table.cross_entropy[type](other, args);
    args.out = gradient_again.data();
    table.cross_entropy_vjp[type](other, args);
    CHECK(losses.same_bits(again) && gradient.same_bits(gradient_again), "%s: order of chunks", table.isa);
  }
}

template <class T>
void test_bad_targets(const KernelTable& table) {
  constexpr int type = type_index<T>();
  for (const int32_t wrong : {-1, 5, INT32_MAX, INT32_MIN}) {
    const LossProblem<T> good(3000, 5, 1);
    LossProblem<T> p = {3000, 5, 1};
    p.target[1999] = wrong, p.target[2500] = 77;
    int64_t bad[2] = {};
    Buffer<T> stats(6000), out(15000), g(3000);
    const Buffer<T> untouched_stats(6000), untouched(15000);
    CrossEntropyArgs args = p.args(0, 3000, kLossEach, bad);
    args.stats = stats.data(), args.out = out.data(), args.g = g.data();
    TestContext context(TestContext::kForward);
    for (const auto kernel : {&KernelTable::cross_entropy, &KernelTable::cross_entropy_vjp}) {
      CHECK((table.*kernel)[type](context, args) == kIndexOutOfRange, "%s: %d", table.isa, wrong);
      CHECK(bad[0] == 1999 && bad[1] == wrong, "%s: %ld at %ld", table.isa, bad[1], bad[0]);
      CHECK(stats.same_bits(untouched_stats) && out.same_bits(untouched), "%s: written", table.isa);
    }
  }
}

// ---- layer normalisation
// ----------------------------------------------------------------------------------------------
template <class T>
void test_norm(const KernelTable& table, int64_t rows, int64_t n, bool affine, double shift) {
  constexpr int type = type_index<T>();
  const Buffer<T> x = drawn<T>(rows * n, 11, 1, shift), g = drawn<T>(rows * n, 12), w = drawn<T>(n, 13, 1, 1),
                  b = drawn<T>(n, 14);
  Buffer<T> y(rows * n, true), stats(2 * rows), gx(rows * n, true), gw(n, true), gb(n, true);
  const NormArgs args{
      x.data(), affine ? w.data() : nullptr, affine ? b.data() : nullptr, y.data(), stats.data(), rows, n, 1e-5, false};
  const NormVjpArgs vjp{g.data(), x.data(), stats.data(), affine ? w.data() : nullptr, gx.data(), gw.data(), gb.data(),
                        rows,     n,        false};
  TestContext context(TestContext::kForward);
  CHECK(table.layer_norm[type](context, args) == kOk && table.layer_norm_vjp[type](context, vjp) == kOk, "%s",
        table.isa);
  CHECK(y.canaries_intact() && gx.canaries_intact() && gw.canaries_intact() && gb.canaries_intact(), "%s", table.isa);

  std::vector<Real> weight_sums(n), bias_sums(n), weight_size(n), bias_size(n);
  const double units = 16 + 4 * log2(double(n) + 1);
  for (int64_t row = 0; row < rows; ++row) {
    const T *xs = x.data() + row * n, *gs = g.data() + row * n;
    Real mean = 0, square = 0, own_mean = 0, slope = 0;
    for (int64_t j = 0; j < n; ++j) mean += xs[j];
    mean /= n;
    for (int64_t j = 0; j < n; ++j) square += (xs[j] - mean) * (xs[j] - mean);
    const Real scale = 1 / sqrtl(square / n + 1e-5L);
    const auto unit = [&](int64_t j) { return (xs[j] - mean) * scale; };
    const auto own = [&](int64_t j) { return affine ? Real(gs[j]) * w[j] : Real(gs[j]); };
    Real size = 0;
    for (int64_t j = 0; j < n; ++j) {
      own_mean += own(j) / n, slope += own(j) * unit(j) / n;
      size = fmaxl(size, fabsl(own(j)) * (1 + unit(j) * unit(j)));
    }
    // The mean is rounded, which the scale magnifies.
    const Real lost = fabsl(mean) * scale;
    for (int64_t j = 0; j < n; ++j) {
      const Real want = affine ? unit(j) * w[j] + b[j] : unit(j);
      check_near<T>(table, "y", y[row * n + j], want, 4 + 4 * lost, units, j);
      check_near<T>(table, "gx", gx[row * n + j], (own(j) - own_mean - unit(j) * slope) * scale,
                    size * scale * (1 + 4 * lost), units, j);
      weight_sums[j] += gs[j] * unit(j), bias_sums[j] += gs[j];
      weight_size[j] += fabsl(gs[j]) * (fabsl(unit(j)) + 4 * lost), bias_size[j] += fabsl(gs[j]);
    }
  }
  for (int64_t j = 0; j < n; ++j) {
    check_near<T>(table, "gweight", gw[j], weight_sums[j], weight_size[j], units, j);
    check_near<T>(table, "gbias", gb[j], bias_sums[j], bias_size[j], units, j);
  }

  for (int64_t row = 0; row < rows; row += 1 + rows / 5) {
    Buffer<T> own(n), own_gx(n);
    T moments[2];
    NormArgs alone = args;
    alone.x = &x[row * n], alone.y = own.data(), alone.stats = moments, alone.rows = 1;
    NormVjpArgs back = vjp;
    back.g = &g[row * n], back.x = &x[row * n], back.stats = moments, back.gx = own_gx.data(), back.rows = 1;
    back.gweight = back.gbias = nullptr;
    table.layer_norm[type](context, alone);
    table.layer_norm_vjp[type](context, back);
    CHECK(!memcmp(own.data(), &y[row * n], n * sizeof(T)), "%s: row %ld alone", table.isa, row);
    CHECK(!memcmp(own_gx.data(), &gx[row * n], n * sizeof(T)), "%s: gradient of row %ld alone", table.isa, row);
  }
  for (const auto order : {TestContext::kReverse, TestContext::kThreads}) {
    TestContext other(order);
    Buffer<T> y2(rows * n, true), gx2(rows * n, true), gw2(n, true), gb2(n, true);
    NormArgs again = args;
    again.y = y2.data();
    NormVjpArgs back = vjp;
    back.gx = gx2.data(), back.gweight = gw2.data(), back.gbias = gb2.data();
    again.streams = back.streams = order == TestContext::kThreads;
    table.layer_norm[type](other, again);
    table.layer_norm_vjp[type](other, back);
    CHECK(y2.canaries_intact() && gx2.canaries_intact(), "%s: order", table.isa);
    CHECK(y.same_bits(y2) && gx.same_bits(gx2) && gw.same_bits(gw2) && gb.same_bits(gb2), "%s: order", table.isa);
  }
  TestContext full(TestContext::kForward, true);
  CHECK(table.layer_norm_vjp[type](full, vjp) == kOutOfMemory, "%s", table.isa);
}

template <class T>
void test_type(const KernelTable& table) {
  for (const int64_t classes : {1, 2, 3, 10, 15, 16, 17, 31, 33, 64, 100, 1000, 4100}) {
    for (const int64_t rows : {1, 7, 65, 130}) {
      if (rows * classes < 100000) test_losses<T>(table, rows, classes, 3);
    }
  }
  test_losses<T>(table, 40, 50, 3000);
  test_losses<T>(table, 40, 50, 3, 3000);
  test_bad_targets<T>(table);
  for (const int64_t n : {1, 2, 5, 16, 17, 31, 32, 33, 64, 401, 1024, 2049, 5000}) {
    for (const int64_t rows : {1, 3, 64, 65, 200}) {
      if (rows * n < 100000) test_norm<T>(table, rows, n, n % 2 == 1, 0);
    }
  }
  test_norm<T>(table, 20, 300, true, 1000);
}

}  // namespace

int main() {
  for_each_isa([](const KernelTable& table) {
    test_type<float>(table);
    test_type<double>(table);
  });
  return report();
}
