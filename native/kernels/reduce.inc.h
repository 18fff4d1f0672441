// Kernel layer: reductions along one axis of [outer, reduce, inner], and cumsum. The order in which an element of the
// result is folded depends on the length of the axis, and on whether it is the innermost one; on nothing else.
//
// Every reduction is a fold of rows: eight rows as a tree, eight such trees in turn to a block of 64 rows, blocks as a
// binary tree. A contiguous axis is folded as a matrix of one or four cache lines' width, whose columns are folded by
// halves at the end: whatever the register, so that instruction sets agree.
// A sum of n elements is off by at most 2 log2(n) u sum(|x|), n > 1, u the unit roundoff.
#pragma once
#include "loops.inc.h"

namespace chainrule {
namespace {

constexpr int64_t kFoldRows = 64;
constexpr size_t kStripBytes = 1024;  // columns folded together: long enough to stream, short enough for many levels
constexpr size_t kStackBytes = 8192;
constexpr int64_t kLineBytes = 64;
constexpr int64_t kShortRow = 16;  // up to here rows lie across the lanes, from here along them
constexpr int64_t kSplit = 32768;  // elements of a chunk, where few long folds are shared out among threads

template <class T, ReduceOp op>
struct Fold {
  using V = Vec<T>;
  static constexpr int64_t kStep = kLanes<T>;
  static constexpr int64_t kStackVectors = kStackBytes / sizeof(V);
  static constexpr int64_t kLine = kLineBytes / sizeof(T);

  static constexpr T identity() {
    constexpr bool kReal = T(0.5) != 0;
    if (op == kSum) return static_cast<T>(-0.0);
    if (op == kProd) return 1;
    return static_cast<T>(kReal ? (op == kAmax ? -__builtin_inf() : __builtin_inf())
                                : (op == kAmax ? INT32_MIN : INT32_MAX));
  }

  static V join(V a, V b) {
    if constexpr (op == kSum) return add(a, b);
    if constexpr (op == kProd) return mul(a, b);
    if constexpr (op == kAmax) return max(a, b);
    if constexpr (op == kAmin) return min(a, b);
  }

  static void join_into(V* into, const V* from, int64_t vectors) {
    for (int64_t v = 0; v < vectors; ++v) into[v] = join(into[v], from[v]);
  }

  template <int kRows, class At>
  static V tree(At at, const T* x, int64_t stride) {
    if constexpr (kRows == 1) {
      return at.load(x);
    } else {
      constexpr int kFirst = kRows / 2;
      return join(tree<kFirst>(at, x, stride), tree<kRows - kFirst>(at, x + kFirst * stride, stride));
    }
  }

  template <class At>
  static V short_tree(At at, const T* x, int64_t stride, int64_t rows) {
    switch (rows) {
      case 1:
        return tree<1>(at, x, stride);
      case 2:
        return tree<2>(at, x, stride);
      case 3:
        return tree<3>(at, x, stride);
      case 4:
        return tree<4>(at, x, stride);
      case 5:
        return tree<5>(at, x, stride);
      case 6:
        return tree<6>(at, x, stride);
      case 7:
        return tree<7>(at, x, stride);
      default:
        return tree<8>(at, x, stride);
    }
  }

  // At most kFoldRows rows.
  static void fold_block(V* acc, const T* x, int64_t stride, int64_t rows, int64_t width) {
    for (int64_t row = 0; row < rows; row += 8) {
      const T* group = x + row * stride;
      const auto put = [&](int64_t i, V v) { acc[i / kStep] = row == 0 ? v : join(acc[i / kStep], v); };
      if (rows - row >= 8) {
        for_vectors<T>(0, width, [&](auto at) { put(at.i, tree<8>(at, group, stride)); });
      } else {
        for_vectors<T>(0, width, [&](auto at) { put(at.i, short_tree(at, group, stride, rows - row)); });
      }
    }
  }

  // Vectors of a strip such that fold_rows has room on its stack for all pending levels of so many rows.
  static int64_t strip_vectors(int64_t rows) {
    int64_t levels = 2;
    for (int64_t blocks = ceil_div(rows, kFoldRows); blocks > 1; blocks /= 2) ++levels;
    return max_of(1, min_of(kStripBytes / sizeof(V), kStackVectors / levels));
  }

