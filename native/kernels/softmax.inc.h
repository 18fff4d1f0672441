// Kernel layer: softmax, log-softmax and their pullbacks along one axis of [outer, reduce, inner]. `out` must not
// overlap an input: it holds the terms of the sum in between.
//
// Errors, in units of the rounding, for rows of n: 6 + 2 log2(n) times y in softmax, times 1 + |y| in log-softmax, and
// times the magnitudes that are added up in the pullbacks. A row that holds NaN or +inf, or -inf alone, gives NaN, as
// in PyTorch; any other -inf gives 0 (log: -inf).
#pragma once
#include "math.inc.h"
#include "reduce.inc.h"

namespace chainrule {
namespace {

// What the four have in common: out = last(x, g, term, top, sum), where term = first(x, g, top), top is the maximum of
// x for the forward ops, and sum = total(sum of the terms).
template <class V>
struct Softmax {
  static constexpr bool kForward = true;
  static V first(V x, V, V top) { return exp(x - top); }
  static V total(V sum) { return sum; }
  static V last(V, V, V term, V, V sum) { return term / sum; }
};
template <class V>
struct LogSoftmax {
  static constexpr bool kForward = true;
  static V first(V x, V, V top) { return exp(x - top); }
  static V total(V sum) { return log(sum); }
  static V last(V x, V, V, V top, V sum) { return x - top - sum; }
};
template <class V>
struct SoftmaxVjp {
  static constexpr bool kForward = false;
  static V first(V y, V g, V) { return y * g; }
  static V total(V sum) { return sum; }
  static V last(V y, V g, V, V, V sum) { return y * (g - sum); }
};
template <class V>
struct LogSoftmaxVjp {
  static constexpr bool kForward = false;
  static V first(V, V g, V) { return g; }
  static V total(V sum) { return sum; }
  static V last(V y, V g, V, V, V sum) { return g - exp(y) * sum; }
};

// A contiguous row of n > kShortRow elements.
template <class Op, class T>
void softmax_row(const T* x, const T* g, T* out, int64_t n) {
  using V = Vec<T>;
  const V top = set1(Op::kForward ? Fold<T, kAmax>::fold_row(x, n) : T{});
  for_vectors<T>(0, n, [&](auto at) { at.store(out, Op::first(at.load(x), at.load(g), top)); });
  const V sum = Op::total(set1(Fold<T, kSum>::fold_row(out, n)));
  for_vectors<T>(0, n, [&](auto at) { at.store(out, Op::last(at.load(x), at.load(g), at.load(out), top, sum)); });
}

// `width` columns of n rows, `stride` apart; width is at most Fold::strip_vectors(n) vectors.
template <class Op, class T>
void softmax_strip(const T* x, const T* g, T* out, int64_t stride, int64_t n, int64_t width) {
  using V = Vec<T>;
  constexpr int64_t kStep = kLanes<T>;
  V stack[kStackBytes / sizeof(V)];
  V top[kStripBytes / sizeof(V)] = {};
  if constexpr (Op::kForward) {
    Fold<T, kAmax>::fold_rows(stack, x, stride, n, width);
    __builtin_memcpy(top, stack, ceil_div(width, kStep) * sizeof(V));
  }
  for (int64_t row = 0; row < n; ++row) {
    const int64_t line = row * stride;
    for_vectors<T>(0, width, [&](auto at) {
      at.store(out + line, Op::first(at.load(x + line), at.load(g + line), top[at.i / kStep]));
    });
  }
  Fold<T, kSum>::fold_rows(stack, out, stride, n, width);
  for (int64_t v = 0; v < ceil_div(width, kStep); ++v) stack[v] = Op::total(stack[v]);
  for (int64_t row = 0; row < n; ++row) {
    const int64_t line = row * stride;
    for_vectors<T>(0, width, [&](auto at) {
      const V term = at.load(out + line);
      at.store(out + line,
               Op::last(at.load(x + line), at.load(g + line), term, top[at.i / kStep], stack[at.i / kStep]));
    });
  }
}

// `rows` contiguous rows of n <= kShortRow elements, at most one to a lane.
template <class Op, class T>
void softmax_short_rows(const T* x, const T* g, T* out, int64_t n, int64_t rows) {
  constexpr int64_t kStep = kLanes<T>;
  alignas(kVectorBytes) T tile[3][kShortRow * kStep] = {};
  load_short_rows(tile[0], x, n, rows);
  if constexpr (!Op::kForward) load_short_rows(tile[1], g, n, rows);
  softmax_strip<Op>(tile[0], tile[!Op::kForward], tile[2], kStep, n, kStep);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t j = 0; j < n; ++j) out[row * n + j] = tile[2][j * kStep + row];
  }
}

template <template <class> class OpFor, class T>
Status softmax_like(const Context& context, const AxisArgs& args) {
  using Op = OpFor<Vec<T>>;
  constexpr int64_t kStep = kLanes<T>;
  const int64_t outer = args.outer, n = args.reduce, inner = args.inner;
  const T* x = static_cast<const T*>(args.x);
  // The forward ops take no g; x in its place is a load that the compiler drops.
  const T* g = Op::kForward ? x : static_cast<const T*>(args.g);
  T* out = static_cast<T*>(args.out);

  if (n == 0 || inner == 0) return kOk;
  if (inner > 1) {
    const int64_t width = min_of(inner, Fold<T, kSum>::strip_vectors(n) * kStep), strips = ceil_div(inner, width);
    for_chunks(context, outer * strips, grain_for(n * width), [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t column = unit % strips * width, offset = unit / strips * n * inner + column;
        softmax_strip<Op>(x + offset, g + offset, out + offset, inner, n, min_of(width, inner - column));
      }
    });
  } else if (n > kShortRow) {
    for_chunks(context, outer, grain_for(n), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) softmax_row<Op>(x + row * n, g + row * n, out + row * n, n);
    });
  } else {
    for_chunks(context, ceil_div(outer, kStep), grain_for(n * kStep), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin * kStep; row < min_of(outer, end * kStep); row += kStep) {
        softmax_short_rows<Op>(x + row * n, g + row * n, out + row * n, n, min_of(kStep, outer - row));
      }
    });
  }
  return kOk;
}

template <class T>
Status softmax(const Context& context, const AxisArgs& args) {
  return softmax_like<Softmax, T>(context, args);
}
template <class T>
Status log_softmax(const Context& context, const AxisArgs& args) {
  return softmax_like<LogSoftmax, T>(context, args);
}
template <class T>
Status softmax_vjp(const Context& context, const AxisArgs& args) {
  return softmax_like<SoftmaxVjp, T>(context, args);
}
template <class T>
Status log_softmax_vjp(const Context& context, const AxisArgs& args) {
  return softmax_like<LogSoftmaxVjp, T>(context, args);
}

}  // namespace
}  // namespace chainrule
