"""An evaluation that lasts: every item's log-likelihoods in a JSONL file, appended as they come.

A run that was killed goes on after the last whole batch and ends with the same bytes. What decides an item's figures
stands beside the file; where any of it has changed, the old items are moved aside and the stage begins anew. What was
moved aside is never written over: it may have taken hours.
"""

import json
import os
import time
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from itertools import count

from lab.cli import LabError, read_json, write_atomically, write_json
from lab.durable import sync

DIGITS = 6  # of a log-likelihood, in nats
SYNC_SECONDS = 1.0  # between two waits for the disk
SETTINGS, OLD = ".settings.json", ".old"


class Items:
    """The items of one stage at `path`, or in memory where it is None; a context manager.

    `settings` is a flat {label: value} of all that decides the figures. Raises LabError where another process writes it.
    """

    def __init__(self, path, settings):
        self.path, self.settings, self.rows, self.kept = path, settings, [], []
        self.file, self.synced = None, 0.0

    def __enter__(self):
        if self.path is not None:
            with self._told():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock()
                self._refuse_other_settings()
                self._read()
        return self

    def __exit__(self, *_):
        if self.file is not None:
            with self._told():
                sync(self.file.fileno())
                self.file.close()

    @contextmanager
    def _told(self):
        try:
            yield
        except OSError as error:
            raise LabError(f"{self.path}: cannot write ({error.strerror}); choose another --output") from error

    def _lock(self):
        self.file = open(self.path, "a+b")  # noqa: SIM115  (closed in __exit__)
        try:
            flock(self.file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise LabError(
                f"{self.path}: another process writes it; wait for that, or choose another --output"
            ) from None

    def _refuse_other_settings(self):
        beside = self.path.with_name(self.path.name + SETTINGS)
        before = read_json(beside, "delete it and run again") if beside.is_file() else {}
        before = before if isinstance(before, dict) else {}
        if os.fstat(self.file.fileno()).st_size and before != self.settings:
            changed = sorted(
                key for key in before.keys() | self.settings if before.get(key) != self.settings.get(key)
            )
            why = f"made with other {', '.join(changed[:6])}" if before else "made by hand or by another version"
            print(f"{self.path}: {why}; kept as {self._kept_aside()}, begun anew", flush=True)
            self.file.truncate(0)
        write_json(beside, self.settings)

    def _kept_aside(self):
        """Copy the items to a name that holds no other ones, and return it."""
        content = self.path.read_bytes()
        places = (
            self.path.with_name(f"{self.path.name}{OLD}{number if number > 1 else ''}") for number in count(1)
        )
        place = next(place for place in places if not place.exists() or place.read_bytes() == content)
        write_atomically(place, content)
        return place.name

    def _read(self):
        """Read what is there, and cut off a last line that a crash tore."""
        self.file.seek(0)
        end = 0
        for line in self.file.read().splitlines(keepends=True):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if not isinstance(row, dict) or "id" not in row:
                print(f"{self.path}: torn after {len(self.kept)} items; cut there and gone on with", flush=True)
                break
            end += len(line)
            self.kept.append((row, end))
        self.file.truncate(end)

    def found(self, batches):
        """How many of `batches` (lists of ids, in the order of the run) are there; they join `rows`.

        What follows the last whole batch is cut off.
        """
        done = 0
        for ids in batches:
            part = self.kept[: len(ids)]
            if [row["id"] for row, _ in part] != ids:
                self._cut()
                break
            self.rows += [row for row, _ in part]
            self.kept, self.end = self.kept[len(ids) :], part[-1][1]
            done += 1
        return done

    end = 0

    def _cut(self):
        if self.kept:
            self.kept = []
            self.file.truncate(self.end)

    def add(self, rows):
        """Append the rows of a batch; they are on the disk a second later, or when the file is closed."""
        self.rows += rows
        if self.file is None:
            return
        with self._told():
            self.file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
            self.file.flush()
            if time.monotonic() - self.synced > SYNC_SECONDS:
                sync(self.file.fileno())
                self.synced = time.monotonic()


def row_of(task, item, log_likelihoods, picked):
    """An item's row: letters for the label and for what was picked, log-likelihoods in nats by letter."""
    values = {letter: round(value, DIGITS) for letter, value in zip(task.letters, log_likelihoods, strict=True)}
    label, said = task.letters[item.label - 1], task.letters[picked]
    row = {"id": item.id, "subject": item.subject, "label": label, "loglikelihoods": values, "picked": said}
    return {**row, "right": label == said}
