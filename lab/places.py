"""Where a folder may be built: never on top of a source, of what a hand has put there, or of a result unasked."""

import json
import os
import re
from pathlib import Path

from lab import checkpoints
from lab.cli import LabError
from lab.headers import shown

PLAN, JOURNAL, SUMMARY = "plan.json", "journal.jsonl", "summary.json"
MODEL_CARD = "README.md"
REPLACED = ".replaced.partial"
MARK = ".in-the-making"  # in a folder that is ours to empty
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def refuse_place(target, source):
    """Raise LabError where a folder cannot be built at `target`: near `source`, a mount point, where we are, foreign."""
    target = resolved(target)
    source = resolved(source)
    here = Path.cwd()
    if holds(target, here) or os.path.ismount(target):
        raise LabError(f"{target}: the working folder, one above it or a mount point; choose a folder inside it")
    try:
        replaced_of(target).exists()
    except OSError as error:
        what = f"no room for {REPLACED} behind its name ({error.strerror}); choose a shorter one"
        raise LabError(f"{target}: {what}") from error
    for place in (target, partial_of(target), replaced_of(target)):
        if holds(place, source) or holds(source, place):
            raise LabError(f"{target}: is, holds or lies in the source {source}; choose a folder apart from it")
    if target.exists() and not target.is_dir():
        raise LabError(f"{target}: a file; choose a folder")
    partial = partial_of(target)
    if os.path.lexists(partial) and (partial.is_symlink() or not is_ours(partial)):  # it would be moved as a link
        raise LabError(f"{partial}: not from this command, and in its way; move it elsewhere")
    replaced = replaced_of(target)
    if replaced.exists() and not (is_result(replaced) or is_ours(replaced)):
        raise LabError(f"{replaced}: not from this command, and in its way; move it elsewhere")
    if is_result(replaced) and target.exists() and not is_result(target):  # else the only result there is would go
        raise LabError(f"{target}: in the place of the result that waits in {replaced}; move it elsewhere")


def refuse_existing(target, force):
    """Raise LabError where `target` holds something: a result and no `force`, or what no such command wrote."""
    if not target.is_dir():
        return
    if not os.access(target, os.R_OK | os.W_OK | os.X_OK):  # replaced, it could be neither read nor removed
        raise LabError(f"{target}: you may not read or write it; `chmod u+rwx` it, or choose another folder")
    if not _names(target):
        return
    if not is_result(target):
        raise LabError(f"{target}: a folder with other things in it; choose another one")
    if not force:
        raise LabError(f"{target}: exists; --force overwrites it")
    ours = {SUMMARY, *_written(target)}
    if (target / MARK).is_file():  # a crash came between the move and its end
        ours |= {MARK, PLAN, JOURNAL}
    if foreign := _names(target) - ours:
        what = f"holds {', '.join(map(shown, sorted(foreign)))}, which --force would delete"
        raise LabError(f"{target}: {what}; move that elsewhere")


def is_result(folder, name=SUMMARY):
    """Whether `folder` is what a command with --mlx-path has written, by its summary.json, or a copy of that."""
    flags = _summary(folder, name).get("flags")
    return isinstance(flags, dict) and "mlx_path" in flags


def _summary(folder, name=SUMMARY):
    try:
        summary = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _written(folder):
    """The names of what a command wrote there: as its summary.json lists them, else those that every model has."""
    files = _summary(folder).get("files")
    if isinstance(files, dict):
        return set(files)
    shards = {path.name for path in folder.glob(checkpoints.SHARDS) if path.is_file()}
    return {"config.json", MODEL_CARD, checkpoints.INDEX, *checkpoints.CARRIED, *shards}


def _names(folder):
    return {path.name for path in folder.iterdir()} - {".DS_Store"}  # which the Mac's Finder puts everywhere


def holds(folder, place):
    """Whether `place` is `folder` or lies in it, also where a disk takes A for a, or a folder has several paths."""
    return any(_is_one(folder, above) for above in (place, *place.parents))


def _is_one(left, right):
    return left == right or (left.exists() and right.exists() and left.samefile(right))


def on_one_disk(left, right):
    """Whether two folders take their room from the same disk."""
    return os.stat(left).st_dev == os.stat(right).st_dev


def is_ours(partial):
    """Whether a folder in the making was begun by lab.building, or is empty."""
    return partial.is_dir() and ((partial / MARK).is_file() or not any(partial.iterdir()))


def resolved(path):
    """The absolute path. Raises LabError for a loop of links or a name that no disk takes."""
    try:
        path = Path(path).expanduser()
        path.exists()
        if CONTROL.search(str(path.resolve())):
            raise RuntimeError("control characters, or no UTF-8")  # neither fits into a message, or into JSON
        return path.resolve()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LabError(f"{shown(str(path))}: no usable path ({reason}); mend it") from error


def partial_of(target):
    """Where the folder `target` is built."""
    return target.with_name(f"{target.name}.partial")


def replaced_of(target):
    """Where the old folder `target` waits while the new one takes its place."""
    return target.with_name(f"{target.name}{REPLACED}")
