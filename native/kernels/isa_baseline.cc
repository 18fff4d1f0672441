// The kernels compiled for one instruction set: this file's flags, one exported symbol.
#include "vec_baseline.h"
// The vector layer must come first.
#include "all.inc.h"

namespace chainrule {
extern constinit const KernelTable kTableBaseline = make_table("baseline");
}  // namespace chainrule
