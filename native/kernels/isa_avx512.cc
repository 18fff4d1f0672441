// The kernels compiled for one instruction set: this file's flags, one exported symbol.
#include "vec_avx512.h"
// The vector layer must come first.
#include "all.inc.h"

namespace chainrule {
extern constinit const KernelTable kTableAvx512 = make_table("avx512");
}  // namespace chainrule
