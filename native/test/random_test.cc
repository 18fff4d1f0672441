// Test layer: the random numbers and arange on every instruction set of this machine: published answers of the
// generator, element formulas against plain loops, independence of length and order, ranges and moments.
#include <math.h>

#include "kernel_test.h"

using namespace chainrule;
using namespace chainrule::test;

namespace {

constexpr uint64_t kKey = 0x0123456789abcdef;
constexpr uint64_t kCounter = 0xfffffffffffffff0;  // the lower word overflows, and soon the upper one

struct Block {
  uint32_t word[4];
};

// Philox 4x32-10 as published, one block at a time.
Block philox(Block counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * counter.word[0], p1 = uint64_t{0xCD9E8D57} * counter.word[2];
    counter = {{static_cast<uint32_t>(p1 >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(p1),
                static_cast<uint32_t>(p0 >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(p0)}};
    key0 += 0x9E3779B9, key1 += 0xBB67AE85;
  }
  return counter;
}

uint32_t word_at(uint64_t key, uint64_t counter, int64_t i) {
  counter += static_cast<uint64_t>(i / 4);
  const Block block = {{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0}};
  return philox(block, static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)).word[i % 4];
}

// The random bits of element i: one word, or two with the first one low.
template <class T>
uint64_t bits_at(uint64_t key, uint64_t counter, int64_t i) {
  if (sizeof(T) == 4) return word_at(key, counter, i);
  return word_at(key, counter, 2 * i) | static_cast<uint64_t>(word_at(key, counter, 2 * i + 1)) << 32;
}

template <class T>
double fraction_at(int64_t i) {
  const uint64_t bits = bits_at<T>(kKey, kCounter, i);
  return sizeof(T) == 4 ? static_cast<double>(bits >> 8) * 0x1p-24 : static_cast<double>(bits >> 11) * 0x1p-53;
}

template <class T>
Buffer<T> draw(const KernelTable& table, RandomOp op, int64_t n, double a, double b, uint64_t counter = kCounter,
               TestContext::Order order = TestContext::kReverse) {
  Buffer<T> out(n, true);
  TestContext context(order);
  const Status status = table.random[op][type_index<T>()](context, {out.data(), n, kKey, counter, a, b});
  CHECK(status == kOk && out.canaries_intact(), "%s random op %d", table.isa, op);
  return out;
}

void test_reference() {
  const struct {
    Block counter;
    uint32_t key[2];
    Block want;
  } published[] = {
      {{{0, 0, 0, 0}}, {0, 0}, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
      {{{~0u, ~0u, ~0u, ~0u}}, {~0u, ~0u}, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
      {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
       {0xa4093822, 0x299f31d0},
       {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
  };
  for (const auto& p : published) {
    const Block got = philox(p.counter, p.key[0], p.key[1]);
    CHECK(!memcmp(&got, &p.want, sizeof got), "%08x", got.word[0]);
  }
}

// With a range of 2^32 integers the kernel gives its words away.
void test_words(const KernelTable& table) {
  for (const uint64_t key : {uint64_t{0}, kKey, ~uint64_t{0}}) {
    for (const uint64_t counter : {uint64_t{0}, uint64_t{0xfffffff8}, kCounter}) {
      int32_t out[200];
      TestContext context(TestContext::kForward);
      table.random[kRandint][kI32](context, {out, 200, key, counter, -0x1p31, 0x1p31});
      int64_t wrong = 0;
      for (int64_t i = 0; i < 200; ++i) wrong += static_cast<uint32_t>(out[i]) + 0x80000000 != word_at(key, counter, i);
      CHECK(wrong == 0, "%s Philox, counter %lx: %ld of 200 words", table.isa, counter, wrong);
    }
  }
}

template <class T>
void test_formulas(const KernelTable& table) {
  constexpr int64_t kCount = 1000;
  constexpr bool kReal = type_index<T>() != kI32;
  const Buffer<T> coin = draw<T>(table, kBernoulli, kCount, 0.3, 0), die = draw<T>(table, kRandint, kCount, -7, 12);
  int64_t wrong = 0;
  for (int64_t i = 0; i < kCount; ++i) {
    const uint64_t word = bits_at<T>(kKey, kCounter, i) >> (8 * sizeof(T) - 32);
    wrong += coin[i] != T(fraction_at<T>(i) < (sizeof(T) == 8 ? 0.3 : 0.3f));
    wrong += die[i] != T(-7 + static_cast<int64_t>(word * 19 >> 32));
  }
  wrong += draw<T>(table, kBernoulli, 6, fraction_at<T>(5), 0)[5] != 0;  // u < p, not u <= p
  CHECK(wrong == 0, "%s type %d: %ld wrong bernoulli or randint", table.isa, type_index<T>(), wrong);
  if constexpr (kReal) {
    const Buffer<T> uniform = draw<T>(table, kUniform, kCount, -3, 5), normal = draw<T>(table, kNormal, kCount, 2, 3);
    for (int64_t i = 0; i < kCount; ++i) {
      wrong += uniform[i] != T(-3) + T(fraction_at<T>(i)) * T(8);
      const double radius = sqrt(-2 * log(1 - fraction_at<T>(i & ~1))), angle = 2 * M_PI * fraction_at<T>(i | 1);
      const double want = 2 + 3 * radius * (i % 2 ? sin(angle) : cos(angle));
      wrong += !(fabs(normal[i] - want) < (sizeof(T) == 8 ? 1e-14 : 5e-6));
    }
    CHECK(wrong == 0, "%s type %d: %ld wrong uniform or normal", table.isa, type_index<T>(), wrong);
  }
}

// An element depends on its counter alone: not on n, nor on where the call began, nor on the order of chunks.
template <class T>
void test_independence(const KernelTable& table, RandomOp op) {
  constexpr int64_t kCount = 40003, kPerCounter = 16 / sizeof(T);
  const double b = op == kRandint ? 1000 : 1;
  const Buffer<T> all = draw<T>(table, op, kCount, 0.5, b, kCounter, TestContext::kForward);
  CHECK(all.same_bits(draw<T>(table, op, kCount, 0.5, b, kCounter, TestContext::kReverse)), "%s", table.isa);
  CHECK(all.same_bits(draw<T>(table, op, kCount, 0.5, b, kCounter, TestContext::kThreads)), "%s", table.isa);
  for (const int64_t n : {0, 1, 2, 3, 4, 5, 31, 63, 64, 65, 130, 8191, 8193}) {
    for (const uint64_t skipped : {0, 1, 5, 16, 4096}) {
      const Buffer<T> part = draw<T>(table, op, n, 0.5, b, kCounter + skipped);
      const bool same = !memcmp(part.data(), all.data() + skipped * kPerCounter, n * sizeof(T));
      CHECK(same, "%s random op %d: %ld elements from counter + %lu", table.isa, op, n, skipped);
    }
  }
}

template <class T>
void test_ranges(const KernelTable& table) {
  constexpr int64_t kCount = 1 << 16;
  const T step = sizeof(T) == 4 ? T(0x1p-23) : T(0x1p-52);
  const T ranges[][2] = {{0, 1}, {1, 1 + 4 * step}, {-1, -1 + 2 * step}, {-3, 0}, {1000, 1000 + 600 * step}, {5, 5}};
  for (const auto& [a, b] : ranges) {
    const Buffer<T> out = draw<T>(table, kUniform, kCount, a, b);
    T least = out[0], most = out[0];
    for (int64_t i = 0; i < kCount; ++i) least = fmin(least, out[i]), most = fmax(most, out[i]);
    CHECK(least >= a && (most < b || a == b) && most <= b, "%s uniform [%g, %g): %g to %g", table.isa, a, b, least,
          most);
  }
  for (const double p : {0.0, -1.0, 1.0, 2.0, double{NAN}}) {
    const Buffer<T> out = draw<T>(table, kBernoulli, kCount, p, 0);
    double ones = 0;
    for (int64_t i = 0; i < kCount; ++i) ones += out[i];
    CHECK(ones == (p >= 1 ? kCount : 0), "%s bernoulli %g: %g ones", table.isa, p, ones);
  }
}

// Bounds without sense give something, and not undefined behaviour.
void test_senseless_bounds(const KernelTable& table) {
  for (const double a : {double{NAN}, double{INFINITY}, -1e300, 1e300}) {
    for (const double b : {double{NAN}, -double{INFINITY}, 1e300}) {
      draw<int32_t>(table, kRandint, 100, a, b);
      draw<float>(table, kRandint, 100, a, b);
      draw<double>(table, kRandint, 100, a, b);
    }
  }
  CHECK(draw<int32_t>(table, kRandint, 1, 9, 9)[0] == 9, "%s: an empty range gives its bound", table.isa);
}

// Five standard errors of each statistic; the numbers are fixed, so this passes always or never.
template <class T>
void test_moments(const KernelTable& table) {
  constexpr int64_t kCount = 1 << 18;
  const double error = 5 / sqrt(double{kCount});
  const Buffer<T> uniform = draw<T>(table, kUniform, kCount, 0, 1), normal = draw<T>(table, kNormal, kCount, 0, 1);
  double u[3] = {}, z[5] = {}, neighbours = 0, halves = 0, most = 0;
  for (int64_t i = 0; i < kCount; ++i) {
    for (double k = 1, power = uniform[i]; k < 3; ++k, power *= uniform[i]) u[int(k)] += power / kCount;
    for (double k = 1, power = normal[i]; k < 5; ++k, power *= normal[i]) z[int(k)] += power / kCount;
    neighbours += i % 2 ? double{normal[i]} * normal[i - 1] / kCount : 0;
    halves += i ? (uniform[i] - 0.5) * (uniform[i - 1] - 0.5) / kCount : 0;
    most = fmax(most, fabs(normal[i]));
  }
  CHECK(fabs(u[1] - 0.5) < error * sqrt(1 / 12.), "%s uniform mean %g", table.isa, u[1]);
  CHECK(fabs(u[2] - 1 / 3.) < error * sqrt(4 / 45.), "%s uniform second moment %g", table.isa, u[2]);
  CHECK(fabs(halves) < error / 12, "%s uniform: neighbours correlate, %g", table.isa, halves);
  CHECK(fabs(z[1]) < error && fabs(z[2] - 1) < error * sqrt(2.), "%s normal %g %g", table.isa, z[1], z[2]);
  CHECK(fabs(z[3]) < error * sqrt(15.) && fabs(z[4] - 3) < error * sqrt(96.), "%s normal %g %g", table.isa, z[3], z[4]);
  CHECK(fabs(neighbours) < error * sqrt(0.5), "%s normal: the two of a pair correlate, %g", table.isa, neighbours);
  CHECK(most > 4 && most < (sizeof(T) == 8 ? 8.6 : 5.8), "%s normal: largest %g", table.isa, most);

  constexpr int kFaces = 10;
  int64_t counts[kFaces] = {};
  const Buffer<T> die = draw<T>(table, kRandint, kCount, 0, kFaces);
  for (int64_t i = 0; i < kCount; ++i) ++counts[static_cast<int>(die[i])];
  double chi_squared = 0;
  for (const int64_t count : counts) chi_squared += pow(count - kCount / double{kFaces}, 2) / (kCount / double{kFaces});
  CHECK(chi_squared < 9 + 5 * sqrt(18.), "%s randint: chi squared %g with 9 degrees of freedom", table.isa,
        chi_squared);
}

template <class T>
void test_arange(const KernelTable& table) {
  for (const double step : {1.0, -0.5, 0.1, 0.0}) {
    for (const int64_t begin : {int64_t{0}, int64_t{1000003}}) {
      Buffer<T> out(1000, true);
      table.arange[type_index<T>()](out.data(), begin, 1000, 2.5, step);
      bool right = out.canaries_intact();
      for (int64_t i = 0; i < 1000; ++i) right &= out[i] == static_cast<T>(2.5 + static_cast<double>(begin + i) * step);
      CHECK(right, "%s arange type %d step %g", table.isa, type_index<T>(), step);
    }
  }
}

}  // namespace

int main() {
  test_reference();
  for_each_isa([](const KernelTable& table) {
    test_words(table);
    test_formulas<float>(table);
    test_formulas<double>(table);
    test_formulas<int32_t>(table);
    for (int op = 0; op < kRandomOpCount; ++op) {
      test_independence<float>(table, static_cast<RandomOp>(op));
      test_independence<double>(table, static_cast<RandomOp>(op));
      if (table.random[op][kI32]) test_independence<int32_t>(table, static_cast<RandomOp>(op));
    }
    test_ranges<float>(table);
    test_ranges<double>(table);
    test_senseless_bounds(table);
    test_moments<float>(table);
    test_moments<double>(table);
    test_arange<float>(table);
    test_arange<double>(table);
    test_arange<int32_t>(table);
    int32_t extreme[2];
    table.arange[kI32](extreme, 0, 2, -1e300, 2e300);
    CHECK(extreme[0] == INT32_MIN && extreme[1] == INT32_MAX, "%s arange saturates", table.isa);
  });
  return report();
}
