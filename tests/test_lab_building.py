import errno
import hashlib
import json
import os
import struct
import time

import pytest

from lab import shards
from lab.building import Build, building, going_on
from lab.checkpoints import Tensor, read_shard
from lab.cli import LabError
from lab.places import JOURNAL, MARK, PLAN, SUMMARY, refuse_existing, refuse_place
from lab.shards import ShardWriter, header_of

RESULT = '{"flags": {"mlx_path": "model"}, "files": {"a": {}}}'


def write(path, tensors, data):
    with ShardWriter(path) as writer:
        writer.put(header_of(tensors))
        for part in data:
            writer.put(part)
    return writer


def test_what_is_written_is_read_again_also_by_safetensors_own_reader(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    tensors = [
        Tensor("a", "F32", (2,)),
        Tensor("b", "BF16", (1, 3)),
        Tensor("c", "U8", (0,)),
        Tensor("d", "U8", (2,)),
    ]
    path = tmp_path / "model.safetensors"
    writer = write(path, tensors, [struct.pack("<2f", 1.5, -2.0), b"abcdef", b"", b"xy"])
    found = read_shard(path)
    assert [(t.name, t.dtype, t.shape) for t in found] == [(t.name, t.dtype, t.shape) for t in tensors]
    assert [path.read_bytes()[t.offset : t.offset + t.nbytes] for t in found][1:] == [b"abcdef", b"", b"xy"]
    assert writer.digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert writer.written == path.stat().st_size
    write(path, tensors[:1], [struct.pack("<2f", 1.5, -2.0)])
    assert numpy.load_file(path)["a"].tolist() == [1.5, -2.0]


def test_a_full_disk_while_writing_is_one_line():
    with (
        pytest.raises(LabError, match="/dev/full: cannot write .* free the disk"),
        ShardWriter("/dev/full") as writer,
    ):
        writer.put(b"x")


def test_a_disk_that_tells_once_of_bytes_it_lost_is_heard(tmp_path, monkeypatch):
    """fsync says so to the first who asks, and nothing to those after him: that may be one in the middle of a file."""
    fsync, asked = os.fsync, []

    def losing(file):
        asked.append(file)
        if len(asked) == 1:
            raise OSError(errno.EIO, "Input/output error")
        return fsync(file)

    monkeypatch.setattr(os, "fsync", losing)
    monkeypatch.setattr(shards, "SYNC_EVERY", 4)
    monkeypatch.setattr(shards, "WAITING", 0)
    with (
        pytest.raises(LabError, match="model.safetensors: cannot write .Input/output error"),
        ShardWriter(tmp_path / "model.safetensors") as writer,
    ):
        for _ in range(50):
            writer.put(b"12345")
            time.sleep(0.001)


def test_a_journal_survives_half_a_line_and_foreign_plans_start_over(tmp_path):
    with going_on(tmp_path / "model") as build:
        assert build.plan is None and not build.begin({"fingerprint": "one"})
        build.say("shard", "a", {"bytes": 1})
        build.say("shard", "b", {"bytes": 2})
    journal = tmp_path / "model.partial" / JOURNAL
    whole = journal.read_bytes()
    for end in range(len(whole) + 1):
        journal.write_bytes(whole[:end])
        with going_on(tmp_path / "model") as build:
            assert build.begin({"fingerprint": "one"})
            assert list(build.said("shard")) == ["a", "b"][: whole[:end].count(b"\n")]
            build.say("shard", "c", {})
        with going_on(tmp_path / "model") as build:
            assert "c" in build.said("shard")
    with going_on(tmp_path / "model") as build:
        assert not build.begin({"fingerprint": "two"}) and not build.said("shard")
        assert sorted(path.name for path in build.folder.iterdir()) == [MARK, PLAN]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"fingerprint": 1}'])
def test_a_plan_that_a_hand_has_spoilt_is_none(tmp_path, content):
    (tmp_path / PLAN).write_text(content)
    (tmp_path / JOURNAL).write_text(json.dumps({"kind": "shard", "name": "a", "facts": {}}) + "\n")
    build = Build(tmp_path, tmp_path)
    assert build.plan is None and not build.said("shard")


