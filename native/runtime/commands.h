// The decoders of the structured commands (ops.def): each reads its words, validates them, and calls the kernel.
// Layouts are written by lib/program/commands.ts, in the order they are read here. Runtime layer.
#pragma once
#include "program.h"

namespace chainrule {

using Kernels = const KernelTable&;
using Decoder = void(Reader&, Kernels, const Context&);

#define COMMAND(name, decoder) Decoder decoder;
#include "../kernels/ops.def"

inline void run(Reader& reader, Status status, const char* reason = "out of memory") {
  if (status != kOk) reader.fail(reason, status);
}

}  // namespace chainrule