  // Folds rows > 0 rows of `width` elements, `stride` apart, into the first vectors of the stack.
  static void fold_rows(V (&stack)[kStackVectors], const T* x, int64_t stride, int64_t rows, int64_t width) {
    const int64_t vectors = ceil_div(width, kStep);
    V* top = stack;  // where the next block goes
    for (int64_t block = 0, row = 0; row < rows; ++block, row += kFoldRows) {
      fold_block(top, x + row * stride, stride, min_of(kFoldRows, rows - row), width);
      top += vectors;
      // A block completes as many larger trees as its number ends in one bits.
      for (int64_t bits = block; bits & 1; bits >>= 1) {
        top -= vectors;
        join_into(top - vectors, top, vectors);
      }
    }
    while ((top -= vectors) != stack) join_into(top - vectors, top, vectors);
  }

  template <size_t kHalf, size_t... I>
  static V swap_lanes(V v, Indices<I...>) {
    return V{v[I ^ kHalf]...};
  }
  template <size_t kHalf = kLanes<T> / 2>
  static T fold_lanes(V v) {
    if constexpr (kHalf == 0) {
      return v[0];
    } else {
      return fold_lanes<kHalf / 2>(join(v, swap_lanes<kHalf>(v, LaneIndices<T>{})));
    }
  }

  // A contiguous row of n > kShortRow elements as a matrix: one or four cache lines wide.
  static int64_t row_width(int64_t n) { return n < 32 * kLine ? kLine : 4 * kLine; }

  // Folds the columns, and the elements after the last full row of the matrix.
  static T finish_row(V* acc, const T* x, int64_t n) {
    const int64_t width = row_width(n), rest = n / width * width;
    for_vectors<T>(rest, n, [&](auto at) {
      V& column = acc[(at.i - rest) / kStep];
      column = join(column, at.inside(at.load(x), set1(identity())));
    });
    for (int64_t half = width / kStep / 2; half != 0; half /= 2) join_into(acc, acc + half, half);
    return fold_lanes(acc[0]);
  }

  static T fold_row(const T* x, int64_t n) {
    V stack[kStackVectors];
    const int64_t width = row_width(n);
    fold_rows(stack, x, width, n / width, width);
    return finish_row(stack, x, n);
  }
};

// Rows [0, rows) of n <= kShortRow elements, one to a lane; the lanes that are left repeat the last row.
template <class T>
void load_short_rows(T* tile, const T* x, int64_t n, int64_t rows) {
  constexpr int64_t kStep = kLanes<T>;
  for (int64_t lane = 0; lane < kStep; ++lane) {
    const T* row = x + min_of(lane, rows - 1) * n;
    for (int64_t j = 0; j < n; ++j) tile[j * kStep + lane] = row[j];
  }
}

template <class T>
struct Strip {
  const T* x;
  int64_t width;
};

// Folds `units` strips of `rows` rows: source(unit) is a strip at most max_width wide, finish(unit, acc) takes its
// fold. Each strip is cut at the subtrees of the fold, of chunk_rows rows, which changes who computes and not what.
template <class T, ReduceOp op, class Source, class Finish>
Status fold_parts(const Context& context, int64_t units, int64_t rows, int64_t stride, int64_t max_width,
                  int64_t chunk_rows, const Source& source, const Finish& finish) {
  using F = Fold<T, op>;
  using V = Vec<T>;
  const int64_t chunks = ceil_div(rows, chunk_rows), vectors = ceil_div(max_width, F::kStep);
  V* partial = static_cast<V*>(context.scratch(context.self, units * chunks * vectors * sizeof(V)));
  if (!partial) return kOutOfMemory;
  for_chunks(context, units * chunks, grain_for(chunk_rows * max_width), [&](int64_t begin, int64_t end) {
    V stack[F::kStackVectors];
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const Strip<T> strip = source(chunk / chunks);
      const int64_t row = chunk % chunks * chunk_rows;
      F::fold_rows(stack, strip.x + row * stride, stride, min_of(chunk_rows, rows - row), strip.width);
      __builtin_memcpy(partial + chunk * vectors, stack, ceil_div(strip.width, F::kStep) * sizeof(V));
    }
  });
  for_chunks(context, units, grain_for(chunks * max_width), [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      V* parts = partial + unit * chunks * vectors;
      const int64_t used = ceil_div(source(unit).width, F::kStep);
      for (int64_t step = 1; step < chunks; step *= 2) {
        for (int64_t i = 0; i + step < chunks; i += 2 * step) {
          F::join_into(parts + i * vectors, parts + (i + step) * vectors, used);
        }
      }
      finish(unit, parts);
    }
  });
  return kOk;
}

