#!/usr/bin/python3
"""Runs `PROGRAM logits` on MODEL and measures its host memory: of its own (anonymous), and in all.

A software device keeps its copy of the weights in the program's own anonymous memory, so that copy's size,
as the program reports it, is taken off. Fails above 1 GiB.
"""
import re
import struct
import subprocess
import sys
import tempfile
import time

LIMIT = 1 << 30


def write_tokens(path, ids):
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({len(ids)},), }}".ljust(117) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\1\0" + struct.pack("<H", 118) + header.encode() + struct.pack(f"<{len(ids)}i", *ids))


def anonymous(pid):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"RssAnon:\s+(\d+) kB", file.read()).group(1)) * 1024


def main():
    program, model = sys.argv[1:]
    with tempfile.TemporaryDirectory() as work:
        write_tokens(work + "/in.npy", [2, 100, 2000, 30000])
        process = subprocess.Popen([program, "logits", "-m", model, "--tokens", work + "/in.npy", "-o",
                                    work + "/out.npy", "--verbose"], stderr=subprocess.PIPE, text=True)
        peak, start = 0, time.time()
        while process.poll() is None:
            try:
                peak = max(peak, anonymous(process.pid))
            except (AttributeError, FileNotFoundError):
                pass
            time.sleep(0.05)
        text = process.stderr.read()
    print(text, end="")
    if process.returncode:
        raise SystemExit("the program failed")
    device = float(re.search(r"([\d.]+) MiB on the device", text).group(1)) * (1 << 20)
    beyond = peak - device
    print(f"{time.time() - start:.1f} s; peak of own memory {peak / 2**30:.2f} GiB, of which the device's copy "
          f"{device / 2**30:.2f}: {beyond / 2**30:.2f} GiB beyond it")
    if beyond > LIMIT:
        raise SystemExit("more than 1 GiB beyond the device's copy")


if __name__ == "__main__":
    main()
