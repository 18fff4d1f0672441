// Kernel layer: random numbers by a counter-based generator, and ranges. Keeps no state: the caller advances `counter`
// by the counters that the call used, ceil(n / 4) for float32 and int32, ceil(n / 2) for float64, whatever the op.
//
// Counter c gives one block of four 32-bit words w0 ... w3: Philox 4x32-10 of the counter (c low, c high, 0, 0) under
// (key low, key high). Element i of the output comes from counter + i / 4 and its word i % 4; of a float64 output from
// counter + i / 2 and the two words from 2 (i % 2) on. So it depends neither on n nor on how the work is divided.
#pragma once
#include "loops.inc.h"
#include "math.inc.h"

namespace chainrule {
namespace {

constexpr int kBlocks = 16;  // counters generated together; a whole number of vectors for every type and width

// The full products of the low halves of 64-bit lanes: one instruction, which compilers do not find.
inline Vec<uint64_t> multiply_low(Vec<uint64_t> a, uint64_t b) {
#if CR_VECTOR_BYTES == 64
  return (Vec<uint64_t>)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)set1(b));
#elif CR_VECTOR_BYTES == 32
  return (Vec<uint64_t>)_mm256_mul_epu32((__m256i)a, (__m256i)set1(b));
#elif defined(__SSE2__)
  return (Vec<uint64_t>)_mm_mul_epu32((__m128i)a, (__m128i)set1(b));
#else
  return (a & 0xffffffff) * b;
#endif
}

// The words of `counter` and the kBlocks - 1 counters after it, in order, two to a lane with the earlier one low.
// Rounds and constants: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
inline void philox(uint64_t key, uint64_t counter, uint64_t (&words)[2 * kBlocks]) {
  constexpr int kStep = kLanes<uint64_t>, kVectors = kBlocks / kStep;
  uint64_t k0 = key & 0xffffffff, k1 = key >> 32;
  Vec<uint64_t> front[kVectors], back[kVectors] = {};  // words 0 and 1, words 2 and 3
  for (int b = 0; b < kBlocks; ++b) words[b] = counter + b;
  for (int v = 0; v < kVectors; ++v) front[v] = load(words + v * kStep);
  for (int round = 0; round < 10; ++round) {
    for (int v = 0; v < kVectors; ++v) {
      const auto p0 = multiply_low(front[v], 0xD2511F53), p1 = multiply_low(back[v], 0xCD9E8D57);
      front[v] = ((p1 >> 32) ^ (front[v] >> 32) ^ k0) | (p1 << 32);
      back[v] = ((p0 >> 32) ^ (back[v] >> 32) ^ k1) | (p0 << 32);
    }
    k0 = (k0 + 0x9E3779B9) & 0xffffffff;
    k1 = (k1 + 0xBB67AE85) & 0xffffffff;
  }
  for (int b = 0; b < kBlocks; ++b) {
    words[2 * b] = front[b / kStep][b % kStep];
    words[2 * b + 1] = back[b / kStep][b % kStep];
  }
}

// Saturates, NaN to the lower bound.
inline int64_t to_int64(double v, double low, double high) {
  return static_cast<int64_t>(v >= high ? high : v > low ? v : low);
}

template <class T>
T next_below(T v) {
  const T tiny = sizeof(T) == 4 ? T(0x1p-149) : T(0x1p-1074);
  if (v == 0) return -tiny;
  typename UnsignedOf<sizeof(T)>::Type bits;
  __builtin_memcpy(&bits, &v, sizeof bits);
  bits += v > 0 ? -1 : 1;
  __builtin_memcpy(&v, &bits, sizeof bits);
  return v;
}

// The type of the arithmetic for elements of so many bytes.
template <size_t bytes>
struct RealOf {
  using Type = float;
};
template <>
struct RealOf<8> {
  using Type = double;
};

// The elements of kBlocks counters.
template <class T>
struct RandomTile {
  static constexpr bool kWide = sizeof(T) == 8;
  static constexpr int kElements = 16 * kBlocks / sizeof(T);
  using Word = typename UnsignedOf<sizeof(T)>::Type;
  using Real = typename RealOf<sizeof(T)>::Type;
  using V = Vec<Real>;
  T values[kElements];

