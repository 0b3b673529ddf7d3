"""The inside of the sandbox: it shuts the doors, then runs the program. Started by lab/sandbox.py, never
imported.

It stands alone (`python -I -S`). Where the parent hands a seccomp filter over (lab/seccomp.py), the kernel holds the doors
shut, too, or nothing is run. ctypes, with which a program can write any memory of this process, is loaded only then; so is
numpy, but for macOS, where sandbox-exec is around it. The old standard input and output are the line to the parent: "pull
ARM" is answered with "0" or "1", "returned VALUE" closes a bandit, and one of "finished", "failed WHY", "refused WHAT" ends
the talk. What the program prints goes to standard error. A refused act ends the process at once,
so that no exception leads back in here.
"""

import contextlib
import os
import posix
import random
import resource
import sys
import warnings

# What a program may import; it is loaded before the doors are shut.
PLAIN = (
    *("abc", "array", "bisect", "cmath", "collections", "collections.abc", "contextlib", "copy"),
    *("dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "heapq", "itertools", "json"),
    *("math", "numbers", "operator", "random", "re", "statistics", "string", "textwrap", "time", "types"),
    *("typing", "encodings.ascii", "encodings.latin_1", "errno"),
    "unicodedata",  # for names in Korean
)
# Loaded only where the program's text names them: each takes time to load.
ON_DEMAND = (
    *("argparse", "base64", "calendar", "csv", "hashlib", "html", "inspect", "io", "logging", "pprint", "queue"),
    *("secrets", "struct", "timeit", "traceback", "unittest", "uuid", "weakref"),
)
NUMPY = ("numpy", "numpy.random", "numpy.linalg")
# Loaded by others, and no program needs them; the kernel's filter is what holds where one finds them all the same.
TAKEN_AWAY = (
    *("_ctypes", "_posixsubprocess", "_signal", "_socket", "ctypes", "gc", "mmap", "multiprocessing", "resource"),
    *("select", "selectors", "signal", "socket", "subprocess", "tempfile", "shutil", "faulthandler", "pickle"),
)
# Every audit event outside this list is refused: files, sockets, processes, foreign code, threads, tracing.
HARMLESS = frozenset(
    (
        # Not code.__new__: with bytecode of its own making a program reads and writes any memory of this process.
        *("import", "compile", "exec", "function.__new__", "array.__new__", "time.sleep"),
        *("builtins.id", "builtins.input", "builtins.input/result"),
        *("object.__getattr__", "object.__setattr__", "object.__delattr__"),
        *("sys._getframe", "sys._getframemodulename", "sys.excepthook", "sys.unraisablehook"),
    )
)
# Calls into the system that no audit event covers are taken away; these stay.
KEPT = frozenset(("fspath", "urandom", "strerror", "getpid", "cpu_count", "times"))
LOADERS = ("create_builtin", "exec_builtin", "create_dynamic", "exec_dynamic")
NOBODY = 65534
OPEN_FILES = 16


def limit(memory_bytes, cpu_seconds, alarm_seconds):
    """Set what limits the platform has: memory, processor time, file growth, open files, processes."""
    wanted = {"RLIMIT_AS": memory_bytes, "RLIMIT_CPU": cpu_seconds, "RLIMIT_NOFILE": OPEN_FILES}
    wanted |= dict.fromkeys(("RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_CORE"), 0)
    for name, value in wanted.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):  # macOS lacks some; see the parent
            resource.setrlimit(getattr(resource, name), (value, value))
    import _signal

    # If the parent dies meanwhile, nobody else ends one that sleeps.
    _signal.setitimer(_signal.ITIMER_REAL, alarm_seconds)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # in a user namespace there may be nobody to become
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)


def load(source, numpy_folder, with_ctypes=True):
    """Import what the program may import, and ctypes for `confine`, for nothing is found later.

    Forgotten modules live on in their classes, so without the kernel's filter ctypes is not even loaded.
    """
    if with_ctypes:
        with contextlib.suppress(ImportError):
            __import__("ctypes")
    for name in PLAIN + tuple(name for name in ON_DEMAND if name in source):
        __import__(name)
    if numpy_folder and "numpy" in source:
        sys.path.append(numpy_folder)
        for name in NUMPY:
            __import__(name)
        # default_rng() without a seed: the same program gets the same verdict.
        draw = random.Random(0)
        sys.modules["numpy.random.bit_generator"].randbits = draw.getrandbits


def confine(filter_bytes):
    """Put the kernel's filter on this process, for good; returns whether it took."""
    ctypes = sys.modules.get("ctypes")  # from here on there are no files to import it from
    if ctypes is None:
        return False

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    held = ctypes.create_string_buffer(filter_bytes)
    program = Program(len(filter_bytes) // 8, ctypes.addressof(held))
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_void_p] * 4
    no_new_privileges, seccomp, with_filter = 38, 22, 2  # Source: linux/prctl.h
    return (
        prctl(no_new_privileges, 1, 0, 0, 0) == 0 == prctl(seccomp, with_filter, ctypes.addressof(program), 0, 0)
    )


