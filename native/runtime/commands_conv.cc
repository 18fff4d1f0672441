// The decoders of convolutions. Runtime layer.
#include "commands.h"

namespace chainrule {

namespace {

struct Extents {
  int64_t x = 0, weight = 0, y = 0, bias = 0;
};

// in, out, kernel, stride, padding before, dilation
ConvDim read_dim(Reader& reader) {
  ConvDim d{};
  d.in = reader.size(), d.out = reader.size(), d.kernel = reader.size();
  d.stride = reader.size(), d.pad = reader.size(), d.dilation = reader.size();
  if (d.out == 0 || d.kernel == 0 || d.stride == 0 || d.dilation == 0) reader.fail("empty windows");
  const int64_t span = reader.product(d.kernel - 1, d.dilation), last = reader.product(d.out - 1, d.stride);
  // As many windows as fit, over an input whose padding may be longer by one at its end.
  const int64_t left = d.in + 2 * d.pad - span - 1 - last;
  if (left < -1 || left >= d.stride) reader.fail("other windows than fit");
  return d;
}

// dtype, n, groups, input channels and output channels of a group, both dimensions
int32_t read_shapes(Reader& reader, ConvArgs& args, Extents& e) {
  const int32_t type = reader.compute_type(reader.word(), kFloatTypes);
  args.n = reader.size(), args.groups = reader.size();
  args.in_channels = reader.size(), args.out_channels = reader.size();
  args.y = read_dim(reader), args.x = read_dim(reader);
  const auto product = [&](int64_t a, int64_t b) { return reader.product(a, b); };
  const int64_t images = product(args.n, args.groups);
  const int64_t taps = product(args.y.kernel, args.x.kernel);
  e.bias = product(args.groups, args.out_channels);
  e.weight = product(product(e.bias, args.in_channels), taps);
  e.x = product(product(images, args.in_channels), product(args.y.in, args.x.in));
  e.y = product(product(images, args.out_channels), product(args.y.out, args.x.out));
  // What kernels lay out for themselves, and in all: no larger than the images with their padding.
  const auto room = [](const ConvDim& d) { return 2 * (d.in + 2 * d.pad) + 8; };
  const int64_t channels = args.in_channels + args.out_channels;
  product(product(room(args.y), room(args.x)), product(images > 0 ? images : 1, channels));
  // Kernels count the work in 63 bits.
  int64_t work = product(product(args.in_channels, args.out_channels), taps);
  const int64_t positions = product(args.y.in, args.x.in) + product(args.y.out, args.x.out);
  if (__builtin_mul_overflow(work, positions, &work)) reader.fail("size overflows");
  // Without a weight there is nothing that bounds how many taps to walk over, and nothing that they change.
  if (e.weight == 0) args.y.kernel = args.x.kernel = 1;
  return type;
}

}  // namespace

// shapes, whether there is a bias, out, x, weight, bias
void run_convolution(Reader& reader, Kernels kernels, const Context& context) {
  ConvArgs args{};
  Extents e;
  const int32_t type = read_shapes(reader, args, e);
  const bool has_bias = reader.word() != 0;
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(type);
  args.result = reader.output(dtype, e.y);
  args.x_in = reader.input(dtype, e.x);
  args.weight = reader.input(dtype, e.weight);
  if (has_bias) args.bias = reader.input(dtype, e.bias);
  if (reader.finish()) run(reader, kernels.convolution[type](context, args));
}

// shapes, out (like x), g, weight
void run_convolution_input(Reader& reader, Kernels kernels, const Context& context) {
  ConvArgs args{};
  Extents e;
  const int32_t type = read_shapes(reader, args, e);
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(type);
  args.result = reader.output(dtype, e.x);
  args.x_in = reader.input(dtype, e.y);
  args.weight = reader.input(dtype, e.weight);
  if (reader.finish()) run(reader, kernels.convolution_input[type](context, args));
}

// shapes, out (like the weight), x, g
void run_convolution_weight(Reader& reader, Kernels kernels, const Context& context) {
  ConvArgs args{};
  Extents e;
  const int32_t type = read_shapes(reader, args, e);
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(type);
  args.result = reader.output(dtype, e.weight);
  args.x_in = reader.input(dtype, e.x);
  args.g = reader.input(dtype, e.y);
  if (reader.finish()) run(reader, kernels.convolution_weight[type](context, args));
}

}  // namespace chainrule
