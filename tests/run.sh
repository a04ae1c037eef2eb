#!/bin/sh
# Builds and runs the whole suite on every Vulkan device at hand, installing what is missing.
#   --large   also generated checkpoints at full size: the 2B, and the 7B's embedding table (5 GB on disk, several
#             GB of memory; a quarter of an hour on two cores), ten thousand frames of the renderer in each mode, and
#             what else is long (PERIDOT_TEST_LONG)
# PERIDOT_INTEL_SHIM=DIR: also Intel's compiler, see below
set -e
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/host/install.sh"
install_missing $build_packages $test_packages
# SwiftShader comes with Chromium; without it the suite runs on what there is
install_missing chromium || echo "no chromium: no SwiftShader" >&2

build=$here/build-tests
cmake -S "$here" -B "$build" -G Ninja >/dev/null
cmake --build "$build"

python=$(sed -n 's/^PERIDOT_PYTHON:FILEPATH=//p' "$build/CMakeCache.txt")

passed=0 failed=0
# every call refused in turn, and not every seventh
[ "$1" != --large ] || export PERIDOT_TEST_LONG=1
lavapipe=$(ls /usr/share/vulkan/icd.d/lvp_icd*.json 2>/dev/null | head -n 1)
swiftshader=$(ls /usr/lib/chromium/vk_swiftshader_icd.json 2>/dev/null | head -n 1)

# start NAME TITLE COMMAND…: a test in the build folder. Two run at a time, most being of one thread.
running= started=0
trap 'trap - TERM; kill -TERM 0' INT # what runs in the background would not hear it
start() {
    case $running in *' '*' '*) finish ;; esac
    started=$((started + 1))
    job=$build/job$started
    rm -f "$job".*
    printf '%-16s %-44s' "$1" "$2" >"$job.name"
    shift 2
    {
        status=0
        (cd "$build" && "$@") >"$job.log" 2>&1 || status=$?
        times >"$job.times"
        echo $status >"$job.status"
    } &
    eval "process_$started=$!"
    running="$running $started"
}
# run TITLE PROGRAM [VARIABLE=VALUE …]: one test program in one setting.
run() {
    title=$1 program=$2
    shift 2
    start "$program" "$title" env "$@" "$build/tests/$program"
}
# script TITLE PATH ARGUMENT…: one in Python, in tests/.
script() {
    title=$1 path=$2
    shift 2
    start "${path##*/}.py" "$title" "$python" "$here/tests/$path.py" "$@"
}
# Waits until one of those that run has ended, counts its tests and shows it.
finish() {
    [ -n "$running" ] || return 0
    ended=
    while [ -z "$ended" ]; do
        for each in $running; do
            eval "process=\$process_$each"
            if [ -s "$build/job$each.status" ] || ! kill -0 "$process" 2>/dev/null; then
                ended=$each
                break
            fi
        done
        [ -n "$ended" ] || sleep 0.2
    done
    job=$build/job$ended
    wait "$process" || true
    status=$(cat "$job.status" 2>/dev/null || echo 137)
    good=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p; s/^\([0-9]*\) passed, .*/\1/p' "$job.log" | tail -n 1)
    bad=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) test.*/\1/p; s/.* passed, \([0-9]*\) failed$/\1/p' "$job.log" | tail -n 1)
    said=
    if [ "$status" = 77 ]; then
        good=0 bad=0 said=": $(tail -n 1 "$job.log")"
    elif [ "$status" != 0 ] && [ "${bad:-0}" = 0 ]; then
        bad=1
    fi
    passed=$((passed + ${good:-0})) failed=$((failed + ${bad:-0}))
    # CPU seconds of the user's and the system's, the second line of sh's own account
    took=$(sed -n '2s/[ms]/ /gp' "$job.times" 2>/dev/null | awk '{ printf "%.0f", 60 * ($1 + $3) + $2 + $4 }')
    echo "$(cat "$job.name") ${good:-0} passed, ${bad:-0} failed (${took:-?} s)$said"
    sed -n 's/^\(left out: .*\)/                 \1/p' "$job.log"
    [ "${bad:-0}" = 0 ] || grep -v -e '\[ RUN' -e '\[       OK' "$job.log" | tail -n 40
    rm -f "$job".*
    others=
    for each in $running; do
        [ "$each" = "$ended" ] || others="$others $each"
    done
    running=$others
}
finish_all() {
    while [ -n "$running" ]; do finish; done
}
# The same for a test that looks at how much memory is free.
run_alone() {
    finish_all
    run "$@"
    finish_all
}

