// Kernel layer: -log softmax(x)[target] of rows [rows, classes], and its pullback. Targets come from users: all of them
// are checked before anything is written. A row's loss depends on that row alone.
//
// Both keep x - max apart from the logarithm of the sum: their total would lose what a large x leaves of it.
#pragma once
#include "fold_terms.inc.h"
#include "math.inc.h"

namespace chainrule {
namespace {

// The number of targets that count, or -1 if one is neither a class nor ignored; args.bad then tells the first.
inline int64_t count_targets(const CrossEntropyArgs& args) {
  const uint32_t limit = static_cast<uint32_t>(min_of(args.classes, int64_t{1} << 31));
  int64_t counted = 0;
  uint32_t outside = 0;  // no early exit, so that the loop vectorises
  for (int64_t i = 0; i < args.rows; ++i) {
    const bool counts = args.target[i] != args.ignored;
    counted += counts;
    outside |= counts & (static_cast<uint32_t>(args.target[i]) >= limit);
  }
  if (!outside) return counted;
  int64_t first = 0;
  while (args.target[first] == args.ignored || static_cast<uint32_t>(args.target[first]) < limit) ++first;
  args.bad[0] = first;
  args.bad[1] = args.target[first];
  return -1;
}

// Rows [begin, end).
template <class T>
void row_losses(const CrossEntropyArgs& args, T* losses, int64_t begin, int64_t end) {
  constexpr int64_t kStep = kLanes<T>;
  T* top = static_cast<T*>(args.stats);
  T* sum = top + args.rows;
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(args.x) + row * args.classes;
    top[row] = fold_term<T, kAmax>(args.classes, [=](auto at) { return at.load(x); });
    const Vec<T> most = set1(top[row]);
    sum[row] = fold_term<T, kSum>(args.classes, [=](auto at) { return exp(at.load(x) - most); });
  }
  for (int64_t row = begin; row < end; row += kStep) {
    T chosen[kStep] = {};
    const int64_t lanes = min_of(kStep, end - row);
    const auto ignored = [&](int64_t lane) { return args.target[row + lane] == args.ignored; };
    for (int64_t lane = 0; lane < lanes; ++lane) {
      if (ignored(lane)) continue;
      chosen[lane] = static_cast<const T*>(args.x)[(row + lane) * args.classes + args.target[row + lane]];
    }
    for_vectors<T>(row, row + lanes,
                   [&](auto at) { at.store(losses, log(at.load(sum)) + (at.load(top) - load(chosen))); });
    for (int64_t lane = 0; lane < lanes; ++lane) losses[row + lane] = ignored(lane) ? T{} : losses[row + lane];
  }
}

template <class T>
Status cross_entropy(const Context& context, const CrossEntropyArgs& args) {
  const int64_t counted = count_targets(args);
  if (counted < 0) return kIndexOutOfRange;
  T* losses = static_cast<T*>(args.out);
  if (args.reduction != kLossEach) {
    losses = static_cast<T*>(context.scratch(context.self, args.rows * sizeof(T)));
    if (!losses && args.rows > 0) return kOutOfMemory;
  }
  for_chunks(context, args.rows, grain_for(args.classes),
             [&](int64_t begin, int64_t end) { row_losses(args, losses, begin, end); });
  if (args.reduction == kLossEach) return kOk;
  const double scale = args.reduction == kLossMean ? 1 / static_cast<double>(counted) : 1;
  return reduce<T, kSum>(context, {losses, nullptr, args.out, 1, args.rows, 1, scale, false});
}

// out = (softmax(x) - 1 at the target) * g, and 0 where the target is ignored.
template <class T>
Status cross_entropy_vjp(const Context& context, const CrossEntropyArgs& args) {
  const int64_t counted = count_targets(args), classes = args.classes;
  if (counted < 0) return kIndexOutOfRange;
  const T* g = static_cast<const T*>(args.g);
  const T* top = static_cast<const T*>(args.stats);
  const T* sum = top + args.rows;
  // Of no rows there may be no g[0].
  const bool each = args.reduction == kLossEach;
  const T all = each ? T{} : args.reduction == kLossMean ? g[0] / static_cast<T>(counted) : g[0];
  for_chunks(context, args.rows, grain_for(classes), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* x = static_cast<const T*>(args.x) + row * classes;
      T* out = static_cast<T*>(args.out) + row * classes;
      if (args.target[row] == args.ignored) {
        for_vectors<T>(0, classes, [=](auto at) { at.store(out, Vec<T>{}); });
        continue;
      }
      const T own = each ? g[row] : all;
      const Vec<T> most = set1(top[row]), share = set1(own / sum[row]);
      for_vectors<T>(0, classes, [=](auto at) { at.store(out, exp(at.load(x) - most) * share); });
      out[args.target[row]] -= own;
    }
  });
  return kOk;
}

}  // namespace
}  // namespace chainrule
