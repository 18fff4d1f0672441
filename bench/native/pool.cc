// Bench layer: what it costs to hand work to the pool. A request is `threads chunks microseconds warmup seconds`: each
// chunk does nothing for so long.
#include "runtime/pool.h"

#include <string>

#include "serve.h"

namespace {

void wait(void* seconds, size_t) {
  const double end = bench::now() + *static_cast<double*>(seconds);
  while (bench::now() < end) {
  }
}

void respond(const char* line) {
  int threads = 1, chunks = 1;
  double microseconds = 0;
  bench::Sampling sampling;
  if (sscanf(line, "%d %d %lf %lf %lf", &threads, &chunks, &microseconds, &sampling.warmup, &sampling.seconds) != 5) {
    return bench::refuse("not a request");
  }
  chainrule::pool::set_threads(static_cast<size_t>(threads));
  double each = microseconds * 1e-6;
  bench::answer(bench::measure([&] { chainrule::pool::parallel(static_cast<size_t>(chunks), wait, &each); }, sampling));
}

}  // namespace

int main() { return bench::serve("the thread pool", respond); }
