// Test layer: convolution and its gradients on every instruction set. Integers must come out exactly, and floats with
// the same bits on all that fuse, in any order of chunks, for any number of threads, and for an image alone.
#include <string>

#include "gemm_problem.h"

namespace chainrule {
namespace {

using namespace test;
using Rng = std::mt19937_64;

enum Kind { kForward, kInput, kWeight, kKinds };

int64_t pick_of(Rng& rng, std::initializer_list<int64_t> values) { return values.begin()[rng() % values.size()]; }

struct Shape {
  int64_t n, groups, in, out;
  ConvDim y, x;
  int64_t inputs() const { return n * groups * in * y.in * x.in; }
  int64_t outputs() const { return n * groups * out * y.out * x.out; }
  int64_t weights() const { return groups * out * in * y.kernel * x.kernel; }
  int64_t results(Kind kind) const { return kind == kForward ? outputs() : kind == kInput ? inputs() : weights(); }
  std::string text(Kind kind) const {
    char text[200];
    snprintf(text, sizeof text,
             "kind %d: %ld x %ld groups of %ld -> %ld, %ld/%ld k%ld s%ld p%ld d%ld, %ld/%ld k%ld s%ld p%ld d%ld", kind,
             long(n), long(groups), long(in), long(out), long(y.in), long(y.out), long(y.kernel), long(y.stride),
             long(y.pad), long(y.dilation), long(x.in), long(x.out), long(x.kernel), long(x.stride), long(x.pad),
             long(x.dilation));
    return text;
  }
};

ConvDim dim(int64_t in, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation, int64_t after = 0) {
  return {in, (in + 2 * pad + after - (kernel - 1) * dilation - 1) / stride + 1, kernel, stride, pad, dilation};
}

template <class T>
struct Operands {
  template <class Draw>
  Operands(const Shape& s, const Draw& draw)
      : x(s.inputs(), true), w(s.weights(), true), y(s.outputs(), true), bias(s.groups * s.out, true) {
    int64_t at = 0;
    for (Guarded<T>* operand : {&x, &w, &y, &bias}) {
      for (size_t i = 0; i < operand->size(); ++i) operand->data()[i] = T(draw(at++));
    }
  }
  Guarded<T> x, w, y, bias;
};

template <class T>
ConvArgs args_of(const Shape& s, Kind kind, Operands<T>& o, bool bias, T* result) {
  ConvArgs args{};
  args.n = s.n, args.groups = s.groups, args.in_channels = s.in, args.out_channels = s.out, args.y = s.y, args.x = s.x;
  args.x_in = kind == kInput ? o.y.data() : o.x.data();
  args.weight = o.w.data();
  args.g = o.y.data();
  args.bias = bias && kind == kForward ? o.bias.data() : nullptr;
  args.result = result;
  return args;
}

template <class T>
ConvFn kernel_of(const KernelTable& table, Kind kind) {
  const ConvFn* const of[] = {table.convolution, table.convolution_input, table.convolution_weight};
  return of[kind][type_index<T>()];
}

// Every product of a weight with what it meets, added where the kind wants it.
template <class T>
std::vector<double> reference(const Shape& s, Kind kind, Operands<T>& o, bool bias) {
  std::vector<double> result(s.results(kind), 0);
  const int64_t outputs = s.groups * s.out;
  for (int64_t i = 0; i < s.n * outputs * s.y.out * s.x.out; ++i) {
    const int64_t ox = i % s.x.out, oy = i / s.x.out % s.y.out, o_ = i / s.x.out / s.y.out % outputs;
    const int64_t image = i / s.x.out / s.y.out / outputs, group = o_ / s.out;
    if (kind == kForward && bias) result[i] += o.bias.data()[o_];
    for (int64_t k = 0; k < s.in * s.y.kernel * s.x.kernel; ++k) {
      const int64_t kx = k % s.x.kernel, ky = k / s.x.kernel % s.y.kernel, c = k / s.x.kernel / s.y.kernel;
      const int64_t iy = oy * s.y.stride + ky * s.y.dilation - s.y.pad;
      const int64_t ix = ox * s.x.stride + kx * s.x.dilation - s.x.pad;
      if (iy < 0 || iy >= s.y.in || ix < 0 || ix >= s.x.in) continue;
      const int64_t at = ((image * s.groups + group) * s.in + c) * s.y.in * s.x.in + iy * s.x.in + ix;
      const int64_t w = o_ * s.in * s.y.kernel * s.x.kernel + k;
      if (kind == kForward) result[i] += double(o.x.data()[at]) * o.w.data()[w];
      if (kind == kInput) result[at] += double(o.y.data()[i]) * o.w.data()[w];
      if (kind == kWeight) result[w] += double(o.y.data()[i]) * o.x.data()[at];
    }
  }
  return result;
}

template <class T>
void exact(const KernelTable& table, const Shape& s, uint64_t seed) {
  const auto draw = [seed](int64_t at) {
    return static_cast<int>((at * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u) >> 40) % 5 - 2;
  };
  Operands<T> operands(s, draw);
  for (int kind = 0; kind < kKinds; ++kind) {
    const Kind which = static_cast<Kind>(kind);
    const std::vector<double> expected = reference(s, which, operands, seed % 2);
    Guarded<T> result(s.results(which), seed % 3 != 0);
    TestContext context(static_cast<TestContext::Order>(seed % 3));
    const Status status = kernel_of<T>(table, which)(context, args_of(s, which, operands, seed % 2, result.data()));
    CHECK(status == kOk, "%s", s.text(which).c_str());
    CHECK(std::equal(expected.begin(), expected.end(), result.data()), "%s %zu bytes %s", table.isa, sizeof(T),
          s.text(which).c_str());
  }
}

Shape random_shape(Rng& rng) {
  const auto random_dim = [&](int64_t longest) {
    const int64_t kernel = pick_of(rng, {1, 1, 2, 3, 3, 5}), dilation = pick_of(rng, {1, 1, 1, 2, 3});
    const int64_t pad = pick_of(rng, {0, 0, 1, 2, 7}), span = (kernel - 1) * dilation + 1;
    const int64_t least = std::max<int64_t>(1, span - 2 * pad);
    const int64_t in = least + static_cast<int64_t>(rng() % static_cast<uint64_t>(longest));
    return dim(in, kernel, pick_of(rng, {1, 1, 1, 2, 3, 7}), pad, dilation, pad > 0 ? int64_t(rng() % 2) : 0);
  };
  return {pick_of(rng, {1, 1, 2, 3}),
          pick_of(rng, {1, 1, 2, 5}),
          pick_of(rng, {1, 2, 3, 16}),
          pick_of(rng, {1, 2, 15, 33}),
          random_dim(9),
          random_dim(40)};
}

template <class T>
void exact_shapes(const KernelTable& table) {
  Rng rng(5);
  uint64_t seed = 0;
  for (int i = 0; i < 300; ++i) exact<T>(table, random_shape(rng), ++seed);
  const ConvDim line{1, 1, 1, 1, 0, 1};
  for (const Shape& s : {Shape{0, 1, 2, 3, dim(4, 3, 1, 1, 1), dim(4, 3, 1, 1, 1)},  // no images
                         Shape{2, 1, 0, 3, dim(4, 3, 1, 1, 1), dim(4, 3, 1, 1, 1)},  // no channels
                         Shape{2, 1, 3, 0, dim(4, 3, 1, 1, 1), dim(4, 3, 1, 1, 1)},
                         Shape{1, 1, 1, 1, dim(0, 1, 1, 2, 1), dim(3, 2, 1, 0, 1)},     // nothing but padding
                         Shape{3, 2, 7, 9, dim(12, 1, 1, 0, 1), dim(13, 1, 1, 0, 1)},   // products of matrices
                         Shape{7, 1, 3, 4, dim(9, 3, 1, 1, 1), dim(9, 3, 1, 1, 1)},     // chains of 4 images and of 3
                         Shape{9, 2, 5, 40, dim(7, 3, 1, 1, 1), dim(7, 3, 1, 1, 1)},    // images together
                         Shape{3, 1, 230, 64, dim(7, 3, 1, 1, 1), dim(5, 3, 1, 1, 1)},  // so, in several K blocks
                         Shape{1, 1, 130, 20, dim(5, 3, 1, 1, 1), dim(6, 3, 1, 1, 1)},  // several K blocks
                         Shape{1, 1, 3, 2, dim(5000, 5, 1, 2, 1), line},                // a line, several chains
                         Shape{2, 1, 8, 60, dim(90, 3, 1, 1, 1), dim(91, 3, 1, 1, 1)},  // several blocks of rows
                         Shape{1, 1, 2, 3, dim(7, 2, 9, 3, 4), dim(8, 3, 5, 6, 7)}}) {
    exact<T>(table, s, ++seed);
  }
}

// ---- floats: the same bits, however the work is divided
// ---------------------------------------------------------------
template <class T>
std::vector<T> result_of(const KernelTable& table, const Shape& s, Kind kind, const Context& context,
                         int64_t image = -1) {
  Operands<T> operands(s, [](int64_t at) {
    const uint64_t hash = static_cast<uint64_t>(at + 1) * 0x9E3779B97F4A7C15u;
    return static_cast<double>(static_cast<int64_t>(hash ^ hash >> 29)) * 0x1p-63;
  });
  Shape alone = s;
  if (image >= 0) alone.n = 1;
  std::vector<T> result(alone.results(kind));
  ConvArgs args = args_of(alone, kind, operands, true, result.data());
  if (image > 0)
    args.x_in = static_cast<const T*>(args.x_in) + image * (kind == kInput ? s.outputs() : s.inputs()) / s.n;
  CHECK(kernel_of<T>(table, kind)(context, args) == kOk, "%s", s.text(kind).c_str());
  return result;
}

template <class T>
bool same_bits(const T* a, const std::vector<T>& b) {
  return memcmp(a, b.data(), b.size() * sizeof(T)) == 0;
}

template <class T>
void same_bits_any_way() {
  const Shape shapes[] = {{3, 1, 64, 40, dim(28, 3, 1, 1, 1), dim(28, 3, 1, 1, 1)},
                          {2, 2, 24, 30, dim(29, 3, 2, 1, 1), dim(30, 3, 2, 1, 1)},
                          {2, 1, 300, 17, dim(7, 3, 1, 1, 1), dim(7, 3, 1, 1, 1)},
                          {29, 2, 35, 70, dim(7, 3, 1, 1, 1), dim(7, 3, 1, 1, 1)},
                          {2, 1, 100, 70, dim(14, 1, 1, 0, 1), dim(15, 1, 1, 0, 1)},
                          {128, 1, 5, 9, dim(6, 3, 1, 1, 1), dim(6, 3, 1, 1, 1)},
                          {2, 16, 1, 1, dim(40, 3, 1, 1, 1), dim(40, 3, 1, 1, 1)},
                          {2, 1, 32, 32, dim(1500, 5, 1, 2, 1), {1, 1, 1, 1, 0, 1}}};
  for (const Shape& s : shapes) {
    for (int k = 0; k < kKinds; ++k) {
      const Kind kind = static_cast<Kind>(k);
      std::vector<T> fused;
      for_each_isa([&](const KernelTable& table) {
        TestContext forward(TestContext::kForward);
        const std::vector<T> expected = result_of<T>(table, s, kind, forward);
        CHECK(forward.chunks() > 1, "in one piece: %s", s.text(kind).c_str());
        for (const size_t runners : {1, 3, 7}) {
          // One runner shares its scratch with nobody.
          TestContext other(runners == 1 ? TestContext::kReverse : TestContext::kThreads);
          Context context = other;
          context.runners = runners;
          CHECK(same_bits(expected.data(), result_of<T>(table, s, kind, context)), "%s, %zu runners: %s", table.isa,
                runners, s.text(kind).c_str());
        }
        if (kind != kWeight) {
          TestContext context(TestContext::kForward);
          for (int64_t image = 0; image < s.n; ++image) {
            const std::vector<T> alone = result_of<T>(table, s, kind, context, image);
            CHECK(same_bits(expected.data() + image * static_cast<int64_t>(alone.size()), alone), "%s, image %ld: %s",
                  table.isa, long(image), s.text(kind).c_str());
          }
        }
        if (strcmp(table.isa, "baseline") == 0) return;  // rounds products
        if (fused.empty()) fused = expected;
        CHECK(same_bits(expected.data(), fused), "%s: %s", table.isa, s.text(kind).c_str());
      });
    }
  }
}

template <class T>
void special(const KernelTable& table) {
  const Shape s{1, 1, 2, 3, dim(9, 3, 1, 1, 1), dim(9, 3, 1, 1, 1)};
  for (int k = 0; k < kKinds; ++k) {
    const Kind kind = static_cast<Kind>(k);
    Operands<T> operands(s, [](int64_t) { return 1; });
    std::vector<T> result(s.results(kind));
    TestContext poor(TestContext::kForward, true);
    CHECK(kernel_of<T>(table, kind)(poor, args_of(s, kind, operands, false, result.data())) == kOutOfMemory, "memory");
  }
  // An infinity reaches the windows that hold it, and nothing else.
  Operands<T> operands(s, [](int64_t) { return 1; });
  operands.x.data()[4 * 9 + 8] = std::numeric_limits<T>::infinity();
  std::vector<T> y(s.outputs());
  TestContext context(TestContext::kForward);
  kernel_of<T>(table, kForward)(context, args_of(s, kForward, operands, false, y.data()));
  bool placed = true;
  for (int64_t i = 0; i < s.outputs(); ++i) {
    const int64_t row = i / 9 % 9, col = i % 9;
    const bool meets = row >= 3 && row <= 5 && col >= 7;
    placed &= (y[i] - y[i] == 0) != meets;
  }
  CHECK(placed, "%s: an infinity at (4, 8)", table.isa);
}

template <class T>
void all() {
  for_each_isa([](const KernelTable& table) {
    exact_shapes<T>(table);
    special<T>(table);
  });
  same_bits_any_way<T>();
}

}  // namespace
}  // namespace chainrule

int main() {
  chainrule::all<float>();
  chainrule::all<double>();
  return chainrule::test::report();
}
