// Elementwise kernels: one loop for every row of elementwise.def and every compute type. Kernel layer.
// The tail of a block goes through the same vector code as its body, so an element's value does not depend on its
// place.
#pragma once
#include "convert.inc.h"
#include "gemm_pack.inc.h"
#include "math.inc.h"
#include "table.h"

namespace chainrule {
namespace {

// An expression that reads what its row does not save must not compile.
struct NotSaved {};
template <bool kSaved, class V>
inline auto saved(V v) {
  if constexpr (kSaved)
    return v;
  else
    return NotSaved{};
}

// One struct per expression: forward_name and, for the unary forms, pullback_name.
#define CR_NAMES                                          \
  [[maybe_unused]] const Vec<T> zero{}, one = set1(T(1)); \
  [[maybe_unused]] const auto c = [](double v) { return set1(T(v)); };
#define CR_ROW(row, inputs, names, expression)                                                     \
  struct row {                                                                                     \
    static constexpr int kInputs = inputs;                                                         \
    template <class T>                                                                             \
    static Vec<T> eval(const Vec<T>* in, [[maybe_unused]] Vec<T> p0, [[maybe_unused]] Vec<T> p1) { \
      CR_NAMES names return expression;                                                            \
    }                                                                                              \
  };
#define CR_X const Vec<T> x = in[0];
#define CR_XY const Vec<T> x = in[0], y = in[1];
#define CR_CXY const Vec<T> cond = in[0], x = in[1], y = in[2];
#define CR_G(saves)                                                 \
  [[maybe_unused]] const Vec<T> g = in[0];                          \
  [[maybe_unused]] const auto x = saved<(saves) == SAVES_X>(in[1]); \
  [[maybe_unused]] const auto y = saved<(saves) == SAVES_Y>(in[1]);

#define UNARY(name, forward, pullback, saves) \
  CR_ROW(forward_##name, 1, CR_X, forward)    \
  CR_ROW(pullback_##name, (saves) == SAVES_NONE ? 1 : 2, CR_G(saves), pullback)
#define UNARY_INT(name, forward, pullback, saves) UNARY(name, forward, pullback, saves)
#define BINARY(name, forward) CR_ROW(forward_##name, 2, CR_XY, forward)
#define BINARY_INT(name, forward) BINARY(name, forward)
#define COMPARE(name, forward) CR_ROW(forward_##name, 2, CR_XY, select(forward, one, zero))
#define TERNARY(name, forward) CR_ROW(forward_##name, 3, CR_CXY, forward)
#include "elementwise.def"

template <class T, class Row>
void map_kernel(void* out, const void* const* in, size_t n, const double* params) {
  const Vec<T> p0 = set1(convert<T>(params[0])), p1 = set1(convert<T>(params[1]));
  T* y = static_cast<T*>(out);
  Vec<T> x[kMaxMapInputs] = {};
  size_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) {
    for (int k = 0; k < Row::kInputs; ++k) x[k] = load(static_cast<const T*>(in[k]) + i);
    store(y + i, Row::template eval<T>(x, p0, p1));
  }
  if (i == n) return;
  for (int k = 0; k < Row::kInputs; ++k) x[k] = load_n(static_cast<const T*>(in[k]) + i, n - i);
  store_n(y + i, Row::template eval<T>(x, p0, p1), n - i);
}

template <class T>
void transpose(void* dst, int64_t pitch, const void* src, int64_t stride, int64_t rows, int64_t columns) {
  constexpr int64_t kStep = kLanes<T>;
  for (int64_t c = 0; c < columns; c += kStep) {
    const size_t lanes = static_cast<size_t>(min_of(kStep, columns - c));
    pack_vector(static_cast<T*>(dst) + c, pitch, static_cast<const T*>(src) + c * stride, 1, stride, rows, lanes,
                lanes);
  }
}

template <class Row, class... T>
constexpr void fill_row(MapFn (&slots)[kComputeTypes]) {
  ((slots[kComputeType<T>] = map_kernel<T, Row>), ...);
}

constexpr void fill_elementwise(KernelTable& t) {
  t.transpose[kF32] = transpose<float>;
  t.transpose[kF64] = transpose<double>;
  t.transpose[kI32] = transpose<int32_t>;
#define UNARY(name, forward, pullback, saves)                  \
  fill_row<forward_##name, float, double>(t.map[kMap_##name]); \
  fill_row<pullback_##name, float, double>(t.map[kMap_##name##_vjp]);
#define UNARY_INT(name, forward, pullback, saves) \
  UNARY(name, forward, pullback, saves)           \
  fill_row<forward_##name, int32_t>(t.map[kMap_##name]);
#define BINARY(name, forward) fill_row<forward_##name, float, double>(t.map[kMap_##name]);
#define BINARY_INT(name, forward) fill_row<forward_##name, float, double, int32_t>(t.map[kMap_##name]);
#define COMPARE(name, forward) BINARY_INT(name, forward)
#define TERNARY(name, forward) BINARY_INT(name, forward)
#include "elementwise.def"
}

}  // namespace
}  // namespace chainrule
