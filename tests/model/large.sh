#!/bin/sh
# Full size: a generated 2B checkpoint (5 GB, bf16, in shards like the real one) loads and decodes, and the host
# memory beyond the device's copy and the page cache stays below 1 GiB: PROGRAM DRIVER.
set -e
program=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
/usr/bin/python3 "$here/make_checkpoint.py" --preset 2b "$work/2b"
export VK_DRIVER_FILES="$2"
"$program" inspect -m "$work/2b"
/usr/bin/python3 "$here/watch_memory.py" "$program" "$work/2b"
