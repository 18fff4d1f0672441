// The decoders of the structured commands (ops.def): read, validate, call the kernel. Runtime layer.
// Layouts are written by lib/program/commands.ts, in the order they are read here.
#include <vector>

#include "executor.h"

namespace chainrule {

namespace {

using Kernels = const KernelTable&;

void run(Reader& reader, Status status, const char* reason = "out of memory") {
  if (status != kOk) reader.fail(reason, status);
}

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
  if (reader.finish() && !reader.slots().release(id)) reader.fail("freed slot holds no storage");
}

// dtype | batch dims << 8, m, n, k, strides (a rows, a cols, b rows, b cols, c rows), per batch dim (size, a, b, c),
// alpha, beta, out, a, b
void run_matmul(Reader& reader, Kernels kernels, const Context& context) {
  GemmArgs args{};
  const int32_t flags = reader.word();
  const int32_t type = reader.compute_type(flags & 0xff, kFloatTypes);
  args.batch_dims = flags >> 8;
  if (args.batch_dims < 0 || args.batch_dims > 6) return reader.fail("too many batch dimensions");
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
  if (reader.finish() && batch > 0) run(reader, kernels.gemm[type](context, args));
}

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
void run_reduce(Reader& reader, Kernels kernels, const Context& context) {
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

using SoftmaxKernels = AxisFn (KernelTable::*)[kFloatTypes];

// axis, out, x
template <SoftmaxKernels kernel>
void run_softmax(Reader& reader, Kernels kernels, const Context& context) {
  Axis axis = read_axis(reader, kFloatTypes);
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(axis.type);
  axis.args.out = reader.output(dtype, axis.elements);
  axis.args.x = reader.input(dtype, axis.elements);
  if (reader.finish()) run(reader, (kernels.*kernel)[axis.type](context, axis.args));
}

// axis, out, g, y
template <SoftmaxKernels kernel>
void run_softmax_vjp(Reader& reader, Kernels kernels, const Context& context) {
  Axis axis = read_axis(reader, kFloatTypes);
  if (!reader.ok()) return;
  const DType dtype = static_cast<DType>(axis.type);
  axis.args.out = reader.output(dtype, axis.elements);
  axis.args.g = reader.input(dtype, axis.elements);
  axis.args.x = reader.input(dtype, axis.elements);
  if (reader.finish()) run(reader, (kernels.*kernel)[axis.type](context, axis.args));
}

struct Indexing {
  DType dtype;
  int64_t source, target, indices;  // elements of [outer, rows, inner], [outer, count, inner], and the index
  int64_t bad[2];
  IndexArgs args;
};

// dtype, per element, outer, rows, count, inner
Indexing read_indexing(Reader& reader) {
  Indexing ix{};
  ix.dtype = reader.dtype(reader.word());
  ix.args.per_element = reader.word() != 0;
  ix.args.outer = reader.size(), ix.args.rows = reader.size();
  ix.args.count = reader.size(), ix.args.inner = reader.size();
  const int64_t lines = reader.product(ix.args.outer, ix.args.inner);
  ix.source = reader.product(lines, ix.args.rows);
  ix.target = reader.product(lines, ix.args.count);
  ix.indices = ix.args.per_element ? ix.target : ix.args.count;
  return ix;
}

// Writing over the index while it is followed would make the check on it worthless, and over x, copies overlap.
void refuse_overlap(Reader& reader, const Indexing& ix, int64_t written, int64_t read) {
  if (!reader.ok()) return;
  const int64_t width = static_cast<int64_t>(kDTypeBytes[ix.dtype]);
  const char* out = static_cast<const char*>(ix.args.out);
  const auto overlaps = [&](const void* input, int64_t bytes) {
    const char* begin = static_cast<const char*>(input);
    return out < begin + bytes && begin < out + written * width;
  };
  if (overlaps(ix.args.index, ix.indices * 4)) reader.fail("output overlaps the index");
  if (overlaps(ix.args.x, read * width)) reader.fail("output overlaps the input");
}

void run_indexing(Reader& reader, Status status, const int64_t (&bad)[2]) {
  if (status == kIndexOutOfRange) {
    reader.failure().detail[0] = bad[0];
    reader.failure().detail[1] = bad[1];
  }
  run(reader, status, "index out of range");
}

// indexing, out, x, index
void run_gather(Reader& reader, Kernels kernels, const Context& context) {
  Indexing ix = read_indexing(reader);
  if (!reader.ok()) return;
  ix.args.out = reader.output(ix.dtype, ix.target);
  ix.args.x = reader.input(ix.dtype, ix.source);
  ix.args.index = reinterpret_cast<const int32_t*>(reader.input(kI32, ix.indices));
  ix.args.bad = ix.bad;
  refuse_overlap(reader, ix, ix.target, ix.source);
  if (reader.finish()) run_indexing(reader, kernels.gather(context, ix.args, kDTypeBytes[ix.dtype]), ix.bad);
}

// indexing, out (defined before: it is added to), x, index
void run_scatter_add(Reader& reader, Kernels kernels, const Context& context) {
  Indexing ix = read_indexing(reader);
  const int32_t type = reader.compute_type(ix.dtype, kComputeTypes);
  if (!reader.ok()) return;
  ix.args.out = reader.strided(ix.dtype, 0, ix.source, false);
  ix.args.x = reader.input(ix.dtype, ix.target);
  ix.args.index = reinterpret_cast<const int32_t*>(reader.input(kI32, ix.indices));
  ix.args.bad = ix.bad;
  refuse_overlap(reader, ix, ix.source, ix.target);
  if (reader.finish()) run_indexing(reader, kernels.scatter_add[type](context, ix.args), ix.bad);
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

// dtype, n, start, step, out
void run_arange(Reader& reader, Kernels kernels, const Context&) {
  const int32_t type = reader.compute_type(reader.word(), kComputeTypes);
  const int64_t n = reader.size();
  const double start = reader.number(), step = reader.number();
  if (!reader.ok()) return;
  char* out = reader.output(static_cast<DType>(type), n);
  if (reader.finish()) kernels.arange[type](out, 0, n, start, step);
}

// dtype, n, key (2 words, low first), counter (2 words), a, b, out
template <RandomOp op>
void run_random(Reader& reader, Kernels kernels, const Context& context) {
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

// count, then per item: n, param, grad, `states` times a state
std::vector<ListItem> read_items(Reader& reader, DType dtype, int states) {
  const int64_t count = reader.size();
  std::vector<ListItem> items;
  if (count > static_cast<int64_t>(reader.remaining())) return reader.fail("command is too short"), items;
  items.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count && reader.ok(); ++i) {
    ListItem item{};
    item.n = reader.size();
    item.param = reader.strided(dtype, 0, item.n, false);
    item.grad = reader.input(dtype, item.n);
    for (int s = 0; s < states; ++s) item.state[s] = reader.strided(dtype, 0, item.n, false);
    items.push_back(item);
  }
  return items;
}

// dtype, flags (nesterov, maximize, first), lr, momentum, dampening, weight decay, items (one state with momentum)
void run_sgd(Reader& reader, Kernels kernels, const Context& context) {
  const int32_t type = reader.compute_type(reader.word(), kFloatTypes);
  const int32_t flags = reader.word();
  SgdArgs args{};
  args.nesterov = flags & 1, args.maximize = flags & 2, args.first = flags & 4;
  args.lr = reader.number(), args.momentum = reader.number();
  args.dampening = reader.number(), args.weight_decay = reader.number();
  if (!reader.ok()) return;
  const std::vector<ListItem> items = read_items(reader, static_cast<DType>(type), args.momentum != 0 ? 1 : 0);
  if (reader.finish()) run(reader, kernels.sgd[type](context, items.data(), items.size(), args));
}

// dtype, flags (decoupled, amsgrad, maximize), lr, beta1, beta2, eps, weight decay, bias1, bias2, items
void run_adam(Reader& reader, Kernels kernels, const Context& context) {
  const int32_t type = reader.compute_type(reader.word(), kFloatTypes);
  const int32_t flags = reader.word();
  AdamArgs args{};
  args.decoupled = flags & 1, args.amsgrad = flags & 2, args.maximize = flags & 4;
  args.lr = reader.number(), args.beta1 = reader.number(), args.beta2 = reader.number();
  args.eps = reader.number(), args.weight_decay = reader.number();
  args.bias1 = reader.number(), args.bias2 = reader.number();
  if (!reader.ok()) return;
  const std::vector<ListItem> items = read_items(reader, static_cast<DType>(type), args.amsgrad ? 3 : 2);
  if (reader.finish()) run(reader, kernels.adam[type](context, items.data(), items.size(), args));
}

// dtype, flags (centered, maximize), lr, momentum, alpha, eps, weight decay, items (a state more each if centered, and
// with momentum)
void run_rmsprop(Reader& reader, Kernels kernels, const Context& context) {
  const int32_t type = reader.compute_type(reader.word(), kFloatTypes);
  const int32_t flags = reader.word();
  RmspropArgs args{};
  args.centered = flags & 1, args.maximize = flags & 2;
  args.lr = reader.number(), args.momentum = reader.number(), args.alpha = reader.number();
  args.eps = reader.number(), args.weight_decay = reader.number();
  if (!reader.ok()) return;
  const int states = 1 + args.centered + (args.momentum != 0);
  const std::vector<ListItem> items = read_items(reader, static_cast<DType>(type), states);
  if (reader.finish()) run(reader, kernels.rmsprop[type](context, items.data(), items.size(), args));
}

// dtype, flags (maximize), lr, eps, weight decay, items
void run_adagrad(Reader& reader, Kernels kernels, const Context& context) {
  const int32_t type = reader.compute_type(reader.word(), kFloatTypes);
  AdagradArgs args{};
  args.maximize = reader.word() & 1;
  args.lr = reader.number(), args.eps = reader.number(), args.weight_decay = reader.number();
  if (!reader.ok()) return;
  const std::vector<ListItem> items = read_items(reader, static_cast<DType>(type), 1);
  if (reader.finish()) run(reader, kernels.adagrad[type](context, items.data(), items.size(), args));
}

// dtype, flags (maximize), lr, rho, eps, weight decay, items
void run_adadelta(Reader& reader, Kernels kernels, const Context& context) {
  const int32_t type = reader.compute_type(reader.word(), kFloatTypes);
  AdadeltaArgs args{};
  args.maximize = reader.word() & 1;
  args.lr = reader.number(), args.rho = reader.number();
  args.eps = reader.number(), args.weight_decay = reader.number();
  if (!reader.ok()) return;
  const std::vector<ListItem> items = read_items(reader, static_cast<DType>(type), 2);
  if (reader.finish()) run(reader, kernels.adadelta[type](context, items.data(), items.size(), args));
}

// dtype, out (one float64), count, then per item: n, x
void run_sum_squares(Reader& reader, Kernels kernels, const Context& context) {
  const int32_t type = reader.compute_type(reader.word(), kFloatTypes);
  char* out = reader.output(kF64, 1);
  const int64_t count = reader.size();
  std::vector<ListItem> items;
  for (int64_t i = 0; i < count && reader.ok(); ++i) {
    ListItem item{};
    item.n = reader.size();
    item.grad = reader.input(static_cast<DType>(type), item.n);
    items.push_back(item);
  }
  if (!reader.finish()) return;
  run(reader, kernels.list_sum_squares[type](context, items.data(), items.size(), reinterpret_cast<double*>(out)));
}

using Decoder = void (*)(Reader&, Kernels, const Context&);
constexpr Decoder kDecoders[] = {
#define COMMAND(name, decoder) decoder,
#include "../kernels/ops.def"
};
static_assert(sizeof kDecoders / sizeof *kDecoders == kOpcodeCount - kFirstCommand);

}  // namespace

bool Executor::run(int32_t opcode, Reader& reader) {
  if (opcode < kMapOpCount) {
    run_map(reader, kernels_, context(), opcode);
  } else {
    kDecoders[opcode - kFirstCommand](reader, kernels_, context());
  }
  return reader.ok();
}

}  // namespace chainrule
