// The contract between runtime and kernels: one table of function pointers per instruction set.
// Kernel layer: maths only. No allocation, no threads of its own, no Node-API, no C++ library headers.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace chainrule {

enum DType : int32_t { kF32, kF64, kI32, kU8, kBool, kBF16, kDTypeCount };
// A kernel computes in one of the first three; the others are converted on load and store.
constexpr int kComputeTypes = 3;
constexpr int kFloatTypes = 2;
constexpr size_t kDTypeBytes[kDTypeCount] = {4, 8, 4, 1, 1, 2};

enum Status : int32_t { kOk, kInvalidProgram, kOutOfMemory, kIndexOutOfRange };

// What a kernel may ask of the runtime. Chunk boundaries must depend on the arguments' shapes alone,
// never on the number of threads: that is what makes results the same bits for any thread count.
struct Context {
  void* self;
  // Runs fn(arg, chunk) for every chunk in [0, chunks), in any order, maybe on several threads.
  void (*parallel)(void* self, size_t chunks, void (*fn)(void* arg, size_t chunk), void* arg);
  // 64-byte aligned scratch memory, valid until the command ends; null when out of memory.
  void* (*scratch)(void* self, size_t bytes);
  // How many chunks may run at once, and the bytes of a core's second-level cache. They may decide how work is cut and
  // what is copied first, but nothing that a result depends on.
  size_t runners, l2_bytes;
};

// ---- elementwise --------------------------------------------------------------------------------
enum MapOp : int32_t {
#define UNARY(name, forward, pullback, saves) kMap_##name, kMap_##name##_vjp,
#define UNARY_INT(name, forward, pullback, saves) UNARY(name, forward, pullback, saves)
#define BINARY(name, forward) kMap_##name,
#define BINARY_INT(name, forward) kMap_##name,
#define COMPARE(name, forward) kMap_##name,
#define TERNARY(name, forward) kMap_##name,
#include "elementwise.def"
  kMapOpCount
};
enum Saves : int32_t { SAVES_NONE, SAVES_X, SAVES_Y };
constexpr int kMaxMapInputs = 3;
constexpr int kMaxMapParams = 2;

// Elementwise over contiguous blocks of the compute type: out[i] = f(in[0][i], ...), i < n.
// `params` are the op's scalar parameters (p0, p1). out may alias any in exactly.
using MapFn = void (*)(void* out, const void* const* in, size_t n, const double* params);
// n elements of dtype D at src, `stride` elements apart (may be 0 or negative) -> contiguous compute type.
using LoadFn = void (*)(void* dst, const void* src, ptrdiff_t stride, size_t n);
// n contiguous elements of the compute type -> dtype D at dst, `stride` elements apart.
using StoreFn = void (*)(void* dst, ptrdiff_t stride, const void* src, size_t n);

// ---- along one axis: x seen as [outer, reduce, inner], contiguous ---------------------------------
struct AxisArgs {
  const void* x;
  const void* g;  // pullbacks only
  void* out;
  int64_t outer, reduce, inner;
  double scale;  // sum: factor on the result (mean = sum with 1/n); otherwise unused
  bool reverse;  // cumsum only: sum from the end
};
enum ReduceOp : int32_t { kSum, kProd, kAmax, kAmin, kArgmax, kArgmin, kReduceOpCount };
using AxisFn = Status (*)(const Context&, const AxisArgs&);

// ---- cross-entropy of rows x [rows, classes] with int32 classes ----------------------------------------
enum LossReduction : int32_t { kLossEach, kLossSum, kLossMean, kLossReductionCount };  // mean: over rows that count
struct CrossEntropyArgs {
  const void* x;
  const int32_t* target;
  const void* g;  // pullback only: as the loss
  void* stats;    // [2, rows]: the largest x, and the sum of exp(x - largest); written forward, read by the pullback
  void* out;      // the losses, or their sum or mean; of the pullback the gradient of x
  int64_t rows, classes;
  int32_t ignored;  // a target of this value counts for nothing
  LossReduction reduction;
  int64_t* bad;  // out: {position, value} of the first target that is neither a class nor ignored
};
using CrossEntropyFn = Status (*)(const Context&, const CrossEntropyArgs&);

