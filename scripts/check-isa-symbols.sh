#!/usr/bin/env bash
# usage: check-isa-symbols.sh <cmake build directory>
# Every isa_*.o exports exactly one symbol, and none weak: the linker may pick a weak copy that was compiled for a newer
# machine for the whole addon, which then dies of an illegal instruction on an older one.
set -euo pipefail
shopt -s globstar nullglob

objects=("$1"/**/isa_*.o)
if ((${#objects[@]} == 0)); then
  echo "no isa_*.o under $1: build with CMake first" >&2
  exit 1
fi
status=0
for object in "${objects[@]}"; do
  symbols=$(nm --defined-only --extern-only "$object" | awk '{ print $2, $3 }')
  echo "${object##*/}: $(tr '\n' ' ' <<<"$symbols")"
  if [[ $(wc -l <<<"$symbols") != 1 || -z $symbols || $symbols == [WwVvu]\ * ]]; then
    echo "${object##*/}: exports more or less than one strong symbol" >&2
    status=1
  fi
done
exit "$status"
