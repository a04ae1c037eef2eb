"""The `gguf` package of PyPI, for scripts that compare with it."""
import importlib
import os
import subprocess
import sys

LEFT_OUT = 77


def import_gguf():
    try:
        return importlib.import_module("gguf")
    except ImportError:
        return None


def gguf_package(folder):
    """The module, installed by pip into `folder` if need be (None: nowhere). Where it cannot be had, the script
    ends and says that it is left out."""
    gguf = import_gguf()
    if gguf is None and folder:
        if not os.path.isdir(os.path.join(folder, "gguf")):
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, "gguf"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        gguf = import_gguf()
    if gguf is None:
        print("left out: there is no gguf package, and pip cannot install it")
        sys.exit(LEFT_OUT)
    return gguf
