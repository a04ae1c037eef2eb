#!/bin/sh
# Installs Peridot into a folder; compiles the header alone; builds the examples against it by pkg-config and as a
# CMake project, shared and static, and lets them answer, and the snippets of the manual's page with them; looks at the
# symbols; and makes the manual, which has a word on every public function.
set -e
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/host/install.sh"
install_missing g++ binutils doxygen
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake -S "$here" -B "$work/build" -G Ninja -DPERIDOT_TESTS=OFF -DCMAKE_INSTALL_PREFIX="$work/root" -DCMAKE_INSTALL_LIBDIR=lib
cmake --build "$work/build"
cmake --install "$work/build"
export PKG_CONFIG_PATH="$work/root/lib/pkgconfig" LD_LIBRARY_PATH="$work/root/lib"
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
for library in "nm -D --defined-only $work/root/lib/libperidot.so" "nm -g --defined-only $work/root/lib/libperidot.a"; do
    foreign=$($library | awk 'NF == 3 && $3 !~ /^peridot_/ {print $3}')
    [ -z "$foreign" ] || { echo "exported beside peridot_*: $foreign"; exit 1; }
done
if command -v doxygen >/dev/null; then
    cmake --build "$work/build" --target manual
fi
echo "the package is sound"
