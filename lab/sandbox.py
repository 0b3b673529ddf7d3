"""Run a program that a language model wrote.

It runs in a process of its own: isolated interpreter, empty environment, empty folder, limits on time, memory and
descriptors, a part of the standard library, and an audit hook that ends it when it reaches for a file, a socket, a process
or foreign code (lab/sandbox_child.py). The hook is Python inside that process, so the system holds the doors as well: a
seccomp filter on Linux (lab/seccomp.py), sandbox-exec on macOS. `describe` says what this machine has of it. Without either
it is no jail for one who knows CPython's inside, and what makes that easy, ctypes and numpy, is not loaded.
"""

import contextlib
import functools
import importlib.util
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lab.seccomp import filter_bytes

CHILD = Path(__file__).with_name("sandbox_child.py")
MEBIBYTE = 1 << 20
ALARM_SECONDS = 5  # after its time a program ends itself, if we died meanwhile
MEMORY_BYTES, TIMEOUT_SECONDS = 512 * MEBIBYTE, 20
OUTPUT_BYTES = 64 * 1024  # kept of what a program prints; the rest is read and dropped
LINE_BYTES = 1024  # a longer line to the judge is none of the harness's
WATCH_SECONDS = 0.1
MISSING = re.compile(r"No module named '([^']+)'")
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # a program has no threads, numpy included
# macOS: what people keep cannot be read, but for Python's own folders there. Not yet tried on a Mac: see `seatbelt`.
SEATBELT = (
    "(version 1)(allow default)(deny network*)(deny file-write*)(deny process-fork)(deny signal (target others))"
    '(deny file-read-data (subpath "/Users") (subpath "/Volumes"))'
)


@dataclass(frozen=True)
class Outcome:
    """How a program ended, why, and what it printed.

    `ended` is "finished", "failed", "refused", "foul", "timed_out" or "died".
    """

    ended: str
    detail: str
    output: str


class Foul(Exception):
    """The program broke the rules of the line to the judge."""


def run_program(source, timeout_seconds=TIMEOUT_SECONDS, memory_bytes=MEMORY_BYTES, game=None):
    """Run `source` as a program in the sandbox and return its Outcome; never raises for what it does.

    `timeout_seconds` is wall-clock and processor time, `memory_bytes` its address space (on macOS its
    resident memory). A `game` (see lab/bandits.py) has `arguments`, numbers for the harness inside, and
    `reply(word, rest)`, which answers the program's lines with bytes or raises Foul.
    """
    with tempfile.TemporaryDirectory(prefix="lab-sandbox-") as folder:
        program = Path(folder) / "program.py"
        program.write_text(source, encoding="utf-8", errors="replace")
        command = [*outside(), sys.executable, "-I", "-S", "-B", "-X", "utf8", str(CHILD), str(program)]
        seconds = int(timeout_seconds) + 1
        command += [
            str(memory_bytes),
            str(seconds),
            str(seconds + ALARM_SECONDS),
            filter_bytes().hex() if filter_holds() else "",
            numpy_folder(),
        ]
        command += map(str, game.arguments) if game else ()
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, start_new_session=True, **pipes)
        try:
            return _Attendant(process, game, memory_bytes).attend(time.monotonic() + timeout_seconds)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    pipe.close()


