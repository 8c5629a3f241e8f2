#!/bin/sh
# Brings the GPU binaries of local inference, which an ordinary installation leaves out: gpu.sh [cuda] [vulkan]
# Without an argument both (600 MB). To be repeated after the packages were installed anew.
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in
  -h | --help)
    echo "npm run gpu              CUDA and Vulkan binaries for local models (600 MB)"
    echo "npm run gpu -- vulkan    only those; then load a model with {\"gpu\": \"auto\"}"
    exit 0
    ;;
esac
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || { echo "there are GPU binaries for Linux on x86_64 only" >&2; exit 1; }
sh scripts/bootstrap.sh
PATH="$(cat .runtime/node-dir):$PATH"
export PATH
NPM_CLI=$(node -p 'require("fs").realpathSync(process.argv[1])' "$(command -v npm)")
version=$(node -p 'require("./node_modules/node-llama-cpp/package.json").version')
packages=''
for kind in "${@:-cuda vulkan}"; do
  for word in $kind; do
    case "$word" in
      cuda) packages="$packages linux-x64-cuda linux-x64-cuda-ext" ;;
      vulkan) packages="$packages linux-x64-vulkan" ;;
      *) echo "unknown: $word; there are cuda and vulkan" >&2; exit 2 ;;
    esac
  done
done
home=.runtime/gpu
mkdir -p "$home"
[ -f "$home/package.json" ] || printf '{"private":true}\n' > "$home/package.json"
for package in $packages; do
  node "$NPM_CLI" install --prefix "$home" --no-audit --no-fund --loglevel=error --ignore-scripts \
    "@node-llama-cpp/$package@$version"
  # In the place of what stands in for it.
  rm -rf "node_modules/@node-llama-cpp/$package"
  ln -s "../../$home/node_modules/@node-llama-cpp/$package" "node_modules/@node-llama-cpp/$package"
  echo "installed $package $version"
done
