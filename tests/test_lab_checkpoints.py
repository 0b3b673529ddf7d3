import json
import os
import shutil
import struct
import tempfile
import time
import tracemalloc
from pathlib import Path

import pytest

from lab import headers
from lab.checkpoints import INDEX, carried_files, licence_of, read_checkpoint, read_shard, weight_map
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


def test_an_empty_shard(folder):
    (folder / "one.safetensors").write_bytes(b"")
    assert f"{folder / 'one.safetensors'}: an empty file; delete what is broken" in error(folder)


@pytest.mark.parametrize("cut", [1, 7, 30, 100, 150])
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
        {"a": entry([1], 0, 4), "b": entry([1], 3, 7)},
        {"a": entry([1], 0, 4), "b": entry([1], 5, 9)},  # a gap
        {"a": entry([1], 4, 0)},
        {"a": entry([True], 0, 4)},
        {"a": entry([1.0], 0, 4)},
        {"a": entry("1", 0, 4)},
        {"a": entry([1], 0.0, 4)},
        {"a": entry([1], False, 4)},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}},
        {"a": {**entry([1], 0, 4), "more": [[]]}},
        {"a": entry([1], 0, 4, ["F32"])},
        {"a": entry([1 << 62, 1 << 62], 0, 4)},  # 2^124 elements
        {"a": entry([10**18] * 90_000, 0, 4)},  # whose product has 1.6 million digits
        {"a": entry([10**30, 0], 0, 0)},
        {"a": entry([0, 1 << 64], 0, 0)},
        {"__metadata__": [], "a": entry([1], 0, 4)},
        {"__metadata__": None, "a": entry([1], 0, 4)},
        {"__metadata__": {"format": 1}, "a": entry([1], 0, 4)},
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}',
        b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,Infinity]}}',
        b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',  # half of a surrogate pair
        b'{"\xff":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',  # not UTF-8
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.encode("utf-16"),
        b'{"a":' * 50_000,
        b'{"a":{"dtype":"F32","shape":' + b"[" * 120 + b"]" * 120 + b',"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}',
        b"",
        b"{" + bytes(64),
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


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (entry([1], 5, 9), "b begins at byte 5, the one before it ends at 4"),  # a gap
        (entry([1], 3, 7), "b begins at byte 3, the one before it ends at 4"),  # an overlap
        (entry([2], 4, 8), "b has 4 bytes, its shape takes 8"),
        (entry([1], 4, 8, "F4"), "b is of the unknown number format F4"),
        (entry([1 << 62, 1 << 62], 4, 8), "b is too large to be true"),
        (entry([True], 4, 8), "the shape or the data_offsets of b are no lists of whole numbers from 0 on"),
    ],
)
def test_the_reason_names_tensor_and_place(tmp_path, second, reason):
    write_raw(tmp_path / "model.safetensors", {"a": entry([1], 0, 4), "b": second}, bytes(9))
    assert f"broken safetensors header ({reason}); delete" in error(tmp_path)


