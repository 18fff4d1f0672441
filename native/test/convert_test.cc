// Test layer: loads and stores between every dtype and compute type, of every instruction set: values, strides, bounds.
#include <cmath>
#include <limits>
#include <type_traits>

#include "guarded_block.h"
#include "kernel_test.h"

namespace chainrule::test {
namespace {

// ---- the rules again, by other means than the kernels'
// ----------------------------------------------------------------
double bfloat16_value(uint16_t bits) {
  const int exponent = bits >> 7 & 255, fraction = bits & 127;
  double v = exponent == 255 ? (fraction ? NAN : INFINITY)
                             : std::ldexp(exponent ? fraction + 128 : fraction, std::max(exponent, 1) - 134);
  return bits >> 15 ? -v : v;
}

// Nearest of the values of bfloat16, even on a tie, found by search: positive bit patterns are in order of value.
uint16_t nearest_bfloat16(float v) {
  if (std::isnan(v)) return 0x7fc0;
  const double a = std::fabs(double(v));
  int low = 0, high = 0x7f80;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (bfloat16_value(uint16_t(middle)) <= a ? low : high) = middle;
  }
  // Beyond the largest finite value stands what would be next, not infinity.
  const double above = high == 0x7f80 ? 0x1p128 : bfloat16_value(uint16_t(high));
  const double to_low = a - bfloat16_value(uint16_t(low)), to_high = above - a;
  const int nearest = std::isinf(a) || to_high < to_low || (to_high == to_low && low % 2) ? high : low;
  return uint16_t(nearest | (std::signbit(v) ? 0x8000 : 0));
}

// One stored element, as a double or the int32 it is.
double stored_value(DType dtype, const char* p) {
  const auto read = [p](auto v) {
    memcpy(&v, p, sizeof v);
    return v;
  };
  switch (dtype) {
    case kF32:
      return read(float());
    case kF64:
      return read(double());
    case kI32:
      return read(int32_t());
    case kU8:
      return read(uint8_t());
    case kBool:
      return read(uint8_t()) != 0;
    default:
      return bfloat16_value(read(uint16_t()));
  }
}

// What storing v as dtype must read back as.
template <class T>
double expected_store(DType dtype, T v) {
  const double d = double(v);
  const auto saturated = [d](double low, double high) {
    return std::isnan(d) ? 0 : std::min(std::max(std::trunc(d), low), high) + 0.0;  // no -0
  };
  switch (dtype) {
    case kF32:
      return float(v);
    case kF64:
      return d;
    case kI32:
      return saturated(INT32_MIN, INT32_MAX);
    case kU8:
      return std::is_same_v<T, int32_t> ? double(uint32_t(v) % 256) : saturated(0, 255);
    case kBool:
      return std::isnan(d) || d != 0;
    default:
      return bfloat16_value(nearest_bfloat16(float(v)));
  }
}

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

template <class T>
std::vector<T> values() {
  std::mt19937_64 rng(11);
  std::vector<T> v;
  if constexpr (std::is_same_v<T, int32_t>) {
    v = {0, 1, -1, 255, 256, 257, -255, -256, INT32_MAX, INT32_MIN, 16777217, -16777217};
    while (v.size() < 500) v.push_back(int32_t(rng()));
  } else {
    using L = std::numeric_limits<T>;
    for (double d : {0.0,   0.3,    0.5,          0.99,         1.0,          1.5,          254.999,      255.0,
                     255.5, 256.0,  300.7,        2147483520.0, 2147483647.0, 2147483647.5, 2147483648.0, 2147483649.0,
                     1e10,  3.4e38, 3.4028236e38, 1e-40,        1e300,        1e-300}) {
      v.push_back(T(d)), v.push_back(T(-d));
    }
    for (T s : {L::infinity(), L::quiet_NaN(), L::denorm_min(), L::min(), L::max()}) v.push_back(s), v.push_back(-s);
    while (v.size() < 500) v.push_back(T(std::ldexp(double(int64_t(rng())), int(rng() % 40) - 80)));
  }
  return v;
}

// ---- checks
// ----------------------------------------------------------------------------------------------------------------
constexpr size_t kSizes[] = {0, 1, 3, 15, 16, 17, 64, 500};
constexpr ptrdiff_t kStrides[] = {1, 0, -1, 3, -2};

// The elements at stride * i, i < n, flush with the end of readable memory.
char* first_element(GuardedBlock& block, size_t n, ptrdiff_t stride, size_t width) {
  const size_t extent = stride > 0 ? 1 + (n - 1) * size_t(stride) : 1;
  return block.last((n == 0 ? 0 : extent) * width);
}

template <class T>
void stores() {
  const std::vector<T> source = values<T>();
  GuardedBlock in(8192), out(16384);
  for_each_isa([&](const KernelTable& t) {
    for (int dtype = 0; dtype < kDTypeCount; ++dtype) {
      const ptrdiff_t width = ptrdiff_t(kDTypeBytes[dtype]);
      for (size_t n : kSizes) {
        const void* src = memcpy(in.last(n * sizeof(T)), source.data(), n * sizeof(T));
        for (ptrdiff_t stride : kStrides) {
          char* dst = first_element(out, n, stride, size_t(width));
          memset(out.last(16384), 0x5a, 16384);
          t.store[type_index<T>()][dtype](dst, stride, src, n);
          size_t wrong = 0, written = 0;
          for (size_t i = stride == 0 && n > 0 ? n - 1 : 0; i < n; ++i) {
            wrong += !same(stored_value(DType(dtype), dst + ptrdiff_t(i) * stride * width),
                           expected_store(DType(dtype), source[i]));
            memset(dst + ptrdiff_t(i) * stride * width, 0x5a, size_t(width));
          }
          for (size_t i = 1; i <= 16384; ++i) written += *out.last(i) != 0x5a;
          CHECK(wrong == 0 && written == 0, "%s store type %d dtype %d stride %td n %zu: %zu wrong, %zu stray", t.isa,
                type_index<T>(), dtype, stride, n, wrong, written);
        }
      }
    }
  });
}

// Stored elements of a dtype, their bytes at random where any are allowed.
std::vector<char> stored_samples(DType dtype, size_t n) {
  std::mt19937_64 rng(7);
  std::vector<char> bytes(n * kDTypeBytes[dtype]);
  for (char& b : bytes) b = char(rng());
  const std::vector<float> f = values<float>();
  const std::vector<double> d = values<double>();
  if (dtype == kF32) memcpy(bytes.data(), f.data(), bytes.size() / 2);
  if (dtype == kF64) memcpy(bytes.data(), d.data(), bytes.size() / 2);
  return bytes;
}

template <class T>
void loads() {
  GuardedBlock in(16384), out(8192);
  const DType type = DType(type_index<T>());
  for_each_isa([&](const KernelTable& t) {
    for (int dtype = 0; dtype < kDTypeCount; ++dtype) {
      const ptrdiff_t width = ptrdiff_t(kDTypeBytes[dtype]);
      const std::vector<char> bytes = stored_samples(DType(dtype), 500);
      for (size_t n : kSizes) {
        for (ptrdiff_t stride : kStrides) {
          char* src = first_element(in, n, stride, size_t(width));
          for (size_t i = 0; i < n; ++i) {
            memcpy(src + ptrdiff_t(i) * stride * width, bytes.data() + i * size_t(width), size_t(width));
          }
          memset(out.last(8192), 0x5a, 8192);
          char* dst = out.last(n * sizeof(T));
          t.load[dtype][type](dst, src, stride, n);
          size_t wrong = 0;
          for (size_t i = 0; i < n; ++i) {
            const double v = stored_value(DType(dtype), src + ptrdiff_t(i) * stride * width);
            const double expected = expected_store(type, v);
            wrong += !same(stored_value(type, dst + i * sizeof(T)), expected);
          }
          for (size_t i = n * sizeof(T) + 1; i <= 8192; ++i) wrong += *out.last(i) != 0x5a;
          CHECK(wrong == 0, "%s load type %d dtype %d stride %td n %zu: %zu wrong", t.isa, type, dtype, stride, n,
                wrong);
        }
      }
    }
  });
}

// Every bfloat16, exactly; and every float whose upper half is one, just below, at and above the tie.
void bfloat16_rounding() {
  std::vector<uint16_t> bits, back(0x10000);
  std::vector<float> wide(0x10000), near;
  for (int i = 0; i < 0x10000; ++i) bits.push_back(uint16_t(i));
  for (uint32_t i = 0; i < 0x10000; ++i) {
    for (uint32_t low : {0x7fffu, 0x8000u, 0x8001u}) {
      const uint32_t pattern = i << 16 | low;
      float f;
      memcpy(&f, &pattern, sizeof f);
      near.push_back(f);
    }
  }
  std::vector<uint16_t> rounded(near.size());
  for_each_isa([&](const KernelTable& t) {
    t.load[kBF16][kF32](wide.data(), bits.data(), 1, bits.size());
    t.store[kF32][kBF16](back.data(), 1, wide.data(), wide.size());
    size_t wrong = 0;
    for (size_t i = 0; i < bits.size(); ++i) {
      wrong += !same(wide[i], bfloat16_value(bits[i]));
      wrong += std::isnan(wide[i]) ? !std::isnan(bfloat16_value(back[i])) : back[i] != bits[i];
    }
    CHECK(wrong == 0, "%s bfloat16 there and back: %zu wrong", t.isa, wrong);
    t.store[kF32][kBF16](rounded.data(), 1, near.data(), near.size());
    wrong = 0;
    for (size_t i = 0; i < near.size(); ++i) {
      wrong += !same(bfloat16_value(rounded[i]), bfloat16_value(nearest_bfloat16(near[i])));
    }
    CHECK(wrong == 0, "%s bfloat16 rounding: %zu wrong", t.isa, wrong);
  });
}

}  // namespace
}  // namespace chainrule::test

int main() {
  using namespace chainrule::test;
  loads<float>(), loads<double>(), loads<int32_t>();
  printf("loads: %d checks so far\n", g_passed + g_failed);
  stores<float>(), stores<double>(), stores<int32_t>();
  printf("stores: %d checks so far\n", g_passed + g_failed);
  bfloat16_rounding();
  printf("bfloat16: %d checks so far\n", g_passed + g_failed);
  return report();
}
