// Test layer: matmul on every instruction set. Integers must come out exactly, and floats with the same bits however
// the work is divided; operands lie against pages that must not be touched.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "kernel_test.h"
#include "runtime/pool.h"

namespace chainrule {
namespace {

using test::TestContext;
using Rng = std::mt19937_64;

int64_t pick(Rng& rng, int64_t low, int64_t high) { return low + static_cast<int64_t>(rng() % (high - low + 1)); }
int64_t pick_of(Rng& rng, std::initializer_list<int64_t> values) { return values.begin()[rng() % values.size()]; }

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

View make_view(Layout layout, int64_t rows, int64_t cols, int dims, const int64_t* batch, unsigned broadcast) {
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

  int64_t entries() const {
    int64_t product = 1;
    for (int d = 0; d < dims; ++d) product *= batch[d];
    return product;
  }
  std::string text() const {
    char buffer[160];
    snprintf(buffer, sizeof buffer, "%ld x (%ld, %ld, %ld) layouts %d %d alpha %g beta %g", long(entries()), long(m),
             long(n), long(k), a_layout, b_layout, alpha, beta);
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
        c(cv.extent - c.c_gap, c.at_end) {
    for (int64_t e = 0; e < c.entries(); ++e) {
      for (int64_t i = 0; i < c.m; ++i) {
        for (int64_t p = 0; p < c.k; ++p) a.data()[at(c, av, e) + i * av.rs + p * av.cs] = T(draw(0, i * c.k + p));
      }
      for (int64_t p = 0; p < c.k; ++p) {
        for (int64_t j = 0; j < c.n; ++j) b.data()[at(c, bv, e) + p * bv.rs + j * bv.cs] = T(draw(1, p * c.n + j));
      }
      if (c.beta == 0) continue;  // stays NaN
      for (int64_t i = 0; i < c.m; ++i) {
        for (int64_t j = 0; j < c.n; ++j) this->c.data()[at(c, cv, e) + i * cv.rs + j] = T(draw(2, i * c.n + j));
      }
    }
    args = {a.data() + av.offset,
            b.data() + bv.offset,
            this->c.data(),
            c.m,
            c.n,
            c.k,
            av.rs,
            av.cs,
            bv.rs,
            bv.cs,
            cv.rs,
            c.dims,
            {},
            {},
            {},
            {},
            c.alpha,
            c.beta};
    std::copy_n(c.batch, 6, args.batch);
    std::copy_n(av.bs, 6, args.a_bs);
    std::copy_n(bv.bs, 6, args.b_bs);
    std::copy_n(cv.bs, 6, args.c_bs);
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
  Guarded<T> a, b, c;
  GemmArgs args;
};

// ---- integers: every sum is exact, so there is one right answer ----------------------------------------------------

template <class T>
void exact(const KernelTable& table, const Case& c, uint64_t seed) {
  const auto draw = [seed](int operand, int64_t position) {
    return static_cast<int>((position * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u + operand) >> 40) % 5 - 2;
  };
  Problem<T> problem(c, draw);
  const std::vector<T> before(problem.c.data(), problem.c.data() + problem.c.size());
  std::vector<int> a(c.m * c.k), b(c.k * c.n), row(c.n);
  for (size_t i = 0; i < a.size(); ++i) a[i] = draw(0, i);
  for (size_t i = 0; i < b.size(); ++i) b[i] = draw(1, i);
  TestContext context(static_cast<TestContext::Order>(seed % 3));
  const Status status = table.gemm[test::type_index<T>()](context, problem.args);
  CHECK(status == kOk, "%s: %s", table.isa, c.text().c_str());
  std::vector<T> expected = before;
  for (int64_t i = 0; i < c.m; ++i) {
    std::fill(row.begin(), row.end(), 0);
    for (int64_t p = 0; p < c.k; ++p) {
      for (int64_t j = 0; j < c.n; ++j) row[j] += a[i * c.k + p] * b[p * c.n + j];
    }
    for (int64_t j = 0; j < c.n; ++j) {
      const double value = c.alpha * row[j] + (c.beta == 0 ? 0 : c.beta * draw(2, i * c.n + j));
      for (int64_t e = 0; e < c.entries(); ++e)
        expected[problem.at(c, problem.cv, e) + i * problem.cv.rs + j] = T(value);
    }
  }
  const auto same = [](T x, T y) { return x == y || (x != x && y != y); };  // the gaps stay NaN; -0 is 0
  const bool equal = std::equal(expected.begin(), expected.end(), problem.c.data(), same);
  CHECK(equal, "%s %zu bytes: %s", table.isa, sizeof(T), c.text().c_str());
}

template <class T>
void exact_shapes(const KernelTable& table) {
  uint64_t seed = 0;
  const auto run = [&](const Case& c) { exact<T>(table, c, ++seed); };
  Rng rng(3);
  const auto with_layouts = [&](Case c) {
    c.a_layout = static_cast<Layout>(rng() % kLayoutCount);
    c.b_layout = static_cast<Layout>(rng() % kLayoutCount);
    c.alpha = static_cast<double>(pick_of(rng, {2, 2, 4, -2, 1})) / 2;
    c.beta = static_cast<double>(pick_of(rng, {0, 0, 2, 1, -4})) / 2;
    c.c_gap = pick_of(rng, {0, 0, 1, 7});
    c.at_end = rng() % 4 != 0;
    return c;
  };
  for (int i = 0; i < 400; ++i) {  // small: every edge of a tile
    run(with_layouts({pick(rng, 1, 20), pick(rng, 1, 100), pick_of(rng, {0, 1, 2, 3, 7, 16, 17, 31, 64, 65, 130})}));
  }
  for (int i = 0; i < 60; ++i) {  // middle: slabs, packing, several chunks
    run(with_layouts({pick_of(rng, {1, 16, 47, 49, 97, 127, 131, 193, 257}),
                      pick_of(rng, {1, 10, 31, 97, 144, 337, 401}), pick_of(rng, {0, 1, 5, 61, 64, 67, 129, 200})}));
  }
  for (const Layout a : {kRows, kColumns, kGaps}) {  // large: several blocks in each direction
    for (const Layout b : {kRows, kColumns, kGaps}) {
      for (const Case& shape : {Case{2, 53, 2100}, Case{9, 1200, 1025}, Case{131, 50, 1031}, Case{1030, 101, 70},
                                Case{140, 1100, 66}, Case{200, 512, 130}, Case{137, 101, 0}}) {
        Case c = shape;
        c.a_layout = a;
        c.b_layout = b;
        c.beta = static_cast<double>(rng() % 2);
        run(c);
      }
    }
  }
  for (int i = 0; i < 120; ++i) {  // batches, some dimensions broadcast
    Case c = with_layouts(
        {pick_of(rng, {1, 2, 8, 13, 64, 130}), pick_of(rng, {1, 3, 8, 17, 60}), pick_of(rng, {0, 1, 8, 33, 70})});
    c.dims = static_cast<int>(pick(rng, 1, 3));
    for (int d = 0; d < c.dims; ++d) c.batch[d] = pick(rng, 1, 4);
    c.a_broadcast = static_cast<unsigned>(rng() % 8);
    c.b_broadcast = static_cast<unsigned>(rng() % 8);
    run(c);
  }
  run({3, 5, 4, 6, {2, 1, 3, 2, 1, 2}});
}

// ---- floats: the same bits, however the work is divided
// ---------------------------------------------------------------

template <class T>
std::vector<T> product(const KernelTable& table, const Case& c, const Context& context) {
  Problem<T> problem(c, [](int operand, int64_t position) {
    const uint64_t hash = (position * 3 + operand + 1) * 0x9E3779B97F4A7C15u;
    return static_cast<double>(static_cast<int64_t>(hash ^ hash >> 29)) * 0x1p-63;
  });
  const Status status = table.gemm[test::type_index<T>()](context, problem.args);
  CHECK(status == kOk, "%s: %s", table.isa, c.text().c_str());
  return std::vector<T>(problem.c.data(), problem.c.data() + problem.c.size());
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

Context pool_context(TestContext& scratch) {
  Context context = scratch;
  context.parallel = [](void*, size_t chunks, void (*fn)(void*, size_t), void* arg) {
    pool::parallel(chunks, fn, arg);
  };
  return context;
}

template <class T>
void same_bits_any_way(const KernelTable& table) {
  for (Case c : {Case{64, 64, 64}, Case{130, 210, 1100}, Case{33, 301, 200}, Case{12, 700, 1500}, Case{260, 100, 90}}) {
    c.alpha = 0.7;
    c.beta = 0.3;
    TestContext forward(TestContext::kForward);
    const std::vector<T> expected = product<T>(table, c, forward);
    CHECK(forward.chunks() > 1, "in one piece: %s", c.text().c_str());
    for (const size_t threads : {1, 2, 4}) {
      pool::set_threads(threads);
      TestContext scratch(TestContext::kForward);
      CHECK(same_bits(product<T>(table, c, pool_context(scratch)), expected), "%s, %zu threads: %s", table.isa, threads,
            c.text().c_str());
    }
    for (int layouts = 0; layouts < kLayoutCount * kLayoutCount; ++layouts) {
      c.a_layout = static_cast<Layout>(layouts % kLayoutCount);
      c.b_layout = static_cast<Layout>(layouts / kLayoutCount);
      TestContext reverse(TestContext::kReverse);
      CHECK(same_bits(product<T>(table, c, reverse), expected), "%s: %s", table.isa, c.text().c_str());
    }
  }
}

// A part of C, computed alone, has the bits that it has in the whole.
template <class T>
void parts_alone(const KernelTable& table) {
  const Case whole{140, 170, 1100};
  for (const Layout layout : {kRows, kColumns, kGaps}) {
    Case c = whole;
    c.a_layout = c.b_layout = layout;
    const auto draw = [](int operand, int64_t position) { return sin(static_cast<double>(position) * 1.7 + operand); };
    Problem<T> all(c, draw);
    TestContext context(TestContext::kForward);
    table.gemm[test::type_index<T>()](context, all.args);
    for (const auto& [i, j, m, n] : {std::array<int64_t, 4>{0, 0, 1, 170},
                                     {139, 0, 1, 170},
                                     {7, 0, 5, 170},
                                     {60, 3, 40, 1},
                                     {0, 169, 140, 1},
                                     {11, 13, 17, 19},
                                     {64, 48, 1, 1},
                                     {0, 40, 130, 60}}) {
      Guarded<T> part(m * n, true);
      GemmArgs args = all.args;
      args.m = m;
      args.n = n;
      args.a = static_cast<const T*>(args.a) + i * args.a_rs;
      args.b = static_cast<const T*>(args.b) + j * args.b_cs;
      args.c = part.data();
      args.c_rs = n;
      table.gemm[test::type_index<T>()](context, args);
      bool equal = true;
      for (int64_t row = 0; row < m; ++row) {
        equal &= !memcmp(part.data() + row * n, all.c.data() + (i + row) * whole.n + j, n * sizeof(T));
      }
      CHECK(equal, "%s layout %d: %ld x %ld at (%ld, %ld)", table.isa, layout, long(m), long(n), long(i), long(j));
    }
  }
}

template <class T>
void same_bits_on_fused_sets() {
  std::vector<T> expected;
  Case c{100, 130, 1300};
  c.alpha = 0.7;
  c.beta = 0.3;
  test::for_each_isa([&](const KernelTable& table) {
    if (std::string(table.isa) == "baseline") return;  // rounds products
    TestContext context(TestContext::kForward);
    const std::vector<T> result = product<T>(table, c, context);
    if (expected.empty()) expected = result;
    CHECK(same_bits(result, expected), "%s", table.isa);
  });
}

// ---- the rest
// ---------------------------------------------------------------------------------------------------------

template <class T>
void special(const KernelTable& table) {
  for (const Case& empty : {Case{0, 5, 5}, Case{5, 0, 5}, Case{5, 5, 5, 1, {0}}}) {
    TestContext context(TestContext::kForward);
    Case c = empty;
    CHECK(table.gemm[test::type_index<T>()](context, Problem<T>(c, [](int, int64_t) { return 1; }).args) == kOk,
          "empty");
  }
  TestContext small(TestContext::kForward);
  product<T>(table, {16, 16, 16}, small);
  CHECK(small.chunks() == 0, "16^3 is not worth another thread");

  Case packed{200, 150, 100};
  packed.b_layout = kColumns;
  Problem<T> problem(packed, [](int, int64_t) { return 1; });
  TestContext poor(TestContext::kForward, true);
  CHECK(table.gemm[test::type_index<T>()](poor, problem.args) == kOutOfMemory, "no scratch memory");

  // NaN and infinity go into the rows and columns where they belong, and nowhere else.
  const Case c{19, 53, 40};
  Problem<T> spread(c, [](int operand, int64_t position) { return operand + static_cast<double>(position % 7); });
  const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
  spread.a.data()[3 * c.k + 39] = nan;
  spread.b.data()[11 * c.n + 52] = infinity;
  TestContext context(TestContext::kForward);
  table.gemm[test::type_index<T>()](context, spread.args);
  bool placed = true;
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      const T x = spread.c.data()[i * c.n + j];
      const bool finite = x - x == 0;
      placed &= i == 3 ? x != x : j == 52 ? !finite : finite;
    }
  }
  CHECK(placed, "%s: NaN in row 3, infinity in column 52", table.isa);
}

template <class T>
void all() {
  test::for_each_isa([](const KernelTable& table) {
    exact_shapes<T>(table);
    same_bits_any_way<T>(table);
    parts_alone<T>(table);
    special<T>(table);
  });
  same_bits_on_fused_sets<T>();
}

}  // namespace
}  // namespace chainrule

int main() {
  chainrule::all<float>();
  chainrule::all<double>();
  return chainrule::test::report();
}
