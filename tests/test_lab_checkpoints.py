import json
import struct

import pytest

from lab.checkpoints import INDEX, read_checkpoint, read_shard
from lab.cli import LabError


def write_raw(path, header, data):
    """A safetensors file made by hand, apart from the code under test."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def folder(tmp_path):
    """Two shards: a (2, 3) and b (4,) in the first, c (1,) in the second."""
    write_raw(tmp_path / "one.safetensors", {"b": entry([4], 24, 40), "a": entry([2, 3], 0, 24)}, bytes(40))
    write_raw(
        tmp_path / "two.safetensors",
        {"__metadata__": {"format": "pt"}, "c": entry([1], 0, 2, "BF16")},
        bytes(2),
    )
    write_index(tmp_path, {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})
    return tmp_path


def write_index(folder, where):
    (folder / INDEX).write_text(json.dumps({"weight_map": where}), encoding="utf-8")


def error(folder):
    with pytest.raises(LabError) as caught:
        read_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tensors_come_in_the_order_of_the_bytes(folder):
    tensors = read_checkpoint(folder)
    assert [(t.name, t.dtype, t.shape, t.nbytes, t.shard.name) for t in tensors.values()] == [
        ("a", "F32", (2, 3), 24, "one.safetensors"),
        ("b", "F32", (4,), 16, "one.safetensors"),
        ("c", "BF16", (1,), 2, "two.safetensors"),
    ]


def test_a_single_file_needs_no_index(tmp_path):
    write_raw(tmp_path / "model.safetensors", {"a": entry([1], 0, 4)}, bytes(4))
    assert list(read_checkpoint(tmp_path)) == ["a"]


def test_no_weights_at_all(tmp_path):
    assert f"{tmp_path}: neither model.safetensors.index.json nor model.safetensors" in error(tmp_path)


def test_every_missing_shard_is_named(folder):
    (folder / "one.safetensors").unlink()
    (folder / "two.safetensors").unlink()
    message = error(folder)
    assert INDEX in message and "one.safetensors; two.safetensors" in message and "hf download" in message


@pytest.mark.parametrize(
    "file",
    [
        "/etc/passwd.safetensors",
        "../one.safetensors",
        "x/../../y.safetensors",
        "a\\b.safetensors",
        "C:one.safetensors",
        "sub/one.safetensors",
        "one.bin",
        7,
        None,
    ],
)
def test_an_index_entry_that_leads_elsewhere(folder, file):
    write_index(folder, {"a": file, "b": "one.safetensors", "c": "two.safetensors"})
    message = error(folder)
    assert f"names what is no .safetensors file beside it: {file!r}" in message
    assert "do not use this checkpoint" in message


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}'])
def test_an_index_that_is_none(folder, content):
    (folder / INDEX).write_text(content, encoding="utf-8")
    assert f"{folder / INDEX}:" in error(folder)


def test_index_and_shards_that_differ(folder):
    write_index(folder, {"a": "one.safetensors", "d": "one.safetensors", "c": "two.safetensors"})
    message = error(folder)
    assert "d not in one.safetensors" in message and "b in one.safetensors but not in the index" in message


@pytest.mark.parametrize("cut", [0, 7, 30, 100, 150])
def test_a_truncated_shard(folder, cut):
    whole = (folder / "one.safetensors").read_bytes()
    (folder / "one.safetensors").write_bytes(whole[:cut])
    message = error(folder)
    assert f"{folder / 'one.safetensors'}: truncated" in message and "download it again" in message


def test_a_shard_that_is_too_long(folder):
    with open(folder / "one.safetensors", "ab") as file:
        file.write(b"x")
    assert "one.safetensors: too long" in error(folder)


def test_a_git_lfs_pointer(folder):
    (folder / "two.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2\n")
    message = error(folder)
    assert f"{folder / 'two.safetensors'}: a git-lfs pointer" in message and "git lfs pull" in message


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[1]",
        b"[" * 50_000,
        {"a": 3},
        {"a": {"dtype": "F32"}},
        {"a": entry([2], 0, 8, "F4")},  # a number format nobody knows
        {"a": entry([3], 0, 8)},  # shape and bytes differ
        {"a": entry([-2], 0, -8)},
        {"a": entry([1], 4, 8)},  # a gap before the first byte
        {"a": entry([1], 0, 4), "b": entry([1], 0, 4)},  # two tensors on the same bytes
    ],
)
def test_a_broken_header(tmp_path, header):
    path = tmp_path / "model.safetensors"
    write_raw(path, header, bytes(8))
    assert f"{path}: broken safetensors header" in error(tmp_path)


def test_nothing_but_the_header_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    write_raw(path, {"a": entry([1 << 40], 0, 1 << 42)}, b"")
    with open(path, "r+b") as file:  # 4 TB, none of it on the disk
        file.truncate(path.stat().st_size + (1 << 42))
    assert [tensor.nbytes for tensor in read_shard(path)] == [1 << 42]
