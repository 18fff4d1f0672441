// Bench layer: batches for libraries that have none: one entry after the other, or entries over OpenMP's threads with a
// serial product inside, which is the fastest that their users can do.
#pragma once
#include <omp.h>

#include "gemm.h"

namespace bench {

// set_threads: of the library. one(entry): a product.
template <class SetThreads, class One>
Call over_batch(const Product& p, SetThreads set_threads, One one) {
  if (p.batch == 1) {
    set_threads(p.threads);
    return [=] { one(0); };
  }
  set_threads(1);
  const int64_t batch = p.batch;
  if (p.threads == 1) {
    return [=] {
      for (int64_t entry = 0; entry < batch; ++entry) one(entry);
    };
  }
  const int threads = p.threads;
  return [=] {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t entry = 0; entry < batch; ++entry) one(entry);
  };
}

}  // namespace bench
