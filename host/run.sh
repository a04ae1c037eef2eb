#!/bin/sh
# Builds Peridot, installing what is missing, and runs it; without arguments: a chat with the demo model.
set -e
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/host/install.sh"
install_missing $build_packages
log=$here/build/build.log
program=$here/build/host/cli/peridot
configure() {
    cmake "$@" -S "$here" -B "$here/build" -G Ninja -DPERIDOT_TESTS=OFF
}
mkdir -p "$here/build"
[ -x "$program" ] || echo "Building Peridot: under a minute, once" >&2
# a tree that was moved needs a fresh cache
if ! { { configure || configure --fresh; } && cmake --build "$here/build" --target peridot_program; } >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    command -v apt-get >/dev/null || echo "Peridot is built with these, by their names in Debian:" $build_packages >&2
    exit 1
fi
[ $# -gt 0 ] || set -- chat
exec "$program" "$@"
