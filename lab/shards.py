"""Safetensors files, written: the bytes come from elsewhere, tensor after tensor."""

import hashlib
import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from lab.cli import LabError
from lab.durable import sync

WAITING = 32 << 20  # bytes that may wait for the disk
SYNC_EVERY = 256 << 20  # bytes after which the disk is asked to begin, so that the last sync has little left to do


class ShardWriter:
    """A file written from front to back by a thread of its own, which also computes its SHA-256.

    About WAITING bytes wait for the disk at most. Use it in a `with`, which ends with the file synced to the disk.
    """

    def __init__(self, path):
        self.path, self.digest, self.written = path, hashlib.sha256(), 0

    def __enter__(self):
        self.pool, self.syncs, self.waiting = ThreadPoolExecutor(1), ThreadPoolExecutor(1), deque()
        self.syncing = None
        with self._told():
            self.file = open(self.path, "wb", buffering=0)  # noqa: SIM115  (closed in __exit__)
        return self

    def put(self, data):
        """Queue a bytes-like object, which must not change any more."""
        self.waiting.append((self.pool.submit(self._write, data), memoryview(data).nbytes))
        while sum(nbytes for _, nbytes in self.waiting) > WAITING:
            self.waiting.popleft()[0].result()

    def _write(self, data):
        data = memoryview(data).cast("B")
        place = 0
        with self._told():
            while place < len(data):
                place += self.file.write(data[place:])
        self.digest.update(data)
        begun = self.written // SYNC_EVERY
        self.written += len(data)
        if self.written // SYNC_EVERY > begun and (self.syncing is None or self.syncing.done()):
            self._hear()
            self.syncing = self.syncs.submit(os.fsync, self.file.fileno())

    def _hear(self):
        """Raise LabError where the last sync in the middle of the file failed: a disk tells of lost bytes once only."""
        with self._told():
            if self.syncing is not None:
                self.syncing.result()

    @contextmanager
    def _told(self):
        try:
            yield
        except OSError as error:
            raise LabError(f"{self.path}: cannot write ({error.strerror}); free the disk") from error

    def __exit__(self, kind, error, trace):
        try:
            if kind is None:
                for write, _ in self.waiting:
                    write.result()
                self._hear()
                with self._told():
                    sync(self.file.fileno())
        finally:
            self.pool.shutdown(cancel_futures=True)
            self.syncs.shutdown(cancel_futures=True)
            self.file.close()


def header_of(tensors):
    """The bytes of a safetensors header for Tensors that follow each other."""
    header, position = {"__metadata__": {"format": "mlx"}}, 0
    for tensor in tensors:
        offsets = [position, position + tensor.nbytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
        position += tensor.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw
