// The addon: a dozen functions that JavaScript calls. Addon layer: conversion only, no maths; the one place that
// knows Node-API. Native code touches JavaScript memory only inside a call, on the calling thread.
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "../runtime/arena.h"
#include "../runtime/pool.h"
#include "async.h"
#include "convert.h"

namespace chainrule {

namespace {

// One per environment (main thread or worker).
struct Environment {
  Environment(napi_env env, const KernelTable& kernels) : env(env), executor(kernels) {}

  napi_env env;
  Executor executor;
  // Programs that run beside JavaScript. Shared with a waiter that may outlive the environment.
  std::shared_ptr<Queue> queue = std::make_shared<Queue>(executor.kernels(), executor.slots());
  std::vector<int32_t> gathered;  // the first parts of a program that is longer than the buffer
  // The command buffer, shared with lib/program/engine.ts: owned by JavaScript, pinned by `buffer`.
  napi_ref buffer = nullptr;
  int32_t* words = nullptr;
  int64_t capacity = 0;

  // Note [Sweep]: neither finalizers nor FinalizationRegistry run inside a synchronous loop, but a weak reference
  // reads as empty as soon as a collection has found its object dead. So storages are watched by weak references
  // and polled. The canary is a fresh object that nothing holds: while it lives there was no collection, and
  // polling the others would find nothing.
  struct Watched {
    napi_ref reference;
    int32_t slot;
    uint64_t serial;  // the id may be another storage's by the time of a sweep
  };
  std::vector<Watched> watched;
  napi_ref canary = nullptr;

