// Kernel layer: the loops around the kernels: a range in chunks for Context::parallel, a run of elements in vectors.
// Chunk boundaries come from shapes alone, never from the number of threads. Must not know any op. Needs a vec_*.h
// first.
#pragma once
#include "table.h"

namespace chainrule {
namespace {

// Elements of work below which handing over to another thread costs more than it saves (measured: 8 k).
constexpr int64_t kGrain = 8192;

constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How many units of `work` elements each make one chunk.
inline int64_t grain_for(int64_t work) { return max_of(1, kGrain / max_of(1, work)); }

// Calls fn(begin, end) for consecutive ranges of `grain` units that cover [0, n); a single range runs inline.
template <class Fn>
void for_chunks(const Context& context, int64_t n, int64_t grain, const Fn& fn) {
  if (n <= grain) {
    if (n > 0) fn(int64_t{0}, n);
    return;
  }
  struct Job {
    const Fn& fn;
    int64_t n, grain;
  } job{fn, n, grain};
  const auto run = [](void* arg, size_t chunk) {
    const Job& job = *static_cast<const Job*>(arg);
    const int64_t begin = static_cast<int64_t>(chunk) * job.grain;
    job.fn(begin, min_of(job.n, begin + job.grain));
  };
  context.parallel(context.self, static_cast<size_t>(ceil_div(n, grain)), run, &job);
}

// The numbers 0 ... n - 1 as template arguments.
template <size_t... I>
struct Indices {};
template <size_t n, size_t... I>
struct IndicesTo : IndicesTo<n - 1, n - 1, I...> {};
template <size_t... I>
struct IndicesTo<0, I...> {
  using type = Indices<I...>;
};
template <class T>
using LaneIndices = typename IndicesTo<kLanes<T>>::type;

template <class V, size_t... I>
inline Mask<V> lanes_below(size_t n, Indices<I...>) {
  return Mask<V>{I...} < static_cast<Element<Mask<V>>>(n);
}

// Where a vector lies in a run of elements: all its lanes, or the first `lanes` of them at the end of the run.
template <class T>
struct WholeVector {
  int64_t i;
  Vec<T> load(const T* p) const { return chainrule::load(p + i); }
  void store(T* p, Vec<T> v) const { chainrule::store(p + i, v); }
  Vec<T> inside(Vec<T> v, Vec<T>) const { return v; }
};
template <class T>
struct PartVector {
  int64_t i;
  size_t lanes;
  Vec<T> load(const T* p) const { return load_n(p + i, lanes); }
  void store(T* p, Vec<T> v) const { store_n(p + i, v, lanes); }
  // v in the lanes of the run, rest in the others.
  Vec<T> inside(Vec<T> v, Vec<T> rest) const { return select(lanes_below<Vec<T>>(lanes, LaneIndices<T>{}), v, rest); }
};

// Calls fn(at) for the vectors that cover [begin, end); at.load(p) and at.store(p, v) reach the elements there.
template <class T, class Fn>
inline void for_vectors(int64_t begin, int64_t end, const Fn& fn) {
  constexpr int64_t kStep = kLanes<T>;
  int64_t i = begin;
  for (; i + kStep <= end; i += kStep) fn(WholeVector<T>{i});
  if (i < end) fn(PartVector<T>{i, static_cast<size_t>(end - i)});
}

}  // namespace
}  // namespace chainrule
