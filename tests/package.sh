#!/bin/sh
# Installs Peridot into a folder, builds an application against it by pkg-config and by CMake, shared and static,
# and looks at the symbols.
set -e
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/host/install.sh"
install_missing g++ binutils
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake -S "$here" -B "$work/build" -G Ninja -DPERIDOT_TESTS=OFF -DCMAKE_INSTALL_PREFIX="$work/root" -DCMAKE_INSTALL_LIBDIR=lib
cmake --build "$work/build"
cmake --install "$work/build"
cat >"$work/app.c" <<'C'
#include <peridot.h>
#include <stdio.h>
/* names that Peridot's own inside uses too: they must not meet */
int fail(void);
int fail(void) { return 7; }
int main(void) {
    peridot_device_info devices[8];
    devices[0].struct_size = sizeof devices[0];
    unsigned count = 0;
    peridot_error error;
    if (peridot_devices_list(devices, 8, &count, &error))
        printf("%s\n", error.message);
    printf("peridot %s, %u devices\n", peridot_version(), count);
    return fail() == 7 ? 0 : 1;
}
C
cp "$work/app.c" "$work/app.cc"
export PKG_CONFIG_PATH="$work/root/lib/pkgconfig" LD_LIBRARY_PATH="$work/root/lib"
gcc -std=c11 -Wall -Wextra -Wpedantic -Werror "$work/app.c" $(pkg-config --cflags --libs peridot) -o "$work/c" && "$work/c"
g++ -std=c++17 -Wall -Wextra -Wpedantic -Werror "$work/app.cc" $(pkg-config --cflags --libs peridot) -o "$work/cc" && "$work/cc"
mkdir "$work/app"
cp "$work/app.c" "$work/app/"
cat >"$work/app/CMakeLists.txt" <<'M'
cmake_minimum_required(VERSION 3.25)
project(app C)
find_package(peridot REQUIRED)
add_executable(app_shared app.c)
target_link_libraries(app_shared peridot::peridot)
add_executable(app_static app.c)
target_link_libraries(app_static peridot::static)
M
cmake -S "$work/app" -B "$work/app/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/root"
cmake --build "$work/app/build"
"$work/app/build/app_shared"
"$work/app/build/app_static"
for library in "nm -D --defined-only $work/root/lib/libperidot.so" "nm -g --defined-only $work/root/lib/libperidot.a"; do
    foreign=$($library | awk 'NF == 3 && $3 !~ /^peridot_/ {print $3}')
    [ -z "$foreign" ] || { echo "exported beside peridot_*: $foreign"; exit 1; }
done
echo "the package is sound"
