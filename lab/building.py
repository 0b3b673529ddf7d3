"""New checkpoints: planned shards, written so that a folder appears whole or not at all.

Plain Python; the bytes come from elsewhere.
"""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from lab.checkpoints import INDEX, SINGLE
from lab.cli import LabError, write_json

SHARD_BYTES = 5 << 30  # as mlx-lm's MAX_FILE_SIZE_GB
FREE_SHARE = 1.02  # of the bytes to write: configs, tokenizer and the file system's own need


def plan_shards(groups, limit=SHARD_BYTES):
    """Lists of Tensors, one a shard, of at most `limit` bytes; the Tensors of a group stay together."""
    shards, filled = [], 0
    for group in groups:
        nbytes = sum(tensor.nbytes for tensor in group)
        if not shards or filled + nbytes > limit:
            shards.append([])
            filled = 0
        shards[-1] += group
        filled += nbytes
    return shards


def write_checkpoint(folder, shards, chunks, parameters):
    """Write `shards` (lists of Tensors) and their index; `chunks` yields the bytes, one tensor at a time.

    The files are named as mlx-lm names them. Raises LabError where the disk is full.
    """
    count, chunks = len(shards), iter(chunks)
    names = [f"model-{place:05d}-of-{count:05d}.safetensors" for place in range(1, count + 1)]
    names = names if count > 1 else [SINGLE]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard, chunks)
    if next(chunks, None) is not None:  # also lets a generator end properly
        raise RuntimeError(f"{folder}: more tensors than planned")
    where = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    total = sum(tensor.nbytes for shard in shards for tensor in shard)
    metadata = {"total_size": total, "total_parameters": parameters}
    write_json(folder / INDEX, {"metadata": metadata, "weight_map": dict(sorted(where.items()))})


def _write_shard(path, tensors, chunks):
    header, position = {"__metadata__": {"format": "mlx"}}, 0
    for tensor in tensors:
        offsets = [position, position + tensor.nbytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
        position += tensor.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    try:
        with open(path, "wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            for tensor in tensors:
                if (written := file.write(next(chunks))) != tensor.nbytes:
                    raise RuntimeError(f"{tensor.name}: planned {tensor.nbytes} bytes, got {written}")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise LabError(f"{path}: cannot write ({error.strerror}); free the disk") from error


def refuse_target(target, source, force):
    """Raise LabError where `target` must not be written: there and no `force`, no model, or near `source`."""
    target, source = Path(target), Path(source).resolve()
    here = target.resolve()
    if here == source or here in source.parents or source in here.parents:
        raise LabError(f"{target}: is, holds or lies in the source {source}; choose a folder apart from it")
    if target.is_dir() and any(target.iterdir()):
        if not any((target / name).exists() for name in ("summary.json", "config.json")):
            raise LabError(f"{target}: a folder with other things in it; choose another one")
        if not force:
            raise LabError(f"{target}: exists; --force overwrites it")
    elif target.exists() and not target.is_dir():
        raise LabError(f"{target}: a file; choose a folder")


@contextmanager
def building(target, nbytes):
    """A new folder `<target>.partial` to write `nbytes` into; renamed to `target` when the block ends well.

    What an earlier, unfinished run left there is started over; a finished `target` stays until the rename.
    Raises LabError where the disk has no room.
    """
    target = Path(target).resolve()
    partial, replaced = (target.with_name(f"{target.name}{end}.partial") for end in ("", ".replaced"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        elif replaced.exists():  # a run was killed between the two renames below
            replaced.rename(target)
        needed, free = nbytes * FREE_SHARE, shutil.disk_usage(target.parent).free
        if needed > free:
            sizes = f"needs {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free"
            raise LabError(f"{target}: {sizes}; free the disk or choose another folder")
        partial.mkdir()
    except OSError as error:
        raise LabError(f"{target}: cannot write ({error.strerror}); choose another folder") from error
    yield partial
    if target.exists():
        target.rename(replaced)
    partial.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
