#!/bin/sh
# Types, format and lint, dead code: the three at once, each one's output only when it fails.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
[ -f .runtime/node-dir ] || sh scripts/bootstrap.sh
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
check() { # NAME COMMAND...
  name=$1
  shift
  if sh scripts/with-node.sh "$@" > "$out/$name" 2>&1; then echo ok > "$out/$name.ok"; fi
}
check types node_modules/.bin/tsc --noEmit &
check biome node_modules/.bin/biome check --error-on-warnings . &
check knip node_modules/.bin/knip --no-progress &
wait
status=0
for name in types biome knip; do
  if [ -f "$out/$name.ok" ]; then echo "check $name: ok"; else
    echo "check $name: FAILED"
    cat "$out/$name"
    status=1
  fi
done
exit $status
