// Bench layer: oneDNN: its BLAS-like dnnl_sgemm (argument `sgemm`), or its matmul primitive with plain layouts.
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "batch.h"

namespace {

using dnnl::memory;

struct Library {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
};

bench::Call prepare_sgemm(const bench::Product& p) {
  if (p.precision != bench::kF32) return {};
  const char a_form = p.a_t ? 'T' : 'N', b_form = p.b_t ? 'T' : 'N';
  return bench::over_batch(p, omp_set_num_threads, [=](int64_t entry) {
    dnnl_sgemm(a_form, b_form, p.m, p.n, p.k, 1, p.a_of<float>(entry), p.lda(), p.b_of<float>(entry), p.ldb(), 0,
               p.c_of<float>(entry), p.n);
  });
}

memory::dims strides(bool transposed, int64_t rows, int64_t columns) {
  return transposed ? memory::dims{rows * columns, 1, rows} : memory::dims{rows * columns, columns, 1};
}

// Always three dimensions would cost the plain case its kernels: the batch is there only when there is one.
memory::dims without_batch(const bench::Product& p, memory::dims dims) {
  if (p.batch == 1) dims.erase(dims.begin());
  return dims;
}

bench::Call prepare_matmul(Library& library, const bench::Product& p) {
  if (p.precision != bench::kF32) return {};
  omp_set_num_threads(p.threads);
  const auto operand = [&](const void* values, int64_t rows, int64_t columns, bool transposed) {
    return memory({without_batch(p, {p.batch, rows, columns}), memory::data_type::f32,
                   without_batch(p, strides(transposed, rows, columns))},
                  library.engine, const_cast<void*>(values));
  };
  const memory a = operand(p.a, p.m, p.k, p.a_t), b = operand(p.b, p.k, p.n, p.b_t), c = operand(p.c, p.m, p.n, false);
  const dnnl::matmul primitive(
      dnnl::matmul::primitive_desc(dnnl::matmul::desc(a.get_desc(), b.get_desc(), c.get_desc()), library.engine));
  const std::unordered_map<int, memory> arguments = {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}};
  return [&library, primitive, arguments] {
    primitive.execute(library.stream, arguments);
    library.stream.wait();
  };
}

}  // namespace

int main(int argc, char** argv) {
  const bool sgemm = argc > 1 && strcmp(argv[1], "sgemm") == 0;
  const dnnl_version_t* v = dnnl_version();
  char about[64];
  snprintf(about, sizeof about, "oneDNN %d.%d.%d %s", v->major, v->minor, v->patch, sgemm ? "sgemm" : "matmul");
  Library library;
  return bench::serve_products(
      about, [&](bench::Product& p) { return sgemm ? prepare_sgemm(p) : prepare_matmul(library, p); });
}
