// Bench layer: oneDNN: its BLAS-like dnnl_sgemm (argument `sgemm`), or its matmul primitive with plain layouts.
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "batch.h"

namespace {

using dnnl::memory;
using Type = memory::data_type;

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

// An operand as the primitive reads it, and how it gets there from float32 in memory.
struct Operand {
  Operand(Library& library, const void* values, const memory::dims& dims, const memory::dims& lie, Type type)
      : given({dims, Type::f32, lie}, library.engine, const_cast<void*>(values)),
        used(type == Type::f32 ? given : memory({dims, type, lie}, library.engine)) {
    if (type != Type::f32) convert = dnnl::reorder(given, used);
  }
  void load(dnnl::stream& stream) {
    if (convert) convert.execute(stream, given, used);
  }
  memory given, used;
  dnnl::reorder convert;
};

// Always three dimensions would cost the plain case its kernels: the batch is there only when there is one.
memory::dims without_batch(const bench::Product& p, memory::dims dims) {
  if (p.batch == 1) dims.erase(dims.begin());
  return dims;
}

bench::Call prepare_matmul(Library& library, const bench::Product& p) {
  if (p.precision == bench::kF64) return {};
  omp_set_num_threads(p.threads);
  const Type type = p.precision == bench::kF32 ? Type::f32 : Type::bf16;
  const auto operand = [&](const void* values, int64_t rows, int64_t columns, bool transposed, Type of) {
    return std::make_shared<Operand>(library, values, without_batch(p, {p.batch, rows, columns}),
                                     without_batch(p, strides(transposed, rows, columns)), of);
  };
  const auto a = operand(p.a, p.m, p.k, p.a_t, type), b = operand(p.b, p.k, p.n, p.b_t, type);
  const auto c = operand(p.c, p.m, p.n, false, Type::f32);
  const dnnl::matmul primitive(dnnl::matmul::primitive_desc(
      dnnl::matmul::desc(a->used.get_desc(), b->used.get_desc(), c->used.get_desc()), library.engine));
  const std::unordered_map<int, memory> arguments = {
      {DNNL_ARG_SRC, a->used}, {DNNL_ARG_WEIGHTS, b->used}, {DNNL_ARG_DST, c->used}};
  a->load(library.stream), b->load(library.stream);
  library.stream.wait();
  const bool converts = p.precision == bench::kMedium;
  return [&library, primitive, arguments, a, b, converts] {
    if (converts) a->load(library.stream), b->load(library.stream);
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
