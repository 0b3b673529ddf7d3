"""The hub's cache on the disk, snapshots/<commit>/<file> -> ../../blobs/<hash>: which links are right, what to delete.

Source: huggingface_hub 2.4. There a blob may itself be a link into a store that several repositories share:
<cache>/blobs/<first two digits>/<hash>, a marker file beside it and a list of the blobs that lead to it.
"""

import os
import re
from pathlib import Path

from lab.cli import LabError
from lab.headers import Fault

STORE_MARKER = ".huggingface-shared-blobs"


def refuse_outside(path):
    """Raise LabError where `path` is a link that leads out of its folder, but for the hub's cache, to its blobs."""
    path = Path(path)
    if not path.is_symlink():
        return
    folder, target = _real(path.parent), _real(path)
    blobs, store = _blobs(folder)
    shared = store and re.fullmatch(r"[0-9a-f]{2}/[0-9a-f]{64}", os.path.relpath(target, store))
    if target.parent not in (folder, blobs) and not shared:
        what = f"{path}: a link that leads out of its folder, to {target}"
        raise Fault(what, "put the file itself there, or do not use this checkpoint")


def remove(path, wrong=False):
    """Delete a file; in the hub's cache the link and what it leads to, which stays where another link needs it.

    What is `wrong` does not stay: it is wrong for those, too. Raises LabError where it cannot be deleted.
    """
    path = Path(path)
    folder, link = _real(path.parent), path.is_symlink()
    blobs, store = _blobs(folder)
    blob = folder / os.readlink(path) if link else None
    try:
        path.unlink(missing_ok=True)
        if link and blobs and _real(blob.parent) == blobs and (wrong or not _linked(blobs, blob.name)):
            _remove_blob(blobs / blob.name, store, wrong)
    except OSError as error:
        raise LabError(f"{path}: cannot be deleted ({error.strerror}); delete it yourself") from error


def _real(path):
    return Path(os.path.realpath(path))


def _blobs(folder):
    """(the blobs folder that goes with a `folder` of a snapshot, the store shared by the whole cache); None for none."""
    snapshots = next((path for path in folder.parents if path.name == "snapshots"), None)
    if snapshots is None:
        return None, None
    repository = snapshots.parent
    store = repository.parent / "blobs"
    return repository / "blobs", store if (store / STORE_MARKER).is_file() else None


def _linked(blobs, name):
    """Whether a file of any revision leads to the blob `name`."""
    files = (blobs.parent / "snapshots").glob("*/**/*")
    return any(file.is_symlink() and Path(os.readlink(file)).name == name for file in files)


def _remove_blob(blob, store, wrong):
    """Delete a blob, and its content in the shared store if it is wrong, or no other repository leads to it."""
    target = _real(blob)
    blob.unlink(missing_ok=True)
    references = target.with_name(f"{target.name}.refs")
    if store and store in target.parents and references.is_file():
        lines = references.read_text(encoding="utf-8").splitlines()
        if wrong or not any(os.path.lexists(store.parent / line) for line in lines):
            target.unlink(missing_ok=True)
            references.unlink(missing_ok=True)
