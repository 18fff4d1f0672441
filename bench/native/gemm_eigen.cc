// Bench layer: Eigen, compiled for this machine as its users do.
#include <Eigen/Dense>

#include "batch.h"

namespace {

template <class T>
bench::Call prepare(const bench::Product& p) {
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using In = Eigen::Map<const Matrix>;
  return bench::over_batch(p, Eigen::setNbThreads, [=](int64_t entry) {
    const In a(p.a_of<T>(entry), p.a_t ? p.k : p.m, p.lda());
    const In b(p.b_of<T>(entry), p.b_t ? p.n : p.k, p.ldb());
    Eigen::Map<Matrix> c(p.c_of<T>(entry), p.m, p.n);
    if (p.a_t) {
      c.noalias() = a.transpose() * b;
    } else if (p.b_t) {
      c.noalias() = a * b.transpose();
    } else {
      c.noalias() = a * b;
    }
  });
}

}  // namespace

int main() {
  char about[128];
  snprintf(about, sizeof about, "Eigen %d.%d.%d %s", EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION,
           Eigen::SimdInstructionSetsInUse());
  return bench::serve_products(about, [](bench::Product& p) {
    if (p.precision == bench::kF32) return prepare<float>(p);
    if (p.precision == bench::kF64) return prepare<double>(p);
    return bench::Call();
  });
}
