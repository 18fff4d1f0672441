// Test layer: the elementwise kernels of every instruction set. Accuracy against long double libm, special values,
// memory bounds, and the same bits for an element wherever it stands. Argument --ulp prints the errors measured.
#include <cmath>

#include "elementwise_reference.h"
#include "guarded_block.h"

namespace chainrule::test {
namespace {

bool g_print_ulp = false;  // and take many more samples

// ---- numbers ------------------------------------------------------------------------------------------------------
template <class T>
T from_bits(uint64_t bits) {
  T v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

template <class T>
std::vector<T> special_values() {
  if constexpr (type_index<T>() == kI32) {
    return {0, 1, -1, 2, -2, 7, INT32_MAX, INT32_MIN, INT32_MAX - 1, INT32_MIN + 1, 65536, -46341};
  } else {
    using L = std::numeric_limits<T>;
    std::vector<T> v = {0,
                        L::denorm_min(),
                        L::min() / 2,
                        L::min(),
                        L::epsilon(),
                        T(0.5),
                        T(0.7),
                        T(0.70710678),
                        1,
                        2,
                        3,
                        6,
                        20,
                        T(1.5),
                        T(2.5),
                        T(0.4999999701976776),
                        T(1e5),
                        T(4194303.5),
                        T(8388607.5),
                        L::max(),
                        L::infinity(),
                        std::nextafter(T(1), T(0)),
                        std::nextafter(T(1), T(2)),
                        T(1.5707963267948966)};
    for (size_t i = 0, n = v.size(); i < n; ++i) v.push_back(-v[i]);
    v.push_back(L::quiet_NaN());
    return v;
  }
}

// Half spread evenly over [low, high], half over all magnitudes inside it.
template <class T>
std::vector<T> samples(std::mt19937_64& rng, double low, double high, size_t n) {
  const double most = std::numeric_limits<T>::max() / 4;
  std::uniform_real_distribution<double> spread(std::max(low, -most), std::min(high, most));
  std::vector<T> v;
  while (v.size() < n) {
    T x = T(spread(rng));
    if (v.size() % 2) x = from_bits<T>(rng() >> (64 - 8 * sizeof(T)));
    if (x >= low && x <= high) v.push_back(x);
  }
  return v;
}

// ---- accuracy -------------------------------------------------------------------------------------------------------
template <class T>
std::vector<T> run(const KernelTable& t, int op, const std::vector<const std::vector<T>*>& in, const double* params) {
  std::vector<T> out(in[0]->size());
  const void* pointers[kMaxMapInputs] = {};
  for (size_t i = 0; i < in.size(); ++i) pointers[i] = in[i]->data();
  t.map[op][type_index<T>()](out.data(), pointers, out.size(), params);
  return out;
}

template <class T>
double worst_error(const std::vector<T>& y, const std::vector<long double>& exact,
                   const std::vector<long double>& magnitude, double underflow_steps, size_t* where) {
  double worst = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    double e = ulps(y[i], exact[i], magnitude[i]);
    if (std::fabs(exact[i]) < 1000 * std::numeric_limits<T>::min()) e = std::max(0.0, e - underflow_steps);
    if (e > worst) worst = e, *where = i;
  }
  return worst;
}

template <class T>
void unary_accuracy(const Reference& ref) {
  std::mt19937_64 rng(17);
  const double params[] = {ref.p0, ref.p1};
  const T p0 = T(ref.p0), p1 = T(ref.p1);
  std::vector<T> x = samples<T>(rng, ref.low, ref.high, g_print_ulp ? 1000000 : 20000);
  for (T s : special_values<T>()) x.push_back(s);
  std::vector<T> saved = ref.saves == SAVES_Y ? std::vector<T>() : x, g(x.size());
  std::vector<long double> y_exact, y_size, d_exact, d_size;
  for (T v : x) {
    y_exact.push_back(ref.forward(v, p0, p1));
    y_size.push_back(std::fabs(y_exact.back()));
    if (ref.saves == SAVES_Y) saved.push_back(T(y_exact.back()));
  }
  for (size_t i = 0; i < x.size(); ++i) {
    g[i] = T((i % 2 ? 1 : -1) * (1 + 0.25 * double(i % 7)));  // |g| >= 1: the product overflows where the factor does
    const long double d = ref.pullback(saved[i], p0, p1);
    d_exact.push_back(g[i] * d);
    const long double size = ref.pullback_magnitude ? ref.pullback_magnitude(saved[i], p0, p1) : d;
    d_size.push_back(std::fabs(g[i] * (std::isnan(size) ? d : size)));
  }
  const int digits = type_index<T>() == kF32 ? 32 : 64;
  const double bound = type_index<T>() == kF32 ? ref.ulp32 : ref.ulp64;
  for_each_isa([&](const KernelTable& t) {
    size_t at = 0;
    const std::vector<T> y = run<T>(t, ref.op, {&x}, params);
    const double e = worst_error(y, y_exact, y_size, 0, &at);
    CHECK(e <= bound, "%s float%d %s(%.17g) = %.17g, exact %.17Lg: %.3g ulp", t.isa, digits, ref.name, double(x[at]),
          double(y[at]), y_exact[at], e);
    size_t wrong_zero = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      if ((x[i] == 0 || std::isinf(x[i])) && y_exact[i] == 0)
        wrong_zero += std::signbit(y[i]) != std::signbit(y_exact[i]);
    }
    CHECK(wrong_zero == 0, "%s float%d %s: sign of zero", t.isa, digits, ref.name);

    const std::vector<T> d =
        ref.saves == SAVES_NONE ? run<T>(t, ref.op + 1, {&g}, params) : run<T>(t, ref.op + 1, {&g, &saved}, params);
    const double pullback_bound = bound + ref.pullback_ulp;
    const double de = worst_error(d, d_exact, d_size, ref.underflow_steps, &at);
    CHECK(de <= pullback_bound, "%s float%d pullback of %s, saved %.17g, g %g: %.17g, exact %.17Lg: %.3g ulp", t.isa,
          digits, ref.name, double(saved[at]), double(g[at]), double(d[at]), d_exact[at], de);
    if (g_print_ulp) printf("%-12s f%d %-8s forward %6.2f  pullback %6.2f\n", ref.name, digits, t.isa, e, de);
  });
}

// ---- ops whose result is exact, and pow
// ---------------------------------------------------------------------------------
template <class T>
T wrapping(int op, T a, T b) {
  if constexpr (type_index<T>() == kI32) {
    const uint32_t x = uint32_t(a), y = uint32_t(b);
    return T(op == kMap_add ? x + y : op == kMap_sub ? x - y : x * y);
  } else {
    return op == kMap_add ? a + b : op == kMap_sub ? a - b : a * b;
  }
}

template <class T>
T exact_binary(int op, T a, T b) {
  const bool nan = a != a || b != b;
  switch (op) {
    case kMap_add:
    case kMap_sub:
    case kMap_mul:
      return wrapping(op, a, b);
    case kMap_maximum:
      return nan ? T(NAN) : std::max(a, b);
    case kMap_minimum:
      return nan ? T(NAN) : std::min(a, b);
    case kMap_eq:
      return a == b;
    case kMap_ne:
      return a != b;
    case kMap_gt:
      return a > b;
    case kMap_ge:
      return a >= b;
    case kMap_lt:
      return a < b;
    case kMap_le:
      return a <= b;
    case kMap_div:
      return type_index<T>() == kI32 ? 0 : a / b;
    default:
      abort();
  }
}

template <class T>
bool same_value(T a, T b) {
  return a == b || (a != a && b != b);
}

template <class T>
void binary_ops() {
  std::mt19937_64 rng(5);
  std::vector<T> x, y, cond;
  for (T a : special_values<T>()) {
    for (T b : special_values<T>()) x.push_back(a), y.push_back(b), cond.push_back(b);
  }
  for (int i = 0; i < 2000; ++i) {
    x.push_back(draw<T>(rng));
    y.push_back(i % 3 ? draw<T>(rng) : x.back());
    cond.push_back(T(i % 2 ? i % 5 - 2 : 0));
  }
  const double params[2] = {};
  for_each_isa([&](const KernelTable& t) {
    for (int op : {kMap_add, kMap_sub, kMap_mul, kMap_maximum, kMap_minimum, kMap_eq, kMap_ne, kMap_gt, kMap_ge,
                   kMap_lt, kMap_le, kMap_div}) {
      if (op == kMap_div && type_index<T>() == kI32) continue;
      const std::vector<T> out = run<T>(t, op, {&x, &y}, params);
      for (size_t i = 0; i < x.size(); ++i) {
        CHECK(same_value(out[i], exact_binary(op, x[i], y[i])), "%s op %d (%g, %g) = %g", t.isa, op, double(x[i]),
              double(y[i]), double(out[i]));
      }
    }
    const std::vector<T> out = run<T>(t, kMap_where, {&cond, &x, &y}, params);
    for (size_t i = 0; i < x.size(); ++i) {
      CHECK(same_value(out[i], cond[i] != 0 ? x[i] : y[i]), "%s where(%g)", t.isa, double(cond[i]));
    }
  });
}

template <class T>
void power() {
  std::mt19937_64 rng(9);
  std::vector<T> x, y;
  for (T a : special_values<T>()) {
    for (T b : special_values<T>()) x.push_back(a), y.push_back(b);
  }
  for (int i = 0; i < 60000; ++i) {
    const double base = std::exp2(std::uniform_real_distribution<double>(-3, i % 2 ? 3 : 100)(rng));
    x.push_back(T(i % 5 == 0 ? -base : base));
    const double exponent = std::uniform_real_distribution<double>(-1, 1)(rng) * (i % 2 ? 300 : 12);
    y.push_back(T(i % 5 == 0 ? std::round(exponent) : exponent));
  }
  const double params[2] = {};
  for_each_isa([&](const KernelTable& t) {
    const std::vector<T> out = run<T>(t, kMap_pow, {&x, &y}, params);
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const long double exact = std::pow(static_cast<long double>(x[i]), static_cast<long double>(y[i]));
      const double e = ulps(out[i], exact, std::fabs(exact));
      CHECK(e <= 1.5 && (exact != 0 || std::signbit(out[i]) == std::signbit(exact)),
            "%s pow(%.17g, %.17g) = %.17g: %g ulp", t.isa, double(x[i]), double(y[i]), double(out[i]), e);
      worst = std::max(worst, e);
    }
    if (g_print_ulp) printf("%-12s f%d %-8s forward %6.2f\n", "pow", int(8 * sizeof(T)), t.isa, worst);
  });
}

