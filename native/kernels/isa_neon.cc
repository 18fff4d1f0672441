// The kernels compiled for one instruction set: this file's flags, one exported symbol.
#include "vec_neon.h"
// The vector layer must come first.
#include "all.inc.h"

namespace chainrule {
extern constinit const KernelTable kTableNeon = make_table("neon");
}  // namespace chainrule
