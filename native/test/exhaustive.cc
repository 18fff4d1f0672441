// Test layer: every unary op at every float32 there is, on each instruction set: its largest error, against libm in
// double precision, and whether the wider instruction sets give the same bits. Minutes an op, so no part of the tests:
// `npm run test:exhaustive`, with the names of some ops or all of them.
#define CR_REFERENCE_REAL double
#include <algorithm>
#include <cmath>
#include <mutex>

#include "elementwise_reference.h"

namespace chainrule::test {
namespace {

constexpr size_t kBatch = size_t{1} << 16;

struct Worst {
  double ulp = 0;
  float x = 0, y = 0;
  void take(const Worst& other) {
    if (other.ulp > ulp) *this = other;
  }
};

struct Found {
  Worst normal, tiny;   // tiny: results below the normal numbers, in their steps
  uint64_t unlike = 0;  // results with other bits than the widest instruction set's
};

// The reference holds at every x but where it would be inf * 0; there the op's limit is asked for, if it has one: sin
// has none.
double limit(const Reference& ref, double x) {
  const double y = ref.forward(x, ref.p0, ref.p1);
  if (!std::isnan(y) || !std::isinf(x)) return y;
  const double far = std::copysign(ref.high, x), last = ref.forward(far, ref.p0, ref.p1);
  return last == ref.forward(0.99 * far, ref.p0, ref.p1) ? last : y;
}

void check_batch(const Reference& ref, const IsaLevel* levels, size_t count, uint64_t first, Found* found) {
  std::vector<float> x(kBatch), y(kBatch), widest(kBatch);
  std::vector<double> exact(kBatch);
  const double params[] = {ref.p0, ref.p1};
  for (size_t i = 0; i < kBatch; ++i) {
    const uint32_t bits = static_cast<uint32_t>(first + i);
    memcpy(&x[i], &bits, sizeof bits);
    exact[i] = limit(ref, x[i]);
  }
  const void* in[kMaxMapInputs] = {x.data()};
  for (size_t level = count; level-- > 0;) {
    levels[level].table->map[ref.op][kF32](y.data(), in, kBatch, params);
    if (level == count - 1) widest = y;
    if (level < count - 1 && !memcmp(y.data(), widest.data(), kBatch * sizeof(float))) {
      found[level].normal.take(found[count - 1].normal);  // the same bits, the same errors
      found[level].tiny.take(found[count - 1].tiny);
      continue;
    }
    for (size_t i = 0; i < kBatch; ++i) {
      found[level].unlike += memcmp(&y[i], &widest[i], sizeof(float)) && !(std::isnan(y[i]) && std::isnan(widest[i]));
      const double size = std::fabs(exact[i]);
      Worst& worst = size < std::numeric_limits<float>::min() ? found[level].tiny : found[level].normal;
      worst.take({ulps(y[i], exact[i], size), x[i], y[i]});
    }
  }
}

void check(const Reference& ref) {
  size_t count = 0;
  const IsaLevel* levels = available_isas(&count);
  std::vector<Found> found(count);
  std::atomic<uint64_t> next{0};
  std::mutex lock;
  const auto work = [&] {
    std::vector<Found> mine(count);
    for (uint64_t at; (at = next.fetch_add(kBatch)) < uint64_t{1} << 32;) {
      check_batch(ref, levels, count, at, mine.data());
    }
    const std::lock_guard<std::mutex> guard(lock);
    for (size_t i = 0; i < count; ++i) {
      found[i].normal.take(mine[i].normal);
      found[i].tiny.take(mine[i].tiny);
      found[i].unlike += mine[i].unlike;
    }
  };
  std::vector<std::thread> threads(std::max(1u, std::thread::hardware_concurrency()));
  for (std::thread& thread : threads) thread = std::thread(work);
  for (std::thread& thread : threads) thread.join();

  for (size_t i = 0; i < count; ++i) {
    const Found& f = found[i];
    const bool fused = strcmp(levels[i].name, "baseline") != 0;
    printf("%-12s p0 %-5g %-8s %6.3f ulp at %-14.9g", ref.name, ref.p0, levels[i].name, f.normal.ulp,
           double(f.normal.x));
    printf("  subnormal %5.1f steps at %-14.9g  other bits %llu\n", f.tiny.ulp, double(f.tiny.x),
           static_cast<unsigned long long>(f.unlike));
    CHECK(f.normal.ulp <= ref.ulp32, "%s %s(%.9g) = %.9g", levels[i].name, ref.name, double(f.normal.x),
          double(f.normal.y));
    CHECK(f.tiny.ulp <= ref.ulp32, "%s %s(%.9g) = %.9g", levels[i].name, ref.name, double(f.tiny.x), double(f.tiny.y));
    CHECK(f.unlike == 0 || !fused, "%s %s: %llu results differ from %s", levels[i].name, ref.name,
          static_cast<unsigned long long>(f.unlike), levels[count - 1].name);
  }
  fflush(stdout);
}

}  // namespace
}  // namespace chainrule::test

int main(int argc, char** argv) {
  using namespace chainrule::test;
  for (const Reference& ref : kReferences) {
    const bool asked = std::any_of(argv + 1, argv + argc, [&](const char* name) { return !strcmp(name, ref.name); });
    if (argc == 1 || asked) check(ref);
  }
  return report();
}