void integer_unary() {
  const std::vector<int32_t> x = special_values<int32_t>();
  const double params[] = {-INFINITY, 100.75};
  for_each_isa([&](const KernelTable& t) {
    const auto all = [&](int op, auto reference) {
      const std::vector<int32_t> out = run<int32_t>(t, op, {&x}, params);
      for (size_t i = 0; i < x.size(); ++i)
        CHECK(out[i] == reference(x[i]), "%s op %d (%d) = %d", t.isa, op, x[i], out[i]);
    };
    all(kMap_copy, [](int32_t v) { return v; });
    all(kMap_neg, [](int32_t v) { return int32_t(0u - uint32_t(v)); });
    all(kMap_abs, [](int32_t v) { return v < 0 ? int32_t(0u - uint32_t(v)) : v; });
    all(kMap_sign, [](int32_t v) { return (v > 0) - (v < 0); });
    all(kMap_square, [](int32_t v) { return int32_t(uint32_t(v) * uint32_t(v)); });
    all(kMap_relu, [](int32_t v) { return std::max(v, 0); });
    all(kMap_clamp, [](int32_t v) { return std::min(v, 100); });
  });
}

// ---- memory
// ---------------------------------------------------------------------------------------------------------------
// Every op at sizes about the vector length: what comes out is, bit for bit, what the same elements give in a long run,
// also in place; nothing before or after the block is touched.
template <class T>
void bounds_and_tails() {
  constexpr size_t kLongest = 1000, kCanary = 64;
  const int type = type_index<T>();
  std::mt19937_64 rng(3);
  GuardedBlock blocks[kMaxMapInputs + 1] = {GuardedBlock(8192), GuardedBlock(8192), GuardedBlock(8192),
                                            GuardedBlock(8192)};
  std::vector<T> in[kMaxMapInputs], expected(kLongest);
  const void* pointers[kMaxMapInputs];
  for (int k = 0; k < kMaxMapInputs; ++k) {
    for (size_t i = 0; i < kLongest; ++i) in[k].push_back(draw<T>(rng));
    pointers[k] = in[k].data();
  }
  const double params[] = {0.3, 0.7};
  for_each_isa([&](const KernelTable& t) {
    const size_t lanes = size_t(t.vector_bytes) / sizeof(T);
    for (int op = 0; op < kMapOpCount; ++op) {
      if (!t.map[op][type]) continue;
      t.map[op][type](expected.data(), pointers, kLongest, params);
      for (size_t n : {size_t{0}, size_t{1}, lanes - 1, lanes, lanes + 1, 2 * lanes - 1, size_t{255}, kLongest}) {
        const void* guarded[kMaxMapInputs];
        for (int k = 0; k < kMaxMapInputs; ++k) {
          guarded[k] = memcpy(blocks[k].last(n * sizeof(T)), in[k].data(), n * sizeof(T));
        }
        char* out = blocks[kMaxMapInputs].last(n * sizeof(T));
        memset(out - kCanary, 0x5a, kCanary + n * sizeof(T));
        t.map[op][type](out, guarded, n, params);
        bool untouched = true;
        for (size_t i = 1; i <= kCanary; ++i) untouched = untouched && out[-ptrdiff_t(i)] == 0x5a;
        CHECK(untouched && memcmp(out, expected.data(), n * sizeof(T)) == 0, "%s op %d type %d n %zu", t.isa, op, type,
              n);
        void* in_place = blocks[0].last(n * sizeof(T));
        t.map[op][type](in_place, guarded, n, params);
        CHECK(memcmp(in_place, expected.data(), n * sizeof(T)) == 0, "%s op %d type %d n %zu in place", t.isa, op, type,
              n);
      }
    }
  });
}