def take_away():
    """Forget modules that no program needs; what holds system calls is emptied."""
    for name in list(sys.modules):
        top = name.partition(".")[0]
        if top in TAKEN_AWAY:
            module = sys.modules.pop(name)
            if top in ("_signal", "signal", "resource", "gc", "mmap", "_posixsubprocess"):
                vars(module).clear()
    for name in list(vars(os)):
        if name.startswith("supports_"):  # sets of the very functions that `shut` replaces
            setattr(os, name, frozenset())


def ender(line, write=os.write, leave=os._exit):
    """A function that reports what was refused and ends the process."""

    def end(what):
        try:
            write(line, b"refused " + what.encode("utf-8", "replace")[:200].replace(b"\n", b" ") + b"\n")
        finally:
            leave(1)

    return end


def shut(line):
    """Shut the doors, for good. Names that the program could replace are bound here, before it runs."""
    warnings.simplefilter("ignore")
    for places in (sys.path, sys.meta_path, sys.path_hooks):
        places.clear()
    for module in (posix, os):
        for name, value in list(vars(module).items()):
            if type(value) is type(os.getpid) and name not in KEPT:
                setattr(module, name, _stub(f"os.{name}", line))
    loading = sys.modules["_imp"]
    for name in LOADERS:
        if hasattr(loading, name):
            setattr(loading, name, _stub(f"_imp.{name}", line))
    end = ender(line)

    def hook(event, arguments, harmless=HARMLESS, end=end, type=type, str=str):
        first = arguments[0] if arguments and type(arguments[0]) is str else ""
        foreign = event == "import" and arguments[1] is not None
        rewired = event == "object.__setattr__" and arguments[1] == "__code__"
        if event in harmless and not foreign and not rewired:
            return
        if event == "open" and arguments[1] in ("r", "rb") and first[:1] == "<" and first[-1:] == ">":
            return  # CPython looks for the source line of a SyntaxError in "<program>"; there is none
        end(event + " " + first)

    sys.addaudithook(hook)


def _stub(name, line):
    end = ender(line)  # its own: a program that breaks this one leaves the hook's whole
    return lambda *_, **__: end(name)


def describe(error):
    """An exception in one line, with the program's line number where there is one."""
    number = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == "<program>":
            number = trace.tb_lineno
        trace = trace.tb_next
    try:
        text = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    except BaseException:
        text = type(error).__name__
    return text.rstrip(": ") + (f" (line {number})" if number else "")


def play(program, arms, rounds, bandits, send, receive):
    """Call the program's thompson_sampling on each of the parent's bandits, with random numbers seeded."""
    function = program.get("thompson_sampling")
    if not callable(function):
        raise NameError("the program defines no function thompson_sampling(pull, arms, rounds)")

    def pull(arm):
        """The reward, 0 or 1, of pulling `arm`, 0 to arms - 1."""
        place = arm.__index__()
        if not 0 <= place < arms:
            raise IndexError(f"pull({place}): the arms are 0 to {arms - 1}")
        send(f"pull {place}")
        return int(receive())

    for number in range(bandits):
        random.seed(number)
        if numpy_random := sys.modules.get("numpy.random"):
            numpy_random.seed(number)
        value = function(pull, arms, rounds)
        whole = type(value) is int or type(value).__name__ in ("int64", "int32", "intp")
        send(f"returned {int(value) if whole else '?'}")


def main(write=os.write, leave=os._exit):
    path, memory_bytes, cpu_seconds, alarm_seconds, filter_hex, numpy_folder, *game = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        source = file.read()
    with contextlib.suppress(OSError):  # macOS's own sandbox may forbid it; the parent removes the folder
        os.unlink(path)
    sys.argv[:] = ["program"]
    os.environ.clear()  # CPython itself adds LC_CTYPE
    load(source, numpy_folder, with_ctypes=bool(filter_hex))
    replies, line = os.fdopen(os.dup(0), "rb"), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    limit(int(memory_bytes), int(cpu_seconds), int(alarm_seconds))
    if filter_hex and not confine(bytes.fromhex(filter_hex)):
        write(line, b"failed the kernel did not take the filter\n")
        leave(1)
    take_away()
    shut(line)

    def send(text):
        write(line, text.encode("utf-8", "replace").replace(b"\n", b" ")[:500] + b"\n")

    program = {"__name__": "program"}
    try:
        exec(compile(source, "<program>", "exec"), program)
        if game:
            play(program, *map(int, game), send, replies.readline)
        word = "finished"
    except BaseException as error:
        word = f"failed {describe(error)}"
    try:
        sys.stdout.flush()
    finally:
        send(word)
        leave(0)


if __name__ == "__main__":
    if sys.argv[1] == "--probe":  # does the kernel take the filter?
        load("", "")
        sys.exit(not confine(bytes.fromhex(sys.argv[2])))
    main()
