// Hands chunks to worker threads through one atomic word. Runtime layer, no JavaScript types.
// Workers are started by the first job that wants them and never end.
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>

#include "cgroup.h"

namespace chainrule::pool {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxThreads = 256;
constexpr size_t kStackBytes = 1 << 20;  // musl's default of 128 KiB is too small for kernels
// A spinning worker takes a job within 1 us, a parked one within 20-50 us. Spinning for longer than this
// takes CPU time away from whoever else runs on an oversubscribed machine.
constexpr std::chrono::microseconds kSpin{20};
// To wake a worker costs the caller about 15 us: not for a job that it finishes sooner alone, unless it is one of
// many in a row, which the worker, once awake, helps with.
constexpr std::chrono::microseconds kWorthWaking{30};

enum : int { kAwake, kParked };

struct alignas(64) Worker {
  std::atomic<int> state{kAwake};
  pthread_t thread{};
  int avoided_cpu = -1;  // guarded by Pool::busy
};

// Note [Claiming chunks]
// `job` holds the range of unclaimed chunks: the first in its lower half, the end in its upper half. To claim is to
// shorten it by compare-exchange. The caller takes from the front and workers from the back, so that in jobs of a kind
// each core meets much the same data again, and neighbouring chunks are its own. A worker reads `fn` and `arg` after
// it has claimed: from then on the caller waits for it, so they are those of the job that the chunk belongs to,
// however long ago the worker last looked. A worker that never gets to run holds nobody up.
struct Pool {
  alignas(64) std::atomic<uint64_t> job{0};
  void (*fn)(void*, size_t) = nullptr;
  void* arg = nullptr;
  alignas(64) std::atomic<uint32_t> finished{0};  // chunks of this job that workers have completed
  alignas(64) std::atomic<bool> busy{false};      // a thread owns the pool: it runs a job
  std::atomic<size_t> wanted{0};                  // threads, the caller included; 0: take the default
  // Guarded by busy:
  size_t started = 0;          // workers
  Clock::duration alone{};     // time that jobs less than kSpin apart took while workers slept
  Clock::time_point alone_at;  // when the last of them ended
  Worker workers[kMaxThreads - 1];
};

thread_local size_t own_limit = kMaxThreads;

// Constant initialisation and no destructor: usable before main and while the process exits.
constinit Pool pool;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

bool has_job() {
  const uint64_t job = pool.job.load();
  return static_cast<uint32_t>(job) < job >> 32;
}

enum class End { kFront, kBack };

bool claim(End end, uint32_t* chunk) {
  uint64_t job = pool.job.load(std::memory_order_relaxed), rest;
  do {
    const auto front = static_cast<uint32_t>(job), back = static_cast<uint32_t>(job >> 32);
    if (front == back) return false;
    *chunk = end == End::kFront ? front : back - 1;
    rest = end == End::kFront ? job + 1 : job - (uint64_t{1} << 32);
  } while (!pool.job.compare_exchange_weak(job, rest, std::memory_order_acquire, std::memory_order_relaxed));
  return true;
}

// Runs chunks until none is left to claim. Returns how many.
uint32_t work(End end) {
  uint32_t count = 0;
  for (uint32_t chunk; claim(end, &chunk); ++count) pool.fn(pool.arg, chunk);
  return count;
}

// Yields now and then: with more threads than CPUs, the one that we wait for may need ours.
bool spin_for_job() {
  const auto deadline = Clock::now() + kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      if (has_job()) return true;
      relax();
    }
    sched_yield();
  } while (Clock::now() < deadline);
  return false;
}

void* worker_main(void* worker) {
  Worker& self = *static_cast<Worker*>(worker);
  const auto index = static_cast<size_t>(&self - pool.workers);
#if defined(__APPLE__)
  pthread_setname_np("chainrule");
#else
  pthread_setname_np(pthread_self(), "chainrule");
#endif
  const auto enlisted = [index] { return index + 1 < pool.wanted.load(std::memory_order_relaxed); };
  for (;;) {
    while (enlisted() && spin_for_job()) {
      if (const uint32_t count = work(End::kBack)) pool.finished.fetch_add(count, std::memory_order_release);
    }
    // Sequential consistency of `state` and `job`: either we see the job here, or its caller sees us parked.
    self.state.store(kParked);
    if (!(enlisted() && has_job())) self.state.wait(kParked);
    self.state.store(kAwake, std::memory_order_relaxed);
  }
  return nullptr;
}

// A forked child has none of the threads: it starts again from the empty pool.
void reset_in_child() {
  pool.job.store(0);
  pool.started = 0;
  for (Worker& worker : pool.workers) {
    worker.state.store(kAwake);
    worker.avoided_cpu = -1;
  }
  pool.busy.store(false);
}