def test_a_header_too_long_to_be_true_is_not_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 100_000_000))
    os.truncate(path, 1 << 40)
    tracemalloc.start()
    message = error(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 1e6  # bytes
    tracemalloc.stop()
    assert f"{path}: a header of 100000000 bytes, where {headers.LIMIT} are the most that is read" in message
    assert "do not use this checkpoint" in message


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, (1 << 64) - 8])
def test_a_header_longer_than_the_file(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    assert f"{path}: truncated, or no safetensors file: 10 bytes, and its header would take {length}" in error(
        tmp_path
    )


def test_a_name_cannot_break_the_line(tmp_path):
    name = "a\nerror: \x1b[2Jno\u2028thing\u202e wrong" + "b" * 1000
    write_raw(tmp_path / "model.safetensors", {name: entry([1], 0, 5)}, bytes(8))
    message = error(tmp_path)
    assert message.isprintable() and len(message) < 500 and "a\\nerror: \\x1b[2Jno" in message


def test_names_of_the_index_cannot_break_the_line(folder):
    write_index(folder, {"a\n": "one.safetensors", "b": "one\n.safetensors", "c": "two.safetensors"})
    message = error(folder)
    assert message.isprintable() and r"'one\n.safetensors'" in message
    write_index(folder, {"a\n": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})
    message = error(folder)
    assert message.isprintable() and r"'a\n' not in one.safetensors" in message


def test_every_shard_at_fault_is_named_and_each_remedy_once(folder):
    (folder / "one.safetensors").write_bytes(b"{}")
    os.truncate(folder / "two.safetensors", 60)
    (folder / "model-3.safetensors").touch()
    message = error(folder)
    for name in ("one", "two"):
        assert f"{folder / name}.safetensors: truncated" in message
    assert "holds shards that its index does not name: model-3.safetensors; move them away" in message
    assert message.count("download it again") == 1


def test_a_shard_that_no_index_names(tmp_path):
    write_raw(tmp_path / "model.safetensors", {"a": entry([1], 0, 4)}, bytes(4))
    write_raw(tmp_path / "model-00001-of-00002.safetensors", {"b": entry([1], 0, 4)}, bytes(4))
    assert "does not name: model-00001-of-00002.safetensors" in error(tmp_path)


def test_a_tensor_in_another_shard_than_the_index_says(folder):
    write_index(folder, {"a": "two.safetensors", "b": "one.safetensors", "c": "two.safetensors"})
    message = error(folder)
    assert "a not in two.safetensors; a in one.safetensors but not in the index" in message


def test_many_faults_are_counted_not_all_told(folder):
    write_index(folder, {f"{number:04d}": "one.safetensors" for number in range(2000)})
    message = error(folder)
    assert "0049 not in one.safetensors" in message and "0050" not in message and "and 1952 more" in message


@pytest.mark.parametrize(
    ("total", "right"), [(42, True), (42.0, True), (None, True), (43, False), ("42", False), (True, False)]
)
def test_total_size(folder, capsys, total, right):
    where = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
    (folder / INDEX).write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": where}), encoding="utf-8"
    )
    assert len(read_checkpoint(folder)) == 3
    said = capsys.readouterr().err
    assert (said == "") if right else (f"total_size is {total}, the tensors have 42 bytes" in said)


@pytest.mark.parametrize(
    "content",
    [
        b'{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}',
        b'{"weight_map": {"a": "one.safetensors"}, "weight_map": {"a": "two.safetensors"}}',
        b'{"weight_map": {"a": NaN}}',
        b'\xff{"weight_map": {"a": "one.safetensors"}}',
        b"[" * 100_000,
        b" " * (headers.LIMIT + 1),
        b"",
    ],
)
def test_an_index_that_two_readers_read_differently(folder, content):
    (folder / INDEX).write_bytes(content)
    assert f"{folder / INDEX}:" in error(folder)


@pytest.mark.parametrize("name", ["one.safetensors", INDEX])
@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling link", "loop"])
def test_what_is_no_file(folder, name, kind):
    (folder / name).unlink()
    if kind == "fifo":
        os.mkfifo(folder / name)
    elif kind == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to("nowhere" if kind == "dangling link" else name)
    message = error(folder)
    assert f"{folder / name}: " in message
    assert ("no file, but a folder or a device" if kind in ("fifo", "folder") else "cannot be read") in message


@pytest.mark.parametrize("name", ["one.safetensors", INDEX])
def test_an_unreadable_file(folder, name):
    with tempfile.TemporaryDirectory() as public:  # tmp_path is root's alone where root runs the tests
        os.chmod(public, 0o755)
        copy = Path(shutil.copytree(folder, f"{public}/copy"))
        copy.chmod(0o755)
        (copy / name).chmod(0)
        own = os.geteuid()
        try:
            os.seteuid(own or 65534)  # root reads every file
            message = error(copy)
        finally:
            os.seteuid(own)
    assert f"{copy / name}: cannot be read (Permission denied); make it readable (`chmod u+r`)" in message


def test_a_single_file_without_tensors(tmp_path):
    write_raw(tmp_path / "model.safetensors", {}, b"")
    assert f"{tmp_path / 'model.safetensors'}: holds no tensors" in error(tmp_path)


