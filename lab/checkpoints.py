"""Safetensors checkpoints: every fault is named before any work, and a new one appears whole or not at all.

Plain Python on the headers; no tensor is touched here. The format (source: huggingface.co/docs/safetensors):
8 bytes with the length of the header, little-endian; the header, JSON; the tensors' bytes without gaps.
"""

import hashlib
import json
import math
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.cli import LabError, read_json, write_json

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
SHARD_BYTES = 5 << 30  # as mlx-lm's MAX_FILE_SIZE_GB
HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1}  # bytes an element
WIDTHS |= {f"{sign}{bits}": bits // 8 for sign in "IU" for bits in (8, 16, 32, 64)}
AGAIN = "download it again (`hf download` fetches only what is missing)"
FREE_SHARE = 1.02  # of the bytes to write: configs, tokenizer and the file system's own need
# What travels with the weights, besides config.json.
CARRIED = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model"),
    *("chat_template.jinja", "generation_config.json", "LICENSE"),
)


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file: `dtype` as safetensors spells it ("BF16"), `shard` None while it is not written."""

    name: str
    dtype: str
    shape: tuple
    shard: Path | None = None

    @property
    def size(self):
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self):
        """Size in bytes."""
        return self.size * WIDTHS[self.dtype]


def read_checkpoint(folder):
    """The tensors of a checkpoint folder as {name: Tensor}, shard by shard, in the order of the bytes.

    Raises LabError, with file and remedy, for a missing, truncated or overlong shard, a git-lfs pointer, an
    index entry that leads out of the folder, and an index and shards that do not name the same tensors.
    """
    folder = Path(folder)
    if not (folder / INDEX).exists():
        if not (folder / SINGLE).exists():
            raise LabError(f"{folder}: neither {INDEX} nor {SINGLE} in it; {AGAIN}")
        return {tensor.name: tensor for tensor in read_shard(folder / SINGLE)}
    where = weight_map(folder)
    shards = sorted(set(where.values()))
    if missing := [shard for shard in shards if not (folder / shard).is_file()]:
        raise LabError(f"{folder / INDEX}: names files that are not there: {'; '.join(missing)}; {AGAIN}")
    tensors, faults = {}, []
    for shard in shards:
        found = {tensor.name: tensor for tensor in read_shard(folder / shard)}
        named = {name for name, file in where.items() if file == shard}
        faults += [f"{name} not in {shard}" for name in sorted(named - found.keys())]
        faults += [f"{name} in {shard} but not in the index" for name in sorted(found.keys() - named)]
        tensors |= found
    if faults:
        raise LabError(f"{folder / INDEX}: does not fit its shards: {'; '.join(faults)}; {AGAIN}")
    return tensors


def weight_map(folder):
    """The index of a checkpoint folder, {tensor name: file name}. Raises LabError for a file elsewhere."""
    index = folder / INDEX
    refuse_pointer(index)
    content = read_json(index, AGAIN)
    where = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(where, dict) or not where:
        raise LabError(f'{index}: no "weight_map" of tensor names to file names; {AGAIN}')
    # A bare file name cannot be absolute, hold "..", or lead out of the folder.
    bare = re.compile(r"[^/\\:]+\.safetensors")
    if outside := sorted({repr(file) for file in where.values() if not bare.fullmatch(str(file))}):
        what = f"names what is no .safetensors file beside it: {'; '.join(outside)}"
        raise LabError(f"{index}: {what}; do not use this checkpoint")
    return where


def read_shard(path):
    """The Tensors of a safetensors file, in the order of its bytes. Raises LabError where it is not whole."""
    refuse_pointer(path)
    raw, size = _raw_header(path)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        tensors, position = [], 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            tensor = Tensor(name, entry["dtype"], tuple(entry["shape"]), path)
            wanted = [position, position + tensor.nbytes]
            if entry["data_offsets"] != wanted or min(tensor.shape, default=0) < 0:
                raise ValueError(f"the bytes of {name} do not follow on, or do not fit its shape")
            tensors.append(tensor)
            position += tensor.nbytes
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise LabError(f"{path}: broken safetensors header ({reason}); {AGAIN}") from error
    if (promised := 8 + len(raw) + position) != size:
        what = "truncated" if size < promised else "too long"
        raise LabError(f"{path}: {what}: {size} bytes, its header promises {promised}; {AGAIN}")
    return tensors


def header_sha256(path):
    """The hexadecimal SHA-256 of a safetensors file's header: names, shapes and number formats, no values."""
    return hashlib.sha256(_raw_header(path)[0]).hexdigest()


def _raw_header(path):
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8 or length > HEADER_LIMIT:
            what = f"truncated, or no safetensors file: {size} bytes, and its header would take {length}"
            raise LabError(f"{path}: {what}; {AGAIN}")
        return file.read(length), size


def refuse_pointer(path):
    """Raise LabError where `path` is a git-lfs pointer, which git leaves where it did not fetch the file."""
    with open(path, "rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise LabError(f"{path}: a git-lfs pointer, not the file; run `git lfs pull` there, or {AGAIN}")


def carried_files(folder):
    """The files of a checkpoint that travel with its weights. Raises LabError for a git-lfs pointer."""
    paths = [folder / name for name in CARRIED if (folder / name).is_file()]
    for path in paths:
        refuse_pointer(path)
    return paths


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
