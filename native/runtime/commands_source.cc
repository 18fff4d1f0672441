// The decoders of commands that make numbers: ranges and random ones. Runtime layer.
#include "commands.h"

namespace chainrule {

// dtype, n, start, step, out
void run_arange(Reader& reader, Kernels kernels, const Context&) {
  const int32_t type = reader.compute_type(reader.word(), kComputeTypes);
  const int64_t n = reader.size();
  const double start = reader.number(), step = reader.number();
  if (!reader.ok()) return;
  char* out = reader.output(static_cast<DType>(type), n);
  if (reader.finish()) kernels.arange[type](out, 0, n, start, step);
}

namespace {

// dtype, n, key (2 words, low first), counter (2 words), a, b, out
template <RandomOp op>
void random(Reader& reader, Kernels kernels, const Context& context) {
  const int32_t type = reader.compute_type(reader.word(), kComputeTypes);
  RandomArgs args{};
  args.n = reader.size();
  const auto wide = [&] {
    const uint64_t low = static_cast<uint32_t>(reader.word());
    return low | static_cast<uint64_t>(static_cast<uint32_t>(reader.word())) << 32;
  };
  args.key = wide(), args.counter = wide();
  args.a = reader.number(), args.b = reader.number();
  if (reader.ok() && !kernels.random[op][type]) reader.fail("the command is not defined for this dtype");
  if (!reader.ok()) return;
  args.out = reader.output(static_cast<DType>(type), args.n);
  if (reader.finish()) run(reader, kernels.random[op][type](context, args));
}

}  // namespace

void run_uniform(Reader& reader, Kernels kernels, const Context& context) {
  random<kUniform>(reader, kernels, context);
}
void run_normal(Reader& reader, Kernels kernels, const Context& context) { random<kNormal>(reader, kernels, context); }
void run_bernoulli(Reader& reader, Kernels kernels, const Context& context) {
  random<kBernoulli>(reader, kernels, context);
}
void run_randint(Reader& reader, Kernels kernels, const Context& context) {
  random<kRandint>(reader, kernels, context);
}

}  // namespace chainrule
