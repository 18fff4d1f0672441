// Bench layer: what the programs that are measured share: a process that reads one request a line and answers each with
// one line, and the sampler. Knows nothing of what is measured.
#pragma once
#include <signal.h>
#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace bench {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Uniform in [-1, 1): another sequence for every seed, so that no operand is all zeros or known beforehand.
class Draw {
 public:
  explicit Draw(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  double operator()() {
    state_ = state_ * 6364136223846793005 + 1442695040888963407;
    return static_cast<double>(static_cast<int32_t>(state_ >> 32)) / 2147483648.0;
  }

 private:
  uint64_t state_;
};

struct Sampling {
  double warmup, seconds;  // of calls before the first sample; of samples
};

struct Timing {
  double best, median;  // seconds per call
};

// A sample is at least 3 ms of calls, so that the clock does not matter. Long calls get one: whoever asks, asks again.
inline Timing measure(const std::function<void()>& call, const Sampling& sampling) {
  constexpr double kSample = 3e-3;
  const auto repeat = [&](double seconds) {
    const double begin = now();
    int64_t calls = 0;
    double last = begin;
    do {
      call();
      ++calls;
      last = now();
    } while (last - begin < seconds);
    return static_cast<double>(calls) / (last - begin);
  };
  const double rate = repeat(sampling.warmup);
  const int64_t calls = std::max<int64_t>(1, std::ceil(rate * kSample));
  std::vector<double> samples;
  const double end = now() + sampling.seconds;
  do {
    const double begin = now();
    for (int64_t i = 0; i < calls; ++i) call();
    samples.push_back((now() - begin) / static_cast<double>(calls));
  } while (now() < end);
  std::sort(samples.begin(), samples.end());
  return {samples.front(), samples[samples.size() / 2]};
}

inline void answer(const Timing& timing) { printf("%.9e %.9e\n", timing.best, timing.median); }
inline void refuse(const char* reason) { printf("none %s\n", reason); }

// Greets with what this program is, then answers lines until its input ends or the process that started it does.
inline int serve(const std::string& about, const std::function<void(const char* line)>& respond) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  printf("%s\n", about.c_str());
  fflush(stdout);
  char line[512];
  while (fgets(line, sizeof line, stdin)) {
    respond(line);
    fflush(stdout);
  }
  return 0;
}

}  // namespace bench
