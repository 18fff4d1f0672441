// The decoders of commands over lists of tensors: optimizers and norms. Runtime layer.
#include <vector>

#include "commands.h"

namespace chainrule {

namespace {

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

}  // namespace

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

}  // namespace chainrule
