#!/bin/sh
# Installs Peridot into a folder, moves that, and installs into others; compiles the header alone; builds the examples
# against it by pkg-config and as a CMake project, shared and static, and lets them answer, and the snippets of the
# manual's page with them; has an application with Peridot in its own project; looks at the symbols; and makes the manual,
# which has a word on every public function.
set -e
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/host/install.sh"
install_missing g++ make binutils doxygen
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# By make, where all else here is built by ninja: it knows less of what must be there before what.
cmake -S "$here" -B "$work/build" -G "Unix Makefiles" -DPERIDOT_TESTS=OFF -DPERIDOT_BENCH=OFF -DPERIDOT_EXAMPLES=OFF \
    -DCMAKE_INSTALL_PREFIX="$work/configured" -DCMAKE_INSTALL_LIBDIR=lib/x86_64-linux-gnu
cmake --build "$work/build" -j2
if command -v doxygen >/dev/null; then
    cmake --build "$work/build" --target manual
fi
# neither where it was configured for nor where it was installed
cmake --install "$work/build" --prefix "$work/installed"
mv "$work/installed" "$work/root"
! grep -rl "$work" "$work/root" || { echo "these name a folder of the build's"; exit 1; }
cmp "$here/LICENSE" "$work/root/share/doc/peridot/LICENSE"
[ ! -d "$work/build/host/manual/html" ] || [ -f "$work/root/share/doc/peridot/html/index.html" ]
system=$PKG_CONFIG_PATH lib=$work/root/lib/x86_64-linux-gnu
export PKG_CONFIG_PATH="$lib/pkgconfig${system:+:$system}" LD_LIBRARY_PATH="$lib"
strict="-Wall -Wextra -Wpedantic -Werror"

# the header by itself, and twice
printf '#include <peridot.h>\n#include <peridot.h>\n' >"$work/header.c"
for compiler in gcc clang; do
    command -v $compiler >/dev/null || continue
    $compiler -std=c11 $strict $(pkg-config --cflags peridot) -fsyntax-only "$work/header.c"
    $compiler -x c++ -std=c++17 $strict $(pkg-config --cflags peridot) -fsyntax-only "$work/header.c"
done

# names that Peridot's own inside uses too: they must not meet
cp -r "$here/host/examples" "$work/examples"
cat >>"$work/examples/ask.c" <<'C'
int fail(void);
int fail(void) {
    return 7;
}
C
gcc -std=c11 $strict "$work/examples/ask.c" $(pkg-config --cflags --libs peridot vulkan) -o "$work/ask_pkg_config"
g++ -std=c++17 $strict "$work/examples/ask.cpp" $(pkg-config --cflags --libs peridot vulkan) -o "$work/ask_cpp_pkg_config"
cmake -S "$work/examples" -B "$work/apps" -G Ninja -DCMAKE_PREFIX_PATH="$work/root" \
    -DCMAKE_C_FLAGS="-Werror" -DCMAKE_CXX_FLAGS="$strict"
cmake --build "$work/apps"

# the page "Peridot in your renderer": its Mth block of C in section N is N-M.h
mkdir "$work/snippets"
awk -v to="$work/snippets" '/^## /{section = $2 + 0; block = 0} /^```c$/{file = to "/" section "-" ++block ".h"; next}
    /^```/{file = ""} file {print >file}' "$here/host/manual/in_your_renderer.md"
for snippet in "$work"/snippets/*; do
    grep -q "#include \"${snippet##*/}\"" "$here/tests/in_your_renderer.c" ||
        { echo "${snippet##*/} is in no program"; exit 1; }
done
gcc -std=c11 $strict -I"$work/snippets" "$here/tests/in_your_renderer.c" $(pkg-config --cflags --libs peridot vulkan) \
    -o "$work/in_your_renderer"

model=$here/host/demo/model question="What is the capital of France?"
"$work/root/bin/peridot" generate -m "$model" --chat -p "$question" --temperature 0 >"$work/answer"
grep . "$work/answer"
for program in "$work/ask_pkg_config" "$work/ask_cpp_pkg_config" "$work/apps/ask" "$work/apps/ask_static" "$work/apps/ask_cpp"; do
    "$program" "$model" "$question" >"$work/own"
    cmp "$work/answer" "$work/own" || { echo "${program##*/} answered: $(cat "$work/own")"; exit 1; }
done
ln -s "$model" "$work/gemma-1.1-2b-it"
for way in own budgeted recorded waiting; do
    (cd "$work" && ./in_your_renderer $way "$question") >"$work/own"
    cmp "$work/answer" "$work/own" || { echo "in_your_renderer $way answered: $(cat "$work/own")"; exit 1; }
done
for library in "nm -D --defined-only $lib/libperidot.so" "nm -g --defined-only $lib/libperidot.a"; do
    foreign=$($library | awk 'NF == 3 && $3 !~ /^peridot_/ {print $3}')
    [ -z "$foreign" ] || { echo "exported beside peridot_*: $foreign"; exit 1; }
done
# An application with Peridot in its own project: the library alone, which wants no libedit. The shaders are those that
# were made above, which make takes for what they are.
mkdir -p "$work/few" "$work/game/peridot/shaders"
cp "$(pkg-config --variable=pcfiledir libcjson)/libcjson.pc" "$work/few"
PKG_CONFIG_PATH= PKG_CONFIG_LIBDIR="$work/few" cmake -S "$here/tests/package" -B "$work/game" -G "Unix Makefiles" \
    -DPERIDOT_SOURCE="$here" -DCMAKE_BUILD_TYPE=Debug
cp "$work"/build/shaders/*.spv "$work/game/peridot/shaders"
cmake --build "$work/game" -j2
"$work/game/game_shared"
"$work/game/game_static"
[ -z "$(DESTDIR="$work/nothing" cmake --install "$work/game" | grep Installing:)" ]

# Libraries in other folders. What is static links by itself, also where nothing else is.
install_to() { # LIBDIR WHERE [--prefix PREFIX]
    libdir=$1 lib=$2
    shift 2
    PKG_CONFIG_PATH= PKG_CONFIG_LIBDIR="$work/few" cmake -DPERIDOT_CLI=OFF -DCMAKE_INSTALL_LIBDIR="$libdir" "$work/build"
    cmake --install "$work/build" "$@"
    cmake -S "$here/tests/package" -B "$work/of_${lib##*/}" -G Ninja -Dperidot_DIR="$lib/cmake/peridot"
    cmake --build "$work/of_${lib##*/}"
    "$work/of_${lib##*/}/game_shared"
    rm "$lib"/libperidot.so*
    export PKG_CONFIG_PATH="$lib/pkgconfig${system:+:$system}"
    gcc "$here/tests/package/game.c" $(pkg-config --static --cflags --libs peridot) -o "$work/game_static"
    "$work/game_static"
}
unset LD_LIBRARY_PATH
install_to lib "$work/elsewhere/lib" --prefix "$work/elsewhere"
install_to "$work/configured/lib64" "$work/elsewhere/lib64" --prefix "$work/elsewhere"
rm -r "$work/elsewhere"
install_to "$work/libraries" "$work/libraries"
echo "the package is sound"
