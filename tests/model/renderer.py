#!/usr/bin/python3
"""The renderer example: renderer.py RENDERER PERIDOT [DRIVER [--large]].

500 frames of 64 x 64 pixels without the model and 500 with it (ten thousand with --large), in each way to run, under
validation and synchronization validation, and as many before as the model takes to load; the answers are `peridot
generate`'s; it ends in the middle of loading; in a window, where there is Xvfb, with a look at what that shows; and bad
input gets one sentence. Ends with a line "N passed, N failed".
"""
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from checks import check, finish  # noqa: E402

renderer, peridot = (os.path.abspath(path) for path in sys.argv[1:3])
frames = 10000 if "--large" in sys.argv else 500
scratch = tempfile.TemporaryDirectory(prefix="peridot-renderer-")
environment = {**os.environ, "PERIDOT_CACHE_DIR": os.path.join(scratch.name, "cache"), "LC_ALL": "C.UTF-8"}
if len(sys.argv) > 3 and sys.argv[3]:
    environment["VK_DRIVER_FILES"] = sys.argv[3]
QUESTION = "What is the capital of France?"


def run(program, *arguments, variables=None):
    done = subprocess.run([program, *arguments], capture_output=True, timeout=1200, check=False,
                          env={**environment, **(variables or {})})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def answer_in(out):
    """To the first question."""
    found = re.search("> " + re.escape(QUESTION) + "\n(.*)\n", out)
    return found and found.group(1)


def nearest(left, up, corner):
    """PNG's predictor of Paeth."""
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))


