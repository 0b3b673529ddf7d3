"""A new folder, built beside its place and moved there whole: what a crash leaves is gone on with, or started over.

Plain Python; the bytes come from elsewhere.
"""

import fcntl
import json
import os
import shutil
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property

from lab import streams
from lab.cli import LabError, read_json, sha256, write_json
from lab.durable import sync, sync_folder
from lab.places import JOURNAL, MARK, PLAN, SUMMARY, is_ours, is_result, partial_of, replaced_of, resolved

SHARD_BYTES = 5 << 30  # as mlx-lm's MAX_FILE_SIZE_GB
FREE_SHARE = 1.02  # of the bytes to write: configs, tokenizer and the file system's own need


@contextmanager
def building(target, nbytes):
    """A new folder to write `nbytes` into, empty; it is moved to `target` when the block ends well.

    A finished `target` stays until then. Raises LabError where the disk has no room, or another run builds there.
    """
    target = resolved(target)
    with _locked(target) as partial:
        _clear(partial)
        refuse_full_disk(target, nbytes)
        yield partial
        _move(partial, target)
        _clear_up(target)


@contextmanager
def going_on(target):
    """The Build of the folder `target`, with what an unfinished run left. Raises LabError as `building` does."""
    target = resolved(target)
    with _locked(target) as partial:
        build = Build(partial, target)
        build.clean_up()
        yield build


def look_at(target):
    """The Build of the folder `target` for a look: nothing is changed, and another run may be at work there."""
    target = resolved(target)
    return Build(partial_of(target), target)


class Build:
    """A folder in the making and its journal, whose lines are durable before anything counts on them."""

    def __init__(self, folder, target):
        self.folder, self.target = folder, target
        self.plan = _read_plan(folder / PLAN)
        self.journal, self.whole_lines = _read_journal(folder / JOURNAL) if self.plan else ({}, 0)

    def clean_up(self):
        """Take away what a crash has left half written."""
        for half in self.folder.glob(".*.partial"):  # write_atomically was killed before its rename
            half.unlink()
        journal = self.folder / JOURNAL
        if self.plan and journal.is_file() and journal.stat().st_size > self.whole_lines:
            os.truncate(journal, self.whole_lines)  # so that the next line begins on its own

    @cached_property
    def complete(self):
        """Whether all was written and only the move was left to do. A summary of what is not whole any more goes."""
        if not is_result(self.folder):
            return False
        files = read_json(self.folder / SUMMARY, "remove it").get("files")
        if isinstance(files, dict) and all(is_whole(self.folder / name, facts) for name, facts in files.items()):
            return True
        (self.folder / SUMMARY).unlink()
        return False

    def begin(self, plan, keep=False):
        """Make `plan` (JSON, with its "fingerprint") the one that is followed; returns whether an earlier run's is gone on with.

        `keep`: what the journal holds is right by this plan, too, whatever its fingerprint.
        """
        if self.plan and self.plan["fingerprint"] == plan["fingerprint"]:
            return True
        if keep:
            (self.folder / SUMMARY).unlink(missing_ok=True)  # it tells of files that the plan makes otherwise
            sync_folder(self.folder)
        else:
            _clear(self.folder)
            self.journal = {}
        self.plan, self.complete = plan, False
        write_json(self.folder / PLAN, plan)
        sync_folder(self.folder)
        return keep

    def said(self, kind):
        """What the journal holds of a kind of thing, {its name: facts}."""
        return self.journal.get(kind, {})

    def say(self, kind, name, facts):
        """Write a line into the journal, durable on return."""
        self.journal.setdefault(kind, {})[name] = facts
        line = json.dumps({"kind": kind, "name": name, "facts": facts}) + "\n"
        try:
            with open(self.folder / JOURNAL, "ab") as file:
                file.write(line.encode())
                file.flush()
                sync(file.fileno())
        except OSError as error:
            raise LabError(f"{self.folder}: cannot write ({error.strerror}); free the disk") from error

    def finish(self):
        """Move the folder to its place, whole and with its summary, then take plan and journal away."""
        sync_folder(self.folder)
        _move(self.folder, self.target)
        _clear_up(self.target)  # plan and journal tell what is there until it is in its place


