// A queue of programs that one thread of its own runs in order, beside whoever hands them in.
// Runtime layer, no JavaScript types.
#pragma once
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "executor.h"

namespace chainrule {

class Queue {
 public:
  // Programs work on storage in `slots`, which they neither define nor free. Whoever does must leave alone what a
  // program names until it has finished.
  Queue(const KernelTable& kernels, SlotTable& slots) : executor_(kernels, slots) {}
  // Stops between two commands, and waits until it has.
  ~Queue() { close(); }
  void close();

  // Tickets count from 1 in order; 0: the thread could not be started.
  uint64_t push(std::vector<int32_t> words);
  // Stops a program before its next command; one that has finished stays as it is.
  void stop(uint64_t ticket);

  // The last program that has finished: all before it have.
  uint64_t finished() const { return finished_.load(std::memory_order_acquire); }
  // Waits until a program has finished; returns finished().
  uint64_t wait(uint64_t ticket);
  // As wait, but for at most so many milliseconds, and no longer than until close().
  uint64_t wait_for(uint64_t ticket, int milliseconds);

  struct Outcome {
    uint64_t ticket;
    bool stopped;
    Failure failure;
  };
  // What became of programs that did not run to their end, since the last call.
  std::vector<Outcome> take_failures();

  // How many threads its jobs have; 0: all but one, which is that of whoever hands programs in.
  void set_threads(size_t n) { threads_.store(n, std::memory_order_relaxed); }
  // How much its thread gives way to others, as nice(2) counts. Before the first push.
  void set_nice(int nice) { nice_ = nice; }

 private:
  struct Program {
    uint64_t ticket;
    std::vector<int32_t> words;
  };
  bool start();
  void run();

  Executor executor_;
  std::atomic<size_t> threads_{0};
  int nice_ = 0;
  std::atomic<uint64_t> finished_{0};
  std::atomic<bool> stop_{false};  // the program that runs
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  std::deque<Program> programs_;  // the first one runs
  std::vector<Outcome> failures_;
  uint64_t pushed_ = 0;
  bool closing_ = false;
  bool started_ = false;
  pthread_t thread_{};
};

}  // namespace chainrule
