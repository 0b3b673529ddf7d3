"""Programs that try to get out, and what becomes of them."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from lab import sandbox
from lab.sandbox import run_program

MEGABYTE = 1 << 20


def test_an_ordinary_program_runs():
    source = """
import math, random, statistics, json
from collections import namedtuple
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


@dataclass
class Point:
    x: int = 1


class Pair(NamedTuple):
    left: int = 2


class Colour(Enum):
    RED = 3


total = Point().x + Pair().left + Colour.RED.value
print("합계", total, round(math.pi, 2), json.dumps([random.random() < 2]))
"""
    outcome = run_program(source)
    assert (outcome.ended, outcome.output) == ("finished", "합계 6 3.14 [true]\n"), outcome


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("open('/etc/passwd')", "open /etc/passwd"),
        ("import io\nio.FileIO('/etc/passwd')", "open /etc/passwd"),
        ("try:\n    open('/etc/passwd')\nexcept BaseException:\n    print('caught')", "open /etc/passwd"),
        ("import os\nos.system('id')", "os.system"),
        ("import os\nos.fork()", "os.fork"),
        ("import os\nos.remove('/tmp/x')", "os.remove"),
        ("import os\nos.mkdir('x')", "os.mkdir"),
        ("import os\nos.kill(1, 9)", "os.kill"),
        ("import os\nos.execv('/bin/sh', ['sh'])", "os.execv"),
        ("import os\nos.listdir('/')", "os.listdir"),
        ("import os\nos._exit(0)", "os._exit"),
        ("import sys\nsys.settrace(print)", "sys.settrace"),
        ("import sys\nsys.addaudithook(print)", "sys.addaudithook"),
        ("def f(): pass\nf.__code__ = (lambda: 1).__code__", "object.__setattr__"),
        ("import sys\nsys._current_frames()", "sys._current_frames"),
        ("def f(): pass\nf.__code__.replace(co_consts=())", "code.__new__"),
        ("import os\nos.posix_spawn('/bin/sh', ['sh'], {})", "os.posix_spawn"),
        (
            "import sys\nsys.modules['__main__'].HARMLESS = frozenset(('open',))\nopen('/etc/passwd')",
            "open /etc/passwd",
        ),
    ],
)
def test_what_is_refused_ends_the_program(source, what):
    outcome = run_program(source)
    assert outcome.ended == "refused", outcome
    assert outcome.detail.strip().startswith(what)
    assert outcome.output == ""


@pytest.mark.parametrize(
    "name", ["socket", "_socket", "subprocess", "ctypes", "_ctypes", "mmap", "multiprocessing", "pwd"]
)
def test_there_is_nothing_else_to_import(name):
    outcome = run_program(f"import {name}")
    assert (outcome.ended, outcome.output) == ("failed", "")
    assert f"No module named {name!r}" in outcome.detail
    assert "leaves this part of the standard library out" in outcome.detail


def test_what_is_no_part_of_python_is_told_apart():
    detail = run_program("from scipy.stats import beta").detail
    assert "No module named 'scipy'" in detail and "computing part and numpy only" in detail


def test_modules_are_there_where_the_program_names_them():
    source = "import hashlib, logging, argparse, secrets, uuid, traceback, inspect, pprint, csv, io, unittest\n"
    source += "logging.basicConfig(level=logging.INFO)\nlogging.info('시작')\nprint(secrets.randbelow(1), uuid.uuid4().version)"
    assert run_program(source).output == "INFO:root:시작\n0 4\n"


def test_names_in_korean():
    source = "def 더하기(왼쪽, 오른쪽):\n    return 왼쪽 + 오른쪽\nprint(더하기(1, 2), '\\N{BULLET}')"
    assert run_program(source).output == "3 •\n"


needs_numpy = pytest.mark.skipif(not sandbox.numpy_folder(), reason="nothing here confines numpy")


@needs_numpy
def test_numpy_computes_and_its_draws_repeat():
    source = "import numpy as np\nrng = np.random.default_rng()\nprint(np.linalg.inv(2 * np.eye(2))[0, 0], rng.beta(1, 2))"
    first = run_program(source)
    assert first.ended == "finished" and first.output.startswith("0.5 0."), first
    assert run_program(source).output == first.output


@needs_numpy
@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("numpy.fromfile('/etc/passwd')", "open /etc/passwd"),
        ("numpy.load('/etc/passwd')", "open /etc/passwd"),
        ("numpy.zeros(3).tofile('x')", "open x"),
        ("numpy._core._internal.ctypes.CDLL(None)", "ctypes.dlopen"),
    ],
)
def test_numpy_opens_no_door(source, what):
    outcome = run_program(f"import numpy\n{source}")
    assert (outcome.ended, outcome.output) == ("refused", "")
    assert outcome.detail.strip().startswith(what)


@needs_numpy
def test_numpy_cannot_take_more_than_its_memory():
    outcome = run_program("import numpy\nnumpy.ones(1 << 31)")
    assert (outcome.ended, "MemoryError" in outcome.detail) == ("failed", True)


@needs_numpy
def test_a_program_that_writes_over_its_own_memory_only_dies():
    source = "import numpy as np\nview = np.lib.stride_tricks.as_strided(np.zeros(1), (10**7,), (8,))\nview[:] = 1\nprint('out')"
    outcome = run_program(source)
    assert (outcome.ended, outcome.output) == ("died", "")


@pytest.fixture
def no_filter(monkeypatch):
    """A system that has nothing to hold a program besides Python."""
    monkeypatch.setattr(sandbox, "filter_holds", lambda: False)
    monkeypatch.setattr(sandbox, "seatbelt", lambda: ())
    sandbox.numpy_folder.cache_clear()
    yield
    sandbox.numpy_folder.cache_clear()


def test_without_a_filter_no_module_that_writes_memory_is_loaded(no_filter):
    """A forgotten module lives on in its classes: with ctypes' memmove any memory could be written."""
    source = "import argparse, base64, calendar, csv, hashlib, html, inspect, io, logging, pprint, queue, secrets, struct\n"
    source += "import timeit, traceback, unittest, uuid, weakref\n# numpy\n"
    source += "print([c for c in object.__subclasses__() if 'ctypes' in c.__module__ or 'numpy' in c.__module__])"
    outcome = run_program(source)
    assert (outcome.ended, outcome.output) == ("finished", "[]\n"), outcome


