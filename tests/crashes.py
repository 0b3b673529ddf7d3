"""A process that dies at the n-th step that changes the disk, played inside this one.

From that step on nothing reaches the disk any more, and what was written since the last sync loses its second half,
as after a power cut. Steps: opening a file to write, each write (half of it is done), sync, truncate, rename, remove, mkdir.
"""

import builtins
import os
from contextlib import contextmanager, suppress
from pathlib import Path

STEPS = ("fsync", "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "truncate")


class Crash(BaseException):
    """The process is dead; no `except Exception` of the code under test may see it."""


class Disk:
    """Counts the steps; from number `last` on every one raises Crash, or fails with an `error` (errno)."""

    def __init__(self, last, real_open, error=None):
        self.last, self.done, self.open, self.error = last, 0, real_open, error
        self.unsynced, self.files = {}, {}  # {path: bytes that are safe}, {file descriptor: path}

    def step(self):
        self.done += 1
        if self.last is not None and self.done >= self.last:
            raise OSError(self.error, os.strerror(self.error)) if self.error else Crash(f"step {self.done}")

    def lose(self):
        """What a power cut takes: the second half of all that was written since the last sync."""
        for path, safe in self.unsynced.items():
            if os.path.isfile(path):
                with self.open(path, "r+b") as file:
                    file.truncate((safe + os.path.getsize(path)) // 2)


class Written:
    """A file open for writing that counts."""

    def __init__(self, disk, file):
        self.disk, self.file, self.path = disk, file, os.path.abspath(file.name)
        disk.files[file.fileno()] = self.path
        disk.unsynced[self.path] = os.path.getsize(self.path)

    def write(self, data):
        try:
            self.disk.step()
        except Crash:
            if self.disk.done == self.disk.last and not self.file.closed:
                self.file.write(data[: len(data) // 2])
                self.file.flush()
            raise
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@contextmanager
def crashing(monkeypatch, last, error=None):
    """The Disk of a block that dies at step `last` (None: never, the steps are counted), or where that has an `error`."""
    real = {name: getattr(os, name) for name in STEPS}
    disk = Disk(last, builtins.open, error)

    def opened(file, mode="r", *rest, **options):
        if not any(letter in mode for letter in "wax+"):
            return disk.open(file, mode, *rest, **options)
        disk.step()
        return Written(disk, disk.open(file, mode, *rest, **options))

    def counted(name):
        def function(*arguments, **options):
            disk.step()
            result = real[name](*arguments, **options)
            if name == "fsync":
                disk.unsynced.pop(disk.files.get(arguments[0]), None)
            if name in ("rename", "replace"):
                old, new = (os.path.abspath(path) for path in arguments[:2])
                for path in [path for path in disk.unsynced if path == old or Path(old) in Path(path).parents]:
                    disk.unsynced[new + path[len(old) :]] = disk.unsynced.pop(path)
            return result

        return function

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        for name in STEPS:
            patch.setattr(os, name, counted(name))
        with suppress(Crash):
            yield disk
    if disk.last is not None and disk.done >= disk.last and error is None:
        disk.lose()
