"""Standard output and error that are closed, full, or of an encoding that lacks a character."""

import os
import sys
from contextlib import suppress
from io import UnsupportedOperation


def mend():
    """Let output that was closed (`>&-`) go nowhere, and show characters that its encoding lacks as numbers."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        # All three numbers are taken first, else the next file that is opened would be the output.
        while (unused := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(unused)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115  (as long as Python)
    if getattr(sys.stdout, "errors", "") != "backslashreplace" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def fault():
    """The OSError of standard output where nothing can be printed any more, not even an end of line; else None."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")
    except UnsupportedOperation:  # no file, as in tests
        return None
    except OSError as error:
        return error
    return None


def settle():
    """Let what cannot be printed go nowhere: Python would fail once more, with an exit code of its own, when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
