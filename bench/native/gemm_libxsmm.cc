// Bench layer: libxsmm: one generated kernel a product, so small ones only: it does not block for caches. Threads are
// used over the batch alone. It has no kernel for NT: the transposed copy is in the time.
#include <libxsmm.h>

#include <memory>

#include "batch.h"

namespace {

constexpr int64_t kLargest = 256 * 1024;  // elements of a factor

bench::Call prepare(const bench::Product& p) {
  if (p.precision != bench::kF32 || p.m * p.k > kLargest || p.k * p.n > 2 * kLargest || p.m > 512) return {};
  if (p.batch == 1 && p.threads > 1) return {};
  // Its matrices are column-major: c' = b' a'.
  const int flags = LIBXSMM_GEMM_FLAG_BETA_0 | (p.a_t ? LIBXSMM_GEMM_FLAG_TRANS_B : LIBXSMM_GEMM_FLAG_NONE);
  const libxsmm_blasint m = p.m, n = p.n, k = p.k, lda = p.lda();
  const float alpha = 1, beta = 0;
  const libxsmm_smmfunction kernel = libxsmm_smmdispatch(n, m, k, &n, &lda, &n, &alpha, &beta, &flags, nullptr);
  if (!kernel) return {};
  const int64_t size = p.k * p.n;
  // One a thread.
  const auto copies = std::make_shared<bench::Buffer>(p.b_t ? size * p.threads : 1, sizeof(float), 1);
  return bench::over_batch(
      p, [](int) {},
      [=](int64_t entry) {
        const float* b = p.b_of<float>(entry);
        if (p.b_t) {
          float* copy = static_cast<float*>(copies->data()) + size * omp_get_thread_num();
          libxsmm_otrans(copy, b, sizeof(float), k, n, k, n);
          b = copy;
        }
        kernel(b, p.a_of<float>(entry), p.c_of<float>(entry));
      });
}

}  // namespace

int main() {
  libxsmm_init();
  return bench::serve_products(std::string("libxsmm ") + LIBXSMM_VERSION + " " + libxsmm_get_target_arch(), prepare);
}
