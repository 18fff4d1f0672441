// Finds this process's control groups and reads their limits. Runtime layer, no JavaScript types.
#include "cgroup.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>

namespace chainrule::cgroup {
namespace {

constexpr int64_t kNone = INT64_MAX;
constexpr size_t kMaxPath = 4096;

// How many of `values` stand at the beginning of the file; "max" and a missing file are none.
int read_numbers(const char* directory, const char* name, int64_t values[2]) {
  char path[kMaxPath + 64];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE* file = fopen(path, "re");
  if (!file) return 0;
  const int count = fscanf(file, "%" SCNd64 " %" SCNd64, &values[0], &values[1]);
  fclose(file);
  return std::max(count, 0);
}

int64_t cpus_of(const char* directory) {
  int64_t v[2], period[2];
  if (read_numbers(directory, "cpu.max", v) != 2) {  // v2: "quota period"
    if (!read_numbers(directory, "cpu.cfs_quota_us", v) || !read_numbers(directory, "cpu.cfs_period_us", period)) {
      return kNone;
    }
    v[1] = period[0];
  }
  return v[0] > 0 && v[1] > 0 ? (v[0] - 1) / v[1] + 1 : kNone;
}

int64_t memory_of(const char* directory) {
  int64_t v[2];
  const bool found = read_numbers(directory, "memory.max", v) || read_numbers(directory, "memory.limit_in_bytes", v);
  return found && v[0] > 0 ? v[0] : kNone;
}

// True when `list` ("cpu,cpuacct") has `name`.
bool has_controller(const char* list, const char* name) {
  const size_t length = strlen(name);
  for (const char* at = list; (at = strstr(at, name)); at += length) {
    if ((at == list || at[-1] == ',') && (at[length] == ',' || at[length] == '\0')) return true;
  }
  return false;
}

// The least `limit_of` over every directory from the process's own group up to the mount point. A container
// without a cgroup namespace sees a path of the host that is not mounted: only the mount point answers then.
int64_t tightest(const char* root, const char* controller, int64_t (*limit_of)(const char* directory)) {
  char path[kMaxPath], line[kMaxPath];
  snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
  FILE* file = fopen(path, "re");
  if (!file) return kNone;
  int64_t limit = kNone;
  while (fgets(line, sizeof line, file)) {  // "4:memory:/group" in v1, "0::/group" in v2
    line[strcspn(line, "\n")] = '\0';
    char* list = strchr(line, ':');
    char* group = list ? strchr(++list, ':') : nullptr;
    if (!group) continue;
    *group++ = '\0';
    if (*list && !has_controller(list, controller)) continue;
    const char* v1 = *list ? controller : "";
    const int mount = snprintf(path, sizeof path, "%s/sys/fs/cgroup/%s", root, v1);
    if (mount + strlen(group) >= sizeof path) continue;
    memcpy(path + mount, group, strlen(group) + 1);
    for (char* end; (end = strrchr(path + mount, '/')); *end = '\0') limit = std::min(limit, limit_of(path));
    limit = std::min(limit, limit_of(path));
  }
  fclose(file);
  return limit;
}

}  // namespace

int64_t cpus(const char* root) { return tightest(root, "cpu", cpus_of); }
int64_t memory_bytes(const char* root) { return tightest(root, "memory", memory_of); }

}  // namespace chainrule::cgroup
