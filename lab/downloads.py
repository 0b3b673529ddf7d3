"""Shards from the Hugging Face hub, in its own cache: gone on with where a stopped run broke off, checked by SHA-256.

lab/transfers.py brings the bytes. huggingface_hub 2.4.0 begins a shard anew in each run and compares no hash.
"""

import hashlib
import os
import shutil
import sys
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from threading import Event

from huggingface_hub import hf_hub_download
from huggingface_hub.utils import WeakFileLock

from lab import cache, transfers
from lab.cli import LabError, sha256
from lab.explanations import OTHER_DISK, explained
from lab.headers import header_sha256
from lab.progress import bytes_progress

LANES = 4  # files or headers at a time
HEADERS = {}  # {path: SHA-256 of the header that came by range}, to be that of the file that comes later


def headers_of(source):
    """A function for read_checkpoint: {shard: (header, size of the file)} of the named shards on the hub."""

    def absent(shards):
        with explained(source.repository, source.revision), ThreadPoolExecutor(LANES) as pool:
            found = list(pool.map(lambda shard: transfers.read_header(source, shard), shards))
        for shard, (raw, _) in zip(shards, found, strict=True):
            HEADERS[source.folder / shard] = hashlib.sha256(raw).hexdigest()
        return dict(zip(shards, found, strict=True))

    return absent


def fetch_all(source, shards):
    """Fetch all `shards`, some at a time. Raises LabError as fetch does, and where the disk has no room."""
    missing = [shard for shard in shards if not (source.folder / shard).is_file()]
    if not missing:
        return
    _refuse_full_disk(source, missing)
    stop, total = Event(), sum(source.sizes.get(shard, 0) for shard in missing)
    with bytes_progress(total, "downloading") as told, ThreadPoolExecutor(LANES) as pool:
        running = [pool.submit(fetch, source, shard, told, stop) for shard in missing]
        try:
            ended = wait(running, return_when=FIRST_EXCEPTION).done
        finally:
            stop.set()  # of an error or Ctrl-C: what has come so far stays for the next run
            pool.shutdown(cancel_futures=True)
        for future in ended:
            future.result()


def fetch(source, shard, told=lambda nbytes: None, stop=None):
    """The path of `shard` in the cache, downloaded if it is not there, and then of the promised SHA-256.

    Raises LabError, with the remedy, where it cannot be had, or where other bytes came: those are removed.
    """
    path = source.folder / shard
    with explained(source.repository, source.revision):
        if path.is_file():
            pass
        elif shard in source.digests and shard in source.sizes:
            _refuse_full_disk(source, [shard])
            _fetch_blob(source, shard, told, stop or Event())
        else:  # kept in git itself, or the cache is all that can be reached
            hf_hub_download(source.repository, shard, revision=source.revision)
    if path in HEADERS and HEADERS[path] != header_sha256(path):
        raise LabError(f"{path}: not the header that the hub had sent alone; run the same command again")
    return path


def _fetch_blob(source, shard, told, stop):
    """Download a shard into the cache's blobs and link to it. Raises LabError where wrong bytes came."""
    path, digest = source.folder / shard, source.digests[shard]
    storage = source.folder.parents[1]
    blob, lock = storage / "blobs" / digest, storage.parent / ".locks" / storage.name / f"{digest}.lock"
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(lock, path, stop):
        if stop.is_set():
            return
        if not blob.is_file() or blob.stat().st_size != source.sizes[shard]:
            partial = _partial(source, shard)
            transfers.append(source, shard, partial, told, stop)
            if partial.stat().st_size < source.sizes[shard]:
                return  # stopped; nobody waits for this shard any more
            if (found := sha256(partial)) != digest:
                partial.unlink()
                _refuse(path, found, digest)
            os.replace(partial, blob)
        try:
            path.unlink(missing_ok=True)
            path.symlink_to(os.path.relpath(blob, path.parent))
        except OSError:  # a file system without links
            os.replace(blob, path)


@contextmanager
def _alone(lock, path, stop):
    """Hold the lock that huggingface_hub takes, too, or none where `stop` is set before another process is done."""
    with ExitStack() as held:
        said = False
        while not stop.is_set():
            try:
                held.enter_context(WeakFileLock(lock, timeout=1))
                break
            except TimeoutError:
                if not said:
                    print(f"{path}: another process downloads it; waiting for that", file=sys.stderr)
                said = True
        yield


def refuse(source, shard, found):
    """Raise LabError: `shard` has the SHA-256 `found`, not the promised one. It is removed from the cache."""
    cache.remove(source.folder / shard, wrong=True)
    _refuse(source.folder / shard, found, source.digests[shard])


def _refuse(path, found, promised):
    what = f"wrong bytes (SHA-256 {found[:12]}..., the hub promises {promised[:12]}...), so it was removed"
    raise LabError(f"{path}: {what}; run the same command again, which downloads it anew")


def _partial(source, shard):
    return source.folder.parents[1] / "blobs" / f"{source.digests[shard]}.incomplete"


def _refuse_full_disk(source, shards):
    partial = [_partial(source, shard) for shard in shards if shard in source.digests]
    held = sum(path.stat().st_size for path in partial if path.is_file())
    needed = sum(source.sizes.get(shard, 0) for shard in shards) - held
    free = shutil.disk_usage(source.folder).free
    if needed > free:
        what = f"{needed / 1e9:.1f} GB to download, {free / 1e9:.1f} GB of disk free at {source.folder.parents[2]}"
        raise LabError(f"{source.repository}: {what}; {OTHER_DISK}, or --consume-source")
