// Queue. See queue.h.
#include "queue.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "pool.h"

namespace chainrule {

uint64_t Queue::push(std::vector<int32_t> words) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (closing_) return 0;
  if (!started_ && !start()) return 0;
  programs_.push_back({++pushed_, std::move(words)});
  const uint64_t ticket = pushed_;
  lock.unlock();
  changed_.notify_all();
  return ticket;
}

bool Queue::start() {
  sigset_t all, before;  // signals are the host's business
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const auto main = [](void* queue) -> void* {
    static_cast<Queue*>(queue)->run();
    return nullptr;
  };
  started_ = pthread_create(&thread_, nullptr, main, this) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return started_;
}

void Queue::stop(uint64_t ticket) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (Program& program : programs_) {
    if (program.ticket != ticket) continue;
    if (&program == &programs_.front()) {
      stop_.store(true, std::memory_order_relaxed);
    } else {
      failures_.push_back({ticket, true, {}});
      program.words.clear();
    }
  }
}

void Queue::close() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
    stop_.store(true, std::memory_order_relaxed);
  }
  changed_.notify_all();
  if (started_) pthread_join(thread_, nullptr);
  started_ = false;
}

uint64_t Queue::wait(uint64_t ticket) {
  if (finished() < ticket) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return finished() >= ticket || closing_; });
  }
  return finished();
}

uint64_t Queue::wait_for(uint64_t ticket, int milliseconds) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(milliseconds), [&] { return finished() >= ticket || closing_; });
  return finished();
}

std::vector<Queue::Outcome> Queue::take_failures() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(failures_, {});
}

void Queue::run() {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "chainrule-queue");
  if (nice_ != 0) static_cast<void>(setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), nice_));
#endif
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return closing_ || !programs_.empty(); });
    if (closing_) return;
    const Program& program = programs_.front();
    lock.unlock();
    const size_t threads = threads_.load(std::memory_order_relaxed);
    pool::limit_own_jobs(threads > 0 ? threads : std::max<size_t>(2, pool::threads()) - 1);
    const bool done = executor_.execute(program.words.data(), static_cast<int64_t>(program.words.size()), &stop_);
    lock.lock();
    if (closing_) return;
    if (!done) failures_.push_back({program.ticket, executor_.failure().status == kOk, executor_.failure()});
    finished_.store(program.ticket, std::memory_order_release);
    stop_.store(false, std::memory_order_relaxed);
    programs_.pop_front();
    changed_.notify_all();
  }
}

}  // namespace chainrule