def test_tensors_without_elements_are_tensors(tmp_path):
    write_raw(tmp_path / "model.safetensors", {"a": entry([0, 3], 0, 0), "b": entry([], 0, 4)}, bytes(4))
    assert [tensor.nbytes for tensor in read_checkpoint(tmp_path).values()] == [0, 4]


def test_headers_of_absent_shards_come_from_elsewhere(folder):
    whole = read_checkpoint(folder)
    path = folder / "two.safetensors"
    header, size = headers.read_header(path)
    path.unlink()
    asked = []
    assert read_checkpoint(folder, lambda shards: asked.append(shards) or {path.name: (header, size)}) == whole
    assert asked == [[path.name]]
    with pytest.raises(LabError, match="two.safetensors: truncated: .*; choose another revision"):
        read_checkpoint(folder, lambda shards: {path.name: (header, size - 1)})


def test_the_index_of_a_folder_without_one(tmp_path):
    with pytest.raises(LabError, match="no such file"):
        weight_map(tmp_path)


def test_files_that_travel_along_are_files_of_the_checkpoint(folder, tmp_path):
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert carried_files(folder) == [folder / "tokenizer.json"]
    secret = tmp_path.parent / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    (folder / "LICENSE").symlink_to(secret)
    for read in (carried_files, licence_of):
        with pytest.raises(LabError, match="LICENSE: a link that leads out of its folder, to .*secret.txt"):
            read(folder)


@pytest.mark.parametrize(
    ("readme", "licence", "expected"),
    [
        (
            "---\nlicense: other\nlicense_name: hyperclovax\nlicense_link: LICENSE\n---\n# Model",
            "Terms",
            "hyperclovax",
        ),
        ("---\r\nlicense: 'apache-2.0'\r\n---\r\n", None, "apache-2.0"),
        (
            "# Model\nlicense: mit\n",
            "\n  HyperCLOVA X SEED Model License\n\nText",
            "HyperCLOVA X SEED Model License",
        ),
        ("---\nlicense: other\n---\n", "Terms of Use", "Terms of Use"),
        (None, "a\x1b[2Jb", "'a\\x1b[2Jb'"),
        (None, "", None),
        (None, None, None),
    ],
)
def test_the_licence_of_a_folder(tmp_path, readme, licence, expected):
    for name, text in {"README.md": readme, "LICENSE": licence}.items():
        if text is not None:
            (tmp_path / name).write_bytes(text.encode())
    assert licence_of(tmp_path) == expected


def test_a_checkpoint_of_the_32b_s_shape_is_checked_whole(tmp_path):
    """1,006 tensors of 66 GB in 14 shards: files of the true length, without their content."""
    shards = [{} for _ in range(14)]
    for layer in range(72):
        for name in ("q", "k", "v", "o", "gate", "up", "down", "norm1", "norm2"):
            shards[layer // 6 + 1][f"model.language_model.model.layers.{layer}.{name}_proj.weight"] = [5120, 9000]
    for block in range(358):
        shards[0][f"model.vision_model.blocks.{block // 12}.{block % 12}.weight"] = [1280, 1280]
    where = {}
    for number, tensors in enumerate(shards):
        file, header, position = f"model-{number + 1:05d}-of-00014.safetensors", {}, 0
        for name, shape in tensors.items():
            end = position + 2 * shape[0] * shape[1]
            header[name], where[name], position = entry(shape, position, end, "BF16"), file, end
        if not header:
            header["lm_head.weight"], where["lm_head.weight"], position = entry([8], 0, 16, "BF16"), file, 16
        write_raw(tmp_path / file, header, b"")
        os.truncate(tmp_path / file, (tmp_path / file).stat().st_size + position)
    write_index(tmp_path, where)
    started = time.monotonic()
    tensors = read_checkpoint(tmp_path)
    seconds = time.monotonic() - started
    print(f"{len(tensors)} tensors, {sum(t.nbytes for t in tensors.values()) / 1e9:.1f} GB: {seconds:.3f} s")
    assert len(tensors) > 1000 and sum(tensor.nbytes for tensor in tensors.values()) > 60e9
