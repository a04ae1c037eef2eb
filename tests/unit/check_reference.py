#!/usr/bin/env python3
"""Whether the public header says of every function what a caller must know: check_reference.py HEADER RESULTS

Each has a comment. One with a peridot_error names its errors, by code or by whose they are ("Errors: ...", "The same
..."), and each code so named is one of those in RESULTS. One that takes no object, and so is not under the header's
rule on threads, says from which it may be called.
"""
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from checks import check, finish

OBJECT = re.compile(r"\bperidot_(?:device|model|loading|session|grammar|batch) \*(?!\*)")
header = Path(sys.argv[1]).read_text()
codes = set(re.findall(r"PERIDOT_(?:ERROR_)?([A-Z_]+) = ", Path(sys.argv[2]).read_text()))


def prose(comment):
    return " ".join(re.sub(r"^ ?\*", "", line.strip()).strip() for line in comment[2:-2].split("\n"))


def functions():
    """Name, parameters and comment of each; "The same" is followed by what it refers to."""
    comment, end, before = "", 0, ""
    for found in re.finditer(r"/\*.*?\*/|^PERIDOT_API [^;]+;", header, re.S | re.M):
        part = found.group()
        if part.startswith("/*"):
            comment, end = prose(part), found.end()
            continue
        if header[end : found.start()].strip() or comment.startswith("----"):
            comment = ""  # of something else
        if comment.startswith("The same"):
            comment += " " + before
        before = comment
        name, parameters = re.search(r"(peridot_\w+)(\(.*)", part, re.S).groups()
        yield name, parameters, comment
        comment = ""


def unknown(comment):
    """What is named as an error and is none; parentheses say when there is one."""
    for errors in re.findall(r"Errors[:,] (.*)", comment):
        for code in re.findall(r"\b[A-Z][A-Z_]{3,}\b", re.sub(r"\([^()]*\)", "", errors)):
            if code not in codes:
                yield code


for name, parameters, comment in functions():
    check(f"{name} has a comment", comment)
    if "peridot_error *error" in parameters:
        check(f"{name} names its errors", re.search(r"Errors[:,] |[Ee]rrors as peridot_", comment))
    check(f"{name} names errors that there are", not list(unknown(comment)), *unknown(comment))
    if not OBJECT.search(parameters):
        check(f"{name} says from which threads it may be called", "rom any thread" in comment)
check("all functions were found", len(list(functions())) == header.count("\nPERIDOT_API ") > 50)
finish()
