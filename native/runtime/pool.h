// The thread pool: one per process, shared by every environment. Runtime layer, no JavaScript types.
#pragma once
#include <cstddef>

namespace chainrule::pool {

// Runs fn(arg, chunk) for chunk in [0, chunks). The caller takes part and can finish alone: it waits only
// for chunks that a worker has already claimed. If another thread is using the pool, runs inline.
void parallel(size_t chunks, void (*fn)(void* arg, size_t chunk), void* arg);

// Threads that compute, the caller included; at least 1. Default: CHAINRULE_THREADS, else the smaller of
// the affinity mask and the cgroup (v1 or v2) CPU quota, rounded up.
void set_threads(size_t n);
size_t threads();

// Of jobs that the calling thread starts: at most so many threads, itself included.
void limit_own_jobs(size_t n);
// How many threads a job of the calling thread can have.
size_t own_threads();

// That default; `root` as in cgroup.h.
size_t default_threads(const char* root = "");

}  // namespace chainrule::pool
