// The decoders of commands over lists of tensors: optimizers and norms. Runtime layer.
#include <cmath>
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

// What commands of optimizers begin with.
struct Update {
  int32_t type, flags;
  double grad_scale;
};

// As clipGradNorm_ in lib/nn/utils.ts: a NaN reaches the gradients.
double clip_factor(double max_norm, double squares) {
  const double factor = max_norm / (std::sqrt(squares) + 1e-6);
  return factor >= 1 ? 1 : factor;
}

// dtype, flags (maximize, clip, then the optimizer's own), to clip: largest norm, the sum of the squares of all
// gradients (one float64)
Update read_update(Reader& reader) {
  Update update{reader.compute_type(reader.word(), kFloatTypes), reader.word(), 1};
  if (update.flags & 1) update.grad_scale = -1;
  if (update.flags & 2) {
    const double max_norm = reader.number();
    double squares = 0;
    if (const char* from = reader.input(kF64, 1)) std::memcpy(&squares, from, sizeof squares);
    update.grad_scale *= clip_factor(max_norm, squares);
  }
  return update;
}

template <class Kernel, class Args>
void run_update(Reader& reader, const Context& context, const Kernel* kernels, int32_t type, int states,
                const Args& args) {
  if (!reader.ok()) return;
  const std::vector<ListItem> items = read_items(reader, static_cast<DType>(type), states);
  if (reader.finish()) run(reader, kernels[type](context, items.data(), items.size(), args));
}

}  // namespace

// update (nesterov, first), lr, momentum, dampening, weight decay, items (one state with momentum)
void run_sgd(Reader& reader, Kernels kernels, const Context& context) {
  const Update update = read_update(reader);
  SgdArgs args{};
  args.grad_scale = update.grad_scale;
  args.nesterov = update.flags & 4, args.first = update.flags & 8;
  args.lr = reader.number(), args.momentum = reader.number();
  args.dampening = reader.number(), args.weight_decay = reader.number();
  run_update(reader, context, kernels.sgd, update.type, args.momentum != 0 ? 1 : 0, args);
}

// update (decoupled, amsgrad), lr, beta1, beta2, eps, weight decay, bias1, bias2, items
void run_adam(Reader& reader, Kernels kernels, const Context& context) {
  const Update update = read_update(reader);
  AdamArgs args{};
  args.grad_scale = update.grad_scale;
  args.decoupled = update.flags & 4, args.amsgrad = update.flags & 8;
  args.lr = reader.number(), args.beta1 = reader.number(), args.beta2 = reader.number();
  args.eps = reader.number(), args.weight_decay = reader.number();
  args.bias1 = reader.number(), args.bias2 = reader.number();
  run_update(reader, context, kernels.adam, update.type, args.amsgrad ? 3 : 2, args);
}

// update (centered), lr, momentum, alpha, eps, weight decay, items (a state more each if centered, and with momentum)
void run_rmsprop(Reader& reader, Kernels kernels, const Context& context) {
  const Update update = read_update(reader);
  RmspropArgs args{};
  args.grad_scale = update.grad_scale;
  args.centered = update.flags & 4;
  args.lr = reader.number(), args.momentum = reader.number(), args.alpha = reader.number();
  args.eps = reader.number(), args.weight_decay = reader.number();
  run_update(reader, context, kernels.rmsprop, update.type, 1 + args.centered + (args.momentum != 0), args);
}

// update, lr, eps, weight decay, items
void run_adagrad(Reader& reader, Kernels kernels, const Context& context) {
  const Update update = read_update(reader);
  AdagradArgs args{};
  args.grad_scale = update.grad_scale;
  args.lr = reader.number(), args.eps = reader.number(), args.weight_decay = reader.number();
  run_update(reader, context, kernels.adagrad, update.type, 1, args);
}

// update, lr, rho, eps, weight decay, items
void run_adadelta(Reader& reader, Kernels kernels, const Context& context) {
  const Update update = read_update(reader);
  AdadeltaArgs args{};
  args.grad_scale = update.grad_scale;
  args.lr = reader.number(), args.rho = reader.number();
  args.eps = reader.number(), args.weight_decay = reader.number();
  run_update(reader, context, kernels.adadelta, update.type, 2, args);
}

// dtype, out (one float64, added to), count, then per item: n, x
void run_sum_squares(Reader& reader, Kernels kernels, const Context& context) {
  const int32_t type = reader.compute_type(reader.word(), kFloatTypes);
  char* out = reader.strided(kF64, 0, 1, false);
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
