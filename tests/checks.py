"""Counting what a script checks: check() each thing, and finish() at the end."""
import sys

passed = failed = 0


def check(name, good, *shown):
    """`shown` is printed where it is not good."""
    global passed, failed
    passed += bool(good)
    failed += not good
    if not good:
        print(f"FAILED {name}:", *shown)


def finish():
    """Ends the script with the line that tests/run.sh reads, and the status."""
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)
