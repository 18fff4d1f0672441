// Commands by opcode, and those about memory alone. Runtime layer.
#include "commands.h"

#include "executor.h"

namespace chainrule {

// dtype, elements, out: for a tensor that several commands will write in parts
void run_allocate(Reader& reader, Kernels, const Context&) {
  const DType dtype = reader.dtype(reader.word());
  const int64_t elements = reader.size();
  if (reader.ok()) reader.output(dtype, elements);
  reader.finish();
}

// slot
void run_free(Reader& reader, Kernels, const Context&) {
  const int32_t id = reader.word();
  if (reader.finish() && !reader.release(id)) reader.fail("freed slot holds no storage");
}

namespace {

constexpr Decoder* kDecoders[] = {
#define COMMAND(name, decoder) decoder,
#include "../kernels/ops.def"
};
static_assert(sizeof kDecoders / sizeof *kDecoders == kOpcodeCount - kFirstCommand);

}  // namespace

void Executor::run(int32_t opcode, Reader& reader, const Context& context) {
  if (opcode < kMapOpCount) return run_map(reader, kernels_, context, opcode);
  if (reader.chain()) return reader.fail("not elementwise, and in a chain");
  kDecoders[opcode - kFirstCommand](reader, kernels_, context);
}

}  // namespace chainrule
