import hashlib
import json
import struct

import pytest

from lab.building import JOURNAL, PLAN, SUMMARY, Build, building, going_on, refuse_target
from lab.checkpoints import Tensor, read_shard
from lab.cli import LabError
from lab.shards import ShardWriter, header_of


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
        assert [path.name for path in build.folder.iterdir()] == [PLAN]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"fingerprint": 1}'])
def test_a_plan_that_a_hand_has_spoilt_is_none(tmp_path, content):
    (tmp_path / PLAN).write_text(content)
    (tmp_path / JOURNAL).write_text(json.dumps({"kind": "shard", "name": "a", "facts": {}}) + "\n")
    build = Build(tmp_path, tmp_path)
    assert build.plan is None and not build.said("shard")


def test_one_run_at_a_time(tmp_path):
    with (
        going_on(tmp_path / "model") as build,
        pytest.raises(LabError, match="another run is at work there"),
        going_on(tmp_path / "model"),
    ):
        pass
    build.folder.rmdir()
    with going_on(tmp_path / "model"):
        pass


def test_a_move_that_was_stopped_is_finished_by_the_next_run(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    for name in (PLAN, JOURNAL, SUMMARY):
        (target / name).write_text("{}")
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
    (tmp_path / "model.replaced.partial" / "old").write_text("x")
    with pytest.raises(LabError), building(tmp_path / "model", 10):
        raise LabError("stop")
    assert (tmp_path / "model" / "old").exists()


def test_a_full_disk_is_noticed_before(tmp_path):
    with (
        pytest.raises(LabError, match=r"needs 1000000000\.0 GB of disk, [\d.]+ GB are free"),
        building(tmp_path / "m", 1e18 / 1.02),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_targets_that_must_not_be_written(tmp_path):
    source, model, other = (tmp_path / name for name in ("source", "model", "other"))
    for path, file in ((source, "config.json"), (model, "config.json"), (other, "thesis.doc")):
        path.mkdir()
        (path / file).write_text("{}")

    def reason(target, force):
        with pytest.raises(LabError) as caught:
            refuse_target(target, source, force)
        return str(caught.value)

    assert "--force overwrites it" in reason(model, False)
    refuse_target(model, source, True)
    refuse_target(tmp_path / "new", source, False)
    for force in (False, True):
        assert "other things in it" in reason(other, force)
        assert "a file" in reason(other / "thesis.doc", force)
        for near in (source, source / "inside", tmp_path, source / ".." / "source"):
            assert "the source" in reason(near, force)
