"""Thousands of damaged checkpoints: each is refused in one line, or is one to the official reader, too."""

import json
import random
import struct
from collections import Counter

import pytest
import safetensors

from lab.checkpoints import INDEX, SINGLE, read_checkpoint
from lab.cli import LabError

ROUNDS = 5000
SHARDS = ("model-1.safetensors", "model-2.safetensors")
# What stands at the borders of what a header may say.
NUMBERS = (
    -1,
    -0.0,
    0,
    1,
    2,
    3,
    4,
    6,
    8,
    1.0,
    1e400,
    True,
    None,
    "4",
    1 << 31,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    1 << 64,
)
TEXTS = (
    "",
    "F32",
    "BF16",
    "I64",
    "F4",
    "f32",
    "a",
    "b",
    "../a",
    "\n",
    "\x00",
    "\ud800",
    "é",
    "x" * 300,
    "__metadata__",
)
TOKENS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"0",
    b"-",
    b"9" * 30,
    b"NaN",
    b"\\",
    b"\\ud800",
    b"\xff",
    b" ",
    b"\n",
)


def checkpoint():
    """({shard: header}, {shard: data}, index) of four tensors in two shards."""
    headers = {
        SHARDS[0]: {"a": ("F32", [2, 3], 24), "b": ("BF16", [4], 8)},
        SHARDS[1]: {"c": ("I64", [1], 8), "d": ("U8", [0, 5], 0)},
    }
    sizes = {shard: sum(size for *_, size in tensors.values()) for shard, tensors in headers.items()}
    where = {name: shard for shard, tensors in headers.items() for name in tensors}
    for shard, tensors in headers.items():
        position, table = 0, {"__metadata__": {"format": "pt"}}
        for name, (dtype, shape, size) in tensors.items():
            table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
            position += size
        headers[shard] = table
    return headers, {shard: bytes(size) for shard, size in sizes.items()}, {"weight_map": where}


def places(content, found=None):
    """(table or list, key) of all that JSON holds, to be changed in place."""
    found = [] if found is None else found
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        found.append((content, key))
        if isinstance(value, dict | list):
            places(value, found)
    return found


def change_content(draw, content):
    """Change one thing that the JSON says."""
    if not (found := places(content)):
        return
    table, key = draw.choice(found)
    kind = draw.randrange(4)
    if kind == 0:
        del table[key]
    elif kind == 1 and isinstance(table, dict):
        table[draw.choice(TEXTS)] = table.pop(key)
    elif kind == 2 and isinstance(table, list):
        table.insert(draw.randrange(len(table) + 1), draw.choice(NUMBERS))
    else:
        table[key] = draw.choice((*NUMBERS, *TEXTS, [], {}, [0], [0, 8], [8, 16]))


def change_bytes(draw, raw):
    """Another byte, fewer, more, or a token of JSON somewhere."""
    first = draw.randrange(len(raw) + 1)
    last = min(len(raw), first + draw.choice((0, 1, 1, 2, 8, 40)))
    middle = draw.choice((b"", bytes([draw.randrange(256)]), draw.choice(TOKENS), raw[first:last] * 2))
    return raw[:first] + middle + raw[last:]


def damaged(draw):
    """{file: bytes} of a checkpoint with up to three damages."""
    headers, data, index = checkpoint()
    for _ in range(draw.choice((0, 1, 1, 2))):
        change_content(draw, draw.choice((*headers.values(), index)))
    files = {}
    for shard, header in headers.items():
        raw = json.dumps(header).encode()
        raw += b" " * draw.choice((0, 0, 1, 8))
        raw = change_bytes(draw, raw) if draw.random() < 0.2 else raw
        length = len(raw) + draw.choice((0,) * 80 + (1, -1, 8, -8, 1 << 20, 1 << 62, 1 << 63))
        files[shard] = struct.pack("<Q", length % (1 << 64)) + raw + data[shard]
        files[shard] = change_bytes(draw, files[shard]) if draw.random() < 0.1 else files[shard]
    files[INDEX] = json.dumps(index).encode()
    files[INDEX] = change_bytes(draw, files[INDEX]) if draw.random() < 0.1 else files[INDEX]
    return files


def official(raw):
    """{name: (dtype, shape)} as the official reader has it; fails where that refuses the file."""
    return {name: (tensor["dtype"], tuple(tensor["shape"])) for name, tensor in safetensors.deserialize(raw)}


@pytest.mark.parametrize("seed", range(4))
def test_damaged_checkpoints(tmp_path, seed):
    draw, outcomes = random.Random(seed), Counter()
    for _ in range(ROUNDS // 5):
        files = damaged(draw)
        for name, raw in files.items():
            (tmp_path / name).unlink(missing_ok=True)  # to overwrite a file takes some disks 2 ms
            (tmp_path / name).write_bytes(raw)
        try:
            tensors = read_checkpoint(tmp_path)
        except LabError as error:
            assert str(error).isprintable() and len(str(error)) < 3000
            outcomes["refused"] += 1
            continue
        expected = {name: facts for shard in SHARDS for name, facts in official(files[shard]).items()}
        assert {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()} == expected
        outcomes["accepted"] += 1
    print(seed, dict(outcomes))
    assert outcomes["refused"] > 300 and outcomes["accepted"] > 60


def test_damaged_single_files(tmp_path):
    """Without an index more of the damage is for the header's reader to find."""
    draw, outcomes = random.Random(4), Counter()
    for _ in range(ROUNDS // 5):
        raw = damaged(draw)[SHARDS[0]]
        (tmp_path / SINGLE).unlink(missing_ok=True)
        (tmp_path / SINGLE).write_bytes(raw)
        try:
            tensors = read_checkpoint(tmp_path)
        except LabError as error:
            assert str(error).isprintable()
            outcomes["refused"] += 1
            continue
        assert {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()} == official(raw)
        outcomes["accepted"] += 1
    print(dict(outcomes))
    assert outcomes["refused"] > 300 and outcomes["accepted"] > 100
