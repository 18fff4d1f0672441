// Test layer: the operands of one matmul, in a layout of choice, against pages that must not be touched.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <limits>
#include <string>

#include "kernel_test.h"

namespace chainrule::test {

// n elements that end where an inaccessible page begins, or begin where one ends. NaN to start with.
template <class T>
class Guarded {
 public:
  Guarded(size_t n, bool at_end) : n_(n) {
    const size_t page = 4096, used = (n * sizeof(T) + page - 1) / page * page;
    bytes_ = used + 2 * page;
    memory_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(memory_ + page, used, PROT_READ | PROT_WRITE);
    data_ = reinterpret_cast<T*>(memory_ + page + (at_end ? used - n * sizeof(T) : 0));
    std::fill_n(data_, n, std::numeric_limits<T>::quiet_NaN());
  }
  ~Guarded() { munmap(memory_, bytes_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  T* data() { return data_; }
  size_t size() const { return n_; }

 private:
  size_t n_, bytes_;
  char* memory_;
  T* data_;
};

enum Layout { kRows, kColumns, kPaddedRows, kPaddedColumns, kGaps, kReversed, kLayoutCount };

// Where the elements of a batch of matrices lie.
struct View {
  int64_t rs, cs, bs[6] = {}, offset, extent;
};

inline View make_view(Layout layout, int64_t rows, int64_t cols, int dims, const int64_t* batch, unsigned broadcast) {
  View v{};
  switch (layout) {
    case kRows:
      v.rs = cols, v.cs = 1;
      break;
    case kColumns:
      v.rs = 1, v.cs = rows;
      break;
    case kPaddedRows:
      v.rs = cols + 5, v.cs = 1;
      break;
    case kPaddedColumns:
      v.rs = 1, v.cs = rows + 3;
      break;
    case kGaps:
      v.rs = 3 * cols + 1, v.cs = 3;
      break;
    default:
      v.rs = -2 * cols, v.cs = -2;
      break;
  }
  int64_t low = std::min<int64_t>(0, (rows - 1) * v.rs + (cols - 1) * v.cs);
  int64_t high = std::max<int64_t>(0, (rows - 1) * v.rs + (cols - 1) * v.cs);
  if (rows == 0 || cols == 0) low = high = 0;
  for (int d = dims - 1; d >= 0; --d) {
    if (broadcast >> d & 1) continue;
    v.bs[d] = high - low + 1;
    high += (batch[d] - 1) * v.bs[d];
  }
  v.offset = -low;
  v.extent = high - low + 1;
  return v;
}

struct Case {
  int64_t m, n, k;
  int dims = 0;
  int64_t batch[6] = {};
  Layout a_layout = kRows, b_layout = kRows;
  unsigned a_broadcast = 0, b_broadcast = 0;
  double alpha = 1, beta = 0;
  int64_t c_gap = 0;
  bool at_end = true;
  bool bias = false;

  int64_t entries() const {
    int64_t product = 1;
    for (int d = 0; d < dims; ++d) product *= batch[d];
    return product;
  }
  std::string text() const {
    char buffer[176];
    snprintf(buffer, sizeof buffer, "%ld x (%ld, %ld, %ld) layouts %d %d alpha %g beta %g bias %d", long(entries()),
             long(m), long(n), long(k), a_layout, b_layout, alpha, beta, bias);
    return buffer;
  }
};

// Operands of a case, filled by `draw`, which sees logical positions: the values do not depend on the layout.
template <class T>
struct Problem {
  template <class Draw>
  Problem(const Case& c, const Draw& draw)
      : av(make_view(c.a_layout, c.m, c.k, c.dims, c.batch, c.a_broadcast)),
        bv(make_view(c.b_layout, c.k, c.n, c.dims, c.batch, c.b_broadcast)),
        cv(make_view(kRows, c.m, c.n + c.c_gap, c.dims, c.batch, 0)),
        a(av.extent, c.at_end),
        b(bv.extent, c.at_end),
        c(std::max<int64_t>(cv.extent - c.c_gap, 0), c.at_end),
        bias(c.n, c.at_end) {
    const auto fill = [&](Guarded<T>& to, const View& v, int64_t rows, int64_t cols, int operand) {
      for (int64_t e = 0; e < c.entries(); ++e) {
        for (int64_t i = 0; i < rows * cols; ++i) {
          to.data()[at(c, v, e) + i / cols * v.rs + i % cols * v.cs] = T(draw(operand, i));
        }
      }
    };
    fill(a, av, c.m, c.k, 0);
    fill(b, bv, c.k, c.n, 1);
    if (c.bias) {
      for (int64_t j = 0; j < c.n; ++j) bias.data()[j] = T(draw(2, j));
      args.bias = bias.data();
    } else if (c.beta != 0) {  // else it stays NaN
      fill(this->c, cv, c.m, c.n, 2);
    }
    args.a = a.data() + av.offset;
    args.b = b.data() + bv.offset;
    args.c = this->c.data();
    args.m = c.m, args.n = c.n, args.k = c.k;
    args.a_rs = av.rs, args.a_cs = av.cs, args.b_rs = bv.rs, args.b_cs = bv.cs, args.c_rs = cv.rs;
    args.batch_dims = c.dims;
    std::copy_n(c.batch, 6, args.batch);
    std::copy_n(av.bs, 6, args.a_bs);
    std::copy_n(bv.bs, 6, args.b_bs);
    std::copy_n(cv.bs, 6, args.c_bs);
    args.alpha = c.alpha, args.beta = c.beta;
  }
  static int64_t at(const Case& c, const View& v, int64_t entry) {
    int64_t offset = v.offset;
    for (int d = c.dims - 1; d >= 0; --d) {
      offset += entry % c.batch[d] * v.bs[d];
      entry /= c.batch[d];
    }
    return offset;
  }
  View av, bv, cv;
  Guarded<T> a, b, c, bias;
  GemmArgs args{};
};

// Integers: every sum is exact, so there is one right answer. Beyond the product nothing may be written.
template <class T>
void exact(const KernelTable& table, const Case& c, uint64_t seed, const Context& context) {
  const auto draw = [seed](int operand, int64_t position) {
    return static_cast<int>((position * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u + operand) >> 40) % 5 - 2;
  };
  Problem<T> problem(c, draw);
  const std::vector<T> before(problem.c.data(), problem.c.data() + problem.c.size());
  std::vector<int> a(c.m * c.k), b(c.k * c.n), row(c.n);
  for (size_t i = 0; i < a.size(); ++i) a[i] = draw(0, i);
  for (size_t i = 0; i < b.size(); ++i) b[i] = draw(1, i);
  const Status status = table.gemm[type_index<T>()](context, problem.args);
  CHECK(status == kOk, "%s: %s", table.isa, c.text().c_str());
  std::vector<T> expected = before;
  for (int64_t i = 0; i < c.m; ++i) {
    std::fill(row.begin(), row.end(), 0);
    for (int64_t p = 0; p < c.k; ++p) {
      for (int64_t j = 0; j < c.n; ++j) row[j] += a[i * c.k + p] * b[p * c.n + j];
    }
    for (int64_t j = 0; j < c.n; ++j) {
      const double value = c.alpha * row[j] + (c.beta == 0 ? 0 : c.beta * draw(2, c.bias ? j : i * c.n + j));
      for (int64_t e = 0; e < c.entries(); ++e)
        expected[problem.at(c, problem.cv, e) + i * problem.cv.rs + j] = T(value);
    }
  }
  const auto same = [](T x, T y) { return x == y || (x != x && y != y); };  // the gaps stay NaN; -0 is 0
  CHECK(std::equal(expected.begin(), expected.end(), problem.c.data(), same), "%s %zu bytes: %s", table.isa, sizeof(T),
        c.text().c_str());
}

}  // namespace chainrule::test
