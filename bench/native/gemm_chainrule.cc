// Bench layer: our products, as commands that the executor runs: decoding and validation are in the time, JavaScript is
// not.
#include "../../native/runtime/pool.h"
#include "../../native/test/command_writer.h"
#include "gemm.h"

namespace {

using chainrule::test::Gemm;
using chainrule::test::Machine;

enum Slot { kA, kB, kC };

bench::Call prepare(Machine& machine, bench::Product& p) {
  chainrule::pool::set_threads(p.threads);
  chainrule::SlotTable& slots = machine.executor.slots();
  const size_t width = p.precision == bench::kF64 ? 8 : 4;
  const auto define = [&](Slot slot, int64_t count, const void* values) {
    slots.release(slot);
    slots.define(slot, count * width);
    memcpy(slots.find(slot)->block, values, count * width);
  };
  define(kA, p.batch * p.m * p.k, p.a);
  define(kB, p.batch * p.k * p.n, p.b);
  define(kC, p.batch * p.m * p.n, p.c);
  p.c = slots.find(kC)->block;

  Gemm gemm{.m = p.m, .n = p.n, .k = p.k};
  gemm.a_rs = p.a_t ? 1 : p.k, gemm.a_cs = p.a_t ? p.m : 1;
  gemm.b_rs = p.b_t ? 1 : p.n, gemm.b_cs = p.b_t ? p.k : 1;
  gemm.c_rs = p.n;
  if (p.batch > 1) gemm.batch = {{p.batch, p.m * p.k, p.k * p.n, p.m * p.n}};
  const int32_t dtype = p.precision == bench::kF64 ? chainrule::kF64 : chainrule::kF32;
  const auto command = matmul(dtype, gemm, kC, kA, kB);
  chainrule::test::Words words;
  command.append_to(words);
  return [&machine, words] {
    if (!machine.run(words)) abort();
  };
}

}  // namespace

int main() {
  const chainrule::KernelTable* kernels = chainrule::select_kernels(getenv("CHAINRULE_ISA"));
  if (!kernels) return 1;
  Machine machine(*kernels);
  return bench::serve_products(std::string("chainrule ") + kernels->isa,
                               [&](bench::Product& p) { return prepare(machine, p); });
}