def unfiltered(raw, width, height):
    """The rows of a PNG file's pixels, of 4 bytes each."""
    rows, last = [], bytes(4 * width)
    for at in range(0, height * (4 * width + 1), 4 * width + 1):
        kind, row = raw[at], bytearray(raw[at + 1:at + 1 + 4 * width])
        for i, value in enumerate(row):
            left, corner = (row[i - 4], last[i - 4]) if i >= 4 else (0, 0)
            guess = (0, left, last[i], (left + last[i]) // 2, 0)[kind] if kind < 4 else nearest(left, last[i], corner)
            row[i] = (value + guess) & 255
        rows.append([tuple(row[i:i + 4]) for i in range(0, len(row), 4)])
        last = row
    return rows


def pixels_of(path):
    """A PNG file's pixels in rows, of 8-bit RGBA as stb writes them."""
    with open(path, "rb") as file:
        data = file.read()
    width, height = struct.unpack(">II", data[16:24])
    packed, at = b"", 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        packed += data[at + 8:at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    return unfiltered(zlib.decompress(packed), width, height)


def shape_of(rows):
    """Its width, its height and how many colours it has."""
    return len(rows[0]), len(rows), len({pixel for row in rows for pixel in row})


def text_in(rows, left, right, top, bottom):
    """How many pixels in there are as bright and as grey as text is."""
    return sum(min(pixel[:3]) > 150 and max(pixel[:3]) - min(pixel[:3]) < 25
               for row in rows[top:bottom] for pixel in row[left:right])


def frames_told(out, name):
    found = re.search(rf"^{name} +(\d+) frames: median [0-9.]+ ms, 99 % [0-9.]+ ms, worst [0-9.]+ ms$", out, re.M)
    return int(found.group(1)) if found else 0


def check_loading(mode, out):
    """Frames are drawn while the model loads, which tells how far it is: stages in order, and what is done only grows."""
    told = re.findall(r"^Loading the model: (\w+)(?:, (\d+) %)?$", out, re.M)
    stages = [stage for i, (stage, _) in enumerate(told) if i == 0 or told[i - 1][0] != stage]
    check(f"{mode}: the stages of loading", stages == ["reading", "uploading", "compiling"], out)
    for stage in "uploading", "compiling":
        shares = [int(share) for name, share in told if name == stage and share]
        check(f"{mode}: progress of {stage}", len(shares) > 1 and shares == sorted(shares) and shares[-1] <= 100, out)
    check(f"{mode}: frames while it loads", frames_told(out, "while loading") > 10, out)


def test_modes():
    _, expected, _ = run(peridot, "generate", "--chat", "-p", QUESTION, "--temperature", "0")
    for mode in "own", "budgeted", "recorded":
        status, out, said = run(renderer, "--headless", str(frames), "--size", "64x64", "--validation", "--mode", mode,
                                "--budget", "30", "--ask", QUESTION)
        check_loading(mode, out)
        check(f"{mode}: validation is silent", status == 0 and not said, status, said)
        check(f"{mode}: frames without the model", frames_told(out, "without the model") == frames, out)
        check(f"{mode}: frames with it", frames_told(out, "with the model") >= frames, out)
        check(f"{mode}: the answer is generate's", answer_in(out) == expected.strip(), answer_in(out), expected)


def test_end_while_loading():
    """After so few frames that the model is being read, uploaded, or compiled for: without a cache, a pipeline a frame."""
    for i, (stage, budget, counts) in enumerate([("reading", "0.1", [1]), ("uploading", "0.1", [20, 40, 80, 160, 320]),
                                                 ("compiling", "5", range(15, 150, 15))]):
        for count in counts:
            status, out, said = run(renderer, "--headless", "3", "--frames", str(count), "--size", "64x64", "--validation",
                                    "--budget", budget, "--mode", ["own", "budgeted", "recorded"][i], "--ask", QUESTION,
                                    variables={"PERIDOT_CACHE_DIR": os.path.join(scratch.name, f"{stage}{count}"),
                                               "MESA_SHADER_CACHE_DISABLE": "true"})
            check(f"it ends after frame {count}", status == 0 and not said and
                  frames_told(out, "while loading") == count and
                  out.endswith("\nthe program ended before the model was loaded\n"), status, out, said)
            reached = re.findall(r"^Loading the model: (\w+)", out, re.M)[-1]
            if reached == stage:
                break
        check(f"it ended while {stage}", reached == stage, reached)


def test_pictures():
    path = os.path.join(scratch.name, "shot.png")
    status, out, said = run(renderer, "--headless", "3", "--size", "200x100", "--model", "off", "--screenshot", path)
    check("a screenshot", status == 0 and frames_told(out, "without the model") == 3, status, out, said)
    width, height, colours = shape_of(pixels_of(path))
    check("it shows something", (width, height) == (200, 100) and colours > 500, width, height, colours)
    status, out, said = run(renderer, "--headless", "1", "--model", "off", "--screenshot", "/nosuch/a.png")
    check("one that cannot be written", status == 2 and said == "renderer: /nosuch/a.png cannot be written\n", said)


def check_window(variables):
    """What it shows: the answer, where the chat has answers and nothing else; and neither, without a model."""
    pictures = []
    for model in [[], ["--model", "off"]]:
        path = os.path.join(scratch.name, f"window{len(pictures)}.png")
        status, out, said = run(renderer, "--frames", "20" if model else "200", "--size", "640x360", "--samples", "1",
                                "--validation", "--budget", "30", "--ask", QUESTION, "--screenshot", path, *model,
                                variables=variables)
        check("in a window", status == 0 and not said, status, out, said)
        check("frames in it", frames_told(out, "without the model" if model else "while loading") > 10, out)
        if not model:
            check("what was asked before the model was there is answered", answer_in(out), out)
        pictures.append(pixels_of(path))
        width, height, colours = shape_of(pictures[-1])
        check("the window's picture", (width, height) == (640, 360) and colours > 500, width, height, colours)
    check("a model shows", pictures[0] != pictures[1])
    # left of the question, which is on the right, and between the line on what the model does and the input
    shown, none = (text_in(picture, 340, 425, 64, 280) for picture in pictures)
    check("its answer shows", shown > 60 and shown > 3 * none, shown, none)


def test_window():
    if not shutil.which("Xvfb"):
        print("left out: a window, for there is no Xvfb")
        return
    read, write = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "640x480x24", "-nolisten", "tcp"],
                              pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as file:
        display = ":" + file.readline().strip()
    try:
        check_window({"DISPLAY": display})
        status, out, said = run(renderer, "--frames", "5", "--size", "320x180", "--validation", "--ask", QUESTION,
                                variables={"DISPLAY": display})
        check("a window that is closed while it loads", status == 0 and not said and
              "the program ended before the model was loaded\n" in out, status, out, said)
    finally:
        server.terminate()
        server.wait()


def test_bad_input():
    for arguments, sentence in [
            (["--mode", "fast"], "--mode: own, budgeted or recorded, not fast"),
            (["--budget", "0"], "--budget: milliseconds, more than 0 and at most 1000, not 0"),
            (["--size", "4x4"], "--size: WIDTHxHEIGHT, from 16 to 8192 each, not 4x4"),
            (["--samples", "3"], "--samples: 1, 2, 4 or 8"),
            (["--headless"], "--headless needs a value"),
            (["--headless", "x"], "--headless: not a number from 1 to 10000000: x"),
            (["--speed", "1"], "there is no option --speed: --help lists them"),
            (["--headless", "1", "--device", "nosuch"], "there is no Vulkan device that can draw here"),
    ]:
        status, out, said = run(renderer, *arguments)
        check(f"{arguments}", status == 2 and said == f"renderer: {sentence}\n" and not out, status, out, said)
    status, out, said = run(renderer, "--headless", "1", "--model", "/nosuch")
    check("a model that is not there", status == 1 and said.startswith("renderer: there is no directory /nosuch") and
          said.count("\n") == 1 and not out, status, out, said)
    bad = os.path.join(scratch.name, "bad")
    shutil.copytree(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../host/demo/model"), bad)
    os.truncate(os.path.join(bad, "model.safetensors"), 100000)
    status, out, said = run(renderer, "--headless", "1", "--model", bad, "--ask", QUESTION)
    check("a damaged model", status == 1 and said.startswith("renderer: ") and "model.safetensors" in said and
          said.count("\n") == 1, status, out, said)


test_modes()
test_end_while_loading()
test_pictures()
test_window()
test_bad_input()
finish()
