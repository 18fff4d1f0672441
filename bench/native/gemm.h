// Bench layer: one matrix product, c = a @ b, as every library under measurement gets it: operands in hot memory on
// huge pages, fresh random values, and the result compared with float64 on sampled entries.
#pragma once
#include <sys/mman.h>

#include <cstring>

#include "serve.h"

namespace bench {

enum Precision { kF32, kF64, kPrecisions };
inline constexpr const char* kPrecisionNames[kPrecisions] = {"f32", "f64"};
// The largest error, in parts of the sum of magnitudes.
inline constexpr double kTolerance[kPrecisions] = {1e-5, 1e-14};

class Buffer {
 public:
  Buffer(size_t count, size_t width, uint64_t seed) {
    constexpr size_t kHugePage = size_t{2} << 20;
    const size_t bytes = (count * width + kHugePage - 1) / kHugePage * kHugePage;
    memory_ = aligned_alloc(kHugePage, bytes);
    madvise(memory_, bytes, MADV_HUGEPAGE);
    Draw draw(seed);
    for (size_t i = 0; i < count; ++i) {
      if (width == 8) {
        static_cast<double*>(memory_)[i] = draw();
      } else {
        static_cast<float*>(memory_)[i] = static_cast<float>(draw());
      }
    }
  }
  ~Buffer() { free(memory_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* data() const { return memory_; }

 private:
  void* memory_;
};

// Row-major. Where the layout says T, the operand is stored transposed.
struct Product {
  int threads;
  Precision precision;
  bool a_t, b_t;
  int64_t batch, m, n, k;
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;  // where the result is after a call; a library with memory of its own sets it

  int64_t lda() const { return a_t ? m : k; }
  int64_t ldb() const { return b_t ? k : n; }
  template <class T>
  const T* a_of(int64_t entry) const {
    return static_cast<const T*>(a) + entry * m * k;
  }
  template <class T>
  const T* b_of(int64_t entry) const {
    return static_cast<const T*>(b) + entry * k * n;
  }
  template <class T>
  T* c_of(int64_t entry) const {
    return static_cast<T*>(c) + entry * m * n;
  }
};

// The largest error over 64 entries, in parts of the sum of magnitudes; NaN is infinite.
template <class T>
double worst_error(const Product& p, uint64_t seed) {
  Draw draw(seed);
  const auto pick = [&](int64_t size) {
    return std::min(size - 1, static_cast<int64_t>((draw() + 1) / 2 * static_cast<double>(size)));
  };
  double worst = 0;
  for (int sample = 0; sample < 64; ++sample) {
    const int64_t entry = pick(p.batch), i = pick(p.m), j = pick(p.n);
    double sum = 0, magnitude = 0;
    for (int64_t q = 0; q < p.k; ++q) {
      const double x = p.a_of<T>(entry)[p.a_t ? q * p.m + i : i * p.k + q];
      const double y = p.b_of<T>(entry)[p.b_t ? j * p.k + q : q * p.n + j];
      sum += x * y, magnitude += std::fabs(x * y);
    }
    const double error = std::fabs(static_cast<double>(p.c_of<T>(entry)[i * p.n + j]) - sum) / magnitude;
    if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error;
  }
  return worst;
}

using Call = std::function<void()>;
// Makes what is timed; an empty call says that the library does not do this product.
using Prepare = std::function<Call(Product&)>;

inline void respond(const char* line, const Prepare& prepare) {
  static uint64_t seed = 0;
  char precision[16], layout[4];
  Product p{};
  Sampling sampling;
  const int read = sscanf(line, "%d %15s %3s %ld %ld %ld %ld %lf %lf", &p.threads, precision, layout, &p.batch, &p.m,
                          &p.n, &p.k, &sampling.warmup, &sampling.seconds);
  const auto* name = std::find_if(kPrecisionNames, kPrecisionNames + kPrecisions,
                                  [&](const char* each) { return strcmp(each, precision) == 0; });
  if (read != 9 || name == kPrecisionNames + kPrecisions) return refuse("not a request");
  p.precision = static_cast<Precision>(name - kPrecisionNames);
  p.a_t = layout[0] == 'T', p.b_t = layout[1] == 'T';
  const size_t width = p.precision == kF64 ? 8 : 4;
  const Buffer a(p.batch * p.m * p.k, width, ++seed), b(p.batch * p.k * p.n, width, ++seed);
  const Buffer c(p.batch * p.m * p.n, width, ++seed);
  p.a = a.data(), p.b = b.data(), p.c = c.data();
  const Call call = prepare(p);
  if (!call) return refuse("not supported");
  call();
  const double error = width == 8 ? worst_error<double>(p, seed) : worst_error<float>(p, seed);
  if (error > kTolerance[p.precision]) {
    printf("wrong %g\n", error);
  } else {
    answer(measure(call, sampling));
  }
}

inline int serve_products(const std::string& about, const Prepare& prepare) {
  return serve(about, [&](const char* line) { respond(line, prepare); });
}

}  // namespace bench
