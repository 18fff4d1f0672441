// Bench layer: what this machine can do at most: multiply-adds per second with its widest registers, and bytes copied
// per second. Compiled for the machine that it runs on. Requests: `threads name bytes warmup seconds`.
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>

#include "serve.h"
#if defined(__AVX512BF16__) || defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kRegister = 64;
#elif defined(__AVX__)
constexpr int kRegister = 32;
#else
constexpr int kRegister = 16;
#endif
constexpr int kChains = 12;  // more than the units' latency times their number
constexpr int64_t kRounds = 4096;

// x = x * y + z from 0 on converges: no subnormals, nothing to fold.
template <class T>
double multiply_add() {
  typedef T Vector __attribute__((vector_size(kRegister)));
  Vector x[kChains] = {};
  const Vector y = Vector{} + T(0.5), z = Vector{} + T(0.25);
  for (int64_t round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      x[i] = x[i] * y + z;
      asm volatile("" : "+v"(x[i]));
    }
  }
  return 2.0 * kChains * kRounds * (kRegister / sizeof(T));
}

#ifdef __AVX512BF16__
double bf16_dot() {
  __m512 x[kChains] = {};
  const __m512bh y = (__m512bh)_mm512_set1_epi16(0x3f00);
  for (int64_t round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      x[i] = _mm512_dpbf16_ps(x[i], y, y);
      asm volatile("" : "+v"(x[i]));
    }
  }
  return 2.0 * kChains * kRounds * 32;
}
#endif

typedef float Wide __attribute__((vector_size(kRegister)));

double copy(char* to, const char* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += 4 * kRegister) {
    for (size_t i = 0; i < 4; ++i) {
      *reinterpret_cast<Wide*>(to + at + i * kRegister) = *reinterpret_cast<const Wide*>(from + at + i * kRegister);
    }
  }
  asm volatile("" ::: "memory");
  return 2.0 * static_cast<double>(bytes);
}

#ifdef __SSE2__
double copy_past_cache(char* to, const char* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kRegister) {
#if defined(__AVX512F__)
    _mm512_stream_ps(reinterpret_cast<float*>(to + at), _mm512_load_ps(from + at));
#elif defined(__AVX__)
    _mm256_stream_ps(reinterpret_cast<float*>(to + at), _mm256_load_ps(reinterpret_cast<const float*>(from + at)));
#else
    _mm_stream_ps(reinterpret_cast<float*>(to + at), _mm_load_ps(reinterpret_cast<const float*>(from + at)));
#endif
  }
  _mm_sfence();
  return 2.0 * static_cast<double>(bytes);
}
#endif

class Block {
 public:
  explicit Block(size_t bytes) : memory_(static_cast<char*>(aligned_alloc(size_t{2} << 20, round_up(bytes)))) {
    memset(memory_, 1, round_up(bytes));
  }
  ~Block() { free(memory_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  char* data() const { return memory_; }

 private:
  static size_t round_up(size_t bytes) { return (bytes + (size_t{2} << 20) - 1) >> 21 << 21; }
  char* memory_;
};

// A thread to a core: two that start on one core are slow to part.
void pin(int thread) {
  cpu_set_t allowed, one;
  sched_getaffinity(getpid(), sizeof allowed, &allowed);
  CPU_ZERO(&one);
  for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed) && seen++ == thread) CPU_SET(cpu, &one);
  }
  pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

// Work done per second by threads that start together, best and median over the samples.
void run(int threads, const bench::Sampling& sampling, const std::function<double(int thread)>& work) {
  std::vector<double> rates;
  const double begin = bench::now();
  while (bench::now() - begin < sampling.warmup + sampling.seconds || rates.size() < 3) {
    std::atomic<int> ready{0};
    std::vector<double> starts(threads), ends(threads), amounts(threads);
    const auto body = [&](int thread) {
      if (threads > 1) pin(thread);
      ++ready;
      while (ready.load() < threads) std::this_thread::yield();
      starts[thread] = bench::now();
      do {
        amounts[thread] += work(thread);
      } while ((ends[thread] = bench::now()) - starts[thread] < 3e-3);
    };
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread) others.emplace_back(body, thread);
    std::thread first(body, 0);  // not this one: its affinity is what the others choose from
    first.join();
    for (std::thread& other : others) other.join();
    double amount = 0;
    for (const double each : amounts) amount += each;
    const double seconds =
        *std::max_element(ends.begin(), ends.end()) - *std::min_element(starts.begin(), starts.end());
    if (bench::now() - begin > sampling.warmup) rates.push_back(amount / seconds);
  }
  std::sort(rates.begin(), rates.end());
  bench::answer({1 / rates.back(), 1 / rates[rates.size() / 2]});
}

void respond(const char* line) {
  int threads = 1;
  char name[32];
  size_t bytes = 0;
  bench::Sampling sampling;
  if (sscanf(line, "%d %31s %zu %lf %lf", &threads, name, &bytes, &sampling.warmup, &sampling.seconds) != 5) {
    return bench::refuse("not a request");
  }
  const std::string what = name;
  if (what == "f32") return run(threads, sampling, [](int) { return multiply_add<float>(); });
  if (what == "f64") return run(threads, sampling, [](int) { return multiply_add<double>(); });
#ifdef __AVX512BF16__
  if (what == "bf16") return run(threads, sampling, [](int) { return bf16_dot(); });
#endif
  // `bytes` is what each thread copies.
  double (*copier)(char*, const char*, size_t) = nullptr;
  if (what == "copy") copier = copy;
#ifdef __SSE2__
  if (what == "copy-past-cache") copier = copy_past_cache;
#endif
  if (!copier) return bench::refuse("not on this machine");
  bytes = bytes / (4 * kRegister) * (4 * kRegister);
  std::vector<std::unique_ptr<Block>> blocks;
  for (int i = 0; i < 2 * threads; ++i) blocks.push_back(std::make_unique<Block>(bytes));
  run(threads, sampling,
      [&](int thread) { return copier(blocks[2 * thread]->data(), blocks[2 * thread + 1]->data(), bytes); });
}

}  // namespace

int main() { return bench::serve("registers of " + std::to_string(kRegister) + " bytes", respond); }
