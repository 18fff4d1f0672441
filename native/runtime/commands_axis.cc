// The decoders of commands along one axis: reductions, softmax, sort. Runtime layer.
#include "commands.h"

namespace chainrule {

namespace {

struct Axis {
  int32_t type;
  int64_t elements;  // outer * reduce * inner
  AxisArgs args;
};

// dtype, outer, reduce, inner
Axis read_axis(Reader& reader, int32_t types) {
  Axis axis{};
  axis.type = reader.compute_type(reader.word(), types);
  axis.args.outer = reader.size(), axis.args.reduce = reader.size(), axis.args.inner = reader.size();
  axis.elements = reader.product(reader.product(axis.args.outer, axis.args.reduce), axis.args.inner);
  return axis;
}

// axis, scale, out, x
template <ReduceOp op>
void reduce(Reader& reader, Kernels kernels, const Context& context) {
  Axis axis = read_axis(reader, kComputeTypes);
  axis.args.scale = reader.number();
  const int64_t results = reader.product(axis.args.outer, axis.args.inner);
  if (op != kSum && op != kProd && axis.args.reduce == 0 && results > 0) return reader.fail("empty reduction");
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(axis.type);
  axis.args.out = reader.output(op == kArgmax || op == kArgmin ? kI32 : dtype, results);
  axis.args.x = reader.input(dtype, axis.elements);
  if (reader.finish()) run(reader, kernels.reduce[op][axis.type](context, axis.args));
}

using SoftmaxKernels = AxisFn (KernelTable::*)[kFloatTypes];

// axis, out, x
template <SoftmaxKernels kernel>
void softmax(Reader& reader, Kernels kernels, const Context& context) {
  Axis axis = read_axis(reader, kFloatTypes);
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(axis.type);
  axis.args.out = reader.output(dtype, axis.elements);
  axis.args.x = reader.input(dtype, axis.elements);
  if (reader.finish()) run(reader, (kernels.*kernel)[axis.type](context, axis.args));
}

// axis, out, g, y
template <SoftmaxKernels kernel>
void softmax_vjp(Reader& reader, Kernels kernels, const Context& context) {
  Axis axis = read_axis(reader, kFloatTypes);
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(axis.type);
  axis.args.out = reader.output(dtype, axis.elements);
  axis.args.g = reader.input(dtype, axis.elements);
  axis.args.x = reader.input(dtype, axis.elements);
  if (reader.finish()) run(reader, (kernels.*kernel)[axis.type](context, axis.args));
}

}  // namespace

void run_sum(Reader& reader, Kernels kernels, const Context& context) { reduce<kSum>(reader, kernels, context); }
void run_prod(Reader& reader, Kernels kernels, const Context& context) { reduce<kProd>(reader, kernels, context); }
void run_amax(Reader& reader, Kernels kernels, const Context& context) { reduce<kAmax>(reader, kernels, context); }
void run_amin(Reader& reader, Kernels kernels, const Context& context) { reduce<kAmin>(reader, kernels, context); }
void run_argmax(Reader& reader, Kernels kernels, const Context& context) { reduce<kArgmax>(reader, kernels, context); }
void run_argmin(Reader& reader, Kernels kernels, const Context& context) { reduce<kArgmin>(reader, kernels, context); }
void run_softmax(Reader& reader, Kernels kernels, const Context& context) {
  softmax<&KernelTable::softmax>(reader, kernels, context);
}
void run_log_softmax(Reader& reader, Kernels kernels, const Context& context) {
  softmax<&KernelTable::log_softmax>(reader, kernels, context);
}
void run_softmax_vjp(Reader& reader, Kernels kernels, const Context& context) {
  softmax_vjp<&KernelTable::softmax_vjp>(reader, kernels, context);
}
void run_log_softmax_vjp(Reader& reader, Kernels kernels, const Context& context) {
  softmax_vjp<&KernelTable::log_softmax_vjp>(reader, kernels, context);
}

// axis, reverse, out, x
void run_cumsum(Reader& reader, Kernels kernels, const Context& context) {
  Axis axis = read_axis(reader, kComputeTypes);
  axis.args.reverse = reader.word() != 0;
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(axis.type);
  axis.args.out = reader.output(dtype, axis.elements);
  axis.args.x = reader.input(dtype, axis.elements);
  if (reader.finish()) run(reader, kernels.cumsum[axis.type](context, axis.args));
}

// axis, count, descending, values, indices, x
void run_sort(Reader& reader, Kernels kernels, const Context& context) {
  const Axis axis = read_axis(reader, kComputeTypes);
  SortArgs args{};
  args.outer = axis.args.outer, args.reduce = axis.args.reduce, args.inner = axis.args.inner;
  args.count = reader.size();
  args.descending = reader.word() != 0;
  if (args.reduce > INT32_MAX) reader.fail("a row is too long for int32 indices");
  if (args.count > args.reduce) reader.fail("more results than elements");
  const int64_t results = reader.product(reader.product(args.outer, args.count), args.inner);
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(axis.type);
  args.values = reader.output(dtype, results);
  args.indices = reinterpret_cast<int32_t*>(reader.output(kI32, results));
  args.x = reader.input(dtype, axis.elements);
  if (reader.finish()) run(reader, kernels.sort[axis.type](context, args));
}

}  // namespace chainrule