for program in $(ctest --test-dir "$build" -N -L unit | sed -n 's/.*#[0-9]*: //p'); do
    run "" $program A=
done
[ -z "$lavapipe" ] || run "lavapipe, a GPU's times made up" test_budget VK_DRIVER_FILES="$lavapipe"
[ -z "$lavapipe" ] || run "lavapipe" test_slices VK_DRIVER_FILES="$lavapipe"
[ -z "$lavapipe" ] || run "lavapipe, synchronization validation" test_hidden VK_DRIVER_FILES="$lavapipe" PERIDOT_TEST_VALIDATION=1 PERIDOT_VALIDATION=sync
[ -z "$swiftshader" ] || run "SwiftShader, portable kernels only" test_slices VK_DRIVER_FILES="$swiftshader" PERIDOT_TEST_MINIMAL=1
[ -z "$lavapipe" ] || run "lavapipe" test_constraint VK_DRIVER_FILES="$lavapipe" PERIDOT_TEST_QUICK=1
[ -z "$lavapipe" ] || run "lavapipe" test_batch_slices VK_DRIVER_FILES="$lavapipe"
[ -z "$swiftshader" ] || run "SwiftShader, portable kernels only" test_batch VK_DRIVER_FILES="$swiftshader" PERIDOT_TEST_MINIMAL=1 PERIDOT_TEST_QUICK=1 PERIDOT_TEST_ONLY=test_every_number
[ -z "$lavapipe" ] || run "lavapipe" test_timed_steps VK_DRIVER_FILES="$lavapipe" PERIDOT_TEST_VALIDATION=1
[ -z "$swiftshader" ] || run "SwiftShader" test_timed_steps VK_DRIVER_FILES="$swiftshader"
[ -z "$lavapipe" ] || run "lavapipe" test_tuner VK_DRIVER_FILES="$lavapipe" PERIDOT_TEST_VALIDATION=1
[ -z "$swiftshader" ] || run "SwiftShader" test_tuner VK_DRIVER_FILES="$swiftshader"
for program in test_model test_sampling test_demo; do
    [ -z "$lavapipe" ] || run "lavapipe" $program VK_DRIVER_FILES="$lavapipe"
    [ -z "$swiftshader" ] || run "SwiftShader, portable kernels only" $program VK_DRIVER_FILES="$swiftshader" PERIDOT_TEST_MINIMAL=1 PERIDOT_TEST_QUICK=1
done
for program in test_kernels test_footprint; do
    [ -z "$lavapipe" ] || run "lavapipe" $program VK_DRIVER_FILES="$lavapipe"
    [ -z "$swiftshader" ] || run "SwiftShader" $program VK_DRIVER_FILES="$swiftshader" PERIDOT_TEST_QUICK=1