// The same: few long strips in parts, others each as a whole.
template <class T, ReduceOp op, class Source, class Finish>
Status fold_units(const Context& context, int64_t units, int64_t rows, int64_t stride, int64_t max_width,
                  const Source& source, const Finish& finish) {
  using F = Fold<T, op>;
  if (units < 8 && rows * max_width >= 2 * kSplit) {
    int64_t chunk_rows = kFoldRows;
    while (chunk_rows * max_width < kSplit) chunk_rows *= 2;
    return fold_parts<T, op>(context, units, rows, stride, max_width, chunk_rows, source, finish);
  }
  for_chunks(context, units, grain_for(rows * max_width), [&](int64_t begin, int64_t end) {
    Vec<T> stack[F::kStackVectors];
    for (int64_t unit = begin; unit < end; ++unit) {
      const Strip<T> strip = source(unit);
      F::fold_rows(stack, strip.x, stride, rows, strip.width);
      finish(unit, stack);
    }
  });
  return kOk;
}

// The factor on a sum. Where it is 1/n for a whole n, as in a mean, the sum is divided by n: one rounding less, and
// the mean of equal numbers is that number.
template <class T, ReduceOp op>
class Scale {
 public:
  explicit Scale(double scale) : factor_(T(0.5) != 0 ? static_cast<T>(scale) : 1) {
    const double inverse = 1 / scale;
    if (!(inverse >= 1 && inverse < 0x1p53)) return;
    const double n = static_cast<double>(static_cast<int64_t>(inverse + 0.5));
    if (1 / n == scale) factor_ = 1, divisor_ = static_cast<T>(n);
  }
  template <class V>
  V operator()(V v) const {
    if constexpr (op == kSum && T(0.5) != 0) return v * factor_ / divisor_;
    return v;
  }

 private:
  T factor_, divisor_ = 1;
};

template <class T, ReduceOp op>
Status reduce_values(const Context& context, const AxisArgs& args) {
  using F = Fold<T, op>;
  constexpr int64_t kStep = kLanes<T>;
  const int64_t outer = args.outer, n = args.reduce, inner = args.inner;
  const T* x = static_cast<const T*>(args.x);
  T* out = static_cast<T*>(args.out);
  const Scale<T, op> scale(args.scale);

  if (outer == 0 || inner == 0) return kOk;
  if (n == 0) {
    for (int64_t i = 0; i < outer * inner; ++i) out[i] = scale(T(op == kProd));
    return kOk;
  }
  if (inner > 1) {
    // Many long rows come from memory, which delivers long runs faster: a block at a time, as wide as the stack.
    const bool wide = n > kFoldRows && n * inner >= 2 * kSplit && inner > F::strip_vectors(n) * kStep;
    const int64_t most = wide ? F::kStackVectors : F::strip_vectors(n);
    const int64_t width = min_of(inner, most * kStep), strips = ceil_div(inner, width);
    const auto source = [&](int64_t unit) {
      const int64_t column = unit % strips * width;
      return Strip<T>{x + unit / strips * n * inner + column, min_of(width, inner - column)};
    };
    const auto finish = [&](int64_t unit, Vec<T>* acc) {
      const int64_t column = unit % strips * width;
      T* line = out + unit / strips * inner + column;
      for_vectors<T>(0, min_of(width, inner - column), [&](auto at) { at.store(line, scale(acc[at.i / kStep])); });
    };
    if (wide) return fold_parts<T, op>(context, outer * strips, n, inner, width, kFoldRows, source, finish);
    return fold_units<T, op>(context, outer * strips, n, inner, width, source, finish);
  }
  if (n > kShortRow) {
    const int64_t width = F::row_width(n);
    const auto source = [&](int64_t row) { return Strip<T>{x + row * n, width}; };
    return fold_units<T, op>(context, outer, n / width, width, width, source,
                             [&](int64_t row, Vec<T>* acc) { out[row] = scale(F::finish_row(acc, x + row * n, n)); });
  }
  for_chunks(context, ceil_div(outer, kStep), grain_for(n * kStep), [&](int64_t begin, int64_t end) {
    Vec<T> acc[F::kStackVectors];
    alignas(kVectorBytes) T tile[kShortRow * kStep];
    for (int64_t row = begin * kStep; row < min_of(outer, end * kStep); row += kStep) {
      load_short_rows(tile, x + row * n, n, min_of(kStep, outer - row));
      F::fold_rows(acc, tile, kStep, n, kStep);
      for_vectors<T>(row, min_of(outer, row + kStep), [&](auto at) { at.store(out, scale(acc[0])); });
    }
  });
  return kOk;
}