def _read_plan(path):
    """The plan that an unfinished run followed, or None: a crash cannot leave half of it, a hand can."""
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        return plan if isinstance(plan.get("fingerprint"), str) else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _read_journal(path):
    """({kind: {name: facts}}, bytes) up to the first line that is not whole: a crash leaves half a line."""
    journal, good = {}, 0
    raw = path.read_bytes() if path.is_file() else b""
    for line in raw.splitlines(keepends=True):
        try:
            entry = json.loads(line) if line.endswith(b"\n") else None
            journal.setdefault(entry["kind"], {})[entry["name"]] = entry["facts"]
        except (ValueError, KeyError, TypeError, RecursionError):
            break
        good += len(line)
    return journal, good


def is_whole(path, facts):
    """Whether a file has the "bytes" and the "sha256" that were recorded of it."""
    return path.is_file() and path.stat().st_size == facts["bytes"] and sha256(path) == facts["sha256"]


def refuse_full_disk(target, nbytes):
    """Raise LabError where the disk of `target` has no room for `nbytes` more."""
    parent = next(path for path in target.parents if path.is_dir())
    needed, free = nbytes * FREE_SHARE, shutil.disk_usage(parent).free
    if needed > free:
        sizes = f"needs {gigabytes(needed)} of disk, {gigabytes(free)} are free"
        raise LabError(f"{target}: {sizes}; free the disk or choose another folder")


def gigabytes(nbytes):
    """Bytes in words."""
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:,.1f} MB"


@contextmanager
def _locked(target):
    """The folder that `target` is built in, made if need be, with a lock on it that ends with this process."""
    partial = partial_of(target)
    made = [path for path in (partial, *partial.parents) if not path.exists()]
    with ExitStack() as held:
        try:
            partial.mkdir(parents=True, exist_ok=True)
            for path in made:  # a source may be consumed for what stands in it, so its own name must last, too
                sync_folder(path.parent)
        except OSError as error:
            raise LabError(f"{target}: cannot write there ({error.strerror}); choose another folder") from error
        try:
            handle = os.open(partial, os.O_RDONLY)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(handle), os.stat(partial)):
                raise BlockingIOError  # the other run has moved it away just now
            _repair(target)
            if is_ours(partial):
                (partial / MARK).touch()
        except (BlockingIOError, FileNotFoundError) as error:
            raise LabError(f"{partial}: another run is at work there; wait for it") from error
        except OSError as error:
            raise LabError(f"{target}: cannot write ({error.strerror}); choose another folder") from error
        try:
            yield partial
        except LabError:
            _forget(partial, made)
            raise
        except BrokenPipeError:
            raise  # of the command's output
        except OSError as error:
            if error.filename is None and streams.fault():
                raise
            what = f"{error.filename or target}: {error.strerror or error}"
            raise LabError(f"{what}; free the disk or mend that, then run the same command again") from error


def _forget(partial, made):
    """Remove the folders that were made for a run that came to nothing."""
    if made and partial.is_dir() and {path.name for path in partial.iterdir()} <= {MARK, PLAN}:
        with suppress(OSError):  # another run may have put its own folder beside it
            (partial / PLAN).unlink(missing_ok=True)
            (partial / MARK).unlink()
            for path in made:
                path.rmdir()


def _repair(target):
    """Put right what a run left that was killed in the moves of _move and Build.finish."""
    replaced = replaced_of(target)
    if is_result(replaced) and not target.exists():
        replaced.rename(target)
    elif replaced.exists():
        _remove(replaced)
    if is_result(target) and (target / MARK).is_file():
        _clear_up(target)


def _clear_up(target):
    for name in (JOURNAL, PLAN, MARK):  # the mark goes last: without it the others are somebody else's
        (target / name).unlink(missing_ok=True)
    sync_folder(target)


def _clear(folder):
    """Empty `folder` but for its mark: its summary first, so that no half of it looks complete."""
    (folder / SUMMARY).unlink(missing_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARK:
            entry.unlink()


def _move(partial, target):
    replaced = replaced_of(target)
    if target.exists():
        target.rename(replaced)
    try:
        partial.rename(target)
    except OSError:
        _repair(target)  # the old one stays
        raise
    sync_folder(target.parent)
    if replaced.exists():
        _remove(replaced)


def _remove(folder):
    """Remove a folder so that what a crash leaves of it is known as ours: its mark goes last."""
    (folder / MARK).touch()
    _clear(folder)
    (folder / MARK).unlink()
    folder.rmdir()
