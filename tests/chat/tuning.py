#!/usr/bin/python3
"""`peridot tune` as users run it, in a pipe: tuning.py PROGRAM [DRIVER].

What it finds is kept, `devices` tells it, the next start uses it and generates the same text; a damaged file is ignored
with one line; Ctrl-C keeps what was found; what cannot be done is refused in a sentence. Ends with a line
"N passed, N failed".
"""
import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from checks import check, finish  # noqa: E402

program = os.path.abspath(sys.argv[1])
scratch = tempfile.TemporaryDirectory(prefix="peridot-tuning-")
cache = os.path.join(scratch.name, "cache")
environment = {**os.environ, "PERIDOT_CACHE_DIR": cache, "LC_ALL": "C.UTF-8"}
if len(sys.argv) > 2 and sys.argv[2]:
    environment["VK_DRIVER_FILES"] = sys.argv[2]


def run(*arguments, variables=None):
    done = subprocess.run([program, *arguments], capture_output=True, timeout=300, check=False,
                          env={**environment, **(variables or {})})
    said = re.sub(r"peridot: running on .*software.*\n", "", done.stderr.decode())
    return done.returncode, done.stdout.decode(), said


def kept():
    """The path of the device's file, if there is one."""
    names = [name for name in os.listdir(cache) if name.startswith("tuning-")] if os.path.isdir(cache) else []
    return os.path.join(cache, names[0]) if len(names) == 1 else None


def generate(*arguments):
    return run("generate", "-p", "The capital of", "-n", "12", "--temperature", "0", *arguments)


status, out, said = run("devices")
check("an untuned device", status == 0 and "no: peridot tune" in out and not said, status, out, said)
plain = generate()

begin = time.monotonic()
status, out, said = run("tune", "--seconds", "5")
lines = out.splitlines()
check("it tunes", status == 0 and len(lines) > 1 and "left for want of time" in lines[-1], status, out, said)
check("the time is bounded", time.monotonic() - begin < 60, time.monotonic() - begin)
check("no progress in a pipe", "\r" not in said and "%" not in said, repr(said))
check("the most important kernel is first", lines and lines[0].startswith("matvec_geglu bf16, 1 row "), out)
check("each line has a time and how much was tried",
      all(re.search(r" [0-9.]+ us  .*; \d+ of \d+ tried$", line) for line in lines[:-1]), out)
check("a file is there", kept(), cache)

status, out, said = run("devices")
told = re.search(r"tuned +(\d+) kernels, \d+ of them to other than the default, on \d{4}-\d\d-\d\d", out)
check("devices tells it", told and int(told[1]) == len(lines) - 1 and not said, out, said)
check("the text is the same", generate()[1] == plain[1] and generate("--no-tuning")[1] == plain[1], plain)

status, out, said = run("devices", "--json")
devices = json.loads(out)
check("devices in JSON", len(devices) == 1 and devices[0]["chosen"] and devices[0]["tuned"] == len(lines) - 1 and
      abs(devices[0]["tuned_at"] - time.time()) < 600, out)

path = os.path.join(scratch.name, "tuned.csv")
status, out, said = run("tune", "--shape", "2b", "--weights", "q4_k", "--seconds", "1", "--csv", "-o", path)
check("a model that is not there", status == 0 and "matvec_geglu q4_k, 1 row " in out, out, said)
with open(path, encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
check("CSV beside the lines", len(rows) == len(out.splitlines()) - 1 and rows[0]["kernel"] == "matvec_geglu" and
      rows[0]["type"] == "q4_k" and rows[0]["rows"] == "1" and rows[0]["model"] == "2b" and
      float(rows[0]["microseconds"]) > 0 and len(rows[0]["constants"].split()) == 3, rows, out)
status, out, said = run("tune", "--shape", "7b", "--weights", "q4_k", "--seconds", "1", "--json")
result = json.loads(out)
check("JSON instead of lines", result["command"] == "tune" and result["about"]["model"] == "7b" and not said and
      result["kernels"][0]["kernel"] == "matvec_geglu" and result["kernels"][0]["gain"] >= 1 and
      result["kernels"][0]["tried"] >= 2, out, said)
status, out, said = run("tune", "--seconds", "3")
second = out.splitlines()
check("the second time goes on where the first ended", status == 0 and second and second[0].split("  ")[0] not in
      [line.split("  ")[0] for line in lines] or len(lines) > 15, out)

with open(kept(), "r+b") as file:
    file.seek(60)
    file.write(b"!")
status, out, said = generate()
check("a damaged file is ignored with a word",
      status == 0 and out == plain[1] and said.count("\n") == 1 and "damaged" in said and "peridot tune" in said, said)
status, out, said = generate("--no-tuning")
check("and not read where it is not wanted", status == 0 and not said, said)
status, out, said = run("devices")
check("devices says so", "damaged" in out and "no: peridot tune" in out, out)

process = subprocess.Popen([program, "tune", "--seconds", "200"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           env=environment)
first = process.stdout.readline().decode()
process.send_signal(signal.SIGINT)
out, said = (stream.decode() for stream in process.communicate(timeout=120))
check("Ctrl-C ends it", process.returncode == 0 and "interrupted" in out, process.returncode, first, out, said)
status, out, said = run("devices")
check("and keeps what was found", re.search(r"tuned +[1-9]", out) and "damaged" not in out, out)

for name, arguments, variables, words in [
        ("a time out of bounds", ["--seconds", "0"], {}, ["--seconds"]),
        ("no such shape", ["--shape", "3b"], {}, ["2b or 7b"]),
        ("two models", ["--shape", "2b", "-m", "x"], {}, ["not both"]),
        ("no model", ["-m", "/nowhere"], {}, ["/nowhere"]),
        ("no place for results", ["-o", "/nowhere/tuned.json"], {}, ["/nowhere/tuned.json"]),
        ("no folder", ["--seconds", "1"], {"PERIDOT_CACHE_DIR": "/proc/nowhere"}, ["/proc/nowhere"]),
        ("portable kernels alone", ["--minimal"], {}, ["--minimal"])]:
    status, out, said = run("tune", *arguments, variables=variables)
    check(name, status == 1 and said.count("\n") == 1 and all(word in said for word in words), status, out, said)

finish()