// With fused multiply-adds an op gives the same bits whatever the register: at special values, over all magnitudes, and
// where the functions bend. A NaN is only that: its sign and payload follow the order that a compiler gave an addition.
template <class T>
void same_bits_on_each_isa() {
  constexpr int kType = type_index<T>();
  std::mt19937_64 rng(29);
  std::vector<T> in[kMaxMapInputs];
  for (T a : special_values<T>()) {
    for (T b : special_values<T>()) in[0].push_back(a), in[1].push_back(b), in[2].push_back(a);
  }
  for (int i = 0; i < 200000; ++i) {
    for (std::vector<T>& v : in) {
      T spread = draw<T>(rng);
      if constexpr (std::is_floating_point_v<T>) spread *= T(i % 4 == 1 ? 10 : 1);
      v.push_back(i % 4 ? spread : from_bits<T>(rng() >> (64 - 8 * sizeof(T))));
    }
  }
  const std::vector<const std::vector<T>*> inputs = {&in[0], &in[1], &in[2]};
  const double params[] = {0.3, 0.7};
  const KernelTable* first = nullptr;
  for_each_isa([&](const KernelTable& t) {
    if (strcmp(t.isa, "baseline") == 0) return;
    if (!first) first = &t;
    for (int op = 0; op < kMapOpCount; ++op) {
      if (!t.map[op][kType]) continue;
      const std::vector<T> a = run<T>(*first, op, inputs, params), b = run<T>(t, op, inputs, params);
      size_t at = 0;
      while (at < a.size() && (!memcmp(&a[at], &b[at], sizeof(T)) || (a[at] != a[at] && b[at] != b[at]))) ++at;
      CHECK(at == a.size(), "op %d type %d: %s and %s differ at (%.17g, %.17g)", op, kType, first->isa, t.isa,
            double(in[0][at]), double(in[1][at]));
    }
  });
}