done
[ -z "$lavapipe" ] || run "lavapipe" test_device VK_DRIVER_FILES="$lavapipe"
[ -z "$swiftshader" ] || run "SwiftShader" test_device VK_DRIVER_FILES="$swiftshader"
# SwiftShader compiles every variant in test_kernels; all combinations of sizes take it many minutes
[ -z "$lavapipe" ] || run "lavapipe" test_pipelines VK_DRIVER_FILES="$lavapipe"
[ -z "$lavapipe" ] || run_alone "lavapipe" test_memory VK_DRIVER_FILES="$lavapipe"
[ -z "$swiftshader" ] || run_alone "SwiftShader" test_memory VK_DRIVER_FILES="$swiftshader"
# AMD's compiler without a card: every kernel compiles, nothing spills. RDNA3 is named navi31, in older Mesa
# gfx1100, and a name that Mesa does not know aborts.
radv=$(ls /usr/share/vulkan/icd.d/radeon_icd*.json 2>/dev/null | head -n 1)
rdna3=
for family in gfx1100 navi31; do
    if { VK_DRIVER_FILES="$radv" RADV_FORCE_FAMILY=$family "$build/host/cli/peridot" devices; } >/dev/null 2>&1; then
        rdna3=$family
    fi
done
# Those between the oldest and the newest are also in bench/compile-table.csv, which .ci/run holds to.
for family in navi10 $rdna3 polaris10; do
    [ -z "$radv" ] || run "RADV for $family, compiling only" test_pipelines VK_DRIVER_FILES="$radv" RADV_FORCE_FAMILY=$family
done
# Intel's compiler without a card, where PERIDOT_INTEL_SHIM names the folder of libintel_noop_drm_shim.so, which
# stands in for the kernel's driver. It is built from Mesa's sources, of a recent version: meson setup with
# -Dtools=intel,drm-shim, then ninja src/intel/tools/libintel_noop_drm_shim.so.
intel=$(ls /usr/share/vulkan/icd.d/intel_icd*.json 2>/dev/null | head -n 1)
shim=$PERIDOT_INTEL_SHIM/libintel_noop_drm_shim.so
if [ -n "$intel" ] && [ -n "$PERIDOT_INTEL_SHIM" ] && [ -e "$shim" ]; then
    for platform in tgl dg2 lnl bmg; do
        if VK_DRIVER_FILES="$intel" LD_PRELOAD="$shim" INTEL_STUB_GPU_PLATFORM=$platform "$build/host/cli/peridot" devices 2>/dev/null | grep -q '^\*'; then
            run "ANV for $platform, compiling only" test_pipelines VK_DRIVER_FILES="$intel" LD_PRELOAD="$shim" INTEL_STUB_GPU_PLATFORM=$platform
        else
            echo "ANV for $platform: left out, this Mesa does not know it"
        fi
    done
else
    echo "ANV (Intel), compiling only: left out, PERIDOT_INTEL_SHIM names no folder with libintel_noop_drm_shim.so"
