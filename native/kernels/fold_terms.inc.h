// Kernel layer: folds of what is computed from the elements of a row, several at once, without storing it. The order
// depends on the length of the row alone: partial results two cache lines wide, over blocks of 64 such steps in turn,
// blocks as a binary tree, and at the end the columns by halves.
#pragma once
#include "reduce.inc.h"

namespace chainrule {
namespace {

constexpr int64_t kTermBytes = 2 * kLineBytes;
template <class T>
constexpr int64_t kTermLeaf = 64 * kTermBytes / static_cast<int64_t>(sizeof(T));

template <class T, int kFolds>
struct Terms {
  Vec<T> of[kFolds];
};
template <class T, int kFolds>
struct TermFold {
  static constexpr int kVectors = kTermBytes / sizeof(Vec<T>);
  Vec<T> of[kFolds][kVectors];
};

// Terms [begin, end), begin < end; term(at) gives the Terms of the elements at `at`.
template <class T, ReduceOp op, int kFolds, class Term>
TermFold<T, kFolds> fold_term_columns(int64_t begin, int64_t end, const Term& term) {
  using F = Fold<T, op>;
  using Columns = TermFold<T, kFolds>;
  if (end - begin > kTermLeaf<T>) {
    int64_t half = kTermLeaf<T>;
    while (2 * half < end - begin) half *= 2;
    Columns a = fold_term_columns<T, op, kFolds>(begin, begin + half, term);
    const Columns b = fold_term_columns<T, op, kFolds>(begin + half, end, term);
    for (int f = 0; f < kFolds; ++f) F::join_into(a.of[f], b.of[f], Columns::kVectors);
    return a;
  }
  Columns sums;
  for (auto& fold : sums.of) {
    for (Vec<T>& column : fold) column = set1(F::identity());
  }
  int64_t i = begin;
  for (constexpr int64_t kStep = kLanes<T>; i + kStep * Columns::kVectors <= end; i += kStep * Columns::kVectors) {
    for (int v = 0; v < Columns::kVectors; ++v) {
      const Terms<T, kFolds> terms = term(WholeVector<T>{i + v * kStep});
      for (int f = 0; f < kFolds; ++f) sums.of[f][v] = F::join(sums.of[f][v], terms.of[f]);
    }
  }
  for_vectors<T>(i, end, [&](auto at) {
    const Terms<T, kFolds> terms = term(at);
    for (int f = 0; f < kFolds; ++f) {
      Vec<T>& column = sums.of[f][(at.i - i) / static_cast<int64_t>(kLanes<T>)];
      column = F::join(column, at.inside(terms.of[f], set1(F::identity())));
    }
  });
  return sums;
}

// results[f] = the fold of the f-th terms of n elements; the identity for none.
template <class T, ReduceOp op, int kFolds, class Term>
void fold_terms(T (&results)[kFolds], int64_t n, const Term& term) {
  TermFold<T, kFolds> sums = fold_term_columns<T, op, kFolds>(0, n, term);
  for (int f = 0; f < kFolds; ++f) {
    for (int half = TermFold<T, kFolds>::kVectors / 2; half != 0; half /= 2) {
      Fold<T, op>::join_into(sums.of[f], sums.of[f] + half, half);
    }
    results[f] = Fold<T, op>::fold_lanes(sums.of[f][0]);
  }
}

template <class T, ReduceOp op, class Term>
T fold_term(int64_t n, const Term& term) {
  T result[1];
  fold_terms<T, op>(result, n, [&](auto at) { return Terms<T, 1>{{term(at)}}; });
  return result[0];
}

}  // namespace
}  // namespace chainrule
