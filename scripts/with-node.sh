#!/bin/sh
# Runs a command with the Node that bootstrap.sh chose first on PATH: with-node.sh COMMAND [ARGS...]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
PATH="$(cat "$root/.runtime/node-dir"):$PATH"
export PATH
exec "$@"