  // A multiple of 2^-24 (float64: 2^-53) in [0, 1).
  static Real fraction(Word word) {
    if constexpr (kWide)
      return static_cast<double>(static_cast<int64_t>(word >> 11)) * 0x1p-53;
    else
      return static_cast<float>(static_cast<int32_t>(word >> 8)) * 0x1p-24f;
  }

  void fill_uniform(const Word (&words)[kElements], Real a, Real b) {
    // Rounding may carry a + u (b - a) up to b, which the interval does not hold.
    const Real range = b - a, top = a < b ? next_below(b) : a;
    for (int i = 0; i < kElements; ++i) {
      const Real v = a + fraction(words[i]) * range;
      values[i] = v > top ? top : v;
    }
  }

  // Box and Muller: two normals from two fractions. The radius takes 1 - u, which is never 0: |z| < 5.8, float64 8.6.
  void fill_normal(const Word (&words)[kElements], Real mean, Real deviation) {
    constexpr int kPairs = kElements / 2;
    Real x[kPairs], y[kPairs];
    for (int i = 0; i < kPairs; ++i) {
      x[i] = 1 - fraction(words[2 * i]);
      y[i] = fraction(words[2 * i + 1]) * Real(6.283185307179586477);
    }
    for_vectors<Real>(0, kPairs, [&](auto at) {
      const V radius = deviation * sqrt(Real(-2) * log(at.load(x))), angle = at.load(y);
      at.store(x, mean + radius * cos(angle));
      at.store(y, mean + radius * sin(angle));
    });
    for (int i = 0; i < kPairs; ++i) {
      values[2 * i] = x[i];
      values[2 * i + 1] = y[i];
    }
  }

  void fill_bernoulli(const Word (&words)[kElements], Real chance) {
    for (int i = 0; i < kElements; ++i) values[i] = fraction(words[i]) < chance;
  }

  // The upper half of word * range: a value's chance is within 2^-32 of 1 / range. float64 takes its second word.
  // Whole numbers beyond 2^24 round in float32; beyond the type they wrap in int32.
  void fill_integers(const Word (&words)[kElements], double a, double b) {
    const double bound = kWide ? 0x1p53 : 0x1p31;
    const int64_t low = to_int64(a, -bound, bound);
    const uint64_t range = static_cast<uint64_t>(to_int64(b - a, 1, 0x1p32));
    for (int i = 0; i < kElements; ++i) {
      const uint64_t word = words[i] >> (8 * sizeof(T) - 32);
      values[i] = static_cast<T>(low + static_cast<int64_t>(word * range >> 32));
    }
  }
};

// uniform and normal are for floats; bernoulli and randint for every compute type.
template <class T, RandomOp op>
Status random_fill(const Context& context, const RandomArgs& args) {
  using Real = typename RandomTile<T>::Real;
  constexpr int kElements = RandomTile<T>::kElements;
  const Real a = static_cast<Real>(args.a), b = static_cast<Real>(args.b);
  for_chunks(context, args.n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t start = begin; start < end; start += kElements) {
      uint64_t words[2 * kBlocks];
      philox(args.key, args.counter + static_cast<uint64_t>(start / kElements) * kBlocks, words);
      typename RandomTile<T>::Word word[kElements];
      __builtin_memcpy(word, words, sizeof word);
      RandomTile<T> tile;
      if constexpr (op == kUniform) tile.fill_uniform(word, a, b);
      if constexpr (op == kNormal) tile.fill_normal(word, a, b);
      if constexpr (op == kBernoulli) tile.fill_bernoulli(word, a);
      if constexpr (op == kRandint) tile.fill_integers(word, args.a, args.b);
      __builtin_memcpy(static_cast<T*>(args.out) + start, tile.values, min_of(kElements, end - start) * sizeof(T));
    }
  });
  return kOk;
}

// out[i] = start + (begin + i) * step, computed in double; int32 rounds towards zero and saturates.
template <class T>
void arange(void* out, int64_t begin, int64_t n, double start, double step) {
  T* values = static_cast<T*>(out);
  for (int64_t i = 0; i < n; ++i) {
    const double v = start + static_cast<double>(begin + i) * step;
    if constexpr (T(0.5) != 0)
      values[i] = static_cast<T>(v);
    else
      values[i] = static_cast<T>(to_int64(v, -0x1p31, 0x1p31 - 1));
  }
}

}  // namespace
}  // namespace chainrule