  // Bytes that V8 has been told of, in steps of a MiB: without it the collector does not see tensors at all.
  int64_t reported = 0;
  static constexpr int64_t kReportStep = 1 << 20;
};

void report_memory(napi_env env, Environment& state) {
  const int64_t change = state.executor.slots().bytes() - state.reported;
  if (change < Environment::kReportStep && change > -Environment::kReportStep) return;
  int64_t ignored;
  if (napi_adjust_external_memory(env, change, &ignored) == napi_ok) state.reported += change;
}

// Node has stopped running JavaScript for this environment.
void clean_up(void* data) {
  Environment* state = static_cast<Environment*>(data);
  state->queue->close();
  for (const Environment::Watched& item : state->watched) napi_delete_reference(state->env, item.reference);
  if (state->canary) napi_delete_reference(state->env, state->canary);
  if (state->buffer) napi_delete_reference(state->env, state->buffer);
  delete state;
}

Environment& environment(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return *static_cast<Environment*>(data);
}

Environment& environment(const Napi::CallbackInfo& info) { return environment(static_cast<napi_env>(info.Env())); }

// execute(words): runs the commands in the buffer; true when all ran. The one hot function: raw Node-API.
napi_value execute(napi_env env, napi_callback_info info) {
  size_t argc = 1;
  napi_value argument, result;
  void* data = nullptr;
  napi_get_cb_info(env, info, &argc, &argument, nullptr, &data);
  Environment& state = *static_cast<Environment*>(data);
  int32_t count = 0;
  napi_get_value_int32(env, argument, &count);
  const bool done = count >= 0 && count <= state.capacity && state.executor.execute(state.words, count);
  report_memory(env, state);
  napi_get_boolean(env, done, &result);
  return result;
}

// failure() -> { status, command, op, reason, position, value } of the last execute
Napi::Value failure(const Napi::CallbackInfo& info) {
  return failure_object(info.Env(), environment(info).executor.failure());
}

// bind(buffer: Int32Array): the command buffer from now on
void bind(const Napi::CallbackInfo& info) {
  Environment& state = environment(info);
  const Bytes bytes = typed_array_bytes(info.Env(), info[0]);
  if (!bytes.data) return;
  if (state.buffer) napi_delete_reference(info.Env(), state.buffer);
  napi_create_reference(info.Env(), info[0], 1, &state.buffer);
  state.words = reinterpret_cast<int32_t*>(bytes.data);
  state.capacity = static_cast<int64_t>(bytes.size / sizeof(int32_t));
}

// The live bytes of a slot from a byte offset on, or nothing.
Bytes slot_bytes(Environment& state, const Napi::Value& id, const Napi::Value& offset) {
  const SlotTable::Slot* slot = state.executor.slots().find(id.As<Napi::Number>().Int32Value());
  const double begin = offset.As<Napi::Number>().DoubleValue();
  if (!slot || !(begin >= 0 && begin <= static_cast<double>(slot->bytes))) return {};
  const size_t skip = static_cast<size_t>(begin);
  return {slot->block + skip, slot->bytes - skip};
}

// read(slot, byteOffset, target): fills the typed array; false when the slot holds less
Napi::Value read(const Napi::CallbackInfo& info) {
  const Bytes source = slot_bytes(environment(info), info[0], info[1]);
  const Bytes target = typed_array_bytes(info.Env(), info[2]);
  const bool fits = source.data && source.size >= target.size;
  if (fits && target.size) std::memcpy(target.data, source.data, target.size);
  return Napi::Boolean::New(info.Env(), fits);
}

// readNumber(slot, byteOffset, dtype): one element; undefined when the slot does not hold it
Napi::Value read_number(const Napi::CallbackInfo& info) {
  const int32_t dtype = info[2].As<Napi::Number>().Int32Value();
  const Bytes source = slot_bytes(environment(info), info[0], info[1]);
  if (dtype < 0 || dtype >= kDTypeCount || !source.data || source.size < kDTypeBytes[dtype])
    return info.Env().Undefined();
  return Napi::Number::New(info.Env(), element(source.data, static_cast<DType>(dtype)));
}

// write(slot, source): defines the slot with a copy of the typed array's bytes; false when out of memory
Napi::Value write(const Napi::CallbackInfo& info) {
  Environment& state = environment(info);
  const int32_t id = info[0].As<Napi::Number>().Int32Value();
  const Bytes source = typed_array_bytes(info.Env(), info[1]);
  if (info.Env().IsExceptionPending()) return {};
  if (state.executor.slots().define(id, source.size) != SlotTable::Defined::kYes) {
    return Napi::Boolean::New(info.Env(), false);
  }
  if (source.size) std::memcpy(state.executor.slots().find(id)->block, source.data, source.size);
  report_memory(info.Env(), state);
  return Napi::Boolean::New(info.Env(), true);
}

// enqueue(words, more) -> ticket: the commands in the buffer, after those handed in with `more` since the last ticket,
// are run by the queue's thread; 0 when there is more, or the thread could not be started
Napi::Value enqueue(const Napi::CallbackInfo& info) {
  Environment& state = environment(info);
  const int64_t count = info[0].As<Napi::Number>().Int64Value();
  if (count >= 0 && count <= state.capacity)
    state.gathered.insert(state.gathered.end(), state.words, state.words + count);
  if (info[1].As<Napi::Boolean>().Value()) return Napi::Number::New(info.Env(), 0);
  const uint64_t ticket = state.queue->push(std::exchange(state.gathered, {}));
  return Napi::Number::New(info.Env(), static_cast<double>(ticket));
}

uint64_t ticket_of(const Napi::Value& value) { return static_cast<uint64_t>(value.As<Napi::Number>().Int64Value()); }

// stop(ticket): before its next command
void stop(const Napi::CallbackInfo& info) { environment(info).queue->stop(ticket_of(info[0])); }

// wait(ticket) -> the last ticket that has finished; blocks until that one has
Napi::Value wait(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(environment(info).queue->wait(ticket_of(info[0]))));
}

// whenFinished(ticket, callback): calls back with the last ticket that has finished, when that one has or a few
// milliseconds later
void when_finished(const Napi::CallbackInfo& info) {
  wait_beside(info.Env(), environment(info).queue, ticket_of(info[0]), info[1]);
}

// failures() -> [{ ticket, stopped, status, ... as failure() }] of the queue since the last call
Napi::Value failures(const Napi::CallbackInfo& info) {
  const std::vector<Queue::Outcome> outcomes = environment(info).queue->take_failures();
  Napi::Array list = Napi::Array::New(info.Env(), outcomes.size());
  for (uint32_t i = 0; i < outcomes.size(); ++i) {
    Napi::Object object = failure_object(info.Env(), outcomes[i].failure);
    object["ticket"] = static_cast<double>(outcomes[i].ticket);
    object["stopped"] = outcomes[i].stopped;
    list[i] = object;
  }
  return list;
}

// setQueue(threads, nice): the latter before the first enqueue
void set_queue(const Napi::CallbackInfo& info) {
  environment(info).queue->set_threads(info[0].As<Napi::Number>().Uint32Value());
  environment(info).queue->set_nice(info[1].As<Napi::Number>().Int32Value());
}

// watch(objects, count): buffer[i] is the slot of objects[i]; the slot is freed when the object is found dead
void watch(const Napi::CallbackInfo& info) {
  Environment& state = environment(info);
  const napi_env env = info.Env();
  const uint32_t count = info[1].As<Napi::Number>().Uint32Value();
  if (count > state.capacity) return;
  for (uint32_t i = 0; i < count; ++i) {
    napi_value object;
    napi_ref reference;
    if (!check(env, napi_get_element(env, info[0], i, &object), "watch: not an array") ||
        !check(env, napi_create_reference(env, object, 0, &reference), "watch: not an object")) {
      return;
    }
    const SlotTable::Slot* slot = state.executor.slots().find(state.words[i]);
    state.watched.push_back({reference, state.words[i], slot ? slot->serial : 0});
  }
}

bool is_dead(napi_env env, napi_ref reference) {
  napi_handle_scope scope;
  napi_value object = nullptr;
  napi_open_handle_scope(env, &scope);
  napi_get_reference_value(env, reference, &object);
  napi_close_handle_scope(env, scope);
  return object == nullptr;
}

// sweep(): frees the slots of dead objects and writes their ids to the buffer; how many. Note [Sweep].
Napi::Value sweep(const Napi::CallbackInfo& info) {
  Environment& state = environment(info);
  const napi_env env = info.Env();
  if (state.canary) {
    if (!is_dead(env, state.canary)) return Napi::Number::New(env, 0);
    napi_delete_reference(env, state.canary);
    state.canary = nullptr;
  }
  SlotTable& slots = state.executor.slots();
  int64_t freed = 0;
  size_t kept = 0;
  for (size_t i = 0; i < state.watched.size(); ++i) {
    const Environment::Watched item = state.watched[i];
    const SlotTable::Slot* slot = slots.find(item.slot);
    const bool disposed = !slot || slot->serial != item.serial;
    if (!disposed && (freed == state.capacity || !is_dead(env, item.reference))) {
      state.watched[kept++] = item;
      continue;
    }
    napi_delete_reference(env, item.reference);
    if (!disposed && slots.release(item.slot)) state.words[freed++] = item.slot;
  }
  state.watched.resize(kept);
  // With the buffer full there may be more: no canary, so that the next call looks again.
  if (freed < state.capacity) napi_create_reference(env, Napi::Object::New(env), 0, &state.canary);
  report_memory(env, state);
  return Napi::Number::New(env, static_cast<double>(freed));
}

// memoryStats() -> { liveBytes, peakBytes, slots } of this environment; { arenaBytes, cachedBytes, limit,
// arenaCalls } of the process
Napi::Value memory_stats(const Napi::CallbackInfo& info) {
  const SlotTable& slots = environment(info).executor.slots();
  const arena::Stats stats = arena::stats();
  Napi::Object object = Napi::Object::New(info.Env());
  object["liveBytes"] = static_cast<double>(slots.bytes());
  object["peakBytes"] = static_cast<double>(slots.peak());
  object["slots"] = static_cast<double>(slots.live());
  object["arenaBytes"] = static_cast<double>(stats.live_bytes);
  object["cachedBytes"] = static_cast<double>(stats.cached_bytes);
  object["limit"] = static_cast<double>(stats.limit);
  object["arenaCalls"] = static_cast<double>(stats.calls);
  return object;
}

void reset_peak(const Napi::CallbackInfo& info) { environment(info).executor.slots().reset_peak(); }
void trim(const Napi::CallbackInfo&) { arena::trim(); }
void set_threads(const Napi::CallbackInfo& info) { pool::set_threads(info[0].As<Napi::Number>().Uint32Value()); }
Napi::Value get_threads(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(pool::threads()));
}

