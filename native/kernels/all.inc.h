// Every kernel, and the table that names them: the body of an isa_*.cc, after its vector layer.
// Kernel layer. Only <stddef.h>, <stdint.h>, intrinsics and our own headers below this line, all in an unnamed
// namespace: an inline function of a library header would be compiled with this file's flags, and the linker may then
// choose that copy for the whole addon.
#pragma once
#include "convert.inc.h"
#include "elementwise.inc.h"
#include "table.h"
#if __has_include("gemm.inc.h")
#include "gemm.inc.h"
#endif
#if __has_include("reduce.inc.h")
#include "reduce.inc.h"
#endif
#if __has_include("softmax.inc.h")
#include "softmax.inc.h"
#endif
#if __has_include("index.inc.h")
#include "index.inc.h"
#endif
#if __has_include("optimizer.inc.h")
#include "optimizer.inc.h"
#endif
#if __has_include("random.inc.h")
#include "random.inc.h"
#endif

namespace chainrule {
namespace {

template <class T>
constexpr void fill_any_type([[maybe_unused]] KernelTable& t) {
  [[maybe_unused]] constexpr int type = kComputeType<T>;
#if __has_include("reduce.inc.h")
  t.reduce[kSum][type] = reduce<T, kSum>;
  t.reduce[kProd][type] = reduce<T, kProd>;
  t.reduce[kAmax][type] = reduce<T, kAmax>;
  t.reduce[kAmin][type] = reduce<T, kAmin>;
  t.reduce[kArgmax][type] = reduce<T, kArgmax>;
  t.reduce[kArgmin][type] = reduce<T, kArgmin>;
  t.cumsum[type] = cumsum<T>;
#endif
#if __has_include("index.inc.h")
  t.scatter_add[type] = scatter_add<T>;
#endif
#if __has_include("random.inc.h")
  t.arange[type] = arange<T>;
  t.random[kBernoulli][type] = random_fill<T, kBernoulli>;
  t.random[kRandint][type] = random_fill<T, kRandint>;
#endif
}

template <class T>
constexpr void fill_float_type([[maybe_unused]] KernelTable& t) {
  [[maybe_unused]] constexpr int type = kComputeType<T>;
#if __has_include("gemm.inc.h")
  t.gemm[type] = gemm<T>;
#endif
#if __has_include("softmax.inc.h")
  t.softmax[type] = softmax<T>;
  t.log_softmax[type] = log_softmax<T>;
  t.softmax_vjp[type] = softmax_vjp<T>;
  t.log_softmax_vjp[type] = log_softmax_vjp<T>;
#endif
#if __has_include("optimizer.inc.h")
  t.sgd[type] = sgd<T>;
  t.adam[type] = adam<T>;
  t.list_sum_squares[type] = list_sum_squares<T>;
#endif
#if __has_include("random.inc.h")
  t.random[kUniform][type] = random_fill<T, kUniform>;
  t.random[kNormal][type] = random_fill<T, kNormal>;
#endif
}

constexpr KernelTable make_table(const char* isa) {
  KernelTable t{};
  t.isa = isa;
  t.vector_bytes = int{kVectorBytes};
  fill_elementwise(t);
  fill_convert(t);
#if __has_include("index.inc.h")
  t.gather = gather;
#endif
  fill_any_type<float>(t);
  fill_any_type<double>(t);
  fill_any_type<int32_t>(t);
  fill_float_type<float>(t);
  fill_float_type<double>(t);
  return t;
}

}  // namespace
}  // namespace chainrule
