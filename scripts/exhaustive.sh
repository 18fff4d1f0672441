#!/usr/bin/env bash
# Holds the unary ops to their error bounds at all 2^32 float32 inputs, on every instruction set: all of them, or those
# named. Minutes an op; no part of the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset core
cmake --build --preset core --target exhaustive
exec out/core/exhaustive "$@"
