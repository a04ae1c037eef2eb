"""Running a command whose messages go to a terminal."""
import os
import pty
import subprocess


def on_terminal(command):
    """Its exit status, what it printed in a pipe, and what the terminal was sent."""
    outer, inner = pty.openpty()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=inner)
    os.close(inner)
    shown = b""
    while True:
        try:
            part = os.read(outer, 4096)
        except OSError:  # the terminal's other end is closed
            break
        if not part:
            break
        shown += part
    out, _ = process.communicate()
    os.close(outer)
    return process.returncode, out, shown
