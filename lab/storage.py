"""Files that are whole or not there: each is written beside its place, synced to the disk, and renamed.

All writing of a training run goes through here, so that tests can crash it at every step.
"""

import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lab.cli import LabError
from lab.device import mx
from lab.durable import sync, sync_folder

DTYPES = {  # as safetensors spells them; source: huggingface.co/docs/safetensors
    mx.float32: "F32",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint64: "U64",
    mx.int64: "I64",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.uint8: "U8",
    mx.bool_: "BOOL",
}


@contextmanager
def writing(path):
    """Tell an operating system's error while `path` is written as one line with the remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise LabError(f"{path}: cannot write ({reason}); free the disk or choose another folder") from error


def write_file(path, chunks):
    """Write byte strings to a new file and sync it; returns {"bytes", "sha256"} of what was meant to be written."""
    digest, size = hashlib.sha256(), 0
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(file, rest) :]
        sync(file)
    finally:
        os.close(file)
    return {"bytes": size, "sha256": digest.hexdigest()}


def replace_file(path, chunks):
    """Put a file in the place of `path`, so that a crash leaves the old one or the whole new one. Raises LabError."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_file(partial, chunks)
        except OSError:
            remove(partial)
            raise
        os.replace(partial, path)
        sync_folder(path.parent)


def remove(path):
    """Remove a file or folder that may not be there."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        os.unlink(path)


def as_json(content):
    """`content` as the bytes of an indented JSON file; NaN and infinity are refused."""
    return (json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()


def as_safetensors(tensors, metadata=None):
    """{name: array} as the byte strings of a safetensors file, by name: the same tensors give the same bytes."""
    header, position = {"__metadata__": {"format": "mlx", **(metadata or {})}}, 0
    for name, value in sorted(tensors.items()):
        offsets = [position, position + value.nbytes]
        header[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": offsets}
        position += value.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    yield len(raw).to_bytes(8, "little") + raw
    for _, value in sorted(tensors.items()):
        plain = value.view(mx.uint16) if value.dtype == mx.bfloat16 else value  # numpy has no bfloat16
        yield np.array(plain).tobytes()
