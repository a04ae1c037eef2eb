#!/bin/sh
# Builds Peridot, installing what is missing, and runs it; without arguments: a chat with the demo model.
set -e
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/host/install.sh"
install_missing $build_packages
log=$here/build/build.log
mkdir -p "$here/build"
if ! { cmake -S "$here" -B "$here/build" -G Ninja -DPERIDOT_TESTS=OFF &&
       cmake --build "$here/build" --target peridot_program; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
[ $# -gt 0 ] || set -- chat
exec "$here/build/host/cli/peridot" "$@"
