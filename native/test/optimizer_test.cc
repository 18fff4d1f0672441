// Test layer: optimizer steps and the sum of squares over lists of tensors, on every instruction set of this machine,
// against the textbook formulas in long double.
#include <math.h>

#include <map>
#include <string>

#include "kernel_test.h"

using namespace chainrule;
using namespace chainrule::test;

namespace {

constexpr int64_t kSizes[] = {1, 0, 3, 16, 17, 31, 1000, 9001, 5, 300};
constexpr int kSteps = 5;
constexpr int kStates = 3;

// A list of tensors in the kernel's type, and the same numbers in long double.
template <class T>
struct List {
  std::vector<Buffer<T>> param, grad, state[kStates];
  std::vector<std::vector<long double>> exact_param, exact_state[kStates];

  explicit List(uint64_t seed) {
    std::mt19937_64 rng(seed);
    for (const int64_t n : kSizes) {
      param.emplace_back(n, true);
      grad.emplace_back(n);
      exact_param.emplace_back(n);
      for (int s = 0; s < kStates; ++s) {
        state[s].emplace_back(n);
        exact_state[s].emplace_back(n);
        for (int64_t i = 0; i < n; ++i) state[s].back()[i] = 0;
      }
      for (int64_t i = 0; i < n; ++i) exact_param.back()[i] = param.back()[i] = draw<T>(rng);
    }
  }
  void draw_gradients(uint64_t seed) {
    std::mt19937_64 rng(seed);
    for (Buffer<T>& g : grad) {
      for (size_t i = 0; i < g.size(); ++i) g[i] = draw<T>(rng);
    }
  }
  std::vector<ListItem> items() {
    std::vector<ListItem> list;
    for (size_t k = 0; k < param.size(); ++k) {
      list.push_back({param[k].data(),
                      grad[k].data(),
                      {state[0][k].data(), state[1][k].data(), state[2][k].data()},
                      static_cast<int64_t>(param[k].size())});
    }
    return list;
  }
  bool same_bits(const List& other) const {
    bool same = true;
    for (size_t k = 0; k < param.size(); ++k) {
      same &= param[k].same_bits(other.param[k]) && param[k].canaries_intact();
      for (int s = 0; s < kStates; ++s)
        same &= state[s][k].same_bits(other.state[s][k]) && state[s][k].canaries_intact();
    }
    return same;
  }
  uint64_t hash() const {
    uint64_t hash = 0xcbf29ce484222325;
    const auto add = [&](const Buffer<T>& buffer) {
      const auto* bytes = reinterpret_cast<const unsigned char*>(buffer.data());
      for (size_t i = 0; i < buffer.size() * sizeof(T); ++i) hash = (hash ^ bytes[i]) * 0x100000001b3;
    };
    for (size_t k = 0; k < param.size(); ++k) {
      add(param[k]);
      for (int s = 0; s < kStates; ++s) add(state[s][k]);
    }
    return hash;
  }
  // The largest error of parameters and states, relative to 1 + |exact|. NaN, once there, stays.
  long double error() const {
    long double worst = 0;
    const auto compare = [&](const Buffer<T>& got, const std::vector<long double>& want) {
      for (size_t i = 0; i < got.size(); ++i) {
        const long double e = fabsl(got[i] - want[i]) / (1 + fabsl(want[i]));
        if (worst == worst && !(e <= worst)) worst = e;
      }
    };
    for (size_t k = 0; k < param.size(); ++k) {
      compare(param[k], exact_param[k]);
      for (int s = 0; s < kStates; ++s) compare(state[s][k], exact_state[s][k]);
    }
    return worst;
  }
};

// Compares with what the first instruction set gave.
void check_bits_across(const char* isa, const std::string& what, uint64_t bits) {
  static std::map<std::string, uint64_t> first;
  CHECK(first.emplace(what, bits).first->second == bits, "%s %s: other bits than the first", isa, what.c_str());
}

void exact_sgd(long double& p, long double g, long double& buffer, const SgdArgs& a) {
  g *= a.grad_scale;
  g += a.weight_decay * p;
  if (a.momentum != 0) {
    buffer = a.first ? g : a.momentum * buffer + (1 - a.dampening) * g;
    g = a.nesterov ? g + a.momentum * buffer : buffer;
  }
  p -= a.lr * g;
}

void exact_adam(long double& p, long double g, long double& m, long double& v, long double& most, const AdamArgs& a) {
  g *= a.grad_scale;
  if (a.decoupled)
    p -= a.lr * a.weight_decay * p;
  else
    g += a.weight_decay * p;
  m = a.beta1 * m + (1 - a.beta1) * g;
  v = a.beta2 * v + (1 - a.beta2) * g * g;
  if (a.amsgrad) most = fmaxl(most, v);
  p -= a.lr / a.bias1 * m / (sqrtl(a.amsgrad ? most : v) / sqrtl(a.bias2) + a.eps);
}

void exact_rmsprop(long double& p, long double g, long double state[], const RmspropArgs& a) {
  g *= a.grad_scale;
  g += a.weight_decay * p;
  state[0] = a.alpha * state[0] + (1 - a.alpha) * g * g;
  long double square = state[0];
  if (a.centered) {
    state[1] = a.alpha * state[1] + (1 - a.alpha) * g;
    square = fmaxl(square - state[1] * state[1], 0);
  }
  long double step = g / (sqrtl(square) + a.eps);
  if (a.momentum != 0) {
    long double& velocity = state[a.centered ? 2 : 1];
    velocity = step = a.momentum * velocity + step;
  }
  p -= a.lr * step;
}

void exact_adagrad(long double& p, long double g, long double& sum, const AdagradArgs& a) {
  g *= a.grad_scale;
  g += a.weight_decay * p;
  sum += g * g;
  p -= a.lr * g / (sqrtl(sum) + a.eps);
}

void exact_adadelta(long double& p, long double g, long double& square, long double& deltas, const AdadeltaArgs& a) {
  g *= a.grad_scale;
  g += a.weight_decay * p;
  square = a.rho * square + (1 - a.rho) * g * g;
  const long double delta = sqrtl(deltas + a.eps) / sqrtl(square + a.eps) * g;
  deltas = a.rho * deltas + (1 - a.rho) * delta * delta;
  p -= a.lr * delta;
}

// Takes kSteps steps in two orders of chunks. `step(list, context, number)` sets the arguments of that step and runs
// the kernel; `exact` is the reference with those arguments.
template <class T, class Step, class Exact>
void check_optimizer(const char* isa, const char* name, int variant, const Step& step, const Exact& exact) {
  List<T> list(7), reversed(7);
  TestContext threads(TestContext::kThreads), reverse(TestContext::kReverse);
  for (int t = 1; t <= kSteps; ++t) {
    list.draw_gradients(100 + t);
    reversed.draw_gradients(100 + t);
    CHECK(step(list, threads, t) == kOk && step(reversed, reverse, t) == kOk, "%s %s", isa, name);
    for (size_t k = 0; k < list.param.size(); ++k) {
      for (size_t i = 0; i < list.param[k].size(); ++i) {
        exact(list.exact_param[k][i], list.grad[k][i], list.exact_state[0][k][i], list.exact_state[1][k][i],
              list.exact_state[2][k][i]);
      }
    }
  }
  const long double tolerance = sizeof(T) == 8 ? 1e-14L : 2e-6L;
  CHECK(list.error() < tolerance, "%s %s variant %d: error %Lg", isa, name, variant, list.error());
  CHECK(list.same_bits(reversed), "%s %s variant %d: order of chunks", isa, name, variant);
  CHECK(threads.chunks() > 1, "%s %s: nothing for a second thread", isa, name);
  // One rounding to each operation, none of them fused: every instruction set agrees.
  check_bits_across(isa, std::string(name) + std::to_string(variant * 10 + sizeof(T)), list.hash());
}

// The items of a list with the first `states` states; an optimizer has no others.
template <class T>
std::vector<ListItem> items_with(List<T>& list, int states) {
  std::vector<ListItem> items = list.items();
  for (ListItem& item : items) {
    for (int s = states; s < kStates; ++s) item.state[s] = nullptr;
  }
  return items;
}

template <class T>
void test_sgd(const KernelTable& table) {
  for (int variant = 0; variant < 32; ++variant) {
    SgdArgs args{};
    args.lr = 0.1;
    args.momentum = variant & 1 ? 0.9 : 0;
    args.dampening = variant & 2 ? 0.25 : 0;
    args.weight_decay = variant & 4 ? 0.01 : 0;
    args.nesterov = variant & 8;
    args.grad_scale = variant & 16 ? -0.3 : 1;
    const auto step = [&](List<T>& list, TestContext& context, int t) {
      const std::vector<ListItem> items = items_with(list, args.momentum != 0);
      args.first = t == 1;
      return table.sgd[type_index<T>()](context, items.data(), items.size(), args);
    };
    check_optimizer<T>(
        table.isa, "sgd", variant, step,
        [&](long double& p, T g, long double& buffer, long double&, long double&) { exact_sgd(p, g, buffer, args); });
  }
}

template <class T>
void test_adam(const KernelTable& table) {
  for (int variant = 0; variant < 16; ++variant) {
    AdamArgs args{};
    args.lr = 0.01, args.beta1 = 0.9, args.beta2 = 0.999, args.eps = 1e-8;
    args.weight_decay = variant & 1 ? 0.02 : 0;
    args.decoupled = variant & 2;
    args.amsgrad = variant & 4;
    args.grad_scale = variant & 8 ? -0.3 : 1;
    const auto step = [&](List<T>& list, TestContext& context, int t) {
      const std::vector<ListItem> items = items_with(list, args.amsgrad ? 3 : 2);
      args.bias1 = 1 - pow(args.beta1, t), args.bias2 = 1 - pow(args.beta2, t);
      return table.adam[type_index<T>()](context, items.data(), items.size(), args);
    };
    check_optimizer<T>(table.isa, "adam", variant, step,
                       [&](long double& p, T g, long double& m, long double& v, long double& most) {
                         exact_adam(p, g, m, v, most, args);
                       });
  }
}

template <class T>
void test_rmsprop(const KernelTable& table) {
  for (int variant = 0; variant < 16; ++variant) {
    RmspropArgs args{};
    args.lr = 0.01, args.alpha = 0.9, args.eps = 0.01;
    args.momentum = variant & 1 ? 0.8 : 0;
    args.weight_decay = variant & 2 ? 0.02 : 0;
    args.centered = variant & 4;
    args.grad_scale = variant & 8 ? -0.3 : 1;
    const auto step = [&](List<T>& list, TestContext& context, int) {
      const std::vector<ListItem> items = items_with(list, 1 + args.centered + (args.momentum != 0));
      return table.rmsprop[type_index<T>()](context, items.data(), items.size(), args);
    };
    check_optimizer<T>(table.isa, "rmsprop", variant, step,
                       [&](long double& p, T g, long double& a, long double& b, long double& c) {
                         long double state[] = {a, b, c};
                         exact_rmsprop(p, g, state, args);
                         a = state[0], b = state[1], c = state[2];
                       });
  }
}

template <class T>
void test_adagrad(const KernelTable& table) {
  for (int variant = 0; variant < 4; ++variant) {
    AdagradArgs args{};
    args.lr = 0.1, args.eps = 1e-10;
    args.weight_decay = variant & 1 ? 0.02 : 0;
    args.grad_scale = variant & 2 ? -0.3 : 1;
    const auto step = [&](List<T>& list, TestContext& context, int) {
      const std::vector<ListItem> items = items_with(list, 1);
      return table.adagrad[type_index<T>()](context, items.data(), items.size(), args);
    };
    check_optimizer<T>(
        table.isa, "adagrad", variant, step,
        [&](long double& p, T g, long double& sum, long double&, long double&) { exact_adagrad(p, g, sum, args); });
  }
}

template <class T>
void test_adadelta(const KernelTable& table) {
  for (int variant = 0; variant < 4; ++variant) {
    AdadeltaArgs args{};
    args.lr = 0.5, args.rho = 0.9, args.eps = 1e-6;
    args.weight_decay = variant & 1 ? 0.02 : 0;
    args.grad_scale = variant & 2 ? -0.3 : 1;
    const auto step = [&](List<T>& list, TestContext& context, int) {
      const std::vector<ListItem> items = items_with(list, 2);
      return table.adadelta[type_index<T>()](context, items.data(), items.size(), args);
    };
    check_optimizer<T>(table.isa, "adadelta", variant, step,
                       [&](long double& p, T g, long double& square, long double& deltas, long double&) {
                         exact_adadelta(p, g, square, deltas, args);
                       });
  }
}

template <class T>
void test_sum_squares(const KernelTable& table, double largest) {
  const ListSumSquaresFn sum_squares = table.list_sum_squares[type_index<T>()];
  List<T> list(9);
  list.draw_gradients(10);
  long double want = 0;
  for (Buffer<T>& g : list.grad) {
    for (size_t i = 0; i < g.size(); ++i) {
      if (i % 97 == 5) g[i] *= T(largest);
      want += static_cast<long double>(g[i]) * g[i];
    }
  }
  const std::vector<ListItem> items = list.items();
  double got[3] = {};
  const TestContext::Order orders[] = {TestContext::kForward, TestContext::kReverse, TestContext::kThreads};
  for (int k = 0; k < 3; ++k) {
    TestContext context(orders[k]);
    CHECK(sum_squares(context, items.data(), items.size(), &got[k]) == kOk, "%s", table.isa);
  }
  CHECK(fabsl(got[0] - want) < 1e-14L * want, "%s sum of squares: %g", table.isa, got[0]);
  CHECK(!memcmp(&got[0], &got[1], 8) && !memcmp(&got[0], &got[2], 8), "%s sum of squares: order", table.isa);

  // The squares of float32 are exact in double, fused or not; without FMA those of double are rounded.
  uint64_t bits = 0;
  memcpy(&bits, got, sizeof bits);
  const bool rounded = sizeof(T) == 8 && !strcmp(table.isa, "baseline");
  if (!rounded) check_bits_across(table.isa, "squares" + std::to_string(sizeof(T) + largest), bits);

  TestContext context(TestContext::kForward), poor(TestContext::kForward, true);
  CHECK(sum_squares(context, nullptr, 0, got) == kOk && !memcmp(&got[0], &bits, 8), "%s: empty list", table.isa);
  CHECK(
      sum_squares(context, items.data(), 1, got) == kOk && got[0] == got[2] + double(list.grad[0][0]) * list.grad[0][0],
      "%s: not added", table.isa);
  CHECK(sum_squares(poor, items.data(), items.size(), got) == kOutOfMemory, "%s", table.isa);
  list.grad[6][999] = NAN;
  CHECK(sum_squares(context, items.data(), items.size(), got) == kOk && got[0] != got[0], "%s: NaN", table.isa);
}

}  // namespace

int main() {
  for_each_isa([](const KernelTable& table) {
    test_sgd<float>(table);
    test_sgd<double>(table);
    test_adam<float>(table);
    test_adam<double>(table);
    test_rmsprop<float>(table);
    test_rmsprop<double>(table);
    test_adagrad<float>(table);
    test_adagrad<double>(table);
    test_adadelta<float>(table);
    test_adadelta<double>(table);
    test_sum_squares<float>(table, 1);
    test_sum_squares<float>(table, 1e25);  // its square is beyond float32
    test_sum_squares<double>(table, 1);
  });
  return report();
}
