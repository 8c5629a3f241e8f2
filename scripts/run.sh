#!/bin/sh
# Sets the clone up, then runs one of its TypeScript entry points: run.sh FILE [ARGS...]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
sh scripts/bootstrap.sh
# The compile cache makes the second start of 300 modules a matter of 0.2 s.
export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE:-$root/.runtime/compile-cache}"
exec sh scripts/with-node.sh node "$@"
