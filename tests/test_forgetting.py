"""The forgetting guard on real runs: it stops, or steps back, and never keeps what forgot too much.

A small llama learns a general text first; its adapter is trained on with other rows, and forgets it.
"""

import json
import subprocess

import pytest

import train_with_early_stopping as command
from lab import signals
from lab.adapters import read_weights
from lab.device import mx
from tests import crash_runs

SETTINGS = """\
lora_parameters: {rank: 4, scale: 20.0, dropout: 0.0}
learning_rate: 3e-2
batch_size: 4
iters: 24
steps_per_report: 4
steps_per_eval: 2
patience: 0
max_seq_length: 64
"""
GENERAL = [f"sky blue {number} grass green" for number in range(6)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = crash_runs.make_world(tmp_path_factory.mktemp("world"))
    (folder / "settings.yaml").write_text(SETTINGS, encoding="utf-8")
    for path in ("data/general.jsonl", "general/train.jsonl", "general/valid.jsonl"):
        (folder / path).parent.mkdir(exist_ok=True)
        crash_runs.write_rows(folder / path, GENERAL)
    crash_runs.finish(folder, folder, "--data", str(folder / "general"))
    crash_runs.finish(folder, folder / "watched", *guarded(folder))
    return folder


def guarded(world):
    """The flags of a run that trains the general text's adapter on, and follows how much of it is forgotten."""
    given = world / "adapters/adapters.safetensors"
    return ["--resume-adapter-file", str(given), "--guard-data", str(world / "data/general.jsonl")]


@pytest.fixture
def train(world, run, monkeypatch, tmp_path):
    """A function that trains in tmp_path/FOLDER with the guard; returns (exit code, printed, error)."""

    def call(folder, *flags):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        return run(command.main, *crash_runs.command(world, *guarded(world), *map(str, flags))[2:])

    return call


@pytest.fixture
def train_apart(world, tmp_path):
    """The same in a process of its own: the bytes of a run are promised of fresh processes (docs/LOG.md)."""

    def call(folder, *flags):
        (tmp_path / folder).mkdir()
        command_line = crash_runs.command(world, *guarded(world), *map(str, flags))
        done = subprocess.run(command_line, cwd=tmp_path / folder, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return call


def points(folder):
    rows = [
        json.loads(line) for line in (folder / "adapters/curve.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return [row for row in rows if "valid_loss" in row]


def summary(folder):
    return json.loads((folder / "adapters/summary.json").read_text(encoding="utf-8"))


def rise(found):
    return [row["guard_loss"] - found[0]["guard_loss"] for row in found]


@pytest.fixture
def limit(world):
    """A limit that the unguarded run exceeds in its course, but not at its first evaluation."""
    rises = rise(points(world / "watched"))
    return (rises[1] + max(rises)) / 2


def test_without_a_limit_it_only_watches(world):
    found = points(world / "watched")
    assert len(found) == 13 and all("guard_loss" in row for row in found)
    assert summary(world / "watched")["stopped_by"] is None


def test_it_stops_and_keeps_the_best_inside_the_limit(train_apart, tmp_path, world, limit):
    code, out, error = train_apart("run", "--max-forgetting", f"{limit}")
    assert code == 0, error
    found, done = points(tmp_path / "run"), summary(tmp_path / "run")
    assert [value > limit for value in rise(found)] == [False] * (len(found) - 1) + [True]
    assert done["stopped_by"] == "forgetting" and done["iterations"] == found[-1]["iteration"]
    inside = [row for row in found[:-1]]
    assert done["best_valid_loss"] == min(row["valid_loss"] for row in inside)
    assert done["best_guard_loss"] - found[0]["guard_loss"] <= limit
    assert "the loss on general text rose by more than" in out
    watched = points(world / "watched")[: len(found)]
    for figure in ("valid_loss", "guard_loss"):
        assert [row[figure] for row in found] == [row[figure] for row in watched], "until then it changes nothing"


def test_it_steps_back_and_goes_on_at_half_the_rate(train, tmp_path, limit):
    code, out, error = train("run", "--max-forgetting", f"{limit}", "--guard-action", "restore")
    assert code == 0, error
    found, done = points(tmp_path / "run"), summary(tmp_path / "run")
    back = [row["iteration"] for row in found if row.get("stepped_back")]
    assert done["steps_back"] == len(back) >= 1
    assert out.count("forgets too much: back to the last evaluation, half the rate") == len(back)
    rows = [json.loads(line) for line in (tmp_path / "run/adapters/curve.jsonl").read_text().splitlines()]
    for row in rows:
        if "learning_rate" in row:
            halved = sum(iteration < row["iteration"] for iteration in back)
            assert row["learning_rate"] == pytest.approx(0.03 * 0.5**halved)
    best = [row for row in found if row.get("best")]
    assert all(row["guard_loss"] - found[0]["guard_loss"] <= limit for row in best)
    assert done["best_iteration"] == best[-1]["iteration"]


def test_weights_and_optimizer_are_those_of_the_last_evaluation_inside(train, tmp_path, limit, monkeypatch):
    """At rate 0 after the step back nothing moves any more: every later evaluation gives the figures of the last inside."""
    from lab.stopping import ForgettingGuard

    monkeypatch.setattr(ForgettingGuard, "slowed", property(lambda self: 0.0 if self.steps_back else 1.0))
    assert train("run", "--max-forgetting", f"{limit}", "--guard-action", "restore")[0] == 0
    found = points(tmp_path / "run")
    place = next(place for place, row in enumerate(found) if row.get("stepped_back"))
    assert place + 1 < len(found)
    assert {row["valid_loss"] for row in found[place + 1 :]} == {found[place - 1]["valid_loss"]}


@pytest.mark.parametrize("action", ["stop", "restore"])
def test_a_stopped_run_goes_on_exactly(train, tmp_path, limit, monkeypatch, action):
    flags = ("--max-forgetting", f"{limit}", "--guard-action", action)
    assert train("whole", *flags)[0] == 0
    for look in (4, 25, 28, 30):
        looks = iter(range(1, 1000))
        with monkeypatch.context() as patch:
            patch.setattr(signals, "asked", lambda look=look, looks=looks: next(looks) >= look)
            code = train(f"run{look}", *flags)[0]
        assert code in (0, crash_runs.RESUMABLE)
        assert train(f"run{look}", *flags, "--resume")[0] == 0
        assert crash_runs.digests(tmp_path / f"run{look}") == crash_runs.digests(tmp_path / "whole")


def test_where_nothing_stays_inside_the_start_is_kept(train, tmp_path, world):
    code, out, error = train("run", "--max-forgetting", "0", "--learning-rate", "0.5")
    assert code == 0, error
    done = summary(tmp_path / "run")
    assert (done["best_iteration"], done["stopped_by"]) == (0, "forgetting")
    assert "kept iteration 0" in out
    kept, given = (read_weights(folder / "adapters/adapters.safetensors") for folder in (tmp_path / "run", world))
    assert all(mx.array_equal(kept[name], value) for name, value in given.items())


def test_changed_general_rows_are_refused(train, tmp_path, world, monkeypatch, limit):
    looks = iter(range(1, 1000))
    with monkeypatch.context() as patch:
        patch.setattr(signals, "asked", lambda: next(looks) >= 7)
        assert train("run")[0] == crash_runs.RESUMABLE
    (tmp_path / "other.jsonl").write_text('{"text": "다른 글이다."}\n', encoding="utf-8")
    code, _, error = train("run", "--resume", "--guard-data", tmp_path / "other.jsonl")
    assert (code, "file guard: " in error) == (1, True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [(("--guard-data", "nowhere.jsonl"), "nowhere.jsonl: no such file"), (("--max-forgetting", "-1"), "is -1")],
)
def test_bad_guard_settings_are_one_line(train, flags, message):
    code, _, error = train("run", *flags)
    assert code == 1
    assert message in error and error.count("\n") == 1


def test_an_action_without_a_limit_is_refused(train):
    code, _, error = train("run", "--guard-action", "restore")
    assert (code, "--guard-action: nothing to act on" in error) == (1, True)


def test_a_limit_without_rows_to_measure_it_on_is_refused(world, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(command.main, *crash_runs.command(world, "--max-forgetting", "1")[2:])
    assert (code, "give --guard-data FILE.jsonl" in error) == (1, True)
