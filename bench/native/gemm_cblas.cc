// Bench layer: OpenBLAS, or BLIS with BENCH_BLIS, over the C interface that both have.
#include "batch.h"

extern "C" {
enum { kRowMajor = 101, kAsStored = 111, kTransposed = 112 };
void cblas_sgemm(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
void cblas_dgemm(int, int, int, int, int, int, double, const double*, int, const double*, int, double, double*, int);
#ifdef BENCH_BLIS
void bli_thread_set_num_threads(long);
int bli_arch_query_id();
const char* bli_arch_string(int);
const char* bli_info_get_version_str();
#else
void openblas_set_num_threads(int);
char* openblas_get_config();
char* openblas_get_corename();
#endif
}

namespace {

void set_threads(int threads) {
#ifdef BENCH_BLIS
  bli_thread_set_num_threads(threads);
#else
  openblas_set_num_threads(threads);
#endif
}

std::string about() {
#ifdef BENCH_BLIS
  return std::string("BLIS ") + bli_info_get_version_str() + " " + bli_arch_string(bli_arch_query_id());
#else
  const std::string config = openblas_get_config();
  return config.substr(0, config.find(' ', config.find(' ') + 1)) + " " + openblas_get_corename();
#endif
}

template <class T>
bench::Call prepare(const bench::Product& p) {
  const int a_form = p.a_t ? kTransposed : kAsStored, b_form = p.b_t ? kTransposed : kAsStored;
  const int m = static_cast<int>(p.m), n = static_cast<int>(p.n), k = static_cast<int>(p.k);
  const int lda = static_cast<int>(p.lda()), ldb = static_cast<int>(p.ldb());
  return bench::over_batch(p, set_threads, [=](int64_t entry) {
    if constexpr (sizeof(T) == 8) {
      cblas_dgemm(kRowMajor, a_form, b_form, m, n, k, 1, p.a_of<T>(entry), lda, p.b_of<T>(entry), ldb, 0,
                  p.c_of<T>(entry), n);
    } else {
      cblas_sgemm(kRowMajor, a_form, b_form, m, n, k, 1, p.a_of<T>(entry), lda, p.b_of<T>(entry), ldb, 0,
                  p.c_of<T>(entry), n);
    }
  });
}

}  // namespace

int main() {
  return bench::serve_products(about(), [](bench::Product& p) {
    if (p.precision == bench::kF32) return prepare<float>(p);
    if (p.precision == bench::kF64) return prepare<double>(p);
    return bench::Call();
  });
}