// The first element that is the extreme, or NaN: if there is a NaN then the extreme is one, and equals nothing.
template <class V>
Mask<V> is_extreme(V x, V extreme) {
  return (x == extreme) | (x != x);
}

template <class T>
int32_t find_in_row(const T* x, int64_t n, T extreme) {
  const Vec<T> wanted = set1(extreme);
  int64_t i = 0;
  while (i + static_cast<int64_t>(kLanes<T>) <= n && !any(is_extreme(load(x + i), wanted))) i += kLanes<T>;
  while (i < n - 1 && x[i] != extreme && x[i] == x[i]) ++i;
  return static_cast<int32_t>(i);
}

template <class T>
void find_in_columns(const T* x, const T* extreme, int32_t* out, int64_t n, int64_t inner) {
  using Index = typename UnsignedOf<sizeof(T)>::Type;
  constexpr int64_t kWidth = kStripBytes / sizeof(T);
  for (int64_t column = 0; column < inner; column += kWidth) {
    const int64_t width = min_of(kWidth, inner - column);
    Vec<Index> first[kStripBytes / kVectorBytes] = {};
    for (int64_t row = n; row-- > 0;) {
      const T* line = x + row * inner + column;
      for_vectors<T>(0, width, [&](auto at) {
        const auto hit = is_extreme(at.load(line), at.load(extreme + column));
        Vec<Index>& index = first[at.i / kLanes<T>];
        index = select(hit, set1(static_cast<Index>(row)), index);
      });
    }
    Index found[kWidth];
    __builtin_memcpy(found, first, sizeof found);
    for (int64_t i = 0; i < width; ++i) out[column + i] = static_cast<int32_t>(found[i]);
  }
}

template <class T, ReduceOp op>
Status reduce_index(const Context& context, const AxisArgs& args) {
  const int64_t outer = args.outer, n = args.reduce, inner = args.inner;
  if (outer == 0 || n == 0 || inner == 0) return kOk;
  T* extreme = static_cast<T*>(context.scratch(context.self, outer * inner * sizeof(T)));
  if (!extreme) return kOutOfMemory;
  AxisArgs values = args;
  values.out = extreme;
  const Status status = reduce_values < T, op == kArgmax ? kAmax : kAmin > (context, values);
  if (status != kOk) return status;
  const T* x = static_cast<const T*>(args.x);
  int32_t* out = static_cast<int32_t*>(args.out);
  for_chunks(context, outer, grain_for(n * inner), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      if (inner == 1) {
        out[o] = find_in_row(x + o * n, n, extreme[o]);
      } else {
        find_in_columns(x + o * n * inner, extreme + o * inner, out + o * inner, n, inner);
      }
    }
  });
  return kOk;
}

// Integer sums and products wrap, and have no scale. Of equal extremes the first counts; NaN is an extreme of both
// kinds.
template <class T, ReduceOp op>
Status reduce(const Context& context, const AxisArgs& args) {
  if constexpr (op == kArgmax || op == kArgmin)
    return reduce_index<T, op>(context, args);
  else
    return reduce_values<T, op>(context, args);
}

// Floats add up in double, so that no error grows along the axis; integers wrap.
template <class T>
struct CumsumOf {
  using Type = double;
};
template <>
struct CumsumOf<int32_t> {
  using Type = uint32_t;
};

// Element after element along the axis.
template <class T>
Status cumsum(const Context& context, const AxisArgs& args) {
  using Sum = typename CumsumOf<T>::Type;
  constexpr int64_t kWidth = 128;
  const int64_t n = args.reduce, inner = args.inner;
  if (inner == 0 || n == 0) return kOk;
  const int64_t strips = ceil_div(inner, kWidth);
  for_chunks(context, args.outer * strips, grain_for(n * min_of(kWidth, inner)), [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t column = unit % strips * kWidth, width = min_of(kWidth, inner - column);
      const int64_t offset = unit / strips * n * inner + column;
      const T* x = static_cast<const T*>(args.x) + offset;
      T* out = static_cast<T*>(args.out) + offset;
      Sum sums[kWidth] = {};
      for (int64_t j = 0; j < n; ++j) {
        const int64_t line = (args.reverse ? n - 1 - j : j) * inner;
        for (int64_t i = 0; i < width; ++i) out[line + i] = static_cast<T>(sums[i] += static_cast<Sum>(x[line + i]));
      }
    }
  });
  return kOk;
}

}  // namespace
}  // namespace chainrule
