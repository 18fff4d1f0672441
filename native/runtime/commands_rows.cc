// The decoders of commands over rows: cross-entropy and layer normalisation, with their pullbacks. Runtime layer.
#include "commands.h"
#include "executor.h"

namespace chainrule {

namespace {

struct Loss {
  int32_t type;
  int64_t elements, losses;  // of x, and of the loss
  int64_t bad[2];
  CrossEntropyArgs args;
};

// dtype, rows, classes, ignored, reduction
Loss read_loss(Reader& reader) {
  Loss loss{};
  loss.type = reader.compute_type(reader.word(), kFloatTypes);
  loss.args.rows = reader.size(), loss.args.classes = reader.size();
  loss.args.ignored = reader.word();
  const int32_t reduction = reader.word();
  if (reduction < 0 || reduction >= kLossReductionCount) reader.fail("unknown reduction");
  loss.args.reduction = static_cast<LossReduction>(reduction);
  loss.elements = reader.product(loss.args.rows, loss.args.classes);
  loss.losses = loss.args.reduction == kLossEach ? loss.args.rows : 1;
  return loss;
}

// Writing over the targets while they are followed would make the check on them worthless.
void refuse_overlap(Reader& reader, const Loss& loss, const void* out, int64_t elements) {
  if (!reader.ok()) return;
  const char* begin = static_cast<const char*>(out);
  const char* target = reinterpret_cast<const char*>(loss.args.target);
  const int64_t bytes = elements * static_cast<int64_t>(kDTypeBytes[loss.type]);
  if (begin < target + loss.args.rows * 4 && target < begin + bytes) reader.fail("output overlaps the targets");
}

void run_loss(Reader& reader, Status status, const int64_t (&bad)[2]) {
  if (status == kIndexOutOfRange) {
    reader.failure().detail[0] = bad[0];
    reader.failure().detail[1] = bad[1];
  }
  run(reader, status, status == kIndexOutOfRange ? "index out of range" : "out of memory");
}

// Whether rows of n are written past the cache: of all operands, since what is read passes through it, too.
bool streams(DType dtype, int64_t elements, int64_t n, int operands) {
  constexpr int64_t kRun = 1024;  // bytes: shorter rows are mostly ends of lines
  const int64_t width = static_cast<int64_t>(kDTypeBytes[dtype]);
  return past_cache(operands * elements * width) && n * width >= kRun;
}

}  // namespace

// loss, out, stats, x, target
void run_cross_entropy(Reader& reader, Kernels kernels, const Context& context) {
  Loss loss = read_loss(reader);
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(loss.type);
  const int64_t stats = 2 * loss.args.rows;
  loss.args.out = reader.output(dtype, loss.losses);
  loss.args.stats = reader.output(dtype, stats);
  loss.args.x = reader.input(dtype, loss.elements);
  loss.args.target = reinterpret_cast<const int32_t*>(reader.input(kI32, loss.args.rows));
  loss.args.bad = loss.bad;
  refuse_overlap(reader, loss, loss.args.out, loss.losses);
  refuse_overlap(reader, loss, loss.args.stats, stats);
  if (reader.finish()) run_loss(reader, kernels.cross_entropy[loss.type](context, loss.args), loss.bad);
}

// loss, out, g, x, target, stats
void run_cross_entropy_vjp(Reader& reader, Kernels kernels, const Context& context) {
  Loss loss = read_loss(reader);
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(loss.type);
  loss.args.out = reader.output(dtype, loss.elements);
  loss.args.g = reader.input(dtype, loss.losses);
  loss.args.x = reader.input(dtype, loss.elements);
  loss.args.target = reinterpret_cast<const int32_t*>(reader.input(kI32, loss.args.rows));
  loss.args.stats = const_cast<char*>(reader.input(dtype, 2 * loss.args.rows));
  loss.args.bad = loss.bad;
  refuse_overlap(reader, loss, loss.args.out, loss.elements);
  if (reader.finish()) run_loss(reader, kernels.cross_entropy_vjp[loss.type](context, loss.args), loss.bad);
}

// dtype, flags (weight, bias), rows, n, eps, y, stats, x, weight and bias as the flags say
void run_layer_norm(Reader& reader, Kernels kernels, const Context& context) {
  const int32_t type = reader.compute_type(reader.word(), kFloatTypes);
  const int32_t flags = reader.word();
  NormArgs args{};
  args.rows = reader.size(), args.n = reader.size();
  args.eps = reader.number();
  const int64_t elements = reader.product(args.rows, args.n);
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(type);
  args.y = reader.output(dtype, elements);
  args.stats = reader.output(dtype, 2 * args.rows);
  args.x = reader.input(dtype, elements);
  if (flags & 1) args.weight = reader.input(dtype, args.n);
  if (flags & 2) args.bias = reader.input(dtype, args.n);
  args.streams = streams(dtype, elements, args.n, 2);
  if (reader.finish()) run(reader, kernels.layer_norm[type](context, args));
}

// dtype, flags (weight; gradients of x, weight, bias), rows, n, the gradients as the flags say, g, x, stats, weight if
// there is one
void run_layer_norm_vjp(Reader& reader, Kernels kernels, const Context& context) {
  const int32_t type = reader.compute_type(reader.word(), kFloatTypes);
  const int32_t flags = reader.word();
  NormVjpArgs args{};
  args.rows = reader.size(), args.n = reader.size();
  const int64_t elements = reader.product(args.rows, args.n);
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(type);
  if (flags & 2) args.gx = reader.output(dtype, elements);
  if (flags & 4) args.gweight = reader.output(dtype, args.n);
  if (flags & 8) args.gbias = reader.output(dtype, args.n);
  args.g = reader.input(dtype, elements);
  args.x = reader.input(dtype, elements);
  args.stats = reader.input(dtype, 2 * args.rows);
  if (flags & 1) args.weight = reader.input(dtype, args.n);
  args.streams = streams(dtype, elements, args.n, 3);
  if (reader.finish()) run(reader, kernels.layer_norm_vjp[type](context, args));
}

}  // namespace chainrule