// ---- layer normalisation of rows x [rows, n]; weight and bias [n], or null --------------------------------
struct NormArgs {
  const void* x;
  const void* weight;
  const void* bias;
  void* y;
  void* stats;  // [2, rows]: the means, and the inverse deviations
  int64_t rows, n;
  double eps;
  bool streams;  // y goes past the cache
};
struct NormVjpArgs {
  const void* g;
  const void* x;
  const void* stats;
  const void* weight;
  void* gx;  // outputs that are not wanted: null
  void* gweight;
  void* gbias;
  int64_t rows, n;
  bool streams;  // gx goes past the cache
};
using NormFn = Status (*)(const Context&, const NormArgs&);
using NormVjpFn = Status (*)(const Context&, const NormVjpArgs&);

// ---- matmul: c = alpha * a @ b + beta * (bias or c), for every batch entry --------------------------
// Strides in elements, any sign pattern the view gave them; c rows are contiguous (c_cs == 1).
struct GemmArgs {
  const void* a;
  const void* b;
  void* c;
  const void* bias;  // null, or n elements, one for each column
  int64_t m, n, k;
  int64_t a_rs, a_cs, b_rs, b_cs, c_rs;
  int batch_dims;
  int64_t batch[6], a_bs[6], b_bs[6], c_bs[6];
  double alpha, beta;  // beta == 0: c is written, never read
};
using GemmFn = Status (*)(const Context&, const GemmArgs&);

// ---- convolution: cross-correlation of images in groups, contiguous --------------------------------------
// One dimension: of the input, of the output, and how windows lie over the input; outside of it are zeros.
struct ConvDim {
  int64_t in, out, kernel, stride, pad, dilation;
};
// x [n, groups, in_channels, y.in, x.in], weight [groups, out_channels, in_channels, y.kernel, x.kernel],
// y and g [n, groups, out_channels, y.out, x.out].
struct ConvArgs {
  const void* x_in;    // x; g in the gradient for the input
  const void* weight;  // unused in the gradient for the weight
  const void* g;       // the gradient for the weight only
  const void* bias;    // forward only: [groups, out_channels], or null
  void* result;
  int64_t n, groups, in_channels, out_channels;
  ConvDim y, x;
};
using ConvFn = Status (*)(const Context&, const ConvArgs&);

// ---- indexing ---------------------------------------------------------------------------------------
// x seen as [outer, rows, inner]; indices int32; `bytes` = element size.
//   rows:     out[o, j, i] = x[o, index[j], i]            (indexSelect, embedding)
//   elements: out[o, j, i] = x[o, index[o, j, i], i]      (gather)
// The add forms scatter: out[o, index, i] += x[o, j, i], in ascending j for every output element.
struct IndexArgs {
  const void* x;
  const int32_t* index;
  void* out;
  int64_t outer, rows, count, inner;
  bool per_element;
  int64_t* bad;  // out: {position, value} of the first index outside [0, rows)
};
using GatherFn = Status (*)(const Context&, const IndexArgs&, size_t bytes);
using ScatterAddFn = Status (*)(const Context&, const IndexArgs&);

// ---- sorting along one axis ---------------------------------------------------------------------------
// Of every row of x [outer, reduce, inner] the first `count` values in order, and where in the row each one stands.
// reduce fits in int32; the outputs overlap nothing.
struct SortArgs {
  const void* x;
  void* values;
  int32_t* indices;
  int64_t outer, reduce, inner, count;
  bool descending;
};
using SortFn = Status (*)(const Context&, const SortArgs&);

