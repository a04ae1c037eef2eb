# Sourced by host/run.sh and the tests: installs those of the named Debian packages that are missing.
install_missing() {
    # elsewhere than on Debian and its kin, the build says what it lacks
    command -v apt-get >/dev/null || return 0
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    as_root=
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "There is no sudo here: please install these as root:$missing" >&2
            return 1
        fi
        as_root=sudo
    fi
    echo "Installing:$missing" >&2
    # One source of packages may be out of reach where the others serve. Standard input is the program's alone,
    # and sudo forgets the environment.
    quietly $as_root apt-get -qq update || true
    quietly $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 install $missing
}

# Shows a command's output only if it fails.
quietly() {
    said=$("$@" </dev/null 2>&1) && return 0
    printf '%s\n' "$said" >&2
    return 1
}

build_packages="cmake ninja-build gcc libc6-dev pkg-config libvulkan-dev glslang-tools spirv-tools
    libstb-dev libcjson-dev libedit-dev libvulkan1 mesa-vulkan-drivers"
test_packages="libcmocka-dev libvulkan-volk-dev vulkan-validationlayers python3-numpy python3-pip tmux
    glslang-dev g++ libglfw3-dev fonts-dejavu-core xvfb"
