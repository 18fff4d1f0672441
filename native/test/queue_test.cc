// Test layer: the queue. Programs run in order beside their caller, can be stopped between commands, and end with it.
#include "runtime/queue.h"

#include <unistd.h>

#include <chrono>
#include <cmath>

#include "command_writer.h"
#include "runtime/executor.h"

namespace chainrule::test {
namespace {

constexpr int64_t kSide = 96;

Words program(const std::vector<Command>& commands) {
  Words words;
  for (const Command& command : commands) command.append_to(words);
  return words;
}

// slot 1 = slot 1 + slot 0, so many times
Words additions(int times, int64_t n) {
  const Operand sum{.slot = 1, .strides = {1}}, one{.slot = 0, .strides = {1}};
  std::vector<Command> commands;
  for (int i = 0; i < times; ++i) commands.push_back(map(kMap_add, kF32, {n}, sum, {sum, one}));
  return program(commands);
}

// Some milliseconds of work: slot 3 = slot 2 * slot 2, so many times.
Words products(int times) {
  const Gemm gemm{
      .m = kSide, .n = kSide, .k = kSide, .a_rs = kSide, .a_cs = 1, .b_rs = kSide, .b_cs = 1, .c_rs = kSide};
  return program(std::vector<Command>(static_cast<size_t>(times), matmul(kF32, gemm, 3, 2, 2)));
}

void fill(Machine& machine) {
  machine.define<float>(0, std::vector<float>(64, 1));
  machine.define<float>(1, std::vector<float>(64, 0));
  machine.define<float>(2, std::vector<float>(kSide * kSide, 0.5f));
  machine.define<float>(3, std::vector<float>(kSide * kSide, 0));
}

// Beside a caller who defines and frees other storage, and computes.
void runs_in_order(const KernelTable& kernels) {
  Machine machine(kernels);
  fill(machine);
  Queue queue(kernels, machine.executor.slots());
  uint64_t ticket = 0;
  for (int i = 1; i <= 200; ++i) {
    ticket = queue.push(additions(i % 3, 64));
    CHECK(ticket == static_cast<uint64_t>(i), "ticket %d", i);
    machine.define<float>(100 + i, std::vector<float>(10, 1));
    const Operand own{.slot = 100 + i, .strides = {1}};
    CHECK(machine.run({map(kMap_add, kF32, {10}, own, {own, own})}), "beside program %d", i);
    if (i % 2) machine.executor.slots().release(100 + i);
  }
  CHECK(queue.wait(ticket) == ticket && queue.finished() == ticket, "waited");
  CHECK(queue.take_failures().empty(), "no failure");
  CHECK(machine.read<float>(1)[63] == 201, "%g additions", double(machine.read<float>(1)[63]));
}

void defines_and_frees_nothing(const KernelTable& kernels) {
  Machine machine(kernels);
  fill(machine);
  Queue queue(kernels, machine.executor.slots());
  const Operand fresh{.slot = 50, .strides = {1}}, one{.slot = 0, .strides = {1}};
  queue.push(program({map(kMap_add, kF32, {64}, fresh, {one, one})}));
  queue.push(program({Command(kCommand_free).add({0})}));
  const uint64_t good = queue.push(additions(1, 64));
  queue.wait(good);
  const std::vector<Queue::Outcome> failures = queue.take_failures();
  CHECK(failures.size() == 2, "%zu failures", failures.size());
  for (size_t i = 0; i < failures.size(); ++i) {
    CHECK(failures[i].ticket == i + 1 && !failures[i].stopped && failures[i].failure.status == kInvalidProgram,
          "failure %zu", i);
  }
  CHECK(machine.executor.slots().live() == 4 && machine.read<float>(1)[0] == 1, "what was there is there");
}

void stops(const KernelTable& kernels) {
  Machine machine(kernels);
  fill(machine);
  Queue queue(kernels, machine.executor.slots());
  const uint64_t running = queue.push(products(5000));
  const uint64_t waiting = queue.push(products(5000));
  const uint64_t last = queue.push(additions(2, 64));
  CHECK(queue.wait_for(running, 1) < running, "it runs for longer than a millisecond");
  queue.stop(waiting);
  queue.stop(running);
  queue.wait(last);
  queue.stop(last);
  const std::vector<Queue::Outcome> failures = queue.take_failures();
  CHECK(failures.size() == 2, "%zu failures", failures.size());
  for (const Queue::Outcome& failure : failures) {
    CHECK(failure.stopped && failure.ticket <= waiting && failure.failure.status == kOk, "ticket %ld",
          long(failure.ticket));
  }
  CHECK(machine.read<float>(1)[0] == 2, "what came after has run");
}

// Between two commands, however many there are.
void closes(const KernelTable& kernels) {
  for (int i = 0; i < 20; ++i) {
    Machine machine(kernels);
    fill(machine);
    Queue queue(kernels, machine.executor.slots());
    for (int p = 0; p < 3; ++p) queue.push(products(5000));
    if (i % 2) usleep(500);
    queue.close();
    CHECK(queue.push(additions(1, 64)) == 0 && queue.finished() < 3, "closed");
    CHECK(queue.wait(3) < 3, "nobody waits for a closed queue");
  }
}

}  // namespace
}  // namespace chainrule::test

int main() {
  using namespace chainrule::test;
  chainrule::pool::set_threads(2);
  const chainrule::KernelTable& kernels = *chainrule::select_kernels("baseline");
  runs_in_order(kernels);
  defines_and_frees_nothing(kernels);
  stops(kernels);
  closes(kernels);
  return report();
}
