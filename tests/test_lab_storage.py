"""Files that are whole or not there."""

import errno

import pytest

from lab import storage
from lab.cli import LabError
from lab.device import mx
from tests.failing_disk import FailingDisk, crashes

TENSORS = {
    "b": mx.arange(6, dtype=mx.float32).reshape(2, 3).T,
    "a": mx.array([1.5, -2.0]).astype(mx.bfloat16),
    "step": mx.array(7, mx.uint64),
    "empty": mx.zeros((0, 3)),
}


def test_mlx_reads_what_is_written_whatever_the_order(tmp_path):
    path = tmp_path / "t.safetensors"
    storage.replace_file(path, storage.as_safetensors(TENSORS, {"kind": "test"}))
    found, metadata = mx.load(str(path), return_metadata=True)
    assert metadata == {"format": "mlx", "kind": "test"}
    assert found.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        assert mx.array_equal(found[name], value)
    turned = dict(reversed(TENSORS.items()))
    assert b"".join(storage.as_safetensors(turned, {"kind": "test"})) == path.read_bytes()


@pytest.mark.parametrize("power_loss", [False, True])
def test_a_crash_at_any_step_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch, power_loss):
    path, seen = tmp_path / "f", set()
    steps = crashes(
        monkeypatch,
        lambda: path.write_bytes(b"old"),
        lambda: storage.replace_file(path, [b"new ", b"bytes"]),
        lambda: seen.add(path.read_bytes()),
        power_loss,
    )
    assert steps == 7  # make the folder, open, write, write, sync, rename, sync the folder
    assert seen == {b"old", b"new bytes"}


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"old")
    for at in (2, 3, 4, 5):
        with monkeypatch.context() as patch:
            FailingDisk(patch, at, error=errno.ENOSPC)
            with pytest.raises(LabError, match="f: cannot write .No space left on device"):
                storage.replace_file(tmp_path / "f", [b"new ", b"bytes"])
        assert (tmp_path / "f").read_bytes() == b"old"


def test_values_that_json_does_not_have_are_refused():
    with pytest.raises(ValueError):
        storage.as_json({"loss": float("nan")})
