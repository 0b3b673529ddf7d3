"""Safetensors files, written: the bytes come from elsewhere, tensor after tensor."""

import hashlib
import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from lab.cli import LabError

WAITING = 4  # buffers that may wait for the disk


class ShardWriter:
    """A file written from front to back by a thread of its own, which also computes its SHA-256.

    At most WAITING buffers wait for the disk. Use it in a `with`, which ends with the file synced to the disk.
    """

    def __init__(self, path):
        self.path, self.digest, self.written = path, hashlib.sha256(), 0

    def __enter__(self):
        self.pool, self.waiting = ThreadPoolExecutor(1), deque()
        try:
            self.file = open(self.path, "wb", buffering=0)  # noqa: SIM115  (closed in __exit__)
        except OSError as error:
            raise LabError(f"{self.path}: cannot write ({error.strerror}); free the disk") from error
        return self

    def put(self, data):
        """Queue a bytes-like object, which must not change any more."""
        self.waiting.append(self.pool.submit(self._write, data))
        while len(self.waiting) > WAITING:
            self.waiting.popleft().result()

    def _write(self, data):
        data = memoryview(data).cast("B")
        place = 0
        try:
            while place < len(data):
                place += self.file.write(data[place:])
        except OSError as error:
            raise LabError(f"{self.path}: cannot write ({error.strerror}); free the disk") from error
        self.digest.update(data)
        self.written += len(data)

    def __exit__(self, kind, error, trace):
        try:
            if kind is None:
                for write in self.waiting:
                    write.result()
                os.fsync(self.file.fileno())
        finally:
            self.pool.shutdown(cancel_futures=True)
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