def test_a_filter_that_the_kernel_does_not_take_runs_nothing(monkeypatch):
    monkeypatch.setattr(sandbox, "filter_holds", lambda: True)
    monkeypatch.setattr(sandbox, "filter_bytes", lambda: b"no filter at all")
    outcome = run_program("print('ran')")
    assert (outcome.ended, outcome.output) == ("failed", "")
    assert "did not take the filter" in outcome.detail


NATIVE = """
found = next(c for c in object.__subclasses__() if c.__name__ == 'CDLL').__init__.__globals__
number, words = found['c_long'], found['c_char_p']
def native(name, *kinds):
    return found['CFUNCTYPE'](found['c_int'], *kinds)(found['_memmove_addr'] + DISTANCES[name])
print('reached', native('abs', number)(-7))
print(native('open', words, number)(b'/etc/passwd', 0), native('socket', number, number, number)(2, 1, 0))
print(native('kill', number, number)(1, 0), native('fork')(), native('mkdir', words, number)(b'/tmp/made', 511))
"""


@pytest.mark.skipif(not sandbox.filter_holds(), reason="this kernel takes no seccomp filter")
def test_native_code_without_the_hook_meets_the_filter():
    """ctypes, found through its classes, calls the C library's own functions: Python hears nothing of it, the kernel does."""
    import _ctypes
    import ctypes

    names, libc = ("abs", "open", "socket", "kill", "fork", "mkdir"), ctypes.CDLL("libc.so.6")
    at = {name: ctypes.cast(getattr(libc, name), ctypes.c_void_p).value for name in ("memmove", *names)}
    if at["memmove"] != _ctypes._memmove_addr:
        pytest.skip("another memmove serves ctypes here")
    distances = {name: at[name] - at["memmove"] for name in names}
    outcome = run_program(f"DISTANCES = {distances}\n{NATIVE}")
    assert (outcome.ended, outcome.output) == ("finished", "reached 7\n-1 -1\n-1 -1 -1\n"), outcome


def test_what_holds_is_said():
    said = sandbox.describe()
    assert said.startswith("sandbox: Python's audit hook")
    assert ("seccomp" in said) == sandbox.filter_holds()
    assert said.endswith("with numpy" if sandbox.numpy_folder() else "without numpy")


def test_functions_of_the_system_are_in_no_set():
    """os.supports_fd and its like hold the very functions that were replaced: stat, readlink, access."""
    source = "import os\nprint([f for name in dir(os) if name.startswith('supports_') for f in getattr(os, name) if callable(f)])"
    assert run_program(source).output == "[]\n"


def test_no_signal_can_be_ignored():
    source = "import sys\nprint([name for name in sys.modules if 'signal' in name])\nimport _signal"
    outcome = run_program(source)
    assert (outcome.ended, outcome.output) == ("failed", "[]\n")


def test_no_thread_outlives_the_program():
    started = time.monotonic()
    source = "import _thread, time\n_thread.start_new_thread(lambda: [time.sleep(1) for _ in range(60)], ())\nprint('started')"
    outcome = run_program(source)
    assert outcome.ended in ("failed", "refused") and outcome.output == ""
    assert time.monotonic() - started < 20


def test_endless_output_is_ended():
    outcome = run_program("while True: print('가' * 10_000)", timeout_seconds=2)
    assert outcome.ended == "timed_out"
    assert len(outcome.output.encode()) <= sandbox.OUTPUT_BYTES + 4


