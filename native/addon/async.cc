// Waiting beside the event loop. See async.h.
#include "async.h"

#include "convert.h"

namespace chainrule {

namespace {

// An environment that ends waits for what libuv's threads are at, before it runs any hook that could stop a queue. So
// no waiter waits for longer than this.
constexpr int kMilliseconds = 10;

struct Waiter {
  std::shared_ptr<Queue> queue;
  uint64_t ticket;
  napi_async_work work = nullptr;
  napi_ref callback = nullptr;
};

void execute(napi_env, void* data) {
  Waiter& waiter = *static_cast<Waiter*>(data);
  waiter.queue->wait_for(waiter.ticket, kMilliseconds);
}

// Where JavaScript can no longer run, its refusal is of no interest.
void complete(napi_env env, napi_status, void* data) {
  const std::unique_ptr<Waiter> waiter(static_cast<Waiter*>(data));
  napi_value callback = nullptr, receiver = nullptr, finished = nullptr;
  napi_get_reference_value(env, waiter->callback, &callback);
  napi_get_undefined(env, &receiver);
  napi_create_double(env, static_cast<double>(waiter->queue->finished()), &finished);
  if (callback) napi_call_function(env, receiver, callback, 1, &finished, nullptr);
  napi_delete_reference(env, waiter->callback);
  napi_delete_async_work(env, waiter->work);
}

}  // namespace

void wait_beside(napi_env env, const std::shared_ptr<Queue>& queue, uint64_t ticket, napi_value callback) {
  auto waiter = std::make_unique<Waiter>(Waiter{queue, ticket});
  napi_value name;
  napi_create_string_utf8(env, "chainrule", NAPI_AUTO_LENGTH, &name);
  if (!check(env, napi_create_reference(env, callback, 1, &waiter->callback), "whenFinished: not a function")) return;
  if (check(env, napi_create_async_work(env, nullptr, name, execute, complete, waiter.get(), &waiter->work),
            "whenFinished: no work") &&
      check(env, napi_queue_async_work(env, waiter->work), "whenFinished: not queued")) {
    static_cast<void>(waiter.release());  // complete() has it
  }
}

}  // namespace chainrule
