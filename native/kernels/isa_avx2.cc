// The kernels compiled for one instruction set: this file's flags, one exported symbol.
#include "vec_avx2.h"
// The vector layer must come first.
#include "all.inc.h"

namespace chainrule {
extern constinit const KernelTable kTableAvx2 = make_table("avx2");
}  // namespace chainrule