// describe() -> { isa, isaAvailable, ops: [name, saved value, bit set of compute types, ...] in opcode order,
// elementwise: how many of them, the first ones, are }
Napi::Value describe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object object = Napi::Object::New(env);
  size_t count = 0;
  const IsaLevel* levels = available_isas(&count);
  Napi::Array available = Napi::Array::New(env, count);
  for (uint32_t i = 0; i < count; ++i) available[i] = levels[i].name;
  object["isaAvailable"] = available;
  static constexpr const char* kSaves[] = {"none", "x", "y"};
  Napi::Array ops = Napi::Array::New(env);
  const KernelTable& kernels = environment(info).executor.kernels();
  for (uint32_t i = 0; i < kOpcodeCount; ++i) {
    int types = 0;
    for (int t = 0; t < kComputeTypes; ++t) types |= (i >= kMapOpCount || kernels.map[i][t]) << t;
    ops[3 * i] = op_names()[i].name;
    ops[3 * i + 1] = kSaves[op_names()[i].saves];
    ops[3 * i + 2] = types;
  }
  object["ops"] = ops;
  object["elementwise"] = static_cast<int32_t>(kMapOpCount);
  object["isa"] = kernels.isa;
  return object;
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  const char* wanted = std::getenv("CHAINRULE_ISA");
  const KernelTable* kernels = select_kernels(wanted);
  if (!kernels) {
    std::string message =
        std::string("CHAINRULE_ISA=") + (wanted ? wanted : "") + ": not available on this machine; one of:";
    size_t count = 0;
    const IsaLevel* levels = available_isas(&count);
    for (size_t i = 0; i < count; ++i) message += std::string(" ") + levels[i].name;
    Napi::Error error = Napi::Error::New(env, message);
    error.Set("code", "ERR_ARG");
    error.ThrowAsJavaScriptException();
    return exports;
  }
  Environment* state = new Environment(env, *kernels);
  napi_set_instance_data(env, state, nullptr, nullptr);
  napi_add_env_cleanup_hook(env, clean_up, state);

  napi_value function;
  napi_create_function(env, "execute", NAPI_AUTO_LENGTH, execute, state, &function);
  exports["execute"] = Napi::Value(env, function);
  const auto add_void = [&](const char* name, void (*f)(const Napi::CallbackInfo&)) {
    exports[name] = Napi::Function::New(env, f, name);
  };
  const auto add = [&](const char* name, Napi::Value (*f)(const Napi::CallbackInfo&)) {
    exports[name] = Napi::Function::New(env, f, name);
  };
  add("failure", failure);
  add_void("bind", bind);
  add("read", read);
  add("readNumber", read_number);
  add("write", write);
  add("enqueue", enqueue);
  add_void("stop", stop);
  add("wait", wait);
  add_void("whenFinished", when_finished);
  add("failures", failures);
  add_void("setQueue", set_queue);
  add_void("watch", watch);
  add("sweep", sweep);
  add("memoryStats", memory_stats);
  add_void("resetPeak", reset_peak);
  add_void("trim", trim);
  add_void("setThreads", set_threads);
  add("getThreads", get_threads);
  add("describe", describe);
  return exports;
}

}  // namespace

NODE_API_MODULE(chainrule, initialize)

}  // namespace chainrule
