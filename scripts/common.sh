# shellcheck shell=bash
# Sourced by the scripts beside it: where things are, and how they speak.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The same default as cmake/OptiqDependencies.cmake.
export OPTIQ_CACHE_DIR=${OPTIQ_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/optiq}
# One clone's compilations serve another clone.
export CCACHE_BASEDIR=$root

say() {
  printf '\n== %s\n' "$*"
}

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

jobs() {
  getconf _NPROCESSORS_ONLN
}

# configure_and_build <preset> [target ...]
configure_and_build() {
  local preset=$1
  shift
  say "build ($preset)"
  cmake --preset "$preset" -S "$root" -DOPTIQ_OFFLINE=ON
  cmake --build "$root/build/$preset" -j "$(jobs)" ${1:+--target "$@"}
}