fi
if [ -n "$lavapipe" ]; then
    run_alone "lavapipe" test_memory_plan VK_DRIVER_FILES="$lavapipe"
    run "lavapipe" test_loading VK_DRIVER_FILES="$lavapipe"
    run "lavapipe, synchronization validation" test_loading VK_DRIVER_FILES="$lavapipe" PERIDOT_TEST_VALIDATION=1
    for program in test_adoption test_guest test_refusals test_interrupted test_waits test_occupancy_priority test_public_structs test_beside_volk_shared test_beside_volk_static; do
        run "lavapipe" $program VK_DRIVER_FILES="$lavapipe"
    done
    for width in 128 512; do
        run "lavapipe, subgroups of $((width / 32))" test_kernels VK_DRIVER_FILES="$lavapipe" LP_NATIVE_VECTOR_WIDTH=$width PERIDOT_TEST_QUICK=1
        run "lavapipe, subgroups of $((width / 32))" test_model VK_DRIVER_FILES="$lavapipe" LP_NATIVE_VECTOR_WIDTH=$width PERIDOT_TEST_QUICK=1 "PERIDOT_TEST_ONLY=test_c*"
    done
    [ -n "$swiftshader" ] || run "lavapipe, portable kernels only" test_model VK_DRIVER_FILES="$lavapipe" PERIDOT_TEST_MINIMAL=1 PERIDOT_TEST_QUICK=1
    for program in test_model test_slices test_batch test_sampling test_constraint test_demo; do
        run "lavapipe, synchronization validation" $program VK_DRIVER_FILES="$lavapipe" PERIDOT_TEST_VALIDATION=1 PERIDOT_VALIDATION=sync PERIDOT_TEST_QUICK=1
    done
    for tests in 'test_masks*' test_semaphores; do
        run "lavapipe, synchronization validation" test_batch_slices VK_DRIVER_FILES="$lavapipe" PERIDOT_TEST_VALIDATION=1 PERIDOT_TEST_ONLY="$tests"
    done
    run "lavapipe: barriers under sync validation" test_mirror VK_DRIVER_FILES="$lavapipe"
    # Every address checked on the device. Debian 12's layer, 1.3.239, takes its own waits for hangs. What the filter
    # drops is the layer's account of the features it enables for itself.
    layer=/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json
    case $(sed -n 's/.*"api_version": *"\(.*\)".*/\1/p' $layer 2>/dev/null) in
    1.[4-9].*)
        run "lavapipe, GPU-assisted validation" test_sampling VK_DRIVER_FILES="$lavapipe" PERIDOT_TEST_QUICK=1 \
            PERIDOT_TEST_VALIDATION=1 PERIDOT_VALIDATION=gpu VK_LAYER_VALIDATE_CORE=false \
            VK_LAYER_MESSAGE_ID_FILTER=WARNING-GPU-Assisted-Validation
        ;;
    esac
fi
if [ -n "$lavapipe" ] && [ -n "$swiftshader" ]; then
    run_alone "both together, synchronization validation" test_split VK_DRIVER_FILES="$lavapipe:$swiftshader" PERIDOT_TEST_VALIDATION=1 PERIDOT_VALIDATION=sync PERIDOT_TEST_QUICK=1
fi
if [ -n "$swiftshader" ]; then
    run "SwiftShader, all its kernels" test_demo VK_DRIVER_FILES="$swiftshader" PERIDOT_TEST_QUICK=1
fi
# a real card, where there is one
for icd in /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json; do
    case $icd in *lvp* | *'*'*) continue ;; esac
    VK_DRIVER_FILES=$icd "$build/host/cli/peridot" devices 2>/dev/null | grep -q '^\*' || continue
    for program in test_kernels test_footprint test_model test_timed_steps test_tuner test_sampling test_constraint test_demo; do
        run "$(basename "$icd")" $program VK_DRIVER_FILES="$icd"
    done
done
finish_all

start terminal.sh "a real terminal" sh -c 'sh "$@" && echo "1 passed, 0 failed"' sh "$here/tests/chat/terminal.sh" \
    "$build/host/cli/peridot" "$lavapipe"
script "the lab, on every software device" bench/check_bench "$build/bench/peridot-bench" "$lavapipe" "$swiftshader"
for path in chat/conversation chat/bad_input chat/tuning model/check_perplexity; do
    script "the program in a pipe" $path "$build/host/cli/peridot" "$lavapipe"
done
renderer=$build/host/examples/renderer/renderer
if [ -x "$renderer" ] && [ -n "$lavapipe" ]; then
    script "the renderer, under synchronization validation" model/renderer "$renderer" "$build/host/cli/peridot" "$lavapipe" "$1"
else
    echo "renderer.py: left out, the renderer example was not built"
fi
script "the public header" unit/check_reference "$here/host/peridot.h" "$here/engine/peridot_result.h"
# these need the gguf package, which comes from pip, into the build folder: one after the other
script "beside the gguf package" unit/check_blocks "$build/tests/libblocks.so" "$build/tests/python"
finish_all
script "beside the gguf package" model/check_convert "$build/host/cli/peridot" "$lavapipe" "$build/tests/python"
finish_all
if [ "$1" = --large ]; then
    if sh "$here/tests/model/large.sh" "$build/host/cli/peridot" "$lavapipe" "$swiftshader"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
