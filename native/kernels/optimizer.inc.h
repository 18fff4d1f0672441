// Kernel layer: optimizer steps and the sum of squares over a list of tensors, one pass over the memory of each.
// The formulas are PyTorch's. Elements are independent, so the result does not depend on how the list is divided.
#pragma once
#include "loops.inc.h"

namespace chainrule {
namespace {

// Calls fn(item, begin, end, chunk) for the parts of the items that lie in each chunk of the list laid end to end.
template <class Fn>
Status for_items(const Context& context, const ListItem* items, size_t count, const Fn& fn) {
  // Where each item starts: at a multiple of a cache line, so that chunks do as well.
  int64_t* starts = static_cast<int64_t*>(context.scratch(context.self, (count + 1) * sizeof(int64_t)));
  if (!starts) return kOutOfMemory;
  starts[0] = 0;
  for (size_t k = 0; k < count; ++k) starts[k + 1] = starts[k] + ceil_div(items[k].n, 16) * 16;
  for_chunks(context, starts[count], kGrain, [&](int64_t begin, int64_t end) {
    size_t k = 0;
    for (size_t past = count; past - k > 1;) {
      const size_t middle = (k + past) / 2;
      (starts[middle] <= begin ? k : past) = middle;
    }
    for (; k < count && starts[k] < end; ++k) {
      const int64_t first = max_of(begin - starts[k], 0), past = min_of(end - starts[k], items[k].n);
      if (first < past) fn(items[k], first, past, begin / kGrain);
    }
  });
  return kOk;
}

template <class T>
Status sgd(const Context& context, const ListItem* items, size_t count, const SgdArgs& args) {
  using V = Vec<T>;
  const T lr = static_cast<T>(args.lr);
  const T momentum = static_cast<T>(args.momentum), keep = static_cast<T>(1 - args.dampening);
  const T scale = static_cast<T>(args.grad_scale), weight_decay = static_cast<T>(args.weight_decay);
  return for_items(context, items, count, [&](const ListItem& item, int64_t begin, int64_t end, int64_t) {
    T* params = static_cast<T*>(item.param);
    const T* grads = static_cast<const T*>(item.grad);
    T* buffer = static_cast<T*>(item.state[0]);
    for_vectors<T>(begin, end, [&](auto at) {
      const V param = at.load(params);
      V step = scale * at.load(grads);
      if (weight_decay != 0) step = step + weight_decay * param;
      if (momentum != 0) {
        const V velocity = args.first ? step : momentum * at.load(buffer) + keep * step;
        at.store(buffer, velocity);
        step = args.nesterov ? step + momentum * velocity : velocity;
      }
      at.store(params, param - lr * step);
    });
  });
}

template <class T>
Status adam(const Context& context, const ListItem* items, size_t count, const AdamArgs& args) {
  using V = Vec<T>;
  const T scale = static_cast<T>(args.grad_scale);
  const T beta1 = static_cast<T>(args.beta1), rest1 = static_cast<T>(1 - args.beta1);
  const T beta2 = static_cast<T>(args.beta2), rest2 = static_cast<T>(1 - args.beta2);
  const T eps = static_cast<T>(args.eps), step_size = static_cast<T>(args.lr / args.bias1);
  const T unbias = static_cast<T>(1 / sqrt(set1(args.bias2))[0]);
  const T l2 = static_cast<T>(args.decoupled ? 0 : args.weight_decay);
  const T shrink = static_cast<T>(args.decoupled ? 1 - args.lr * args.weight_decay : 1);
  return for_items(context, items, count, [&](const ListItem& item, int64_t begin, int64_t end, int64_t) {
    T* params = static_cast<T*>(item.param);
    const T* grads = static_cast<const T*>(item.grad);
    T* means = static_cast<T*>(item.state[0]);
    T* squares = static_cast<T*>(item.state[1]);
    T* largest = static_cast<T*>(item.state[2]);
    for_vectors<T>(begin, end, [&](auto at) {
      V param = at.load(params), grad = scale * at.load(grads);
      if (l2 != 0) grad = grad + l2 * param;
      param = param * shrink;
      const V mean = beta1 * at.load(means) + rest1 * grad;
      V square = beta2 * at.load(squares) + rest2 * grad * grad;
      at.store(means, mean);
      at.store(squares, square);
      if (args.amsgrad) {
        square = max(at.load(largest), square);
        at.store(largest, square);
      }
      at.store(params, param - step_size * mean / (sqrt(square) * unbias + eps));
    });
  });
}

template <class T>
Status rmsprop(const Context& context, const ListItem* items, size_t count, const RmspropArgs& args) {
  using V = Vec<T>;
  const T lr = static_cast<T>(args.lr), momentum = static_cast<T>(args.momentum), eps = static_cast<T>(args.eps);
  const T alpha = static_cast<T>(args.alpha), rest = static_cast<T>(1 - args.alpha);
  const T scale = static_cast<T>(args.grad_scale), weight_decay = static_cast<T>(args.weight_decay);
  return for_items(context, items, count, [&](const ListItem& item, int64_t begin, int64_t end, int64_t) {
    T* params = static_cast<T*>(item.param);
    const T* grads = static_cast<const T*>(item.grad);
    T* squares = static_cast<T*>(item.state[0]);
    T* means = static_cast<T*>(item.state[1]);
    T* velocities = static_cast<T*>(item.state[args.centered ? 2 : 1]);
    for_vectors<T>(begin, end, [&](auto at) {
      const V param = at.load(params);
      V grad = scale * at.load(grads);
      if (weight_decay != 0) grad = grad + weight_decay * param;
      V square = alpha * at.load(squares) + rest * grad * grad;
      at.store(squares, square);
      if (args.centered) {
        const V mean = alpha * at.load(means) + rest * grad;
        at.store(means, mean);
        // A variance of zero may be rounded to less.
        square = max(square - mean * mean, V{});
      }
      V step = grad / (sqrt(square) + eps);
      if (momentum != 0) {
        step = momentum * at.load(velocities) + step;
        at.store(velocities, step);
      }
      at.store(params, param - lr * step);
    });
  });
}

template <class T>
Status adagrad(const Context& context, const ListItem* items, size_t count, const AdagradArgs& args) {
  using V = Vec<T>;
  const T lr = static_cast<T>(args.lr), eps = static_cast<T>(args.eps);
  const T scale = static_cast<T>(args.grad_scale), weight_decay = static_cast<T>(args.weight_decay);
  return for_items(context, items, count, [&](const ListItem& item, int64_t begin, int64_t end, int64_t) {
    T* params = static_cast<T*>(item.param);
    const T* grads = static_cast<const T*>(item.grad);
    T* sums = static_cast<T*>(item.state[0]);
    for_vectors<T>(begin, end, [&](auto at) {
      const V param = at.load(params);
      V grad = scale * at.load(grads);
      if (weight_decay != 0) grad = grad + weight_decay * param;
      const V sum = at.load(sums) + grad * grad;
      at.store(sums, sum);
      at.store(params, param - lr * grad / (sqrt(sum) + eps));
    });
  });
}

template <class T>
Status adadelta(const Context& context, const ListItem* items, size_t count, const AdadeltaArgs& args) {
  using V = Vec<T>;
  const T lr = static_cast<T>(args.lr), eps = static_cast<T>(args.eps);
  const T rho = static_cast<T>(args.rho), rest = static_cast<T>(1 - args.rho);
  const T scale = static_cast<T>(args.grad_scale), weight_decay = static_cast<T>(args.weight_decay);
  return for_items(context, items, count, [&](const ListItem& item, int64_t begin, int64_t end, int64_t) {
    T* params = static_cast<T*>(item.param);
    const T* grads = static_cast<const T*>(item.grad);
    T* squares = static_cast<T*>(item.state[0]);
    T* deltas = static_cast<T*>(item.state[1]);
    for_vectors<T>(begin, end, [&](auto at) {
      const V param = at.load(params), before = at.load(deltas);
      V grad = scale * at.load(grads);
      if (weight_decay != 0) grad = grad + weight_decay * param;
      const V square = rho * at.load(squares) + rest * grad * grad;
      const V delta = sqrt(before + eps) / sqrt(square + eps) * grad;
      at.store(squares, square);
      at.store(deltas, rho * before + rest * delta * delta);
      at.store(params, param - lr * delta);
    });
  });
}

// The sum of the squares of n elements, in 32 sums whatever the register holds, which are added by halves.
template <class T>
double sum_squares(const T* x, int64_t n) {
  constexpr int64_t kSums = 32, kStep = kLanes<double>;
  Vec<double> sums[kSums / kStep] = {};
  const auto add = [&](const T* p) {
    for (int64_t v = 0; v < kSums / kStep; ++v) {
      const Vec<double> wide = load_as_double(p + v * kStep);
      sums[v] = fma(wide, wide, sums[v]);
    }
  };
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums) add(x + i);
  if (i < n) {
    T rest[kSums] = {};
    __builtin_memcpy(rest, x + i, (n - i) * sizeof(T));
    add(rest);
  }
  for (int64_t half = kSums / kStep / 2; half != 0; half /= 2) {
    for (int64_t v = 0; v < half; ++v) sums[v] += sums[v + half];
  }
  return reduce_add(sums[0]);
}

// Squares and adds in double, so float32 neither overflows nor loses small terms: relative error below 1e-12.
template <class T>
Status list_sum_squares(const Context& context, const ListItem* items, size_t count, double* out) {
  int64_t chunks = 1;
  for (size_t k = 0; k < count; ++k) chunks += ceil_div(items[k].n, kGrain) + 1;
  double* partial = static_cast<double*>(context.scratch(context.self, chunks * sizeof(double)));
  if (!partial) return kOutOfMemory;
  for (int64_t c = 0; c < chunks; ++c) partial[c] = 0;
  const auto add = [&](const ListItem& item, int64_t begin, int64_t end, int64_t chunk) {
    partial[chunk] += sum_squares(static_cast<const T*>(item.grad) + begin, end - begin);
  };
  if (for_items(context, items, count, add) != kOk) return kOutOfMemory;
  double sum = 0;
  for (int64_t c = 0; c < chunks; ++c) sum += partial[c];
  *out += sum;
  return kOk;
}

}  // namespace
}  // namespace chainrule
