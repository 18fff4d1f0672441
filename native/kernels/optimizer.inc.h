// Kernel layer: optimizer steps and the sum of squares over a list of tensors, one pass over the memory of each.
// The formulas are PyTorch's. Elements are independent, so the result does not depend on how the list is divided.
#pragma once
#include "loops.inc.h"

namespace chainrule {
namespace {

// Calls fn(item, begin, end, chunk) for the parts of the items that lie in each chunk of the list laid end to end.
template <class Fn>
void for_items(const Context& context, const ListItem* items, size_t count, const Fn& fn) {
  // Each item starts at a multiple of a cache line, so that chunks do as well.
  const auto room = [](const ListItem& item) { return ceil_div(item.n, 16) * 16; };
  int64_t total = 0;
  for (size_t k = 0; k < count; ++k) total += room(items[k]);
  for_chunks(context, total, kGrain, [&](int64_t begin, int64_t end) {
    int64_t base = 0;
    for (size_t k = 0; k < count && base < end; base += room(items[k++])) {
      const int64_t first = max_of(begin - base, 0), last = min_of(end - base, items[k].n);
      if (first < last) fn(items[k], first, last, begin / kGrain);
    }
  });
}

template <class T>
Status sgd(const Context& context, const ListItem* items, size_t count, const SgdArgs& args) {
  using V = Vec<T>;
  const T lr = static_cast<T>(args.lr), momentum = static_cast<T>(args.momentum);
  const T keep = static_cast<T>(1 - args.dampening), weight_decay = static_cast<T>(args.weight_decay);
  for_items(context, items, count, [&](const ListItem& item, int64_t begin, int64_t end, int64_t) {
    T* params = static_cast<T*>(item.param);
    const T* grads = static_cast<const T*>(item.grad);
    T* buffer = static_cast<T*>(item.state[0]);
    for_vectors<T>(begin, end, [&](auto at) {
      const V param = at.load(params);
      V step = at.load(grads);
      if (args.maximize) step = -step;
      if (weight_decay != 0) step = step + weight_decay * param;
      if (momentum != 0) {
        const V velocity = args.first ? step : momentum * at.load(buffer) + keep * step;
        at.store(buffer, velocity);
        step = args.nesterov ? step + momentum * velocity : velocity;
      }
      at.store(params, param - lr * step);
    });
  });
  return kOk;
}

template <class T>
Status adam(const Context& context, const ListItem* items, size_t count, const AdamArgs& args) {
  using V = Vec<T>;
  const T beta1 = static_cast<T>(args.beta1), rest1 = static_cast<T>(1 - args.beta1);
  const T beta2 = static_cast<T>(args.beta2), rest2 = static_cast<T>(1 - args.beta2);
  const T eps = static_cast<T>(args.eps), step_size = static_cast<T>(args.lr / args.bias1);
  const T unbias = static_cast<T>(1 / sqrt(set1(args.bias2))[0]);
  const T l2 = static_cast<T>(args.decoupled ? 0 : args.weight_decay);
  const T shrink = static_cast<T>(args.decoupled ? 1 - args.lr * args.weight_decay : 1);
  for_items(context, items, count, [&](const ListItem& item, int64_t begin, int64_t end, int64_t) {
    T* params = static_cast<T*>(item.param);
    const T* grads = static_cast<const T*>(item.grad);
    T* means = static_cast<T*>(item.state[0]);
    T* squares = static_cast<T*>(item.state[1]);
    T* largest = static_cast<T*>(item.state[2]);
    for_vectors<T>(begin, end, [&](auto at) {
      V param = at.load(params), grad = at.load(grads);
      if (args.maximize) grad = -grad;
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
  return kOk;
}

template <class T>
Status rmsprop(const Context& context, const ListItem* items, size_t count, const RmspropArgs& args) {
  using V = Vec<T>;
  const T lr = static_cast<T>(args.lr), momentum = static_cast<T>(args.momentum), eps = static_cast<T>(args.eps);
  const T alpha = static_cast<T>(args.alpha), rest = static_cast<T>(1 - args.alpha);
  const T weight_decay = static_cast<T>(args.weight_decay);
  for_items(context, items, count, [&](const ListItem& item, int64_t begin, int64_t end, int64_t) {
    T* params = static_cast<T*>(item.param);
    const T* grads = static_cast<const T*>(item.grad);
    T* squares = static_cast<T*>(item.state[0]);
    T* means = static_cast<T*>(item.state[1]);
    T* velocities = static_cast<T*>(item.state[args.centered ? 2 : 1]);
    for_vectors<T>(begin, end, [&](auto at) {
      const V param = at.load(params);
      V grad = at.load(grads);
      if (args.maximize) grad = -grad;
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
  return kOk;
}

template <class T>
Status adagrad(const Context& context, const ListItem* items, size_t count, const AdagradArgs& args) {
  using V = Vec<T>;
  const T lr = static_cast<T>(args.lr), eps = static_cast<T>(args.eps);
  const T weight_decay = static_cast<T>(args.weight_decay);
  for_items(context, items, count, [&](const ListItem& item, int64_t begin, int64_t end, int64_t) {
    T* params = static_cast<T*>(item.param);
    const T* grads = static_cast<const T*>(item.grad);
    T* sums = static_cast<T*>(item.state[0]);
    for_vectors<T>(begin, end, [&](auto at) {
      const V param = at.load(params);
      V grad = at.load(grads);
      if (args.maximize) grad = -grad;
      if (weight_decay != 0) grad = grad + weight_decay * param;
      const V sum = at.load(sums) + grad * grad;
      at.store(sums, sum);
      at.store(params, param - lr * grad / (sqrt(sum) + eps));
    });
  });
  return kOk;
}

template <class T>
Status adadelta(const Context& context, const ListItem* items, size_t count, const AdadeltaArgs& args) {
  using V = Vec<T>;
  const T lr = static_cast<T>(args.lr), eps = static_cast<T>(args.eps);
  const T rho = static_cast<T>(args.rho), rest = static_cast<T>(1 - args.rho);
  const T weight_decay = static_cast<T>(args.weight_decay);
  for_items(context, items, count, [&](const ListItem& item, int64_t begin, int64_t end, int64_t) {
    T* params = static_cast<T*>(item.param);
    const T* grads = static_cast<const T*>(item.grad);
    T* squares = static_cast<T*>(item.state[0]);
    T* deltas = static_cast<T*>(item.state[1]);
    for_vectors<T>(begin, end, [&](auto at) {
      const V param = at.load(params), before = at.load(deltas);
      V grad = at.load(grads);
      if (args.maximize) grad = -grad;
      if (weight_decay != 0) grad = grad + weight_decay * param;
      const V square = rho * at.load(squares) + rest * grad * grad;
      const V delta = sqrt(before + eps) / sqrt(square + eps) * grad;
      at.store(squares, square);
      at.store(deltas, rho * before + rest * delta * delta);
      at.store(params, param - lr * delta);
    });
  });
  return kOk;
}

template <class T>
Vec<double> load_as_double(const T* p) {
  typedef T Narrow __attribute__((vector_size(kLanes<double> * sizeof(T))));
  Narrow v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, Vec<double>);
}

// Squares and adds in double, so float32 neither overflows nor loses small terms: relative error below 1e-12.
template <class T>
Status list_sum_squares(const Context& context, const ListItem* items, size_t count, double* out) {
  constexpr int64_t kStep = kLanes<double>;
  int64_t chunks = 1;
  for (size_t k = 0; k < count; ++k) chunks += ceil_div(items[k].n, kGrain) + 1;
  double* partial = static_cast<double*>(context.scratch(context.self, chunks * sizeof(double)));
  if (!partial) return kOutOfMemory;
  for (int64_t c = 0; c < chunks; ++c) partial[c] = 0;
  for_items(context, items, count, [&](const ListItem& item, int64_t begin, int64_t end, int64_t chunk) {
    const T* x = static_cast<const T*>(item.grad);
    Vec<double> sums[4] = {};
    int64_t i = begin;
    for (; i + 4 * kStep <= end; i += 4 * kStep) {
      for (int64_t v = 0; v < 4; ++v) {
        const Vec<double> wide = load_as_double(x + i + v * kStep);
        sums[v] += wide * wide;
      }
    }
    for (; i < end; i += kStep) {
      T rest[kStep] = {};
      __builtin_memcpy(rest, x + i, min_of(kStep, end - i) * sizeof(T));
      const Vec<double> wide = load_as_double(rest);
      sums[0] += wide * wide;
    }
    partial[chunk] += reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
  });
  double sum = 0;
  for (int64_t c = 0; c < chunks; ++c) sum += partial[c];
  *out = sum;
  return kOk;
}

}  // namespace
}  // namespace chainrule
