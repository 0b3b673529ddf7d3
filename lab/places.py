"""Where a folder may be built: never on top of a source, of what a hand has put there, or of a result unasked."""

import json
import os
from pathlib import Path

from lab.cli import LabError

PLAN, JOURNAL, SUMMARY = "plan.json", "journal.jsonl", "summary.json"
MARK = ".in-the-making"  # in a folder that is ours to empty


def refuse_place(target, source):
    """Raise LabError where a folder cannot be built at `target`: near `source`, a mount point, where we are, foreign."""
    target = resolved(target)
    source = resolved(source)
    here = Path.cwd()
    if target == here or target in here.parents or os.path.ismount(target):
        raise LabError(f"{target}: the working folder, one above it or a mount point; choose a folder inside it")
    for place in (target, partial_of(target), replaced_of(target)):
        if place == source or place in source.parents or source in place.parents:
            raise LabError(f"{target}: is, holds or lies in the source {source}; choose a folder apart from it")
    if target.exists() and not target.is_dir():
        raise LabError(f"{target}: a file; choose a folder")
    if partial_of(target).is_dir() and not is_ours(partial_of(target)):
        raise LabError(f"{partial_of(target)}: not from this command, and in its way; move it elsewhere")
    if replaced_of(target).exists() and not (is_result(replaced_of(target)) or is_ours(replaced_of(target))):
        raise LabError(f"{replaced_of(target)}: not from this command, and in its way; move it elsewhere")


def refuse_existing(target, force):
    """Raise LabError where `target` holds something: a result and no `force`, or what no such command wrote."""
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not is_result(target):
        raise LabError(f"{target}: a folder with other things in it; choose another one")
    if not force:
        raise LabError(f"{target}: exists; --force overwrites it")
    files = _summary(target).get("files")
    foreign = {path.name for path in target.iterdir()} - {SUMMARY, PLAN, JOURNAL, *(files or ())}
    if files is not None and foreign:
        what = f"holds {', '.join(sorted(foreign))}, which --force would delete"
        raise LabError(f"{target}: {what}; move that elsewhere")


def is_result(folder):
    """Whether `folder` is what a command with --mlx-path has written, by its summary.json."""
    flags = _summary(folder).get("flags")
    return isinstance(flags, dict) and "mlx_path" in flags


def _summary(folder):
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def is_ours(partial):
    """Whether a folder in the making was begun by lab.building, or is empty."""
    return partial.is_dir() and ((partial / MARK).is_file() or not any(partial.iterdir()))


def resolved(path):
    """The absolute path. Raises LabError for a loop of links or a name that no disk takes."""
    try:
        path = Path(path).expanduser()
        path.exists()
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise LabError(f"{path}: no usable path ({getattr(error, 'strerror', None) or error}); mend it") from error


def partial_of(target):
    """Where the folder `target` is built."""
    return target.with_name(f"{target.name}.partial")


def replaced_of(target):
    return target.with_name(f"{target.name}.replaced.partial")
