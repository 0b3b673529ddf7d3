import json
import struct

import pytest

from lab.building import building, plan_shards, refuse_target, write_checkpoint
from lab.checkpoints import INDEX, Tensor, read_checkpoint
from lab.cli import LabError


def test_shards_stay_under_the_limit_and_groups_together():
    groups = [
        [Tensor("a", "F32", (4,)), Tensor("b", "F32", (1,))],
        [Tensor("c", "F32", (5,))],
        [Tensor("d", "U8", (1,))],
        [Tensor("e", "F32", (100,))],
    ]
    shards = plan_shards(groups, limit=40)
    assert [[tensor.name for tensor in shard] for shard in shards] == [["a", "b", "c"], ["d"], ["e"]]


def test_what_is_written_is_read_again(tmp_path):
    shards = [
        [Tensor("a", "F32", (2,)), Tensor("b", "BF16", (1, 3))],
        [Tensor("c", "U8", (0,)), Tensor("d", "U8", (2,))],
    ]
    write_checkpoint(tmp_path, shards, iter([b"12345678", b"abcdef", b"", b"xy"]), parameters=7)
    tensors = read_checkpoint(tmp_path)
    assert {(t.name, t.dtype, t.shape) for t in tensors.values()} == {
        (t.name, t.dtype, t.shape) for s in shards for t in s
    }
    assert (tmp_path / "model-00002-of-00002.safetensors").read_bytes().endswith(b"xy")
    assert tensors["b"].shard.name == "model-00001-of-00002.safetensors"
    metadata = json.loads((tmp_path / INDEX).read_text(encoding="utf-8"))["metadata"]
    assert metadata == {"total_size": 16, "total_parameters": 7}


def test_safetensors_own_reader_reads_it(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    write_checkpoint(tmp_path, [[Tensor("a", "F32", (2,))]], [struct.pack("<2f", 1.5, -2.0)], parameters=2)
    assert numpy.load_file(tmp_path / "model.safetensors")["a"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("chunks", [[b"123"], [b"1234", b"5678"]])
def test_other_bytes_than_planned_are_a_bug(tmp_path, chunks):
    with pytest.raises(RuntimeError, match="planned"):
        write_checkpoint(tmp_path, [[Tensor("a", "F32", (1,))]], chunks, parameters=1)


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
