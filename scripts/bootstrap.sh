#!/bin/sh
# Makes a fresh clone ready: Node 24, the npm packages of the lock file, the system's sandbox tools.
# Idempotent and quiet when there is nothing to do. Needs: any Node >= 20, npm, git.
# Sets nothing outside this directory, except Debian packages when it runs as root with apt at hand.
set -eu
cd "$(dirname "$0")/.."
ROOT=$(pwd)
NODE_MAJOR=24
NODE_PIN=24.21.0
say() { printf '%s\n' "$*" >&2; }

arch() {
  case "$(uname -m)" in
    x86_64 | amd64) echo x64 ;;
    aarch64 | arm64) echo arm64 ;;
    *) uname -m ;;
  esac
}
platform() { uname -s | tr '[:upper:]' '[:lower:]'; }

# 1. Node 24: the machine's own if it is that, else the binary inside the npm package of its platform
#    (the plain `node` package fetches it by an install script, which npm may block).
RUNTIME="$ROOT/.runtime/node"
machine_major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
if [ "$machine_major" = "$NODE_MAJOR" ] && [ -z "${CDS_PINNED_NODE:-}" ]; then
  NODE_DIR=$(dirname "$(node -p 'process.execPath')")
else
  PACKAGE="node-$(platform)-$(arch)"
  NODE_DIR="$RUNTIME/node_modules/$PACKAGE/bin"
  if [ ! -x "$NODE_DIR/node" ] || [ "$("$NODE_DIR/node" -v)" != "v$NODE_PIN" ]; then
    say "setting up Node $NODE_PIN ..."
    mkdir -p "$RUNTIME"
    [ -f "$RUNTIME/package.json" ] || printf '{"private":true}\n' > "$RUNTIME/package.json"
    npm install --prefix "$RUNTIME" --no-audit --no-fund --loglevel=error --ignore-scripts "$PACKAGE@$NODE_PIN" >&2
  fi
fi
printf '%s\n' "$NODE_DIR" > "$ROOT/.runtime-node.tmp"
mkdir -p "$ROOT/.runtime" && mv "$ROOT/.runtime-node.tmp" "$ROOT/.runtime/node-dir"
PATH="$NODE_DIR:$PATH"
export PATH

# 2. npm packages. npm itself runs under Node 24 here: under Node 20 it would silently leave out
#    optional packages whose `engines` ask for more. Skipped while the lock file is unchanged.
stamp="$ROOT/node_modules/.bootstrap-stamp"
want=$(cksum < package-lock.json)-$(node -v)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
  say "installing packages ..."
  NPM_CLI=$(command -v npm)
  NPM_CLI=$(node -p 'require("fs").realpathSync(process.argv[1])' "$NPM_CLI")
  # Not `npm ci`: it refuses a lock file in which a platform's optional package is missing, as a registry that
  # mirrors only a part makes it. The versions are those of the lock file either way; nothing is saved.
  node "$NPM_CLI" install --no-save --no-audit --no-fund --loglevel=error --ignore-scripts >&2
  printf '%s' "$want" > "$stamp"
fi

# 3. System packages: bubblewrap (the sandbox), socat (its bridge), ripgrep (the agents' search), git.
missing=''
have() { command -v "$1" >/dev/null 2>&1; }
have bwrap || missing="$missing bubblewrap"
have socat || missing="$missing socat"
have rg || missing="$missing ripgrep"
have git || missing="$missing git"
if [ "${1:-}" = "--with-browser" ]; then
  have chromium || have chromium-browser || have google-chrome || missing="$missing chromium"
fi
if [ -n "$missing" ]; then
  if [ "$(id -u)" = 0 ] && have apt-get; then
    say "installing system packages:$missing ..."
    log="$ROOT/.runtime/apt.log"
    # shellcheck disable=SC2086  # a list of words on purpose
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } > "$log" 2>&1; then
      say "could not install:$missing (see $log)"
    fi
  else
    say "missing system packages:$missing. Without bubblewrap and socat no agent runs (everything else works); without ripgrep agents search slowly. On Debian or Ubuntu: sudo apt-get install$missing"
  fi
fi
