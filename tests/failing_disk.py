"""A disk that fails at the n-th step of writing, and a process that dies there."""

import contextlib
import os

STEPS = ("open", "write", "fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "link", "truncate")
WRITING = os.O_WRONLY | os.O_RDWR


class Crash(BaseException):
    """The process is dead: no `except Exception` sees it."""


class FailingDisk:
    """Counts the steps that write, and dies at step `at` (from 1; 0: never); nothing works after that.

    A write that dies has written half. With `power_loss` files that were not synced are empty afterwards. With an
    `error` (an errno) the process lives, and every step from there on fails with that error.
    """

    def __init__(self, monkeypatch, at=0, power_loss=False, error=None):
        self.at, self.power_loss, self.error, self.steps, self.unsynced = at, power_loss, error, 0, {}
        for name in STEPS:
            monkeypatch.setattr(os, name, self.counting(name, getattr(os, name)))

    def counting(self, name, step):
        def counted(*args, **kwargs):
            if name == "open" and not args[1] & WRITING:
                return step(*args, **kwargs)
            self.steps += 1
            if self.at and self.steps >= self.at:
                self.fail(name, step, args)
            if name == "fsync":  # the machine goes on running, so nothing needs to reach the real disk
                return self.unsynced.pop(args[0], None)
            done = step(*args, **kwargs)
            if name == "open":
                self.unsynced[done] = os.path.abspath(args[0])
            return done

        return counted

    def fail(self, name, step, args):
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        if self.steps == self.at:
            if name == "write":
                step(args[0], bytes(args[1])[: len(args[1]) // 2])
            for path in self.unsynced.values() if self.power_loss else ():
                with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
                    file.truncate(0)
        raise Crash(f"step {self.steps}: {name} {args[:1]}")


def crashes(monkeypatch, prepare, work, check, power_loss=False, every=1):
    """`prepare()`, then do `work()` on a disk that dies at step 1, 2, 3 ... (`every`) until it does not; `check()` each.

    Returns how many steps there are.
    """
    at = 0
    while True:
        at += every
        prepare()
        with monkeypatch.context() as patch:
            disk = FailingDisk(patch, at, power_loss)
            try:
                work()
            except Crash:
                pass
            else:
                return disk.steps
        check()
