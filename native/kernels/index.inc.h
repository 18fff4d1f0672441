// Kernel layer: gather and scatter-add by int32 indices. Indices come from users: all of them are checked
// before the first element of `out` is written.
#pragma once
#include "loops.inc.h"

namespace chainrule {
namespace {

// Whether every index lies in [0, rows); if not, args.bad tells the first one that does not.
inline bool check_indices(const IndexArgs& args) {
  constexpr int64_t kBlock = 1024;
  const int64_t n = args.per_element ? args.outer * args.count * args.inner : args.count;
  // Seen as unsigned, a negative index is above every limit.
  const uint32_t limit = static_cast<uint32_t>(min_of(args.rows, int64_t{1} << 31));
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = min_of(n, begin + kBlock);
    uint32_t outside = 0;  // no early exit inside a block, so that the loop vectorises
    for (int64_t i = begin; i < end; ++i) outside |= static_cast<uint32_t>(args.index[i]) >= limit;
    if (!outside) continue;
    int64_t first = begin;
    while (static_cast<uint32_t>(args.index[first]) < limit) ++first;
    args.bad[0] = first;
    args.bad[1] = args.index[first];
    return false;
  }
  return true;
}

// Lines [begin, end) of the outer * count lines of `out`, each `inner` elements of kBytes.
template <size_t kBytes>
void gather_lines(const IndexArgs& args, int64_t begin, int64_t end) {
  const int64_t inner = args.inner;
  const size_t line_bytes = static_cast<size_t>(inner) * kBytes;
  for (int64_t line = begin; line < end;) {
    const int64_t o = line / args.count;
    const int64_t stop = min_of(end, (o + 1) * args.count);
    const char* x = static_cast<const char*>(args.x) + o * args.rows * inner * kBytes;
    char* out = static_cast<char*>(args.out) + line * line_bytes;
    const int32_t* index = args.index + (args.per_element ? line * inner : line - o * args.count);
    if (inner == 1) {
      for (; line < stop; ++line, out += kBytes) __builtin_memcpy(out, x + *index++ * kBytes, kBytes);
    } else if (args.per_element) {
      for (; line < stop; ++line) {
        for (int64_t i = 0; i < inner; ++i, out += kBytes) {
          __builtin_memcpy(out, x + (*index++ * inner + i) * kBytes, kBytes);
        }
      }
    } else {
      for (; line < stop; ++line, out += line_bytes) __builtin_memcpy(out, x + *index++ * line_bytes, line_bytes);
    }
  }
}

inline Status gather(const Context& context, const IndexArgs& args, size_t bytes) {
  if (!check_indices(args)) return kIndexOutOfRange;
  if (args.inner == 0) return kOk;
  const auto run = [&](auto lines) {
    for_chunks(context, args.outer * args.count, grain_for(args.inner),
               [&](int64_t begin, int64_t end) { lines(args, begin, end); });
    return kOk;
  };
  switch (bytes) {
    case 1:
      return run(gather_lines<1>);
    case 2:
      return run(gather_lines<2>);
    case 4:
      return run(gather_lines<4>);
    case 8:
      return run(gather_lines<8>);
    default:
      return kInvalidProgram;
  }
}

template <class T>
T wrapping_add(T a, T b) {
  if constexpr (T(0.5) != 0)
    return a + b;
  else
    return static_cast<T>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

// out[o, index, begin..end) += x[o, j, begin..end) for every j in turn.
template <class T>
void scatter_strip(const IndexArgs& args, int64_t o, int64_t begin, int64_t end) {
  const int64_t inner = args.inner;
  const T* x = static_cast<const T*>(args.x) + o * args.count * inner;
  T* out = static_cast<T*>(args.out) + o * args.rows * inner;
  const int32_t* index = args.index + (args.per_element ? o * args.count * inner : 0);
  for (int64_t j = 0; j < args.count; ++j, x += inner) {
    if (args.per_element || inner == 1) {
      const int32_t* row = index + j * (args.per_element ? inner : 1);
      for (int64_t i = begin; i < end; ++i) {
        T& sum = out[row[i] * inner + i];
        sum = wrapping_add(sum, x[i]);
      }
    } else {
      T* line = out + index[j] * inner;
      for_vectors<T>(begin, end, [&](auto at) { at.store(line, add(at.load(line), at.load(x))); });
    }
  }
}

template <class T>
Status scatter_add(const Context& context, const IndexArgs& args) {
  // Two threads never meet on an element: they share out the outer slices, and strips of the inner elements.
  constexpr int64_t kStrip = 128;
  if (!check_indices(args)) return kIndexOutOfRange;
  if (args.inner == 0 || args.count == 0) return kOk;
  const int64_t strips = ceil_div(args.inner, kStrip);
  const int64_t grain = grain_for(args.count * min_of(args.inner, kStrip));
  for_chunks(context, args.outer * strips, grain, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t column = unit % strips * kStrip;
      scatter_strip<T>(args, unit / strips, column, min_of(args.inner, column + kStrip));
    }
  });
  return kOk;
}

}  // namespace
}  // namespace chainrule