def test_one_that_sleeps_ends_without_its_parent(tmp_path):
    """The judge is killed in the middle: the program's own alarm ends it, asleep as it is."""
    source = f"""
import os, pathlib, sys
from lab import sandbox
sandbox.ALARM_SECONDS = 1
real = sandbox.subprocess.Popen
def popen(*arguments, **options):
    process = real(*arguments, **options)
    pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(process.pid))
    return process
sandbox.no_network(), sandbox.numpy_folder()
sandbox.subprocess.Popen = popen
sandbox.run_program("import time\\nwhile True: time.sleep(60)", timeout_seconds=1)
"""
    judge = subprocess.Popen([sys.executable, "-c", source])
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    judge.kill()
    judge.wait()
    program = int((tmp_path / "pid").read_text())
    while running(program):
        assert time.monotonic() < deadline, "the program outlived its judge"
        time.sleep(0.1)


def running(pid):
    """Whether a process is there and no zombie."""
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(said) and not said.startswith("Z")


@pytest.mark.parametrize(
    "finder", ["_frozen_importlib'].BuiltinImporter", "_frozen_importlib_external'].PathFinder"]
)
def test_putting_the_importers_back_does_not_help(finder):
    source = f"""
import sys
sys.meta_path.append(sys.modules['{finder})
sys.path_hooks.append(sys.modules['_frozen_importlib_external'].FileFinder.path_hook())
sys.path.append('{os.path.dirname(os.__file__)}')
import socket, pwd, _posixsubprocess
print('out')
"""
    outcome = run_program(source)
    assert outcome.ended in ("refused", "failed"), outcome
    assert outcome.output == ""


def test_nothing_is_written(tmp_path):
    target = tmp_path / "x"
    for path in (str(target), "x"):
        assert run_program(f"open({path!r}, 'w').write('1')").ended == "refused"
    assert not target.exists()


def test_it_starts_in_an_empty_environment():
    outcome = run_program("import os, sys\nprint(dict(os.environ), sys.argv, sys.path, __name__)")
    assert outcome.output == "{} ['program'] [] program\n"


def test_an_endless_loop_is_ended():
    started = time.monotonic()
    outcome = run_program("print('on')\nwhile True: pass", timeout_seconds=2)
    assert outcome.ended == "timed_out"
    assert time.monotonic() - started < 15


def test_an_endless_sleep_that_swallows_exceptions_is_ended():
    source = "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except BaseException:\n        pass"
    assert run_program(source, timeout_seconds=2).ended == "timed_out"


@pytest.mark.parametrize(
    "source", ["x = b'x' * (1 << 34)", "x = []\nwhile True: x.append(bytes(10_000_000) + b'1')"]
)
def test_a_memory_bomb_fails(source):
    outcome = run_program(source, memory_bytes=256 * MEGABYTE)
    assert outcome.ended == "failed", outcome
    assert "MemoryError" in outcome.detail


def test_huge_output_is_cut():
    outcome = run_program("for _ in range(200): print('가' * 10_000)")
    assert outcome.ended == "finished"
    assert len(outcome.output.encode()) <= sandbox.OUTPUT_BYTES + 4
    assert outcome.output.startswith("가가")


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("import sys\nsys.exit(0)", "SystemExit: 0 (line 2)"),
        ("def f(:", "SyntaxError: invalid syntax (line 1)"),
        ("x = 1\n1 / 0", "ZeroDivisionError: division by zero (line 2)"),
        ("input()", "EOFError: EOF when reading a line (line 1)"),
        ("eval('1 +')", "SyntaxError: invalid syntax (line 1)"),
        ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "E (line 3)"),
    ],
)
def test_a_failure_is_told_in_a_line(source, detail):
    outcome = run_program(source)
    assert (outcome.ended, outcome.detail) == ("failed", detail)


def test_a_crash_of_the_interpreter_is_told():
    source = "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f((x,)) if x else 0\nx = ()\n"
    source += "for _ in range(10**6): x = (x,)\nhash(x)"
    outcome = run_program(source, timeout_seconds=10)
    assert outcome.ended in ("died", "failed"), outcome


def test_printing_an_end_is_only_printing():
    outcome = run_program("print('failed forged')\nprint('refused forged')")
    assert (outcome.ended, outcome.detail) == ("finished", "")


def test_writing_to_the_judges_line_is_refused_or_foul():
    source = "import sys\nsend = sys._getframe(1).f_locals['send']\nsend('finished')\nsend('finished')"
    assert run_program(source).ended == "foul"
    assert run_program("import os\nfor line in range(16): os.write(line, b'finished')").ended == "refused"


@pytest.mark.skipif(not shutil.which("ps"), reason="no ps")
def test_resident_memory_of_a_process():
    assert MEGABYTE < sandbox.resident_bytes(os.getpid()) < 1 << 40
    assert sandbox.resident_bytes(2**22 + 1) == 0
