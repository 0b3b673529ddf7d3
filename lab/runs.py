"""The folder of a run: one trainer at a time, earlier results safe, and where a run begins.

A new run may only replace what lies there when it is told to, and an earlier run's results stay until it has its own.
"""

import fcntl
import json
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lab import storage
from lab.adapters import CONFIG as ADAPTER_CONFIG
from lab.adapters import WEIGHTS
from lab.cli import LabError, sha256
from lab.fingerprint import differences, identity
from lab.snapshots import Snapshot, Snapshots

CHECKPOINTS, SUMMARY, CURVE, LOCK = "checkpoints", "summary.json", "curve.jsonl", ".lock"


@dataclass(frozen=True)
class Beginning:
    """Where a run starts: from `snapshot`, or from the beginning (None), or not at all (`finished`)."""

    settings: object
    snapshots: Snapshots
    snapshot: Snapshot | None = None
    finished: bool = False


def holding(folder):
    """What `folder` holds, in words, or None: checkpoints, a finished run, or an adapter from elsewhere."""
    folder = Path(folder)
    if Snapshots(folder / CHECKPOINTS).names():
        return "an unfinished run"
    if (folder / SUMMARY).exists():
        return "a finished run"
    return "an adapter" if (folder / WEIGHTS).exists() else None


def refuse_foreign(folder):
    """Raise LabError where `folder` holds things and no training run: a model, data, documents. --overwrite is no leave."""
    folder = Path(folder)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.exists() and not folder.is_dir():
        raise LabError(f"--adapter-path {folder}: a file; name a folder")
    own = names & {CHECKPOINTS, WEIGHTS, ADAPTER_CONFIG, CURVE, LOCK}
    if SUMMARY in names and "adapter_path" not in _flags(folder / SUMMARY):
        own = set()
    if names and not own:
        few = ", ".join(sorted(names)[:3])
        raise LabError(f"--adapter-path {folder}: a folder with other things in it ({few} ...); name another one")


def _flags(path):
    try:
        flags = json.loads(path.read_text(encoding="utf-8")).get("flags")
    except (OSError, ValueError, AttributeError):
        return {"adapter_path": None}  # half a summary, or none that can be read: decided by what else lies there
    return flags if isinstance(flags, dict) else {}


def refuse_used(settings):
    """Raise LabError where the run of `settings` would replace another one without being told to."""
    held = holding(settings.adapter_path)
    if held and not settings.resume and not settings.overwrite:
        going_on = "--resume goes on with it, " if held == "an unfinished run" else ""
        raise LabError(
            f"{settings.adapter_path}: holds {held}; {going_on}--overwrite replaces it, or name another --adapter-path"
        )


def refuse_busy(folder):
    """Raise LabError where another process holds the lock of `folder`; the lock is left as it is."""
    with suppress(OSError), open(Path(folder) / LOCK, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise at_work(folder) from None


def at_work(folder):
    """The error of a folder in which another trainer is at work."""
    return LabError(f"{folder}: another trainer is at work there; wait for it or name another --adapter-path")


@contextmanager
def locked(folder):
    """Keep other trainers out of `folder`, which is made; the kernel ends the lock when this process dies.

    Raises LabError where another trainer is at work or nothing can be written. A folder left empty is removed.
    """
    folder = Path(folder)
    with storage.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder / LOCK)
    if lock is None:
        raise at_work(folder)
    try:
        yield
    finally:
        try:
            with suppress(OSError):
                os.unlink(folder / LOCK)
        finally:
            os.close(lock)
        with suppress(OSError):
            folder.rmdir()


def _lock(path):
    """An open, locked file, or None where another process holds it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        os.close(file)  # its owner removed it between our two steps: this lock would keep nobody out


def begin(settings, found):
    """Where the run with the fingerprint `found` begins in settings.adapter_path, said aloud. Damage is set aside.

    Raises LabError where --resume finds another run, with every difference, or an adapter that no run here wrote.
    """
    folder = Path(settings.adapter_path)
    snapshots = Snapshots(folder / CHECKPOINTS, identity(found), settings.keep_last)
    if not settings.resume:
        refuse_used(settings)
        return Beginning(settings, snapshots)
    summary = _summary(folder)
    finished = None if summary is None else summary.get("fingerprint", {})
    lost = _lost(folder, summary) if finished == found else None
    if finished == found and not lost:
        return Beginning(settings, snapshots, finished=True)
    if lost and (folder / WEIGHTS).exists() and not settings.overwrite:
        raise LabError(f"{folder}: {lost}; --overwrite trains it again")
    if lost:
        print(f"{folder}: {lost}; it is trained again")
    others = [finished] if finished not in (None, found) else []
    for snapshot in snapshots.whole():
        if snapshot.run == snapshots.run:
            snapshots.going_on_from(snapshot)
            print(f"{folder}: goes on from the checkpoint at iteration {snapshot.iteration}")
            return Beginning(settings, snapshots, snapshot)
        others.insert(0, snapshot.state["fingerprint"])
    if others:
        _refuse_or_say(settings, others[0], found)
    elif not lost and holding(folder) and not snapshots.has_damaged() and not settings.overwrite:
        raise LabError(f"{folder}: holds an adapter and no checkpoint of its run; --overwrite replaces it")
    print(f"{folder}: no checkpoint to go on from; starts from the beginning")
    return Beginning(settings, snapshots)


def _summary(folder):
    """The summary of the finished run in `folder`; {} for one that cannot be read, None where there is none."""
    try:
        content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _lost(folder, summary):
    """What keeps a finished run's adapter from being the one that it wrote, in words, or None."""
    if not (folder / WEIGHTS).exists():
        return f"a finished run without its {WEIGHTS}"
    whole = sha256(folder / WEIGHTS) == summary.get("adapter_sha256")
    return None if whole else f"{WEIGHTS} is not what the finished run wrote"


def _refuse_or_say(settings, old, new):
    """The run in the folder is another one: --overwrite says what differs, without it that is refused."""
    what = "; ".join(differences(old, new)) if old else "its summary does not say what decided it"
    words = f"{settings.adapter_path}: holds a run of something else: {what}"
    if not settings.overwrite:
        raise LabError(f"{words}; name another --adapter-path, or replace it with --overwrite")
    print(words)
