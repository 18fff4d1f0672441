// Which instruction sets this machine can run, of those this build has.
// Kernel layer; compiled with the build's general flags, and no static constructor.
#include "table.h"

namespace chainrule {

extern const KernelTable kTableBaseline;
#if defined(CR_HAVE_X86)
extern const KernelTable kTableAvx2;
extern const KernelTable kTableAvx512;
#endif
#if defined(CR_HAVE_NEON)
extern const KernelTable kTableNeon;
#endif

const IsaLevel* available_isas(size_t* count) {
  // Weakest first, and each level's machines can run the ones before it: a machine's levels are a prefix.
  static constexpr IsaLevel kLevels[] = {
    {"baseline", &kTableBaseline},
#if defined(CR_HAVE_X86)
    {"avx2", &kTableAvx2},
    {"avx512", &kTableAvx512},
#endif
#if defined(CR_HAVE_NEON)
    {"neon", &kTableNeon},
#endif
  };
  size_t n = sizeof kLevels / sizeof kLevels[0];
#if defined(CR_HAVE_X86)
  // __builtin_cpu_supports asks the processor and, through XGETBV, whether the system saves the wide registers.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  n = avx512 ? 3 : avx2 ? 2 : 1;
#endif
  *count = n;
  return kLevels;
}

}  // namespace chainrule
