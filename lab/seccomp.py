"""A Linux seccomp filter: the only system calls that a program in the sandbox has, on top of what Python refuses.

The audit hook of lab/sandbox_child.py is Python and lives in the memory of the program that it watches: who can write
memory at will (a bug of CPython, or numpy's as_strided) can take it away. The kernel's filter stays: computing, memory,
time, and reading and writing what is open already; no file, socket, process, thread or signal. Source: linux/seccomp.h,
linux/filter.h, linux/audit.h, and the tables of system calls for x86_64 (asm/unistd_64.h) and aarch64 (asm-generic/unistd.h).
"""

import platform
import struct
import sys

ALLOWED = {  # machine: (AUDIT_ARCH, {name: number})
    "x86_64": (
        0xC000003E,
        {
            **{"read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10},
            **{"munmap": 11, "brk": 12, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25},
            **{"madvise": 28, "nanosleep": 35, "getpid": 39, "exit": 60, "gettimeofday": 96, "getrusage": 98},
            **{"times": 100, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204},
            **{"restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230},
            **{"exit_group": 231, "getrandom": 318},
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            **{"close": 57, "lseek": 62, "read": 63, "write": 64, "ppoll": 73, "fstat": 80, "exit": 93},
            **{"exit_group": 94, "futex": 98, "nanosleep": 101, "clock_gettime": 113, "clock_getres": 114},
            **{"clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128},
            **{"rt_sigprocmask": 135, "rt_sigreturn": 139, "times": 153, "getrusage": 165, "gettimeofday": 169},
            **{"getpid": 172, "gettid": 178, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222},
            **{"mprotect": 226, "madvise": 233, "getrandom": 278},
        },
    ),
}
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF: load a word, jump if equal, return
NUMBER, ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000  # REFUSE: the call fails with EPERM


def filter_bytes():
    """The filter as an array of struct sock_filter, or b"" where this system or processor is not known here."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ALLOWED or sys.maxsize < 1 << 32:
        return b""
    architecture, calls = ALLOWED[machine]
    lines = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    numbers = sorted(calls.values())
    lines += [(EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    lines += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
