# Sourced by host/run.sh and tests/run.sh: installs those of the named Debian packages that are missing.
install_missing() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "Please install these first (names as in Debian):$missing" >&2
        return 1
    fi
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    echo "Installing:$missing" >&2
    $as_root apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

build_packages="cmake ninja-build gcc libc6-dev pkg-config libvulkan-dev glslang-tools spirv-tools
    libstb-dev libcjson-dev libedit-dev libvulkan1 mesa-vulkan-drivers"
