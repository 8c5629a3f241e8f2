#!/bin/sh
# Sets the clone up and runs every check and test that needs no special hardware: test.sh [vitest arguments]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
sh scripts/bootstrap.sh --with-browser
# Instant once they are built; where they cannot be, the tests that boot a machine say so and are skipped.
sh scripts/micro-image.sh || echo "no images of virtual machines: their tests are skipped" >&2
if [ $# -eq 0 ]; then
  sh scripts/check.sh
  set -- --coverage
fi
exec sh scripts/with-node.sh node node_modules/vitest/vitest.mjs run "$@"
