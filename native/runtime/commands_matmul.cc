// The decoder of matrix products. Runtime layer.
#include "commands.h"

namespace chainrule {

// dtype | batch dims << 8 | bias << 12, m, n, k, strides (a rows, a cols, b rows, b cols, c rows), per batch dim (size,
// a, b, c), alpha, beta, out, a, b, [bias]
void run_matmul(Reader& reader, Kernels kernels, const Context& context) {
  GemmArgs args{};
  const int32_t flags = reader.word();
  const int32_t type = reader.compute_type(flags & 0xff, kFloatTypes);
  args.batch_dims = flags >> 8 & 0xf;
  if (args.batch_dims > 6) return reader.fail("too many batch dimensions");
  if (flags >> 12 & ~1) return reader.fail("unknown flags");
  args.m = reader.size(), args.n = reader.size(), args.k = reader.size();
  args.a_rs = reader.word(), args.a_cs = reader.word();
  args.b_rs = reader.word(), args.b_cs = reader.word();
  args.c_rs = reader.word();
  if ((args.a_rs | args.a_cs | args.b_rs | args.b_cs | args.c_rs) < 0) return reader.fail("negative stride");
  if (args.c_rs < args.n && args.m > 1) return reader.fail("rows of the product overlap");
  // Strides of 0 let small operands ask for any amount of work: kernels count it in 63 bits.
  int64_t work = reader.product(args.k, args.n);
  if (__builtin_mul_overflow(work, args.m, &work)) return reader.fail("size overflows");

  // One past the last element that each operand touches.
  const auto extent = [&](int64_t rows, int64_t row_stride, int64_t cols, int64_t col_stride) {
    if (rows == 0 || cols == 0) return int64_t{0};
    return reader.product(rows - 1, row_stride) + reader.product(cols - 1, col_stride) + 1;
  };
  int64_t a_end = extent(args.m, args.a_rs, args.k, args.a_cs);
  int64_t b_end = extent(args.k, args.b_rs, args.n, args.b_cs);
  int64_t c_end = extent(args.m, args.c_rs, args.n, 1);
  int64_t batch = 1, c_inner = c_end;
  for (int d = args.batch_dims - 1; d >= 0; --d) args.batch[d] = 0;
  for (int d = 0; d < args.batch_dims; ++d) {
    args.batch[d] = reader.size();
    args.a_bs[d] = reader.word(), args.b_bs[d] = reader.word(), args.c_bs[d] = reader.word();
    if ((args.a_bs[d] | args.b_bs[d] | args.c_bs[d]) < 0) return reader.fail("negative stride");
    batch = reader.product(batch, args.batch[d]);
    if (args.batch[d] == 0) continue;
    if (a_end) a_end += reader.product(args.batch[d] - 1, args.a_bs[d]);
    if (b_end) b_end += reader.product(args.batch[d] - 1, args.b_bs[d]);
    if (c_end) c_end += reader.product(args.batch[d] - 1, args.c_bs[d]);
  }
  // Batch entries run on several threads, so the products must not overlap: innermost dimension first.
  for (int d = args.batch_dims - 1; d >= 0 && batch > 0; --d) {
    if (args.batch[d] > 1 && args.c_bs[d] < c_inner) return reader.fail("products of a batch overlap");
    c_inner += reader.product(args.batch[d] - 1, args.c_bs[d]);
  }
  if (batch == 0) a_end = b_end = c_end = 0;
  args.alpha = reader.number(), args.beta = reader.number();
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(type);
  args.c = reader.output(dtype, c_end);
  args.a = reader.input(dtype, a_end);
  args.b = reader.input(dtype, b_end);
  if (flags >> 12) args.bias = reader.input(dtype, args.n);
  if (reader.finish() && batch > 0) run(reader, kernels.gemm[type](context, args));
}

}  // namespace chainrule
