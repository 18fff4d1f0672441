// Kernel layer: stable sorts along one axis of [outer, reduce, inner]. NaN sorts as the largest, -0 as 0; equal values
// keep their order, in descending sorts too.
//
// Rows are sorted as pairs of a key and an index: unsigned keys in the order of the values, digit by digit from the
// lowest, so that the time does not depend on the order found. Digits that a row has in common cost no pass.
#pragma once
#include "loops.inc.h"

namespace chainrule {
namespace {

constexpr int64_t kSortChunks = 64;  // at most so many chunks, each with scratch of its own
constexpr int64_t kInsertion = 48;   // up to here counting digits costs more than inserting
// Leading bits of keys, by which most of a long row is left out where few of its values are wanted: a sign, the
// exponent or most of it.
constexpr int kCandidateBits = 11;

template <class T>
struct SortEntry {
  using Key = typename UnsignedOf<sizeof(T)>::Type;
  Key key;
  int32_t index;

  static constexpr int kBits = 8;  // of a digit: twice as many would not fit the first-level cache
  static constexpr int kDigits = sizeof(T) * 8 / kBits;
  int64_t digit(int d) const { return static_cast<int64_t>(key >> d * kBits & ((1 << kBits) - 1)); }
};

template <class T>
typename SortEntry<T>::Key sort_key(T x) {
  using Key = typename SortEntry<T>::Key;
  constexpr Key kSign = Key{1} << (sizeof(T) * 8 - 1);
  constexpr bool kReal = T(0.5) != 0;
  if (x != x) return static_cast<Key>(-1);
  if (x == 0) x = 0;
  Key bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return kReal && (bits & kSign) ? ~bits : bits ^ kSign;
}

template <class T>
void insertion_sort(SortEntry<T>* entries, int64_t n) {
  for (int64_t i = 1; i < n; ++i) {
    const SortEntry<T> entry = entries[i];
    int64_t at = i;
    for (; at > 0 && entries[at - 1].key > entry.key; --at) entries[at] = entries[at - 1];
    entries[at] = entry;
  }
}

// Sorts n entries, with room for as many more; returns in which of the two places they are then.
template <class T>
SortEntry<T>* sort_entries(SortEntry<T>* entries, SortEntry<T>* room, int64_t n) {
  constexpr int kDigits = SortEntry<T>::kDigits;
  if (n <= kInsertion) return insertion_sort(entries, n), entries;
  uint32_t starts[kDigits][1 << SortEntry<T>::kBits] = {};
  for (int64_t i = 0; i < n; ++i) {
    for (int d = 0; d < kDigits; ++d) ++starts[d][entries[i].digit(d)];
  }
  for (int d = 0; d < kDigits; ++d) {
    if (starts[d][entries[0].digit(d)] == n) continue;
    uint32_t next = 0;
    for (uint32_t& start : starts[d]) {
      const uint32_t count = start;
      start = next;
      next += count;
    }
    for (int64_t i = 0; i < n; ++i) room[starts[d][entries[i].digit(d)]++] = entries[i];
    SortEntry<T>* const sorted = room;
    room = entries;
    entries = sorted;
  }
  return entries;
}

// Moves those among which the first `count` of n entries are to the front, in the order they have; returns how many.
template <class T>
int64_t keep_candidates(SortEntry<T>* entries, int64_t n, int64_t count) {
  constexpr int kShift = sizeof(T) * 8 - kCandidateBits;
  uint32_t found[1 << kCandidateBits] = {};
  for (int64_t i = 0; i < n; ++i) ++found[entries[i].key >> kShift];
  uint32_t limit = 0;
  for (int64_t below = found[0]; below < count; below += found[limit]) ++limit;
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    const SortEntry<T> entry = entries[i];
    entries[kept] = entry;
    kept += entry.key >> kShift <= limit;
  }
  return kept;
}

// One row, its elements `inner` apart.
template <class T>
void sort_row(const SortArgs& args, int64_t row, SortEntry<T>* entries) {
  using Key = typename SortEntry<T>::Key;
  const int64_t n = args.reduce, inner = args.inner, column = row % inner;
  const T* x = static_cast<const T*>(args.x) + row / inner * n * inner + column;
  const int64_t out = row / inner * args.count * inner + column;
  const Key turn = args.descending ? static_cast<Key>(-1) : 0;
  for (int64_t i = 0; i < n; ++i) entries[i] = {sort_key(x[i * inner]) ^ turn, static_cast<int32_t>(i)};
  const bool few = n >= 1 << kCandidateBits && args.count < n / 4;
  const int64_t candidates = few ? keep_candidates(entries, n, args.count) : n;
  entries = sort_entries(entries, entries + n, candidates);
  T* values = static_cast<T*>(args.values) + out;
  int32_t* indices = args.indices + out;
  for (int64_t i = 0; i < args.count; ++i) {
    values[i * inner] = x[entries[i].index * inner];
    indices[i * inner] = entries[i].index;
  }
}

template <class T>
Status sort(const Context& context, const SortArgs& args) {
  using Entry = SortEntry<T>;
  const int64_t rows = args.outer * args.inner;
  if (rows == 0 || args.count == 0) return kOk;
  const int64_t grain = max_of(grain_for(args.reduce), ceil_div(rows, kSortChunks));
  const int64_t room = 2 * args.reduce;  // of a chunk
  void* scratch = context.scratch(context.self, static_cast<size_t>(ceil_div(rows, grain) * room) * sizeof(Entry));
  if (!scratch) return kOutOfMemory;
  for_chunks(context, rows, grain, [&](int64_t begin, int64_t end) {
    Entry* entries = static_cast<Entry*>(scratch) + begin / grain * room;
    for (int64_t row = begin; row < end; ++row) sort_row<T>(args, row, entries);
  });
  return kOk;
}

}  // namespace
}  // namespace chainrule