// ---- optimizers and norms over a list of tensors, contiguous, one dtype --------------------------------
struct ListItem {
  void* param;
  const void* grad;
  // SGD: momentum. Adam: exp_avg, exp_avg_sq, max_exp_avg_sq. RMSprop: square_avg, then grad_avg if centered, then
  // momentum if there is any. Adagrad: sum. Adadelta: square_avg, acc_delta. Unused: null.
  void* state[3];
  int64_t n;
};
// grad_scale: a factor on every gradient before anything else; negative to maximize.
struct SgdArgs {
  double grad_scale, lr, momentum, dampening, weight_decay;
  bool nesterov, first;  // first: the momentum buffer is set to the gradient
};
struct AdamArgs {
  double grad_scale, lr, beta1, beta2, eps, weight_decay, bias1, bias2;  // biasN = 1 - betaN^step
  bool decoupled, amsgrad;                                               // decoupled: AdamW
};
struct RmspropArgs {
  double grad_scale, lr, momentum, alpha, eps, weight_decay;
  bool centered;  // centered: divides by the deviation of the gradient, not by its root mean square
};
struct AdagradArgs {
  double grad_scale, lr, eps, weight_decay;  // lr: what is left of it in this step
};
struct AdadeltaArgs {
  double grad_scale, lr, rho, eps, weight_decay;
};
using SgdFn = Status (*)(const Context&, const ListItem*, size_t, const SgdArgs&);
using AdamFn = Status (*)(const Context&, const ListItem*, size_t, const AdamArgs&);
using RmspropFn = Status (*)(const Context&, const ListItem*, size_t, const RmspropArgs&);
using AdagradFn = Status (*)(const Context&, const ListItem*, size_t, const AdagradArgs&);
using AdadeltaFn = Status (*)(const Context&, const ListItem*, size_t, const AdadeltaArgs&);
// out[0] (double) += sum over all items of sum(|grad|^2), in a fixed order.
using ListSumSquaresFn = Status (*)(const Context&, const ListItem*, size_t, double* out);

// ---- random numbers: Philox 4x32-10; element i depends only on (key, counter + i / 4, i % 4) ------------
enum RandomOp : int32_t { kUniform, kNormal, kBernoulli, kRandint, kRandomOpCount };
struct RandomArgs {
  void* out;
  int64_t n;
  uint64_t key, counter;
  double a, b;  // uniform: [a, b). normal: mean a, deviation b. bernoulli: 1 with chance a, else 0. randint: [a, b)
};
using RandomFn = Status (*)(const Context&, const RandomArgs&);

// dst[r * pitch + c] = src[r + c * stride] for r < rows and c < columns: elements of 4 or 8 bytes, turned in registers.
using TransposeFn = void (*)(void* dst, int64_t pitch, const void* src, int64_t stride, int64_t rows, int64_t columns);

struct KernelTable {
  const char* isa;
  int vector_bytes;
  MapFn map[kMapOpCount][kComputeTypes];  // null: not defined for that type
  LoadFn load[kDTypeCount][kComputeTypes];
  StoreFn store[kComputeTypes][kDTypeCount];
  // Copies past the cache; the bytes are there for other threads after stream_fence.
  void (*stream)(void* dst, const void* src, size_t bytes);
  void (*stream_fence)();
  TransposeFn transpose[kComputeTypes];
  AxisFn reduce[kReduceOpCount][kComputeTypes];  // argmax, argmin write int32
  AxisFn cumsum[kComputeTypes];
  AxisFn softmax[kFloatTypes], log_softmax[kFloatTypes];
  AxisFn softmax_vjp[kFloatTypes], log_softmax_vjp[kFloatTypes];  // x holds y
  CrossEntropyFn cross_entropy[kFloatTypes], cross_entropy_vjp[kFloatTypes];
  NormFn layer_norm[kFloatTypes];
  NormVjpFn layer_norm_vjp[kFloatTypes];
  GemmFn gemm[kFloatTypes];
  ConvFn convolution[kFloatTypes], convolution_input[kFloatTypes], convolution_weight[kFloatTypes];
  GatherFn gather;
  ScatterAddFn scatter_add[kComputeTypes];
  SortFn sort[kComputeTypes];
  void (*arange[kComputeTypes])(void* out, int64_t begin, int64_t n, double start,
                                double step);  // out[i] = start + (begin + i) * step
  SgdFn sgd[kFloatTypes];
  AdamFn adam[kFloatTypes];
  RmspropFn rmsprop[kFloatTypes];
  AdagradFn adagrad[kFloatTypes];
  AdadeltaFn adadelta[kFloatTypes];
  ListSumSquaresFn list_sum_squares[kFloatTypes];
  RandomFn random[kRandomOpCount][kComputeTypes];
};

// One per isa_*.cc; select.cc picks. A table that this build or machine lacks is null.
struct IsaLevel {
  const char* name;  // baseline | avx2 | avx512 | neon
  const KernelTable* table;
};
// The levels this machine can run, weakest first; `*count` of them.
const IsaLevel* available_isas(size_t* count);

}  // namespace chainrule
