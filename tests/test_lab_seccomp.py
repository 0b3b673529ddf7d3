"""The kernel's filter by itself, without the audit hook: what a program that got rid of Python's refusals still cannot do."""

import subprocess
import sys
from pathlib import Path

import pytest

from lab import sandbox
from lab.seccomp import filter_bytes

CHILD = Path(sandbox.__file__).with_name("sandbox_child.py")
START = f"""
import importlib.util, os, socket, sys, threading, subprocess, time, signal, mmap
spec = importlib.util.spec_from_file_location("child", {str(CHILD)!r})
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
child.load("", "")
assert child.confine(bytes.fromhex({filter_bytes().hex()!r}))
"""

pytestmark = pytest.mark.skipif(not sandbox.filter_holds(), reason="this kernel takes no seccomp filter")


def confined(source):
    """What the program printed that runs `source` behind the filter alone; its exit code."""
    done = subprocess.run([sys.executable, "-I", "-c", START + source], capture_output=True, text=True, timeout=30)
    return done.stdout, done.returncode


ATTEMPTS = {
    "read a file": "open('/etc/passwd').read()",
    "write a file": "open('/tmp/written', 'w')",
    "look at a file": "os.stat('/etc/passwd')",
    "list a folder": "os.listdir('/')",
    "delete": "os.unlink('/tmp/written')",
    "a socket": "socket.socket()",
    "a pair of sockets": "socket.socketpair()",
    "fork": "os.fork()",
    "another program": "os.execv('/bin/true', ['true'])",
    "a process": "subprocess.run(['/bin/true'])",
    "a signal": "os.kill(1, 0)",
    "a handler": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "a pipe": "os.pipe()",
    "another folder": "os.chdir('/')",
    "memory as a file": "os.memfd_create('x')",
    "the memory of a process": "open('/proc/1/mem')",
}


def test_nothing_of_the_system_is_left():
    tries = "\n".join(
        f"try:\n    {attempt}\n    print('done: {name}')\nexcept OSError as error:\n    assert error.errno == 1, error"
        for name, attempt in ATTEMPTS.items()
        if hasattr_of(attempt)
    )
    assert confined(tries + "\nprint('tried')") == ("tried\n", 0)


def hasattr_of(attempt):
    import os

    return "memfd_create" not in attempt or hasattr(os, "memfd_create")


def test_no_thread_starts():
    assert (
        confined("try:\n    threading.Thread(target=print).start()\nexcept RuntimeError:\n    print('none')")[0]
        == "none\n"
    )


def test_computing_goes_on():
    source = "import math\nx = [bytes(1 << 22) for _ in range(8)]\ntime.sleep(0.01)\nprint(len(os.urandom(8)), math.pi > 3)"
    assert confined(source) == ("8 True\n", 0)
