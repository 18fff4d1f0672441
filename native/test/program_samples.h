// Test layer: a program for every command, encoded by hand, with what it must compute; the slots they work on.
#pragma once
#include <math.h>

#include <functional>

#include "command_writer.h"

namespace chainrule::test {

// Slots of the machine that every check starts from.
enum : int32_t {
  kMatrix,   // float32 [2, 3]: 1 ... 6
  kRow,      // float32 [3]: 10 20 30
  kInts,     // int32 [4]: 3 -1 0 2
  kBools,    // bool [4]: 1 0 0 1
  kDouble,   // float64 [4]: 0.5 -1.5 2.5 -3.5
  kIndex,    // int32 [2]: 2 0
  kFar,      // int32 [2]: 1 3, too far for a matrix of 3 columns
  kMoments,  // float64 [2]: zeros
  kOut,      // undefined
  kSlots
};
constexpr int32_t kStale = 1 << 24 | kMatrix;

inline void prepare(Machine& machine) {
  machine.define<float>(kMatrix, {1, 2, 3, 4, 5, 6});
  machine.define<float>(kRow, {10, 20, 30});
  machine.define<int32_t>(kInts, {3, -1, 0, 2});
  machine.define<uint8_t>(kBools, {1, 0, 0, 1});
  machine.define<double>(kDouble, {0.5, -1.5, 2.5, -3.5});
  machine.define<int32_t>(kIndex, {2, 0});
  machine.define<int32_t>(kFar, {1, 3});
  machine.define<double>(kMoments, {0, 0});
}

inline const Operand kMatrixRows{kF32, kMatrix, {3, 1}}, kEachRow{kF32, kRow, {0, 1}}, kNewMatrix{kF32, kOut, {3, 1}};

// dtype, outer, reduce, inner of the matrix along its rows or columns.
inline Command along_columns(int32_t opcode) { return Command(opcode).add({kF32, 2, 3, 1}); }
inline Command along_rows(int32_t opcode) { return Command(opcode).add({kF32, 1, 2, 3}); }

struct Sample {
  const char* name;
  Command command;
  std::function<bool(const Machine&)> right;
};

template <class T>
std::function<bool(const Machine&)> holds(int32_t slot, std::vector<T> values) {
  return [=](const Machine& machine) { return machine.read<T>(slot) == values; };
}
template <class T>
std::function<bool(const Machine&)> near(int32_t slot, std::vector<T> values) {
  return [=](const Machine& machine) {
    const std::vector<T> got = machine.read<T>(slot);
    bool good = got.size() == values.size();
    for (size_t i = 0; good && i < got.size(); ++i) good = fabs(double(got[i] - values[i])) < 1e-6;
    return good;
  };
}

inline std::vector<Sample> map_samples() {
  return {
      {"rows plus a row", map(kMap_add, kF32, {2, 3}, kNewMatrix, {kMatrixRows, kEachRow}),
       holds<float>(kOut, {11, 22, 33, 14, 25, 36})},
      {"transposed", map(kMap_copy, kF32, {3, 2}, {kF32, kOut, {2, 1}}, {{kF32, kMatrix, {1, 3}}}),
       holds<float>(kOut, {1, 4, 2, 5, 3, 6})},
      {"backwards", map(kMap_copy, kF32, {2, 3}, kNewMatrix, {{kF32, kMatrix, {3, -1}, 2}}),
       holds<float>(kOut, {3, 2, 1, 6, 5, 4})},
      {"into a column", map(kMap_copy, kF32, {2}, {kF32, kMatrix, {3}, 1}, {{kF32, kRow, {2}}}),
       holds<float>(kMatrix, {1, 10, 3, 4, 30, 6})},
      {"a number in float64", map(kMap_mul, kF64, {4}, {kF64, kOut}, {{kF64, kDouble}, immediate(0.1)}),
       holds<double>(kOut, {0.5 * 0.1, -1.5 * 0.1, 2.5 * 0.1, -3.5 * 0.1})},
      {"a fill", map(kMap_copy, kI32, {3}, {kI32, kOut}, {immediate(7)}), holds<int32_t>(kOut, {7, 7, 7})},
      {"float64 to int32", map(kMap_copy, kF64, {4}, {kI32, kOut}, {{kF64, kDouble}}),
       holds<int32_t>(kOut, {0, -1, 2, -3})},
      {"float32 to bfloat16", map(kMap_copy, kF32, {3}, {kBF16, kOut}, {{kF32, kRow}}),
       holds<uint16_t>(kOut, {0x4120, 0x41a0, 0x41f0})},
      {"a comparison", map(kMap_gt, kI32, {4}, {kBool, kOut}, {{kI32, kInts}, immediate(0)}),
       holds<uint8_t>(kOut, {1, 0, 0, 1})},
      {"a selection", map(kMap_where, kF64, {4}, {kF64, kOut}, {{kBool, kBools}, {kF64, kDouble}, immediate(9)}),
       holds<double>(kOut, {0.5, 9, 9, -3.5})},
      {"two parameters", map(kMap_clamp, kI32, {4}, {kI32, kOut}, {{kI32, kInts}}, {0, 2}),
       holds<int32_t>(kOut, {2, 0, 0, 2})},
      {"a pullback", map(kMap_relu_vjp, kF64, {4}, {kF64, kOut}, {{kF64, kDouble, {0}, 2}, {kF64, kDouble}}),
       holds<double>(kOut, {2.5, 0, 2.5, 0})},
      {"nothing", map(kMap_add, kF32, {2, 0}, {kF32, kOut, {0, 1}}, {kMatrixRows, kEachRow}), holds<float>(kOut, {})},
      {"one element", map(kMap_neg, kF32, {}, {kF32, kOut, {}}, {{kF32, kRow, {}, 1}}), holds<float>(kOut, {-20})},
  };
}

inline std::vector<Sample> axis_samples() {
  return {
      {"sum", along_rows(kCommand_sum).number(1).slot(kOut).slot(kMatrix), holds<float>(kOut, {5, 7, 9})},
      {"mean", along_columns(kCommand_sum).number(1. / 3).slot(kOut).slot(kMatrix), holds<float>(kOut, {2, 5})},
      {"prod", along_columns(kCommand_prod).number(1).slot(kOut).slot(kMatrix), holds<float>(kOut, {6, 120})},
      {"amax", along_rows(kCommand_amax).number(1).slot(kOut).slot(kMatrix), holds<float>(kOut, {4, 5, 6})},
      {"amin", along_columns(kCommand_amin).number(1).slot(kOut).slot(kMatrix), holds<float>(kOut, {1, 4})},
      {"argmax", along_columns(kCommand_argmax).number(1).slot(kOut).slot(kMatrix), holds<int32_t>(kOut, {2, 2})},
      {"argmin", along_rows(kCommand_argmin).number(1).slot(kOut).slot(kMatrix), holds<int32_t>(kOut, {0, 0, 0})},
      {"sum of none", Command(kCommand_sum).add({kF32, 2, 0, 1}).number(1).slot(kOut).slot(kMatrix),
       holds<float>(kOut, {0, 0})},
      {"cumsum", along_columns(kCommand_cumsum).add({0}).slot(kOut).slot(kMatrix),
       holds<float>(kOut, {1, 3, 6, 4, 9, 15})},
      {"cumsum from the end", along_rows(kCommand_cumsum).add({1}).slot(kOut).slot(kMatrix),
       holds<float>(kOut, {5, 7, 9, 4, 5, 6})},
      {"softmax", along_columns(kCommand_softmax).slot(kOut).slot(kMatrix),
       near<float>(kOut, {0.0900306f, 0.2447285f, 0.6652410f, 0.0900306f, 0.2447285f, 0.6652410f})},
      {"log-softmax", along_columns(kCommand_logSoftmax).slot(kOut).slot(kMatrix),
       near<float>(kOut, {-2.4076059f, -1.4076059f, -0.4076059f, -2.4076059f, -1.4076059f, -0.4076059f})},
      // y = row: y * (g - sum(y * g)) with g = 1 2 3.
      {"softmax pullback", Command(kCommand_softmaxVjp).add({kF32, 1, 3, 1}).slot(kOut).slot(kMatrix).slot(kRow),
       holds<float>(kOut, {10 * (1 - 140), 20 * (2 - 140), 30 * (3 - 140)})},
      // y = 0.5 -1.5: g - exp(y) * sum(g), with g = y.
      {"log-softmax pullback",
       Command(kCommand_logSoftmaxVjp).add({kF64, 1, 2, 1}).slot(kOut).slot(kDouble).slot(kDouble),
       near<double>(kOut, {0.5 + exp(0.5), -1.5 + exp(-1.5)})},
  };
}

inline std::vector<Sample> matmul_samples() {
  const Gemm transposed{.m = 3, .n = 3, .k = 2, .a_rs = 1, .a_cs = 3, .b_rs = 3, .b_cs = 1, .c_rs = 3};
  // Two rows as a batch: outer products with one row for all.
  Gemm batched{.m = 3, .n = 3, .k = 1, .a_rs = 1, .a_cs = 0, .b_rs = 0, .b_cs = 1, .c_rs = 3};
  batched.batch = {{2, 3, 0, 9}};
  Gemm added{.m = 1, .n = 3, .k = 2, .a_rs = 0, .a_cs = 1, .b_rs = 3, .b_cs = 1, .c_rs = 3};
  added.alpha = 2, added.beta = -1;
  // [1 2 3; 4 5 6] [1; 2; 3], the one column's bias 10.
  const Gemm biased{
      .m = 2, .n = 1, .k = 3, .a_rs = 3, .a_cs = 1, .b_rs = 1, .b_cs = 0, .c_rs = 1, .beta = 1, .bias = kRow};
  return {
      {"transposed product", matmul(kF32, transposed, kOut, kMatrix, kMatrix),
       holds<float>(kOut, {17, 22, 27, 22, 29, 36, 27, 36, 45})},
      {"batch of products", matmul(kF32, batched, kOut, kMatrix, kRow),
       holds<float>(kOut, {10, 20, 30, 20, 40, 60, 30, 60, 90, 40, 80, 120, 50, 100, 150, 60, 120, 180})},
      {"alpha and beta", matmul(kF32, added, kRow, kMatrix, kMatrix), holds<float>(kRow, {8, 4, 0})},
      {"product with a bias", matmul(kF32, biased, kOut, kMatrix, kMatrix), holds<float>(kOut, {24, 42})},
  };
}

// The matrix as one image, with a window of one row and two columns: n, groups, channels in and out, then down and
// across: in, out, kernel, stride, padding, dilation.
inline std::vector<Sample> convolution_samples() {
  const auto windows = [](int32_t opcode) {
    return Command(opcode).add({kF32, 1, 1, 1, 1, 2, 2, 1, 1, 0, 1, 3, 2, 2, 1, 0, 1});
  };
  // Steps of two from a column of padding on, in two groups: one for each row.
  const Command strided = Command(kCommand_convolution).add({kF32, 1, 2, 1, 1, 1, 1, 1, 1, 0, 1, 3, 2, 2, 2, 1, 1});
  return {
      {"convolution", windows(kCommand_convolution).add({0}).slot(kOut).slot(kMatrix).slot(kRow),
       holds<float>(kOut, {50, 80, 140, 170})},
      {"convolution in groups, with a bias",
       Command(strided).add({1}).slot(kOut).slot(kMatrix).slot(kMatrix, 2).slot(kRow, 1),
       holds<float>(kOut, {20 + 4, 20 + 3 * 2 + 4 * 3, 30 + 6 * 4, 30 + 5 * 5 + 6 * 6})},
      {"gradient for the input of a convolution",
       windows(kCommand_convolutionInput).slot(kOut).slot(kMatrix, 1).slot(kRow),
       holds<float>(kOut, {20, 70, 60, 40, 130, 100})},
      {"gradient for the weight of a convolution",
       windows(kCommand_convolutionWeight).slot(kOut).slot(kMatrix).slot(kMatrix, 2),
       holds<float>(kOut, {3 * 1 + 4 * 2 + 5 * 4 + 6 * 5, 3 * 2 + 4 * 3 + 5 * 5 + 6 * 6})},
  };
}

inline std::vector<Sample> index_samples() {
  return {
      {"columns", Command(kCommand_gather).add({kF32, 0, 2, 3, 2, 1}).slot(kOut).slot(kMatrix).slot(kIndex),
       holds<float>(kOut, {3, 1, 6, 4})},
      {"an element of each row",
       Command(kCommand_gather).add({kF32, 1, 2, 3, 1, 1}).slot(kOut).slot(kMatrix).slot(kIndex),
       holds<float>(kOut, {3, 4})},
      {"bytes", Command(kCommand_gather).add({kBool, 0, 1, 4, 2, 1}).slot(kOut).slot(kBools).slot(kIndex),
       holds<uint8_t>(kOut, {0, 1})},
      {"scattered elements",
       Command(kCommand_scatterAdd).add({kF32, 1, 1, 3, 1, 2}).slot(kMatrix).slot(kRow).slot(kIndex),
       holds<float>(kMatrix, {1, 22, 3, 4, 15, 6})},
      {"scattered rows",
       Command(kCommand_scatterAdd).add({kF32, 0, 1, 3, 2, 1}).slot(kMatrix, 3).slot(kRow, 1).slot(kIndex),
       holds<float>(kMatrix, {1, 2, 3, 34, 5, 26})},
  };
}

inline std::vector<Sample> row_samples() {
  // Two rows of 1 2 3 in steps of one: classes 2 and 0; log-sum-exp is 3.4076059.
  const auto loss = [](int32_t opcode, int reduction) { return Command(opcode).add({kF32, 2, 3, -100, reduction}); };
  const auto norm = [](int32_t flags) { return Command(kCommand_layerNorm).add({kF64, flags, 2, 2}).number(0); };
  return {
      {"cross-entropy", loss(kCommand_crossEntropy, 2).slot(kOut).slot(kOut + 1).slot(kMatrix).slot(kIndex),
       near<float>(kOut, {(0.4076059f + 2.4076059f) / 2})},
      {"losses of rows", loss(kCommand_crossEntropy, 0).slot(kOut).slot(kOut + 1).slot(kMatrix).slot(kIndex),
       near<float>(kOut, {0.4076059f, 2.4076059f})},
      // One row of one class, x = 2, with the largest 2 and the sum 3: 10 (exp(0) / 3 - 1).
      {"cross-entropy pullback",
       Command(kCommand_crossEntropyVjp)
           .add({kF32, 1, 1, 2, 1})
           .slot(kOut)
           .slot(kRow)
           .slot(kMatrix, 1)
           .slot(kIndex, 1)
           .slot(kMatrix, 1),
       holds<float>(kOut, {10.f / 3 - 10})},
      {"layer norm", norm(0).slot(kOut).slot(kOut + 1).slot(kDouble), holds<double>(kOut, {1, -1, 1, -1})},
      {"layer norm pullback",
       Command(kCommand_layerNormVjp).add({kF64, 8, 2, 2}).slot(kOut).slot(kDouble).slot(kDouble).slot(kDouble),
       holds<double>(kOut, {3, -5})},
  };
}

inline std::vector<Sample> sort_samples() {
  const Command last = Command(kCommand_sort).add({kI32, 1, 4, 1, 2, 1}).slot(kOut).slot(kOut + 1).slot(kInts);
  return {
      {"sort", Command(kCommand_sort).add({kF64, 1, 4, 1, 4, 0}).slot(kOut).slot(kOut + 1).slot(kDouble),
       [](const Machine& machine) {
         return machine.read<double>(kOut) == std::vector<double>{-3.5, -1.5, 0.5, 2.5} &&
                machine.read<int32_t>(kOut + 1) == std::vector<int32_t>{3, 1, 0, 2};
       }},
      {"the largest of each column",
       Command(kCommand_sort).add({kF32, 1, 2, 3, 1, 1}).slot(kOut).slot(kOut + 1).slot(kMatrix),
       holds<float>(kOut, {4, 5, 6})},
      {"indices of the two largest", last, holds<int32_t>(kOut + 1, {0, 3})},
  };
}

inline std::vector<Sample> source_samples() {
  const auto within = [](float low, float high) {
    return [=](const Machine& machine) {
      const std::vector<float> values = machine.read<float>(kOut);
      bool good = values.size() == 6 && values[0] != values[1];
      for (const float v : values) good = good && v >= low && v < high;
      return good;
    };
  };
  const auto random = [](int32_t opcode, int32_t dtype, double a, double b) {
    return Command(opcode).add({dtype, 6, 1, 2, 3, 4}).number(a).number(b).slot(kOut);
  };
  return {
      {"allocate", Command(kCommand_allocate).add({kF64, 3}).slot(kOut),
       [](const Machine& machine) { return machine.read<double>(kOut).size() == 3; }},
      {"free", Command(kCommand_free).add({kRow}),
       [](const Machine& machine) { return machine.read<float>(kRow).empty(); }},
      {"arange", Command(kCommand_arange).add({kI32, 4}).number(5).number(-2).slot(kOut),
       holds<int32_t>(kOut, {5, 3, 1, -1})},
      {"uniform", random(kCommand_uniform, kF32, 2, 3), within(2, 3)},
      {"normal", random(kCommand_normal, kF32, 100, 1), within(94, 106)},
      {"bernoulli", random(kCommand_bernoulli, kI32, 1, 0), holds<int32_t>(kOut, {1, 1, 1, 1, 1, 1})},
      {"randint", random(kCommand_randint, kI32, -3, -2), holds<int32_t>(kOut, {-3, -3, -3, -3, -3, -3})},
  };
}

inline std::vector<Sample> list_samples() {
  // sgd: momentum 0.5 kept in the first row, set to the gradient; param -= 0.1 * momentum.
  Command sgd = Command(kCommand_sgd).add({kF32, 8}).number(0.1).number(0.5).number(0).number(0);
  sgd.add({1, 3}).slot(kMatrix).slot(kRow).slot(kMatrix, 3);
  // adam from zero moments takes a step of lr against the gradient's sign.
  Command adam = Command(kCommand_adam).add({kF64, 0}).number(0.25).number(0.9).number(0.999).number(0).number(0);
  adam.number(0.1).number(0.001).add({1, 1}).slot(kDouble).slot(kDouble, 1).slot(kMoments).slot(kMoments, 1);
  // rmsprop, centered: the variance 52 - 7.5^2 is negative and taken as 0; momentum 0.5 * 6 + 10.
  Command rmsprop = Command(kCommand_rmsprop).add({kF32, 4}).number(1).number(0.5).number(0.5).number(1).number(0);
  rmsprop.add({1, 1}).slot(kMatrix).slot(kRow).slot(kMatrix, 3).slot(kMatrix, 4).slot(kMatrix, 5);
  // adagrad from no sum: 0.5 + 1.5 / (1.5 + 0.5). adadelta: 0.5 + 0.5 * 1.5 * sqrt(4 / (1.5^2 + 4)).
  Command adagrad = Command(kCommand_adagrad).add({kF64, 0}).number(1).number(0.5).number(0);
  adagrad.add({1, 1}).slot(kDouble).slot(kDouble, 1).slot(kMoments);
  Command adadelta = Command(kCommand_adadelta).add({kF64, 0}).number(0.5).number(0).number(4).number(0);
  adadelta.add({1, 1}).slot(kDouble).slot(kDouble, 1).slot(kMoments).slot(kMoments, 1);
  return {
      {"sgd", sgd, near<float>(kMatrix, {0, 0, 0, 10, 20, 30})},
      {"sgd of two, without momentum",
       Command(kCommand_sgd)
           .add({kF32, 1})
           .number(1)
           .number(0)
           .number(0)
           .number(0)
           .add({2, 1})
           .slot(kMatrix)
           .slot(kRow)
           .add({2})
           .slot(kMatrix, 4)
           .slot(kRow, 1),
       holds<float>(kMatrix, {11, 2, 3, 4, 25, 36})},
      {"sgd, maximizing, of gradients clipped from a norm of sqrt(2.5) to half of it",
       Command(kCommand_sgd)
           .add({kF32, 3})
           .number(0.5 * (sqrt(2.5) + 1e-6))
           .slot(kDouble, 2)
           .number(1)
           .number(0)
           .number(0)
           .number(0)
           .add({1, 1})
           .slot(kMatrix)
           .slot(kRow),
       near<float>(kMatrix, {6, 2, 3, 4, 5, 6})},
      {"adam", adam, near<double>(kDouble, {0.75, -1.5, 2.5, -3.5})},
      {"rmsprop", rmsprop, near<float>(kMatrix, {-12, 2, 3, 52, 7.5, 13})},
      {"adagrad", adagrad, near<double>(kDouble, {1.25, -1.5, 2.5, -3.5})},
      {"adadelta", adadelta, near<double>(kDouble, {1.1, -1.5, 2.5, -3.5})},
      {"sum of squares",
       Command(kCommand_sumSquares).add({kF32}).slot(kDouble, 1).add({2, 6}).slot(kMatrix).add({1}).slot(kRow),
       holds<double>(kDouble, {0.5, 189.5, 2.5, -3.5})},
  };
}

inline std::vector<Sample> all_samples() {
  std::vector<Sample> all;
  for (auto samples : {map_samples, axis_samples, matmul_samples, convolution_samples, index_samples, row_samples,
                       sort_samples, source_samples, list_samples}) {
    for (Sample& sample : samples()) all.push_back(std::move(sample));
  }
  return all;
}

}  // namespace chainrule::test
