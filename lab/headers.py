"""The header of a safetensors file, read with distrust: what it says of names, types, shapes and bytes.

Plain Python; no tensor is read. The format (source: huggingface.co/docs/safetensors): 8 bytes with the length of
the header, little-endian; the header, JSON; the tensors' bytes without gaps.
"""

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from math import prod
from pathlib import Path

from lab.cli import LabError

LIMIT = 2_000_000  # bytes of JSON: some 15,000 tensors, read in a second at worst; the 32B has 1,000 in 14 files
LARGEST = 1 << 63  # elements or bytes of one tensor; no file can hold more
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1}  # bytes an element
WIDTHS |= {f"{sign}{bits}": bits // 8 for sign in "IU" for bits in (8, 16, 32, 64)}
AGAIN = "download it again (`hf download` fetches only what is missing)"
REPLACE = f"delete what is broken, then {AGAIN}"
UNTRUE = "do not use this checkpoint"
POINTER = b"version https://git-lfs"  # what the file begins with that git leaves where git-lfs did not fetch
ENTRY = {"dtype", "shape", "data_offsets"}


class Fault(LabError):
    """What is wrong with a file, and the remedy apart from it, so that several faults share one."""

    def __init__(self, what, remedy):
        super().__init__(f"{what}; {remedy}")
        self.what, self.remedy = what, remedy


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
        return prod(self.shape)

    @property
    def nbytes(self):
        """Size in bytes."""
        return self.size * WIDTHS[self.dtype]


def read_shard(path):
    """The Tensors of a safetensors file, in the order of its bytes. Raises LabError where it is not whole."""
    return parse(*read_header(path), path)


def header_sha256(path):
    """The hexadecimal SHA-256 of a safetensors file's header: names, shapes and number formats, no values."""
    return hashlib.sha256(read_header(path)[0]).hexdigest()


def read_header(path):
    """(the header's bytes, the size of the file in bytes). Raises LabError where there is no such header."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        refuse_length(length := int.from_bytes(file.read(8), "little"), size, path)
        return file.read(length), size


def refuse_length(length, size, path):
    """Raise LabError where a file of `size` bytes cannot have a header of `length` bytes, or must not."""
    if size == 0:
        raise Fault(f"{path}: an empty file", REPLACE)
    if size < 8 or length > size - 8:
        what = f"truncated, or no safetensors file: {size} bytes, and its header would take {length}"
        raise Fault(f"{path}: {what}", REPLACE)
    if length > LIMIT:
        raise Fault(f"{path}: a header of {length} bytes, where {LIMIT} are the most that is read", UNTRUE)


def parse(raw, size, path):
    """The Tensors that the header `raw` of a file of `size` bytes at `path` names, in the order of the bytes.

    Raises LabError for what is no such header, gaps, overlaps, and a file shorter or longer than it promises.
    """
    try:
        entries = _entries(raw)
        begin = 8 + len(raw)
        tensors = [Tensor(name, dtype, shape, path, begin + first) for first, _, name, dtype, shape in entries]
        position = 0
        for tensor, (first, last, *_) in zip(tensors, entries, strict=True):
            if first != position:
                raise ValueError(
                    f"{shown(tensor.name)} begins at byte {first}, the one before it ends at {position}"
                )
            if last - first != tensor.nbytes:
                raise ValueError(f"{shown(tensor.name)} has {last - first} bytes, its shape takes {tensor.nbytes}")
            position = last
    except (ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, RecursionError) else str(error)
        raise Fault(f"{path}: broken safetensors header ({reason})", REPLACE) from error
    if (promised := begin + position) != size:
        what = "truncated" if size < promised else "too long"
        raise Fault(f"{path}: {what}: {size} bytes, its header promises {promised}", REPLACE)
    return tensors


def _entries(raw):
    """[(first byte, last byte + 1, name, dtype, shape)] in the order of the bytes. Raises ValueError."""
    header = strict_json(raw)
    if not isinstance(header, dict):
        raise ValueError("no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ is no table of texts")
    return sorted(_entry(name, entry) for name, entry in header.items())


def _entry(name, entry):
    if not isinstance(entry, dict) or entry.keys() != ENTRY:
        raise ValueError(f"{shown(name)} has not just dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise ValueError(f"{shown(name)} is of the unknown number format {shown(dtype)}")
    if not _whole(shape) or not _whole(offsets) or len(offsets) != 2:
        raise ValueError(f"the shape or the data_offsets of {shown(name)} are no lists of whole numbers from 0 on")
    size = WIDTHS[dtype]
    for extent in shape:  # one at a time: the product of a hostile shape would take minutes
        size *= extent
        if size >= LARGEST:
            raise ValueError(f"{shown(name)} is too large to be true")
    return *offsets, name, dtype, tuple(shape)


def _whole(numbers):
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < LARGEST for number in numbers)


def strict_json(raw):
    """The content of JSON in UTF-8. Raises ValueError for what Python's reader lets pass and others do not.

    That is: a key that comes twice, NaN and infinities, half of a surrogate pair, -0, UTF-16.
    """
    text = raw.decode("utf-8")
    content = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse_constant, parse_int=_integer)
    if "\\u" in text:
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    return content


def _once(pairs):
    table = dict(pairs)
    if len(table) != len(pairs):
        seen = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"{shown(twice)} comes twice")
    return table


def _refuse_constant(text):
    raise ValueError(f"{text} is no JSON")


def _integer(text):
    if text == "-0" or len(text) > 20:
        raise ValueError(f"the number {shown(text)}")
    return int(text)


def shown(text):
    """`text` for an error's one line: as it is where it can be printed and is short, else quoted and cut."""
    text = text if isinstance(text, str) else repr(text)
    text = text if text.isprintable() and text.strip() else ascii(text)
    return text if len(text) <= 100 else f"{text[:100]}..."


def open_file(path):
    """`path`, open to read bytes. Raises LabError where it is not there, no file, unreadable or a git-lfs pointer."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # before it is opened: to open a FIFO may take forever
            raise Fault(f"{path}: no file, but a folder or a device", REPLACE)
        file = open(path, "rb")  # noqa: SIM115 (the caller's `with` closes it)
    except OSError as error:
        remedy = "make it readable (`chmod u+r`)" if isinstance(error, PermissionError) else AGAIN
        raise Fault(f"{path}: cannot be read ({error.strerror})", remedy) from error
    if file.read(len(POINTER)) == POINTER:
        file.close()
        raise Fault(f"{path}: a git-lfs pointer, not the file", f"run `git lfs pull` there, or {AGAIN}")
    file.seek(0)
    return file


def refuse_pointer(path):
    """Raise LabError where `path` is a git-lfs pointer, which git leaves where it did not fetch the file."""
    open_file(path).close()
