"""Safetensors checkpoints, read: every fault is named before any work.

Plain Python on the headers; no tensor is touched here. The format (source: huggingface.co/docs/safetensors):
8 bytes with the length of the header, little-endian; the header, JSON; the tensors' bytes without gaps.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from lab.cli import LabError, read_json

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1}  # bytes an element
WIDTHS |= {f"{sign}{bits}": bits // 8 for sign in "IU" for bits in (8, 16, 32, 64)}
AGAIN = "download it again (`hf download` fetches only what is missing)"
# What travels with the weights, besides config.json.
CARRIED = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model"),
    *("chat_template.jinja", "generation_config.json", "LICENSE"),
)


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file: `dtype` as safetensors spells it ("BF16"), `shard` None while it is not written.

    `offset` is the place of its first byte in that file.
    """

    name: str
    dtype: str
    shape: tuple
    shard: Path | None = None
    offset: int = 0

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
            tensor = Tensor(name, entry["dtype"], tuple(entry["shape"]), path, 8 + len(raw) + position)
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
