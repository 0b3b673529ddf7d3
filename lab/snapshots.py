"""A run's checkpoints: <adapter folder>/checkpoints/<iteration>/ with state.safetensors, state.json and manifest.json.

A checkpoint is written beside its place, every file synced, the manifest last, then renamed: it is whole or not there.
The manifest holds size and SHA-256 of each file and is sealed by its own, so whatever changed later is found when read.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from lab import durable, storage
from lab.device import mx

TENSORS, STATE, MANIFEST = "state.safetensors", "state.json", "manifest.json"
NAME = re.compile(r"(\d{7,})(\.old)?")  # .old: one that was just being replaced by another of the same iteration
LEFT_OVER = (".partial", ".old")


class Damaged(Exception):
    """What is wrong with a checkpoint, in words."""


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint as it was read: {name: array} and the JSON content. `run` identifies the run that wrote it."""

    iteration: int
    run: str
    tensors: dict
    state: dict


def iteration_of(name):
    """The iteration that a checkpoint's folder is named for."""
    return int(NAME.fullmatch(name)[1])


def sealed(content):
    """The bytes of a manifest: `content` with the SHA-256 of itself."""
    return storage.as_json({**content, "seal": hashlib.sha256(storage.as_json(content)).hexdigest()})


def read_manifest(folder):
    """The content of a checkpoint's manifest. Raises Damaged for anything but the very bytes that were written."""
    try:
        raw = (folder / MANIFEST).read_bytes()
        content = json.loads(raw)
        content.pop("seal")
        whole = sealed(content) == raw
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST}: {type(error).__name__}") from error
    if not whole:
        raise Damaged(f"{MANIFEST}: not what was written")
    return content


def read(folder):
    """The Snapshot in `folder`, each byte checked. Raises Damaged, naming the file."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest["iteration"] != iteration_of(folder.name):
        raise Damaged(f"{MANIFEST}: of iteration {manifest['iteration']}")
    for name, written in manifest["files"].items():
        if (found := _measured(folder / name)) != written:
            raise Damaged(
                f"{name}: {found['bytes']} bytes with SHA-256 {found['sha256'][:12]}, "
                f"written were {written['bytes']} with {written['sha256'][:12]}"
            )
    tensors = mx.load(str(folder / TENSORS))
    mx.eval(tensors)  # it loads lazily, and the file may be gone by then
    return Snapshot(manifest["iteration"], manifest["run"], tensors, json.loads((folder / STATE).read_bytes()))


def _measured(path):
    try:
        with open(path, "rb") as file:
            return {
                "bytes": os.fstat(file.fileno()).st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
    except OSError as error:
        raise Damaged(f"{path.name}: cannot read ({error.strerror})") from error


@dataclass
class Snapshots:
    """The checkpoints in `folder`, written for one run; `known` are the iterations that belong to it."""

    folder: Path
    run: str = ""
    keep_last: int = 2
    known: list = field(default_factory=list)

    def save(self, iteration, tensors, state):
        """Write a checkpoint, then remove all but the last `keep_last` of this run. Raises LabError where it cannot."""
        name = f"{iteration:07d}"
        target, partial = self.folder / name, self.folder / f"{name}.partial"
        with storage.writing(target):
            if not self.folder.is_dir():
                os.makedirs(self.folder)
                durable.sync_folder(self.folder.parent)
            try:
                self._write(partial, iteration, tensors, state)
            except OSError:
                storage.remove(partial)
                raise
            if target.exists():
                storage.remove(self.folder / f"{name}.old")
                os.rename(target, self.folder / f"{name}.old")
            os.rename(partial, target)
            durable.sync_folder(self.folder)
            self.known = [*(earlier for earlier in self.known if earlier < iteration), iteration][
                -self.keep_last :
            ]
            self._remove_others()

    def _write(self, partial, iteration, tensors, state):
        storage.remove(partial)
        os.mkdir(partial)
        files = {
            TENSORS: storage.write_file(partial / TENSORS, storage.as_safetensors(tensors)),
            STATE: storage.write_file(partial / STATE, [storage.as_json(state)]),
        }
        manifest = {"iteration": iteration, "run": self.run, "files": files}
        storage.write_file(partial / MANIFEST, [sealed(manifest)])
        durable.sync_folder(partial)

    def _remove_others(self):
        """Older ones, those of another run, and what a crash left; damaged ones stay for a look."""
        kept = {f"{iteration:07d}" for iteration in self.known}
        for path in self.folder.iterdir():
            if path.name not in kept and (NAME.fullmatch(path.name) or path.suffix in LEFT_OVER):
                storage.remove(path)

    def names(self):
        """The names of what may be a checkpoint, newest first."""
        found = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        # of one iteration, the one that replaces comes before the one that is replaced
        return sorted(
            filter(NAME.fullmatch, found), key=lambda name: (iteration_of(name), ".old" not in name), reverse=True
        )

    def whole(self):
        """Yield the whole Snapshots, newest first; a damaged one is named and set aside."""
        for name in self.names():
            try:
                yield read(self.folder / name)
            except Damaged as damage:
                aside = self._set_aside(name)
                print(f"warning: {self.folder / name}: damaged ({damage}); set aside as {aside}", flush=True)

    def _set_aside(self, name):
        """Rename a damaged checkpoint out of the way; returns its new name."""
        for number in range(1, 1_000_000):
            aside = f"{name}.damaged" + (f".{number}" if number > 1 else "")
            if not (self.folder / aside).exists():
                break
        with storage.writing(self.folder / name):
            os.rename(self.folder / name, self.folder / aside)
            durable.sync_folder(self.folder)
        return aside

    def has_damaged(self):
        """Whether damaged checkpoints lie here."""
        return self.folder.is_dir() and any(".damaged" in path.name for path in self.folder.iterdir())

    def going_on_from(self, snapshot):
        """Take the checkpoints up to `snapshot` for this run's own."""
        iterations = {iteration_of(name) for name in self.names()}
        self.known = sorted(number for number in iterations if number <= snapshot.iteration)

    def clear(self):
        """Remove this run's checkpoints and what was set aside: a finished run has no use for them."""
        others = {name for name in self.names() if not self._own(name)}
        with storage.writing(self.folder):
            for path in self.folder.iterdir() if self.folder.is_dir() else []:
                if path.name not in others:
                    storage.remove(path)
            if not others and self.folder.is_dir():
                os.rmdir(self.folder)

    def _own(self, name):
        try:
            return read_manifest(self.folder / name)["run"] == self.run
        except Damaged:
            return True