def test_one_run_at_a_time(tmp_path):
    with (
        going_on(tmp_path / "model"),
        pytest.raises(LabError, match="another run is at work there"),
        going_on(tmp_path / "model"),
    ):
        pass
    with going_on(tmp_path / "model"):
        pass


def test_a_move_that_was_stopped_is_finished_by_the_next_run(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    for name in (PLAN, JOURNAL, MARK):
        (target / name).write_text("{}")
    (target / SUMMARY).write_text(RESULT)
    with going_on(target):
        assert [path.name for path in target.iterdir()] == [SUMMARY]


def test_a_target_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "model"
    with pytest.raises(LabError), building(target, 10) as folder:
        (folder / "half").write_text("x")
        raise LabError("stop")
    assert not target.exists()
    with building(target, 10) as folder:
        assert not (folder / "half").exists()  # started over
        (folder / "whole").write_text("x")
    assert [path.name for path in target.iterdir()] == ["whole"]
    with building(target, 10) as folder:
        assert (target / "whole").exists()  # stays until the rename
        (folder / "new").write_text("x")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    (tmp_path / "model.replaced.partial").mkdir()
    (tmp_path / "model.replaced.partial" / SUMMARY).write_text(RESULT)
    with pytest.raises(LabError), building(tmp_path / "model", 10):
        raise LabError("stop")
    assert (tmp_path / "model" / SUMMARY).exists()


def test_a_full_disk_is_noticed_before(tmp_path):
    with (
        pytest.raises(LabError, match=r"needs 1,000,000,000\.0 GB of disk, [\d.]+ GB are free"),
        building(tmp_path / "m", 1e18 / 1.02),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def reason(check, *arguments):
    with pytest.raises(LabError) as caught:
        check(*arguments)
    return str(caught.value)


def test_places_that_must_not_be_built_in(tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "deep" / "model"
    for path in (source, target.parent):
        path.mkdir()
    refuse_place(target, source)
    for near in (source, source / "inside", tmp_path, source / ".." / "source"):
        assert "the source" in reason(refuse_place, near, source)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "the source" in reason(refuse_place, source / "inside", "~/source")
    for name in ("model.partial", "model.replaced.partial"):
        assert "the source" in reason(refuse_place, target, target.parent / name)
        (target.parent / name).mkdir()
        (target.parent / name / "notes.txt").write_text("x")
        assert "move it elsewhere" in reason(refuse_place, target, source)
        (target.parent / name / "notes.txt").unlink()
        (target.parent / name).rmdir()
    (target.parent / "file").write_text("x")
    assert "a file" in reason(refuse_place, target.parent / "file", source)
    monkeypatch.chdir(target.parent)
    for here in (".", "..", "/"):
        assert "source" in reason(refuse_place, here, source) or "working folder" in reason(
            refuse_place, here, source
        )
    (tmp_path / "loop").symlink_to("loop")
    for odd in (tmp_path / "loop", tmp_path / ("x" * 300)):
        assert "no usable path" in reason(refuse_place, odd, source)


def test_only_a_result_is_replaced_and_only_by_force(tmp_path):
    folder = tmp_path / "model"
    refuse_existing(folder, False)
    folder.mkdir()
    refuse_existing(folder, False)
    (folder / "config.json").write_text("{}")
    assert "other things in it" in reason(refuse_existing, folder, True)
    (folder / "config.json").rename(folder / "a")
    (folder / SUMMARY).write_text(RESULT)
    assert "--force overwrites it" in reason(refuse_existing, folder, False)
    refuse_existing(folder, True)
    (folder / "thesis.tex").write_text("x")
    assert "holds thesis.tex" in reason(refuse_existing, folder, True)


def test_a_run_that_comes_to_nothing_leaves_no_folder(tmp_path):
    with pytest.raises(LabError), going_on(tmp_path / "new" / "deep" / "model"):
        raise LabError("stop")
    assert not list(tmp_path.iterdir())
