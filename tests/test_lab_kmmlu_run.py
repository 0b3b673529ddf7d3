"""The items of an evaluation on the disk: torn, changed, locked, cut."""

import json

import pytest

from lab.cli import LabError
from lab.kmmlu import HAERAE, KMMLU, Item
from lab.kmmlu_run import Items, row_of

SETTINGS = {"shots": 0, "adapter": "abc"}
BATCHES = [["a", "b"], ["c"], ["d", "e"]]


def add(path, batches, settings=SETTINGS):
    with Items(path, settings) as items:
        done = items.found(BATCHES)
        for ids in batches:
            items.add([{"id": each, "right": True} for each in ids])
        return done, [row["id"] for row in items.rows]


def ids_in(path):
    return [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "kmmlu_base.jsonl"


def test_a_run_goes_on_after_the_last_whole_batch(path):
    assert add(path, BATCHES[:2]) == (0, ["a", "b", "c"])
    assert add(path, [["d"]]) == (2, ["a", "b", "c", "d"])  # killed within the third batch
    assert add(path, BATCHES[2:]) == (2, ["a", "b", "c", "d", "e"])
    assert ids_in(path) == ["a", "b", "c", "d", "e"]
    assert add(path, []) == (3, ["a", "b", "c", "d", "e"])


@pytest.mark.parametrize("torn", [b'{"id": "c", "ri', b'{"id": "c"}', b"\xff\n", b"[]\n", b"\n", b"\0\0\0\n"])
def test_a_torn_end_is_set_right(path, torn, capsys):
    add(path, BATCHES[:1])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert add(path, []) == (1, ["a", "b"])
    assert path.read_bytes() == whole
    assert "torn after 2 items; cut there" in capsys.readouterr().out


def test_items_of_other_settings_are_moved_aside(path, capsys):
    add(path, BATCHES)
    before = path.read_bytes()
    assert add(path, BATCHES[:1], {**SETTINGS, "adapter": "other"}) == (0, ["a", "b"])
    assert "made with other adapter; kept as kmmlu_base.jsonl.old, begun anew" in capsys.readouterr().out
    assert path.with_name("kmmlu_base.jsonl.old").read_bytes() == before
    assert add(path, [], {**SETTINGS, "adapter": "other"})[0] == 1


def test_what_was_moved_aside_is_not_written_over(path, capsys):
    """Hours of items, a try with other settings, the first settings again: the hours are still there."""
    add(path, BATCHES)
    hours = path.read_bytes()
    add(path, BATCHES[:1], {**SETTINGS, "limit": 5})
    add(path, [], SETTINGS)
    assert path.with_name("kmmlu_base.jsonl.old").read_bytes() == hours
    assert path.with_name("kmmlu_base.jsonl.old2").read_bytes().count(b"\n") == 2
    assert "made with other limit; kept as kmmlu_base.jsonl.old2, begun anew" in capsys.readouterr().out


@pytest.mark.parametrize("settings", ["[1]", "null", '"x"'])
def test_settings_that_are_none(path, settings):
    add(path, BATCHES)
    path.with_name(path.name + ".settings.json").write_text(settings)
    assert add(path, [])[0] == 0 and path.with_name("kmmlu_base.jsonl.old").is_file()


def test_a_file_that_nobody_described_is_moved_aside(path, capsys):
    path.parent.mkdir()
    path.write_text('{"id": "a"}\n{"id": "b"}\n')
    assert add(path, [])[0] == 0
    assert "made by hand or by another version; kept as" in capsys.readouterr().out


def test_two_processes_do_not_write_one_file(path):
    with Items(path, SETTINGS), pytest.raises(LabError, match="another process writes it"), Items(path, SETTINGS):
        pass


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="cannot write"), Items(tmp_path / "file" / "k.jsonl", SETTINGS):
        pass


def test_without_a_path_items_are_kept_in_memory():
    with Items(None, SETTINGS) as items:
        assert items.found(BATCHES) == 0
        items.add([{"id": "a"}])
        assert items.rows == [{"id": "a"}]


def test_a_row_holds_letters_and_nats():
    item = Item("Law/7", "Law", "?", ("a", "b", "c", "d"), 3)
    row = row_of(KMMLU, item, [-1.23456789, -2, -0.5, -9], 2)
    values = {"A": -1.234568, "B": -2, "C": -0.5, "D": -9}
    expected = {
        "id": "Law/7",
        "subject": "Law",
        "label": "C",
        "loglikelihoods": values,
        "picked": "C",
        "right": True,
    }
    assert row == expected
    assert row_of(HAERAE, Item("g/0", "g", "?", (), 5), [0, -1, -2, -3, -4], 0)["label"] == "E"
