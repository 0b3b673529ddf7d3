"""Standard output and error that are closed, full, or of an encoding that lacks a character."""

import os
import sys
from io import UnsupportedOperation


def mend():
    """Let output that was closed (`>&-`) go nowhere, and show characters that its encoding lacks as numbers."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (for as long as Python runs)
    if getattr(sys.stdout, "errors", None) == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def output_fails():
    """Whether nothing can be printed any more, not even an end of line."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")
    except UnsupportedOperation:  # no file, as in tests
        return False
    except OSError:
        return True
    return False


def silence():
    """Let what is still to be printed go nowhere: Python would fail once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
