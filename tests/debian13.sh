#!/bin/sh
# The two commands, Debian 13's compilers, and the quick tests on its lavapipe and validation layer, in a root made
# by debootstrap. Needs Debian, root and the network; where no root can be made it says so and succeeds.
set -e
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/host/install.sh"
leave_out() {
    echo "left out: $*"
    exit 0
}

if [ -z "$DEBIAN13_ROOT" ]; then
    [ "$(id -u)" = 0 ] || leave_out "a Debian 13 root can be made only by root"
    install_missing debootstrap || leave_out "debootstrap cannot be installed"
    unshare --mount --pid --fork true 2>/dev/null || leave_out "this machine lets nobody mount"
    DEBIAN13_ROOT=$(mktemp -d)
    export DEBIAN13_ROOT
    # mounts and processes end with their namespace; unshare and a namespace's first process heed only KILL
    trap 'rm -rf --one-file-system "$DEBIAN13_ROOT" "$DEBIAN13_ROOT.log"' EXIT
    trap 'kill -KILL "$inside" 2>/dev/null; sleep 1; exit 1' INT TERM HUP
    unshare --mount --pid --fork --kill-child sh "$0" &
    inside=$!
    wait "$inside"
    exit
fi

root=$DEBIAN13_ROOT log=$DEBIAN13_ROOT.log
mirror() { # this machine's own
    apt-get indextargets --format '$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
        sed -n 's/^Debian|main|//p' | head -n 1
}
[ -n "$(mirror)" ] || quietly apt-get -qq update || true
[ -n "$(mirror)" ] || leave_out "apt names no Debian mirror here"
eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)"
[ -z "$http_proxy" ] || export http_proxy
[ -z "$https_proxy" ] || export https_proxy
mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io" # it is thrown away anyway
timeout 240 debootstrap --variant=minbase trixie "$root" "$(mirror)" >"$log" 2>&1 ||
    leave_out "debootstrap made no root in 4 minutes: $(tail -n 1 "$log")"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
mkdir -p "$root/etc/ssl/certs" "$root/peridot"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" 2>/dev/null || true
cp /etc/resolv.conf "$root/etc/resolv.conf"
apt-config dump | grep -E '^Acquire::https?::' >"$root/etc/apt/apt.conf.d/90machine" || true
(cd "$here" && git ls-files -z --cached --others --exclude-standard | xargs -0 ls -d 2>/dev/null) >"$log" || true
tar -C "$here" -cf - -T "$log" | tar -C "$root/peridot" -xf -

enter() {
    PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 chroot "$root" sh -ec "cd /peridot; $1"
}
enter "apt-get -qq update" >"$log" 2>&1 || leave_out "no packages can be fetched: $(tail -n 1 "$log")"
echo "sh host/run.sh"
echo 'Hello!' | enter "sh host/run.sh" | tee "$log"
grep -q 'demo model' "$log"
enter '
    . host/install.sh
    install_missing $test_packages g++ clang
    for compiler in gcc clang; do
        folder=build-$compiler choice=-DCMAKE_C_COMPILER=$compiler
        [ $compiler = clang ] || folder=build choice= # that was made with gcc
        echo "$($compiler --version | head -n 1), without a warning"
        cmake -S . -B $folder -G Ninja -DPERIDOT_TESTS=ON $choice -DCMAKE_C_FLAGS=-Werror
        cmake --build $folder
    done
    g++ -std=c++17 -Wall -Wextra -Wpedantic -Werror -Ihost -Iengine -fsyntax-only host/examples/ask.cpp
    cd build
    export VK_DRIVER_FILES=$(ls /usr/share/vulkan/icd.d/lvp_icd*.json) PERIDOT_TEST_QUICK=1
    ctest -L unit --output-on-failure
    for test in device memory mirror model demo; do
        ./tests/test_$test
    done
    # GPU-assisted validation, as in tests/run.sh
    PERIDOT_TEST_VALIDATION=1 PERIDOT_VALIDATION=gpu VK_LAYER_VALIDATE_CORE=false \
        VK_LAYER_MESSAGE_ID_FILTER=WARNING-GPU-Assisted-Validation ./tests/test_sampling'
