// Kernel layer: layer normalisation of rows [rows, n], and its pullbacks for x, weight and bias in one pass. A row's
// result depends on that row alone; the gradients of weight and bias add up rows in blocks of 64 in turn, and the
// blocks as a reduction does.
#pragma once
#include "convert.inc.h"
#include "fold_terms.inc.h"

namespace chainrule {
namespace {

template <class T>
void normalise_row(const NormArgs& args, int64_t row) {
  const int64_t n = args.n;
  const T* x = static_cast<const T*>(args.x) + row * n;
  T* y = static_cast<T*>(args.y) + row * n;
  const T* weight = static_cast<const T*>(args.weight);
  const T* bias = static_cast<const T*>(args.bias);
  const T mean = fold_term<T, kSum>(n, [=](auto at) { return at.load(x); }) / static_cast<T>(n);
  const Vec<T> centre = set1(mean);
  // Two passes, so that a large mean cancels first.
  const T squares = fold_term<T, kSum>(n, [=](auto at) {
    const Vec<T> centred = at.load(x) - centre;
    return centred * centred;
  });
  const Vec<T> scale = T(1) / sqrt(set1(squares / static_cast<T>(n) + static_cast<T>(args.eps)));
  static_cast<T*>(args.stats)[row] = mean;
  static_cast<T*>(args.stats)[args.rows + row] = scale[0];
  write_run(y, n, args.streams, [=](auto at) {
    Vec<T> out = (at.load(x) - centre) * scale;
    if (weight) out *= at.load(weight);
    if (bias) out += at.load(bias);
    return out;
  });
}

template <class T>
Status layer_norm(const Context& context, const NormArgs& args) {
  if (args.n == 0) return kOk;
  for_chunks(context, args.rows, grain_for(args.n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) normalise_row<T>(args, row);
    if (args.streams) stream_fence();
  });
  return kOk;
}

// Rows [begin, end): x's gradient, and the rows' sums for weight and bias. Null where it is not wanted.
template <class T>
void normalise_rows_vjp(const NormVjpArgs& args, int64_t begin, int64_t end, T* weight_sums, T* bias_sums) {
  const int64_t n = args.n;
  const T* weight = static_cast<const T*>(args.weight);
  T* const all_sums[] = {weight_sums, bias_sums};
  for (T* sums : all_sums) {
    if (sums) for_vectors<T>(0, n, [=](auto at) { at.store(sums, Vec<T>{}); });
  }
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(args.x) + row * n;
    const T* g = static_cast<const T*>(args.g) + row * n;
    const Vec<T> centre = set1(static_cast<const T*>(args.stats)[row]);
    const Vec<T> scale = set1(static_cast<const T*>(args.stats)[args.rows + row]);
    T means[2] = {};  // of g * weight, and of that times y
    if (args.gx) {
      fold_terms<T, kSum>(means, n, [=](auto at) {
        const Vec<T> own = weight ? at.load(g) * at.load(weight) : at.load(g);
        return Terms<T, 2>{{own, own * ((at.load(x) - centre) * scale)}};
      });
      for (T& sum : means) sum /= static_cast<T>(n);
    }
    const Vec<T> mean = set1(means[0]), slope = set1(means[1]);
    const auto gradient = [=](auto at) {
      const Vec<T> incoming = at.load(g), y = (at.load(x) - centre) * scale;
      if (weight_sums) at.store(weight_sums, fma(incoming, y, at.load(weight_sums)));
      if (bias_sums) at.store(bias_sums, at.load(bias_sums) + incoming);
      const Vec<T> own = weight ? incoming * at.load(weight) : incoming;
      return (own - mean - y * slope) * scale;
    };
    if (args.gx) {
      write_run(static_cast<T*>(args.gx) + row * n, n, args.streams, gradient);
    } else {
      for_vectors<T>(0, n, [=](auto at) { static_cast<void>(gradient(at)); });
    }
  }
}

template <class T>
Status layer_norm_vjp(const Context& context, const NormVjpArgs& args) {
  if (args.n == 0) return kOk;
  const int64_t blocks = ceil_div(args.rows, kFoldRows);
  T* sums = static_cast<T*>(context.scratch(context.self, max_of(1, 2 * blocks * args.n) * sizeof(T)));
  if (!sums) return kOutOfMemory;
  T* weight_sums = args.gweight ? sums : nullptr;
  T* bias_sums = args.gbias ? sums + blocks * args.n : nullptr;
  for_chunks(context, blocks, grain_for(kFoldRows * args.n), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t row = block * kFoldRows, offset = block * args.n;
      normalise_rows_vjp<T>(args, row, min_of(args.rows, row + kFoldRows), weight_sums ? weight_sums + offset : nullptr,
                            bias_sums ? bias_sums + offset : nullptr);
    }
    if (args.streams) stream_fence();
  });
  Status status = kOk;
  if (weight_sums) status = reduce<T, kSum>(context, {sums, nullptr, args.gweight, 1, blocks, args.n, 1, false});
  if (bias_sums && status == kOk)
    status = reduce<T, kSum>(context, {bias_sums, nullptr, args.gbias, 1, blocks, args.n, 1, false});
  return status;
}

}  // namespace
}  // namespace chainrule