// Which types an op has is the same on every instruction set, and no float kernel is missing.
void tables_complete() {
  size_t count = 0;
  const IsaLevel* levels = available_isas(&count);
  CHECK(count > 0 && strcmp(levels[0].name, "baseline") == 0, "weakest first");
  for (size_t i = 0; i < count; ++i) {
    const KernelTable& t = *levels[i].table;
    CHECK(strcmp(levels[i].name, t.isa) == 0, "%s", t.isa);
    for (int op = 0; op < kMapOpCount; ++op) {
      CHECK(t.map[op][kF32] && t.map[op][kF64], "%s op %d", t.isa, op);
      CHECK(!t.map[op][kI32] == !levels[0].table->map[op][kI32], "%s op %d", t.isa, op);
    }
  }
}

}  // namespace
}  // namespace chainrule::test

int main(int argc, char** argv) {
  using namespace chainrule::test;
  g_print_ulp = argc > 1 && strcmp(argv[1], "--ulp") == 0;
  const auto family = [](const char* name, auto check) {
    check();
    printf("%s: %d checks so far\n", name, g_passed + g_failed);
  };
  family("tables", tables_complete);
  family("unary float32", [] {
    for (const Reference& ref : kReferences) unary_accuracy<float>(ref);
  });
  family("unary float64", [] {
    for (const Reference& ref : kReferences) unary_accuracy<double>(ref);
  });
  family("unary int32", integer_unary);
  family("binary", [] { binary_ops<float>(), binary_ops<double>(), binary_ops<int32_t>(); });
  family("pow", [] { power<float>(), power<double>(); });
  family("same bits",
         [] { same_bits_on_each_isa<float>(), same_bits_on_each_isa<double>(), same_bits_on_each_isa<int32_t>(); });
  family("bounds and tails",
         [] { bounds_and_tails<float>(), bounds_and_tails<double>(), bounds_and_tails<int32_t>(); });
  return report();
}
