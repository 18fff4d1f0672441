// Test layer: the thread pool. Every chunk runs exactly once, whoever calls, however many threads there are.
#include "runtime/pool.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "kernel_test.h"
#include "runtime/cgroup.h"

namespace chainrule {
namespace {

using Clock = std::chrono::steady_clock;

struct Job {
  explicit Job(size_t chunks) : runs(chunks) {}
  void run() {
    pool::parallel(
        runs.size(), [](void* self, size_t chunk) { ++static_cast<Job*>(self)->runs[chunk]; }, this);
  }
  bool each_ran(int times) const {
    return std::all_of(runs.begin(), runs.end(), [times](int n) { return n == times; });
  }
  std::vector<int> runs;  // not atomic: a thread sanitizer sees any chunk that runs twice or too late
};

void every_chunk_once() {
  for (size_t threads = 1; threads <= 8; ++threads) {
    pool::set_threads(threads);
    CHECK(pool::threads() == threads, "asked for %zu", threads);
    for (const size_t chunks : {0, 1, 2, 3, 7, 64, 1000}) {
      Job job(chunks);
      for (int i = 0; i < 50; ++i) job.run();
      CHECK(job.each_ran(50), "%zu threads, %zu chunks", threads, chunks);
    }
  }
  pool::set_threads(0);
  CHECK(pool::threads() == 1, "no threads at all");
}

// From sleep, for one long job and for many short ones in a row.
void workers_take_part() {
  pool::set_threads(2);
  struct Shared {
    std::thread::id caller = std::this_thread::get_id();
    std::atomic<int> helped{0};
    std::chrono::microseconds chunk_time;
  } shared;
  const auto run = [&shared](size_t chunks) {
    pool::parallel(
        chunks,
        [](void* arg, size_t) {
          Shared& shared = *static_cast<Shared*>(arg);
          shared.helped += std::this_thread::get_id() != shared.caller;
          for (const auto start = Clock::now(); Clock::now() - start < shared.chunk_time;) {
          }
        },
        &shared);
  };
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  shared.chunk_time = std::chrono::milliseconds(1);
  run(100);
  CHECK(shared.helped.exchange(0) > 0, "one long job");
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  shared.chunk_time = std::chrono::microseconds(2);
  for (int i = 0; i < 10000; ++i) run(4);
  CHECK(shared.helped > 0, "short jobs");
}

void many_callers() {
  pool::set_threads(4);
  std::vector<std::thread> callers;
  std::atomic<int> good{0};
  for (int t = 0; t < 6; ++t) {
    callers.emplace_back([&good] {
      Job job(37);
      for (int i = 0; i < 500; ++i) job.run();
      good += job.each_ran(500);
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(good == 6, "%d of 6 callers", good.load());
}

void nested_calls() {
  pool::set_threads(4);
  std::vector<Job> inner(16, Job(16));
  pool::parallel(
      inner.size(), [](void* arg, size_t chunk) { (*static_cast<std::vector<Job>*>(arg))[chunk].run(); }, &inner);
  CHECK(std::all_of(inner.begin(), inner.end(), [](const Job& job) { return job.each_ran(1); }), "inner chunks");
}

void resizing_storm() {
  std::atomic<bool> stop{false};
  std::thread resizer([&stop] {
    for (size_t n = 0; !stop; ++n) {
      pool::set_threads(1 + n % 8);
      if (n % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  });
  Job job(29);
  for (int i = 0; i < 3000; ++i) {
    job.run();
    if (i % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // lets the workers park
  }
  stop = true;
  resizer.join();
  CHECK(job.each_ran(3000), "while the number of threads changes");
}

// Workers have parked by then, and wake while the caller is already at work.
void runs_after_sleep() {
  for (const size_t threads : {2, 4}) {
    pool::set_threads(threads);
    Job job(64);
    for (int i = 0; i < 100; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
      job.run();
    }
    CHECK(job.each_ran(100), "%zu threads, after sleeping", threads);
  }
}

#if !defined(__SANITIZE_THREAD__)  // which does not allow threads after fork
void forked_child() {
  pool::set_threads(3);
  Job before(8);
  before.run();
  const pid_t child = fork();
  if (child == 0) {
    Job job(64);
    job.run();
    _exit(job.each_ran(1) && pool::threads() == 3 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
  before.run();
  CHECK(before.each_ran(2), "the parent goes on");
}
#endif

// ---- the default number of threads, with control groups of our own ----------------------------------------------

class FakeRoot {
 public:
  FakeRoot() { CHECK(mkdtemp(path_), "temporary directory"); }
  ~FakeRoot() { std::filesystem::remove_all(path_); }
  void write(const std::string& name, const char* text) const {
    const std::filesystem::path file = path_ + name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  const char* path() const { return path_; }

 private:
  char path_[32] = "pool-test-XXXXXX";
};

void control_groups() {
  {
    FakeRoot none;
    CHECK(cgroup::cpus(none.path()) == INT64_MAX && cgroup::memory_bytes(none.path()) == INT64_MAX, "no cgroups");
  }
  {
    FakeRoot v2;
    v2.write("/proc/self/cgroup", "0::/pod/app\n");
    v2.write("/sys/fs/cgroup/pod/app/cpu.max", "max 100000\n");
    v2.write("/sys/fs/cgroup/pod/app/memory.max", "1000000\n");
    v2.write("/sys/fs/cgroup/pod/cpu.max", "250000 100000\n");
    v2.write("/sys/fs/cgroup/pod/memory.max", "max\n");
    CHECK(cgroup::cpus(v2.path()) == 3, "2.5 CPUs granted to the parent: %ld", long(cgroup::cpus(v2.path())));
    CHECK(cgroup::memory_bytes(v2.path()) == 1000000, "the group's own");
  }
  {
    FakeRoot v1;
    v1.write("/proc/self/cgroup",
             "9:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n2:cpuset:/docker/1\n1:name=systemd:/\n");
    v1.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");  // the container sees its own group as the root
    v1.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    v1.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n");
    CHECK(cgroup::cpus(v1.path()) == 1 && pool::default_threads(v1.path()) == 1, "half a CPU");
    CHECK(cgroup::memory_bytes(v1.path()) == 2000000, "limit_in_bytes");
    v1.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    CHECK(cgroup::cpus(v1.path()) == INT64_MAX, "no quota");
  }
  setenv("CHAINRULE_THREADS", "5", 1);
  CHECK(pool::default_threads() == 5, "the environment decides");
  setenv("CHAINRULE_THREADS", "none", 1);
  const size_t guessed = pool::default_threads();
  unsetenv("CHAINRULE_THREADS");
  CHECK(guessed == pool::default_threads(), "nonsense is ignored");
  cpu_set_t before, one;
  sched_getaffinity(0, sizeof before, &before);
  CHECK(guessed <= static_cast<size_t>(CPU_COUNT(&before)), "%zu threads", guessed);
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  sched_setaffinity(0, sizeof one, &one);
  CHECK(pool::default_threads() == 1, "one CPU allowed");
  sched_setaffinity(0, sizeof before, &before);
}

}  // namespace
}  // namespace chainrule

int main() {
  chainrule::control_groups();
  chainrule::every_chunk_once();
  chainrule::workers_take_part();
  chainrule::many_callers();
  chainrule::nested_calls();
  chainrule::resizing_storm();
  chainrule::runs_after_sleep();
#if !defined(__SANITIZE_THREAD__)
  chainrule::forked_child();
#endif
  return chainrule::test::report();
}
