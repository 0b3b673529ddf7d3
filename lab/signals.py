"""SIGINT and SIGTERM while training: the first asks to stop where nothing is lost, the second leaves at once.

Nothing heavy is imported here, so that it can be in place before everything else is.
"""

import os
import shlex
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress

from lab import launched

STOPPED = 75  # exit code: stopped, resumable
SAME_REQUEST = 0.2  # seconds; make, timeout and terminals may send one request twice
# What the first signal does: it ends the process here, is remembered, or breaks off what is running.
LEAVE, FINISH, GIVE_UP = range(3)
_now = {"phase": LEAVE, "asked": False, "leave_by": None}


class Interrupted(BaseException):
    """The first signal, raised inside `giving_up()`. No Exception, so that nothing on the way takes it for an error."""


class Stopped(Exception):
    """The run stopped because a signal asked for it; the text says where it stands."""


def install():
    """Handle SIGINT and SIGTERM from now on; called once, as early as the process can."""
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    threading.Thread(target=_leave_at_the_second, args=(receiving,), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _first)


def ending():
    """All is done and said: signals are ignored, so that none changes the exit code while Python takes itself down."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def resume_command():
    """The command line of this process with --resume, ready to be pasted into a shell."""
    words = [*launched.command(), *sys.orig_argv]
    return shlex.join(words if "--resume" in words else [*words, "--resume"])


def asked():
    """Whether a signal has asked to stop."""
    return _now["asked"]


def training_begins():
    """From now on the first signal is only remembered: the loop looks at `asked()` where it can stop."""
    _now["phase"] = FINISH


@contextmanager
def giving_up():
    """Work that is simply done again after a resume: the first signal breaks it off with Interrupted."""
    if asked():
        raise Interrupted
    _now["phase"] = GIVE_UP
    try:
        yield
    finally:
        _now["phase"] = FINISH


def _first(number, frame):
    if asked():
        return
    phase, _now["phase"], _now["asked"] = _now["phase"], FINISH, True
    if phase == LEAVE:
        _leave("stopped before training began; go on with:")
    if phase == GIVE_UP:
        raise Interrupted


def _leave_at_the_second(receiving):
    """A thread, because Python runs handlers only between two of its own steps, and a training step can take minutes."""
    os.read(receiving, 1)
    first = time.monotonic()
    starting = threading.Timer(SAME_REQUEST, _leave_if_starting)
    starting.daemon = True
    starting.start()
    while True:
        os.read(receiving, 1)
        if time.monotonic() - first > SAME_REQUEST:
            _leave("left at once; the last checkpoint is whole; go on with:")


def _leave_if_starting():
    """Leave where the handler has not run: a model may be loading, or MLX waiting for other ranks."""
    if _now["phase"] == LEAVE:
        _leave("stopped before training began; go on with:")


def leave_by(leave):
    """Let `leave(words)` end this process where a signal is to do that at once: other ranks are to end with it."""
    _now["leave_by"] = leave


def _leave(words):
    said = f"{words}\n  {resume_command()}"
    if _now["leave_by"]:
        _now["leave_by"](said)
    with suppress(RuntimeError, OSError, ValueError):  # a signal may have come in the middle of a print
        sys.stdout.flush()
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h")  # show the cursor, which a live line hides
        os.write(2, f"\n{said}\n".encode() if launched.rank() == 0 else b"")
    os._exit(STOPPED)
