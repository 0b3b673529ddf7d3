"""The kernel's filter by itself, without the audit hook: what a program that got rid of Python's refusals still cannot do."""

import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from lab import sandbox, seccomp
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

needs_kernel = pytest.mark.skipif(not sandbox.filter_holds(), reason="this kernel takes no seccomp filter")


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


@needs_kernel
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


@needs_kernel
def test_no_thread_starts():
    assert (
        confined("try:\n    threading.Thread(target=print).start()\nexcept RuntimeError:\n    print('none')")[0]
        == "none\n"
    )


@needs_kernel
def test_computing_goes_on():
    source = "import math\nx = [bytes(1 << 22) for _ in range(8)]\ntime.sleep(0.01)\nprint(len(os.urandom(8)), math.pi > 3)"
    assert confined(source) == ("8 True\n", 0)


def decided(program, architecture, number):
    """What the filter answers to a system call: each of its lines as the kernel reads them (load, jump if equal, return)."""
    place, accumulator = 0, None
    while True:
        code, if_equal, if_not, value = struct.unpack_from("=HBBI", program, 8 * place)
        if code == 0x06:
            return value
        if code == 0x20:
            accumulator = {0: number, 4: architecture}[value]
        else:
            assert code == 0x15
            place += if_equal if accumulator == value else if_not
        place += 1


@pytest.mark.parametrize("machine", seccomp.ALLOWED)
def test_each_number_is_decided_as_the_table_says(monkeypatch, machine):
    """Of this architecture only: the numbers of another one (32 bit, x32 with its bit 30) mean other calls."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", "linux")
    program, (architecture, calls) = filter_bytes(), seccomp.ALLOWED[machine]
    for number in range(1024):
        wanted = 0x7FFF0000 if number in calls.values() else 0x00050001
        assert decided(program, architecture, number) == wanted
        assert decided(program, architecture, number | 1 << 30) == 0x00050001
        assert decided(program, architecture ^ 1 << 31, number) == 0x80000000
    assert decided(program, 0x40000003, 1) == 0x80000000


def test_an_unknown_processor_has_no_filter(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert filter_bytes() == b""
