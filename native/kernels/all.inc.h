// Every kernel, and the table that names them: the body of an isa_*.cc, after its vector layer.
// Kernel layer. Only <stddef.h>, <stdint.h>, intrinsics and our own headers below this line, all in an unnamed
// namespace: an inline function of a library header would be compiled with this file's flags, and the linker may then
// choose that copy for the whole addon.
#pragma once
#include "conv.inc.h"
#include "conv_weight.inc.h"
#include "convert.inc.h"
#include "cross_entropy.inc.h"
#include "elementwise.inc.h"
#include "gemm.inc.h"
#include "index.inc.h"
#include "norm.inc.h"
#include "optimizer.inc.h"
#include "random.inc.h"
#include "reduce.inc.h"
#include "softmax.inc.h"
#include "sort.inc.h"
#include "table.h"

namespace chainrule {
namespace {

template <class T>
constexpr void fill_any_type(KernelTable& t) {
  constexpr int type = kComputeType<T>;
  t.reduce[kSum][type] = reduce<T, kSum>;
  t.reduce[kProd][type] = reduce<T, kProd>;
  t.reduce[kAmax][type] = reduce<T, kAmax>;
  t.reduce[kAmin][type] = reduce<T, kAmin>;
  t.reduce[kArgmax][type] = reduce<T, kArgmax>;
  t.reduce[kArgmin][type] = reduce<T, kArgmin>;
  t.cumsum[type] = cumsum<T>;
  t.scatter_add[type] = scatter_add<T>;
  t.sort[type] = sort<T>;
  t.arange[type] = arange<T>;
  t.random[kBernoulli][type] = random_fill<T, kBernoulli>;
  t.random[kRandint][type] = random_fill<T, kRandint>;
}

template <class T>
constexpr void fill_float_type(KernelTable& t) {
  constexpr int type = kComputeType<T>;
  t.gemm[type] = gemm<T>;
  t.cross_entropy[type] = cross_entropy<T>;
  t.cross_entropy_vjp[type] = cross_entropy_vjp<T>;
  t.layer_norm[type] = layer_norm<T>;
  t.layer_norm_vjp[type] = layer_norm_vjp<T>;
  t.convolution[type] = convolution<T>;
  t.convolution_input[type] = convolution_input<T>;
  t.convolution_weight[type] = convolution_weight<T>;
  t.softmax[type] = softmax<T>;
  t.log_softmax[type] = log_softmax<T>;
  t.softmax_vjp[type] = softmax_vjp<T>;
  t.log_softmax_vjp[type] = log_softmax_vjp<T>;
  t.sgd[type] = sgd<T>;
  t.adam[type] = adam<T>;
  t.rmsprop[type] = rmsprop<T>;
  t.adagrad[type] = adagrad<T>;
  t.adadelta[type] = adadelta<T>;
  t.list_sum_squares[type] = list_sum_squares<T>;
  t.random[kUniform][type] = random_fill<T, kUniform>;
  t.random[kNormal][type] = random_fill<T, kNormal>;
}

constexpr KernelTable make_table(const char* isa) {
  KernelTable t{};
  t.isa = isa;
  t.vector_bytes = int{kVectorBytes};
  fill_elementwise(t);
  fill_convert(t);
  t.gather = gather;
  fill_any_type<float>(t);
  fill_any_type<double>(t);
  fill_any_type<int32_t>(t);
  fill_float_type<float>(t);
  fill_float_type<double>(t);
  return t;
}

}  // namespace
}  // namespace chainrule
