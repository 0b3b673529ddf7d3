"""Programs that try to get out, and what becomes of them."""

import os
import shutil
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
    assert "part of the standard library" in outcome.detail


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