// If the system refuses a thread, the job runs on those that there are. Returns how many of `count` there are.
size_t start_workers(size_t count) {
  if (pool.started >= count) return count;
  static bool registered = pthread_atfork(nullptr, nullptr, reset_in_child) == 0;
  static_cast<void>(registered);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  sigset_t all, before;  // signals are the host's business: no worker may take one
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (; pool.started < count; ++pool.started) {
    Worker& worker = pool.workers[pool.started];
    if (pthread_create(&worker.thread, &attributes, worker_main, &worker) != 0) break;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return std::min(count, pool.started);
}

#if defined(__linux__)
cpu_set_t affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  return set;
}

// The scheduler tends to wake a sleeper on the CPU of whoever wakes it, where it would wait for our time slice
// to end: after a sleep of 3 ms in 130 of 150 tries.
void steer(Worker& worker) {
  static const cpu_set_t allowed = affinity();
  const int cpu = sched_getcpu();
  if (cpu < 0 || cpu == worker.avoided_cpu || CPU_COUNT(&allowed) < 2) return;
  cpu_set_t others = allowed;
  CPU_CLR(cpu, &others);
  pthread_setaffinity_np(worker.thread, sizeof others, &others);
  worker.avoided_cpu = cpu;
}
#else
void steer(Worker&) {}
#endif

int64_t available_cpus() {
#if defined(__linux__)
  const cpu_set_t set = affinity();
  if (const int count = CPU_COUNT(&set)) return count;
#endif
  return sysconf(_SC_NPROCESSORS_ONLN);
}

bool any_parked(size_t count) {
  return std::any_of(pool.workers, pool.workers + count, [](const Worker& w) { return w.state.load() == kParked; });
}

void wake(size_t count) {
  for (Worker* worker = pool.workers; worker < pool.workers + count; ++worker) {
    if (worker->state.load() != kParked) continue;
    steer(*worker);
    worker->state.store(kAwake);
    worker->state.notify_one();
  }
}

// Runs chunks as work() does, until it turns out that helpers are worth waking. The first chunks tell how long the rest
// will take.
uint32_t work_and_wake(size_t helpers) {
  const Clock::time_point start = Clock::now();
  if (start - pool.alone_at > kSpin) pool.alone = {};
  uint32_t count = 0;
  for (uint32_t chunk; claim(End::kFront, &chunk);) {
    pool.fn(pool.arg, chunk);
    ++count;
    pool.alone_at = Clock::now();
    const uint64_t job = pool.job.load(std::memory_order_relaxed);
    const size_t left = (job >> 32) - static_cast<uint32_t>(job);
    if (left > 0 && pool.alone + (pool.alone_at - start) / count * left > kWorthWaking) {
      pool.alone = {};
      wake(helpers);
      return count + work(End::kFront);
    }
  }
  pool.alone += pool.alone_at - start;
  return count;
}

}  // namespace

void parallel(size_t chunks, void (*fn)(void* arg, size_t chunk), void* arg) {
  const size_t helpers = std::min(own_threads(), chunks) - (chunks > 0);
  if (helpers == 0 || chunks > UINT32_MAX || pool.busy.load(std::memory_order_relaxed) ||
      pool.busy.exchange(true, std::memory_order_acquire)) {
    for (size_t chunk = 0; chunk < chunks; ++chunk) fn(arg, chunk);
    return;
  }
  const size_t workers = start_workers(helpers);
  pool.fn = fn;
  pool.arg = arg;
  pool.finished.store(0, std::memory_order_relaxed);
  pool.job.store(static_cast<uint64_t>(chunks) << 32);
  const bool asleep = any_parked(workers);
  const uint32_t own = asleep ? work_and_wake(workers) : work(End::kFront);
  for (int spins = 0; pool.finished.load(std::memory_order_acquire) != chunks - own; ++spins) {
    if (spins % 64 == 63) {
      sched_yield();
    } else {
      relax();
    }
  }
  pool.busy.store(false, std::memory_order_release);
}

void limit_own_jobs(size_t n) { own_limit = std::clamp<size_t>(n, 1, kMaxThreads); }

size_t own_threads() { return std::min(threads(), own_limit); }

void set_threads(size_t n) { pool.wanted.store(std::clamp<size_t>(n, 1, kMaxThreads), std::memory_order_relaxed); }

size_t threads() {
  if (const size_t wanted = pool.wanted.load(std::memory_order_relaxed)) return wanted;
  size_t unset = 0;
  pool.wanted.compare_exchange_strong(unset, default_threads());
  return pool.wanted.load(std::memory_order_relaxed);
}

size_t default_threads(const char* root) {
  if (const char* text = getenv("CHAINRULE_THREADS")) {
    const long asked = strtol(text, nullptr, 10);
    if (asked > 0) return std::min<size_t>(asked, kMaxThreads);
  }
  return std::clamp<int64_t>(std::min(available_cpus(), cgroup::cpus(root)), 1, kMaxThreads);
}

}  // namespace chainrule::pool
