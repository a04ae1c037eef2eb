#!/bin/sh
# Full size, with generated checkpoints: PROGRAM DRIVER [DRIVER].
#   The 7B's embedding table (1.5 GiB in bf16) on both drivers, of which the second, SwiftShader, ends allocations
#   at 1 GiB: the logits are those of the same model computed in float64.
#   The 2B (5 GB, in shards like the real one) on the first: the host memory beyond the device's copy and the page
#   cache stays below 1 GiB, and it decodes.
set -e
program=$1 driver=$2
shift
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM # not every shell runs the other one then

/usr/bin/python3 "$here/make_checkpoint.py" --preset 7b-table "$work/7b-table"
/usr/bin/python3 "$here/check_logits.py" "$program" "$work/7b-table" "$@"
rm -r "$work/7b-table"

/usr/bin/python3 "$here/make_checkpoint.py" --preset 2b "$work/2b"
cp "$here/../data/tokenizer.model" "$work/2b"
export VK_DRIVER_FILES="$driver"
"$program" inspect -m "$work/2b"
/usr/bin/python3 "$here/watch_memory.py" "$program" "$work/2b"
"$program" generate -m "$work/2b" -p "Peridot is" -n 8 --min-tokens 8 --temperature 0 --context 64 --json --verbose
