"""Checkpoints on disk: crashed at every step, damaged in every way, replaced, kept and removed."""

import errno
import random
import shutil

import pytest

from lab import snapshots
from lab.cli import LabError
from lab.device import mx
from lab.snapshots import MANIFEST, STATE, TENSORS, Damaged, Snapshots
from tests.failing_disk import FailingDisk, crashes

DAMAGES = 250


def content(iteration):
    """Tensors and state that differ for each iteration."""
    mx.random.seed(iteration)
    tensors = {
        "weights.a": mx.random.normal((8, 3)),
        "weights.b": mx.random.normal((5,)).astype(mx.bfloat16),
        "optimizer.step": mx.array(iteration, mx.uint64),
    }
    return tensors, {"fingerprint": {"seed": 0}, "run_state": {"iteration": iteration, "loss": 0.1 * iteration}}


def saved(folder, *iterations, keep_last=2):
    kept = Snapshots(folder, "run", keep_last)
    for iteration in iterations:
        kept.save(iteration, *content(iteration))
    return kept


def is_whole(snapshot):
    tensors, state = content(snapshot.iteration)
    same = all(mx.array_equal(snapshot.tensors[name], value) for name, value in tensors.items())
    dtypes = all(snapshot.tensors[name].dtype == value.dtype for name, value in tensors.items())
    return same and dtypes and snapshot.state == state and snapshot.tensors.keys() == tensors.keys()


def test_what_is_saved_is_read_again_and_the_last_are_kept(tmp_path):
    saved(tmp_path / "c", 0, 10, 20, keep_last=2)
    found = list(Snapshots(tmp_path / "c").whole())
    assert [snapshot.iteration for snapshot in found] == [20, 10]
    assert all(map(is_whole, found))
    assert {path.name for path in (tmp_path / "c/0000020").iterdir()} == {TENSORS, STATE, MANIFEST}


@pytest.mark.parametrize("power_loss", [False, True])
@pytest.mark.parametrize(("before", "keep_last"), [((0, 10), 2), ((10,), 1), ((10, 20), 2), ((20,), 1)])
def test_a_crash_at_any_step_of_a_save_leaves_the_old_or_the_new_checkpoint(
    tmp_path, monkeypatch, capsys, before, keep_last, power_loss
):
    """Also where a checkpoint of the same iteration is replaced (20), and where only one is kept."""
    start, folder = tmp_path / "start", tmp_path / "c"
    saved(start, *before)
    kinds = set()

    def prepare():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)

    def work():
        going_on = Snapshots(folder, "run", keep_last, list(before))
        going_on.save(20, *content(20))

    def check():
        newest = next(Snapshots(folder).whole())
        assert is_whole(newest) and newest.iteration in (before[-1], 20)
        kinds.add(newest.iteration)
        saved(folder, 20, 30)  # what the crash left is in nobody's way, and is cleared
        assert sorted(path.name for path in folder.iterdir()) == ["0000020", "0000030"]

    steps = crashes(monkeypatch, prepare, work, check, power_loss)
    assert steps > 12
    assert kinds == {before[-1], 20}
    assert "damaged" not in capsys.readouterr().out


def damage(path, chance):
    """Change a file in one of six ways; returns which."""
    raw = bytearray(path.read_bytes())
    kind = chance.choice(["bit", "cut", "zeros", "junk", "missing", "swapped"])
    place = chance.randrange(len(raw))
    if kind == "bit":
        raw[place] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del raw[place:]
    elif kind == "zeros":
        raw[place:] = bytes(len(raw) - place)
    elif kind == "junk":
        raw += chance.choice([b"\0", b"\n", b" ", chance.randbytes(9)])
    elif kind == "swapped":
        raw[:] = raw[place:] + raw[:place]
    if kind == "missing":
        path.unlink()
    else:
        if bytes(raw) == path.read_bytes():  # zeros where zeros were, a turn by nothing
            raw[-1] ^= 1
        path.write_bytes(raw)
    return kind


def test_any_damage_is_found_named_and_set_aside_and_the_next_older_is_used(tmp_path, capsys):
    saved(tmp_path / "start", 10, 20)
    chance, kinds = random.Random(0), set()
    for number in range(DAMAGES):
        folder = tmp_path / f"c{number}"
        shutil.copytree(tmp_path / "start", folder)
        name = chance.choice([TENSORS, STATE, MANIFEST])
        kinds.add((name, damage(folder / "0000020" / name, chance)))
        used = next(Snapshots(folder).whole())
        assert used.iteration == 10 and is_whole(used), (number, name)
        said = capsys.readouterr().out
        assert f"{folder}/0000020: damaged ({name}: " in said and "0000020.damaged" in said
        assert sorted(path.name for path in folder.iterdir()) == ["0000010", "0000020.damaged"]
    assert len(kinds) == 18


def test_every_byte_of_the_manifest_counts(tmp_path):
    folder = tmp_path / "c/0000010"
    saved(tmp_path / "c", 10)
    raw = (folder / MANIFEST).read_bytes()
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 << place % 8
        (folder / MANIFEST).write_bytes(changed)
        with pytest.raises(Damaged):
            snapshots.read_manifest(folder)


def test_a_folder_under_another_name_is_damaged(tmp_path):
    saved(tmp_path / "c", 10)
    (tmp_path / "c/0000010").rename(tmp_path / "c/0000020")
    assert list(Snapshots(tmp_path / "c").whole()) == []
    assert Snapshots(tmp_path / "c").has_damaged()


def test_a_damaged_checkpoint_does_not_hide_an_earlier_damaged_one(tmp_path):
    for _ in range(2):
        saved(tmp_path / "c", 10)
        (tmp_path / "c/0000010" / STATE).write_text("{}")
        assert list(Snapshots(tmp_path / "c").whole()) == []
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"0000010.damaged", "0000010.damaged.2"}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_is_one_line_and_the_old_checkpoint_stays(tmp_path, monkeypatch, error):
    saved(tmp_path / "c", 10)
    for at in range(1, 9):
        with monkeypatch.context() as patch:
            FailingDisk(patch, at, error=error)
            with pytest.raises(LabError, match="0000020: cannot write"):
                Snapshots(tmp_path / "c", "run", 1, [10]).save(20, *content(20))
        assert next(Snapshots(tmp_path / "c").whole()).iteration == 10


def test_a_finished_run_takes_its_own_away_and_leaves_another_runs(tmp_path):
    saved(tmp_path / "c", 10)
    Snapshots(tmp_path / "c", "other").clear()
    assert [snapshot.iteration for snapshot in Snapshots(tmp_path / "c").whole()] == [10]
    Snapshots(tmp_path / "c", "run").clear()
    assert not (tmp_path / "c").exists()


def test_checkpoints_of_another_run_go_when_the_new_run_has_its_own(tmp_path):
    saved(tmp_path / "c", 10, 20)
    Snapshots(tmp_path / "c", "new").save(0, *content(0))
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["0000000"]
