#!/bin/sh
# Builds what the micro engine boots (kernel, initrd, root file system) into .runtime/micro, once: micro-image.sh [--force]
# Needs Debian on x86_64 with apt and its lists; as root it also installs QEMU. --force takes new packages.
set -eu
cd "$(dirname "$0")/.."
say() { printf '%s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
case "${1:-}" in
  '' | --force) ;;
  *)
    say "npm run micro               builds the micro engine's images, where they are not up to date"
    say "npm run micro -- --force    builds them with the newest packages of the distribution"
    exit 2
    ;;
esac
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || { say "the micro engine has images for Linux on x86_64 only"; exit 1; }
for tool in apt-get apt-cache dpkg-deb tar flock; do
  have $tool || { say "the micro engine's images are made from Debian's packages: $tool is missing here"; exit 1; }
done
sh scripts/bootstrap.sh

mkdir -p .runtime/micro
exec 9> .runtime/micro/lock
flock -n 9 || { say "another build is under way, waiting for it ..."; flock -w 1800 9 || { say "it did not end in 30 minutes"; exit 1; }; }

if ! have qemu-system-x86_64; then
  if [ "$(id -u)" = 0 ]; then
    say "installing qemu-system-x86 ..."
    log=.runtime/micro/apt.log
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86; } > "$log" 2>&1; then
      say "could not install qemu-system-x86 (see $log): the images are built, and wait for it"
    fi
  else
    say "QEMU is missing, without which no virtual machine starts (unless there is KVM for microsandbox): sudo apt-get install --no-install-recommends qemu-system-x86"
  fi
fi
# What apt lists may be older than what its servers still have.
if [ "$(id -u)" = 0 ] && ! ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1; then apt-get update -qq || say "apt-get update failed"; fi
exec sh scripts/with-node.sh node scripts/micro-image.ts "$@"
