"""The inside of the sandbox: it shuts the doors, then runs the program. Started by lab/sandbox.py, never
imported.

It stands alone (`python -I -S`). The old standard input and output are the line to the parent: "pull ARM" is
answered with "0" or "1", "returned VALUE" closes a bandit, and one of "finished", "failed WHY", "refused
WHAT" ends the talk. What the program prints goes to standard error. A refused act ends the process at once,
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
    *("typing", "encodings.ascii", "encodings.latin_1"),
)
# Every audit event outside this list is refused: files, sockets, processes, foreign code, threads, tracing.
HARMLESS = frozenset(
    (
        *("import", "compile", "exec", "code.__new__", "function.__new__", "array.__new__", "time.sleep"),
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


def limit(memory_bytes, cpu_seconds):
    """Set what limits the platform has: memory, processor time, file growth, open files, processes."""
    wanted = {
        "RLIMIT_AS": memory_bytes,
        "RLIMIT_CPU": cpu_seconds,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_NPROC": 0,
        "RLIMIT_CORE": 0,
    }
    for name, value in wanted.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):  # macOS lacks some; see the parent
            resource.setrlimit(getattr(resource, name), (value, value))
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # in a user namespace there may be nobody to become
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)


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
        value = function(pull, arms, rounds)
        send(f"returned {value if type(value) is int else '?'}")


def main(write=os.write, leave=os._exit):
    path, memory_bytes, cpu_seconds, *game = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        source = file.read()
    os.unlink(path)
    sys.argv[:] = ["program"]
    os.environ.clear()  # CPython itself adds LC_CTYPE
    for name in PLAIN:
        __import__(name)
    replies, line = os.fdopen(os.dup(0), "rb"), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    limit(int(memory_bytes), int(cpu_seconds))
    del sys.modules["resource"]
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
    main()