class _Attendant:
    """Listens to a running program: answers its lines, keeps what it prints first, watches the time."""

    def __init__(self, process, game, memory_bytes):
        self.process, self.game, self.memory_bytes = process, game, memory_bytes
        self.line, self.printed, self.ending = b"", b"", None

    def attend(self, deadline):
        os.set_blocking(self.process.stdin.fileno(), False)  # one that never reads must not stop us
        streams, looked = selectors.DefaultSelector(), time.monotonic()
        for stream in (self.process.stdout, self.process.stderr):
            streams.register(stream, selectors.EVENT_READ)
        try:
            while streams.get_map():
                now = time.monotonic()
                if now >= deadline:
                    return self._outcome("timed_out", "still running at the time limit")
                if sys.platform != "linux" and now - looked > WATCH_SECONDS:
                    looked = now
                    if resident_bytes(self.process.pid) > self.memory_bytes:
                        return self._outcome("failed", "MemoryError: over the memory limit")
                for key, _ in streams.select(min(WATCH_SECONDS, deadline - now)):
                    if not self._hear(key.fileobj):
                        streams.unregister(key.fileobj)
            return self._last(deadline)
        except (Foul, BlockingIOError) as error:
            return self._outcome("foul", str(error))
        finally:
            streams.close()

    def _hear(self, stream):
        data = os.read(stream.fileno(), 1 << 16)
        if stream is self.process.stderr:
            self.printed = (self.printed + data)[:OUTPUT_BYTES]
            return bool(data)
        *lines, self.line = (self.line + data).split(b"\n")
        if len(self.line) > LINE_BYTES:
            raise Foul("wrote to the judge's line")
        for line in lines:
            self._answer(line.decode("utf-8", "replace"))
        return bool(data)

    def _answer(self, line):
        word, _, rest = line.partition(" ")
        if self.ending:
            raise Foul("wrote to the judge's line after its end")
        if word in ("finished", "failed", "refused"):
            self.ending = word, rest
        elif self.game is None:
            raise Foul(f"wrote to the judge's line: {word[:40]!r}")
        elif reply := self.game.reply(word, rest):
            with contextlib.suppress(BrokenPipeError):  # it died meanwhile: the end of its streams tells
                os.write(self.process.stdin.fileno(), reply)

    def _last(self, deadline):
        try:
            code = self.process.wait(max(WATCH_SECONDS, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return self._outcome("timed_out", "still running at the time limit")
        if self.ending is None:
            if code in (-signal.SIGXCPU, -signal.SIGKILL):
                return self._outcome("timed_out", "used up its processor time")
            return self._outcome("died", f"ended without a word (exit code {code})")
        ended, detail = self.ending
        if missing := MISSING.search(detail):
            detail += f"; {why_missing(missing[1])}"
        return self._outcome(ended, detail)

    def _outcome(self, ended, detail):
        return Outcome(ended, detail, self.printed.decode("utf-8", "replace"))


def why_missing(name):
    """Why the sandbox has no module `name`, in words."""
    top = name.partition(".")[0]
    if top == "numpy":
        installed = importlib.util.find_spec("numpy") is not None
        return "this system cannot confine numpy" if installed else "numpy is not installed here"
    if top in sys.stdlib_module_names:
        return "the sandbox leaves this part of the standard library out"
    return "the sandbox has the standard library's computing part and numpy only"


def describe():
    """One line for people: what holds a program besides Python's own hook."""
    holds = [word for word, there in (("seccomp", filter_holds()), ("no network", no_network())) if there]
    holds += ["sandbox-exec"] if seatbelt() else []
    if not holds:
        return "sandbox: Python's audit hook and limits only (this system offers no more), so without numpy"
    return f"sandbox: Python's audit hook, limits, {', '.join(holds)}; {'with' if numpy_folder() else 'without'} numpy"


def outside():
    """The command that starts a program in what the system offers against it; () where it offers nothing."""
    return no_network() or seatbelt()


@functools.cache
def no_network():
    """The command that starts a program without a network, where Linux lets us; else ()."""
    path = shutil.which("unshare") if sys.platform == "linux" else None
    command = [path, "--net"] if os.geteuid() == 0 else [path, "--map-root-user", "--net"]
    works = path and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return tuple(command) if works else ()


def seatbelt_rules():
    """The rules of macOS's sandbox; of the user's folders those are readable that Python runs from."""
    folders = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, CHILD.parent)}
    readable = " ".join(f'(subpath "{folder}")' for folder in sorted(folders))
    return f"{SEATBELT}(allow file-read-data {readable})"


@functools.cache
def seatbelt():
    """The command that starts a program in macOS's sandbox, where there is one that works; else ()."""
    path = shutil.which("sandbox-exec") if sys.platform == "darwin" else None
    command = [path, "-p", seatbelt_rules()]
    works = (
        path and subprocess.run([*command, sys.executable, "-I", "-c", ""], capture_output=True).returncode == 0
    )
    return tuple(command) if works else ()


@functools.cache
def filter_holds():
    """Whether the kernel takes the seccomp filter: tried on a process of its own."""
    probe = [sys.executable, "-I", "-S", "-B", str(CHILD), "--probe", filter_bytes().hex()]
    return bool(filter_bytes()) and subprocess.run(probe, capture_output=True, env={}).returncode == 0


@functools.cache
def numpy_folder():
    """Where numpy is to be imported from, "" where it is not installed or nothing would hold it."""
    spec = importlib.util.find_spec("numpy")
    return str(Path(spec.origin).parents[1]) if spec and spec.origin and (filter_holds() or seatbelt()) else ""


def resident_bytes(pid):
    """A process's resident memory in bytes, 0 when it is gone. For macOS, where RLIMIT_AS does not hold."""
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return int(said) * 1024 if said.isdigit() else 0
