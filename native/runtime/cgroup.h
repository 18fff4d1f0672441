// Limits that a container sets on this process, from cgroup v1 and v2. Runtime layer, reads files only.
#pragma once
#include <cstdint>

namespace chainrule::cgroup {

// The tightest limit among this process's group and its ancestors; INT64_MAX when there is none.
// `root` is put before /proc and /sys, so that a test can bring its own.
int64_t cpus(const char* root = "");  // the CPU quota, rounded up to whole CPUs
int64_t memory_bytes(const char* root = "");

}  // namespace chainrule::cgroup
