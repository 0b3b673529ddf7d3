"""How every command ends: one-line errors, exit codes, and a JSON summary that says what was run on what."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from lab import streams
from lab.durable import sync

DONE, USER_ERROR, CHECK_FAILED, DIVERGED, STOPPED = 0, 1, 3, 4, 75
PIPE_CLOSED = 141  # 128 + SIGPIPE, as a shell tells it
INSTALLED_BY_SETUP = (
    "mlx",
    "mlx_lm",
    "transformers",
    "tokenizers",
    "numpy",
    "pydantic",
    "yaml",
    "safetensors",
    "rich",
    "matplotlib",
    "jinja2",
    "pyarrow",
)
ROOT = Path(__file__).resolve().parent.parent


class LabError(Exception):
    """What the user can mend: `what, which file and line, what to do`. Ends a command with exit code 1."""

    exit_code = USER_ERROR


class CheckFailed(LabError):
    """A check ran and the answer is no. Exit code 3."""

    exit_code = CHECK_FAILED


class Diverged(LabError):
    """Training produced a loss or a gradient that is not finite. Exit code 4."""

    exit_code = DIVERGED


def finish(main, argv=None):
    """The exit code of `main(argv)`: a LabError becomes one `error: ...` line on stderr, a bug keeps its traceback."""
    streams.mend()
    try:
        code = _code_of(main, argv)
        sys.stdout.flush()  # here, where a closed pipe can still be told
        return code
    except LabError as error:
        return _complain(error, error.exit_code)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in INSTALLED_BY_SETUP:
            raise
        words = f"{error.name} is not installed here; `make setup`, then `source .venv/bin/activate`"
        return _complain(words, USER_ERROR)
    except BrokenPipeError:  # `command | head` closed the pipe: perhaps in the middle of the work, so never "done"
        return PIPE_CLOSED
    except OSError as error:  # of `command > file` on a full disk; of any other file it would be a bug
        if error.filename is not None or not (fault := streams.fault()):
            raise
        return _complain(f"standard output: {fault.strerror}; free the disk, or write elsewhere", USER_ERROR)
    except KeyboardInterrupt as stopped:  # whoever has kept something says how to go on from it
        remedy = next(iter(stopped.args), None) or "run the same command to start again"
        return _complain(f"stopped by Ctrl-C; {remedy}", STOPPED)
    finally:
        streams.settle()


def _code_of(main, argv):
    """The exit code of `main(argv)`. What argparse has printed before it leaves (--help) is flushed, which may fail."""
    try:
        return main(argv) or DONE
    except SystemExit:
        sys.stdout.flush()
        raise


def _complain(words, code):
    """Print the one line of an error, where that can be printed; returns `code`."""
    with suppress(OSError):
        print(f"error: {words}", file=sys.stderr)
    return code


def sha256(path):
    """The hexadecimal SHA-256 of a file, or of a folder's files (names and contents, sorted)."""
    path = Path(path)
    if not path.is_dir():
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for entry in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{entry.relative_to(path).as_posix()}\0{sha256(entry)}\n".encode())
    return digest.hexdigest()


def hashes(items):
    """{name: SHA-256} of files and folders."""
    return {str(item): sha256(item) for item in items}


def write_atomically(path, data):
    """Write text or bytes to `path` so that a reader, or a crash, sees the old file or the whole new one."""
    with written_atomically(path) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def written_atomically(path):
    """A binary file to write to, which becomes `path` when the block ends well and is gone when it does not."""
    path = Path(path)
    _refuse_device(path)
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            sync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise LabError(
            f"{path}: cannot write ({error.strerror}); free the disk or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _beside(path):
    """Where a file is written that becomes `path`: a name of this process alone."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def remove_partials(folder):
    """Remove what killed processes left in `folder` of files that written_atomically was writing."""
    for path in Path(folder).glob(".*.partial"):
        process = path.name.split(".")[-2]
        with suppress(OSError):
            if process.isdigit() and not _is_alive(int(process)):
                path.unlink()


def _is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def check_place(path, read=()):
    """Raise LabError where no file can be written at `path`: told before the work whose result it is to hold.

    `read` are files that the command reads, and so must not write.
    """
    path = Path(path)
    if path.is_dir():
        raise LabError(f"{path}: a folder; name a file in it")
    _refuse_device(path)
    try:
        os.lstat(_beside(path))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise LabError(f"{path}: cannot be written ({error.strerror}); choose a shorter name") from error
    if path.resolve() in [Path(file).resolve() for file in read]:
        raise LabError(f"{path}: what is asked is read from it; name another file for the answers")
    there = next(place for place in path.absolute().parents if place.exists())
    if not there.is_dir():
        raise LabError(f"{path}: cannot be written, {there} is a file; choose another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise LabError(f"{path}: cannot be written, you have no right to write in {there}; choose another folder")


def _refuse_device(path):
    """Raise LabError for a device or a pipe, which a file written by rename would take the place of: root can lose /dev/null."""
    if path.parent == Path("/dev") or (path.exists() and not path.is_file() and not path.is_dir()):
        raise LabError(f"{path}: no regular file; name one, or leave the flag out")


def remove_summary(folder):
    """Take away the summary of an earlier run, so that a folder in the making does not look finished."""
    path = Path(folder) / "summary.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    except OSError as error:
        raise LabError(f"{path}: cannot write there ({error.strerror}); choose another folder") from error


def write_json(path, content):
    """Write `content` as indented UTF-8 JSON, atomically."""
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def read_json(path, remedy):
    """The content of a JSON file. Raises LabError that ends in `remedy` when it is missing or malformed."""
    path = Path(path)
    if not os.path.isfile(path):  # False, too, for a name that no disk takes
        raise LabError(f"{path}: no such file; {remedy}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        line = getattr(error, "lineno", 1)
        raise LabError(f"{path}:{line}: not valid JSON ({error}); {afresh(remedy)}") from error
    except OSError as error:
        raise LabError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
    except RecursionError as error:
        raise LabError(f"{path}: brackets within brackets without end; {afresh(remedy)}") from error


def afresh(remedy):
    """`remedy` of a missing file, for one that is there and malformed: make takes what is there as done."""
    return f"remove it, then {remedy}" if remedy.startswith("`make ") else remedy


def versions():
    """The versions of Python and of the packages that decide the numbers; None for one that is not installed."""
    names = ("mlx", "mlx-lm", "transformers", "tokenizers", "numpy")
    return {"python": sys.version.split()[0], **{name: _version(name) for name in names}}


@lru_cache
def _version(name):
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def commit():
    """The checkout's commit, with `+` where tracked files differ from it; "unknown" outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def write_summary(path, args, inputs, results):
    """Write a command's summary, last and by rename: flags, inputs with sha256, versions, commit, then `results`.

    `inputs` are files or folders, or {name: sha256} where they were hashed before the work. Everything in it is JSON;
    nothing is ever read back from printed text.
    """
    flags = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    provenance = {
        "command": Path(sys.argv[0]).name,
        "flags": flags,
        "inputs": inputs if isinstance(inputs, dict) else hashes(inputs),
        "versions": versions(),
        "commit": commit(),
    }
    write_json(path, {**provenance, **results})
