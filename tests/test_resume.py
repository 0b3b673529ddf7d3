"""A run that was stopped, crashed or damaged ends with the bytes of one that never was. In process, on a random llama."""

import errno
import json
import os
import resource
import shutil
import subprocess

import pytest

import train_with_early_stopping as command
from lab import runs, signals, snapshots
from lab.adapters import read_weights
from tests import crash_runs
from tests.failing_disk import Crash, FailingDisk, crashes

SETTINGS = """\
lora_parameters: {rank: 2, scale: 20.0, dropout: 0.1}
learning_rate: 2e-2
batch_size: 4
iters: 7
steps_per_report: 2
steps_per_eval: 3
save_every: 4
patience: 0
max_seq_length: 64
"""
SHORT = ("--iters", "3", "--save-every", "0")
# All steps by `make crashtest`; here a sample of them.
EVERY = int(os.environ.get("CRASH_EVERY", "29"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = crash_runs.make_world(tmp_path_factory.mktemp("world"))
    (folder / "settings.yaml").write_text(SETTINGS, encoding="utf-8")
    return folder


@pytest.fixture
def train(world, run, monkeypatch, tmp_path):
    """A function that trains in tmp_path/FOLDER/adapters; returns what `run` does."""

    def call(folder, *flags):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        return run(command.main, *crash_runs.command(world, *flags)[2:])

    return call


@pytest.fixture
def stopped(train, monkeypatch):
    """A function that trains until the loop looks the n-th time whether a signal asked to stop; returns the exit code."""

    def call(folder, look, *flags):
        looks = iter(range(1, 1_000_000))
        with monkeypatch.context() as patch:
            patch.setattr(signals, "asked", lambda: next(looks) >= look)
            return train(folder, *flags)[0]

    return call


def whole(train, folder, *flags):
    code, _, error = train(folder, *flags)
    assert code == 0, error


def test_stopped_wherever_the_loop_looks_and_resumed_the_bytes_are_the_same(train, stopped, tmp_path):
    whole(train, "whole")
    wanted = crash_runs.digests(tmp_path / "whole")
    for look in range(1, 100):
        if stopped(f"run{look}", look) == 0:
            break
        code, out, error = train(f"run{look}", "--resume")
        assert code == 0, error
        assert "goes on from the checkpoint at iteration" in out
        assert crash_runs.digests(tmp_path / f"run{look}") == wanted
    assert look > 3 + 2 * 7  # evaluations, and twice an update


def test_the_cost_of_a_resumed_run_is_that_of_its_last_process(train, stopped, tmp_path):
    """Seconds of half of the updates must not pass for those of all."""
    assert stopped("run", 10) == crash_runs.RESUMABLE
    made = max(int(path.name) for path in (tmp_path / "run/adapters/checkpoints").iterdir())
    whole(train, "run", "--resume")
    cost = json.loads((tmp_path / "run/adapters/cost.json").read_text(encoding="utf-8"))
    assert 0 < made < 7 and cost["updates"] == 7 - made


KINDS = [
    ("adam", "lora"),
    ("adamw", "dora"),
    ("sgd", "full"),
    ("muon", "lora"),
    ("adafactor", "lora"),
    ("adam", "full"),
]


@pytest.mark.parametrize(("optimizer", "kind"), KINDS)
def test_every_optimizer_and_kind_of_adapter_goes_on_exactly(train, stopped, tmp_path, optimizer, kind):
    """Only the last layer is trained, so that names of tensors have gaps."""
    flags = ("--optimizer", optimizer, "--fine-tune-type", kind, "--num-layers", "1", "--learning-rate", "1e-3")
    whole(train, "whole", *flags)
    assert stopped("run", 10, *flags) == crash_runs.RESUMABLE
    whole(train, "run", *flags, "--resume")
    assert crash_runs.digests(tmp_path / "run") == crash_runs.digests(tmp_path / "whole")


def test_a_crash_at_any_step_of_writing_changes_nothing_in_the_end(train, tmp_path, monkeypatch):
    whole(train, "whole", *SHORT)
    wanted, codes = crash_runs.digests(tmp_path / "whole"), []

    def check():
        whole(train, "run", *SHORT, "--resume", "--overwrite")  # overwrite: a crash before the first checkpoint
        codes.append(crash_runs.digests(tmp_path / "run") == wanted)
        left = {path.name for path in (tmp_path / "run/adapters").iterdir()}
        assert left - {".lock"} == set(crash_runs.RESULTS), left

    steps = crashes(
        monkeypatch,
        lambda: shutil.rmtree(tmp_path / "run", ignore_errors=True),
        lambda: train("run", *SHORT),
        check,
        every=EVERY,
    )
    print(f"{steps} steps of writing, {len(codes)} crashes, {sum(codes)} identical")
    assert codes and all(codes)
    assert steps > 60


def checkpoints(tmp_path, folder="run"):
    return sorted(path.name for path in (tmp_path / folder / "adapters/checkpoints").iterdir())


def test_a_damaged_checkpoint_is_set_aside_and_the_bytes_are_the_same(train, stopped, tmp_path):
    whole(train, "whole")
    stopped("run", 16)
    newest = tmp_path / "run/adapters/checkpoints" / checkpoints(tmp_path)[-1]
    raw = bytearray((newest / snapshots.TENSORS).read_bytes())
    raw[-3] ^= 4
    (newest / snapshots.TENSORS).write_bytes(raw)
    code, out, error = train("run", "--resume")
    assert code == 0, error
    assert f"{newest.name}: damaged (state.safetensors: " in out
    assert newest.name == "0000006" and "goes on from the checkpoint at iteration 4" in out
    assert crash_runs.digests(tmp_path / "run") == crash_runs.digests(tmp_path / "whole")


def test_where_all_are_damaged_it_says_so_and_starts_from_the_beginning(train, stopped, tmp_path):
    whole(train, "whole")
    stopped("run", 12)
    for name in checkpoints(tmp_path):
        (tmp_path / "run/adapters/checkpoints" / name / snapshots.STATE).write_text("{}")
    code, out, error = train("run", "--resume")
    assert code == 0, error
    assert out.count("damaged (state.json: ") == 2
    assert "no checkpoint to go on from; starts from the beginning" in out
    assert crash_runs.digests(tmp_path / "run") == crash_runs.digests(tmp_path / "whole")


def test_resume_without_a_checkpoint_starts_from_the_beginning_and_says_so(train):
    code, out, error = train("run", "--resume")
    assert code == 0, error
    assert "no checkpoint to go on from; starts from the beginning" in out


def test_the_last_checkpoints_are_kept_while_it_runs_and_none_when_it_is_done(train, stopped, tmp_path):
    stopped("run", 17, "--keep-last", "3")
    assert checkpoints(tmp_path) == ["0000004", "0000006", "0000007"]
    whole(train, "run", "--resume", "--keep-last", "1")
    assert not (tmp_path / "run/adapters/checkpoints").exists()


CHANGES = [
    (("--seed", "1"), "setting seed: 0 -> 1"),
    (("--iters", "9"), "setting iters: 7 -> 9"),
    (("--learning-rate", "1e-3"), "setting learning_rate: 0.02 -> 0.001"),
    (("--batch-size", "2"), "setting batch_size: 4 -> 2"),
    (("--optimizer", "sgd"), 'setting optimizer: "adam" -> "sgd"'),
]


@pytest.mark.parametrize("finished", [False, True])
def test_a_changed_setting_is_refused_with_every_difference(train, stopped, tmp_path, finished):
    whole(train, "run") if finished else stopped("run", 12)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for flags, words in CHANGES:
        code, _, error = train("run", "--resume", *flags)
        assert code == 1
        assert words in error and "--overwrite" in error and error.count("\n") == 1
    flags = [flag for flags, _ in CHANGES for flag in flags]
    _, _, error = train("run", "--resume", *flags)
    assert all(words in error for _, words in CHANGES)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["data/train.jsonl", "data/valid.jsonl", "model/model.safetensors"])
def test_changed_data_or_model_is_refused_and_with_overwrite_trained_again(
    world, train, stopped, tmp_path, monkeypatch, name
):
    moved = tmp_path / "world"
    shutil.copytree(world, moved)
    flags = ("-c", moved / "settings.yaml", "--model", moved / "model", "--data", moved / "data")
    assert stopped("run", 12, *map(str, flags)) == crash_runs.RESUMABLE
    if name.startswith("data"):
        text = (moved / name).read_text(encoding="utf-8")
        (moved / name).write_text(text.replace("바른식품", "맑은식품"), encoding="utf-8")
    else:
        shutil.rmtree(moved / "model")
        crash_runs.make_model(moved / "model", seed=1)
    code, _, error = train("run", *map(str, flags), "--resume")
    assert (code, error.count("\n")) == (1, 1)
    assert (f"file {name[5:-6]}: " if name.startswith("data") else "model model.safetensors: ") in error
    code, out, error = train("run", *map(str, flags), "--resume", "--overwrite")
    assert code == 0, error
    assert "holds a run of something else: " in out and "starts from the beginning" in out
    whole(train, "whole", *map(str, flags))
    assert crash_runs.digests(tmp_path / "run") == crash_runs.digests(tmp_path / "whole")


def test_a_moved_model_and_data_set_are_still_the_same(world, train, stopped, tmp_path):
    stopped("run", 12)
    shutil.copytree(world, tmp_path / "elsewhere")
    flags = ("--model", str(tmp_path / "elsewhere/model"), "--data", str(tmp_path / "elsewhere/data"))
    code, out, error = train("run", "--resume", *flags)
    assert code == 0, error
    assert "goes on from the checkpoint" in out


def test_a_used_folder_is_left_alone_without_a_word_of_consent(train, stopped, tmp_path):
    stopped("run", 12)
    code, _, error = train("run")
    assert code == 1
    assert "holds an unfinished run; --resume goes on with it, --overwrite replaces it" in error
    whole(train, "run", "--resume")
    code, _, error = train("run")
    assert (code, "holds a finished run; --overwrite replaces it" in error) == (1, True)
    (tmp_path / "run/adapters/summary.json").unlink()
    for flags in ((), ("--resume",)):
        code, _, error = train("run", *flags)
        assert (code, "holds an adapter" in error) == (1, True)
    whole(train, "run", "--overwrite")


def test_a_finished_run_has_nothing_to_do_and_make_is_told_so(train, tmp_path):
    whole(train, "run")
    summary = tmp_path / "run/adapters/summary.json"
    before = summary.read_bytes()
    os.utime(summary, (1, 1))
    code, out, _ = train("run", "--resume", "--overwrite")
    assert (code, "this run is finished; nothing to do" in out) == (0, True)
    assert summary.read_bytes() == before and summary.stat().st_mtime > 1


def test_a_finished_run_can_still_be_tested(train, world, tmp_path):
    whole(train, "run", *SHORT)
    shutil.copy(world / "data/valid.jsonl", world / "data/test.jsonl")
    code, out, error = train("run", *SHORT, "--resume", "--test")
    (world / "data/test.jsonl").unlink()
    assert (code, "this run is finished" in out, "test loss" in out) == (0, True, True), error
    assert (tmp_path / "run/adapters/test_summary.json").is_file()


def test_a_finished_run_whose_adapter_went_away_is_trained_again(train, tmp_path):
    whole(train, "run", *SHORT)
    wanted, weights = crash_runs.digests(tmp_path / "run"), tmp_path / "run/adapters/adapters.safetensors"
    weights.unlink()
    code, out, error = train("run", *SHORT, "--resume")
    assert (code, "a finished run without its adapters.safetensors; it is trained again" in out) == (0, True), (
        error
    )
    assert crash_runs.digests(tmp_path / "run") == wanted
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    code, _, error = train("run", *SHORT, "--resume")
    assert (code, "adapters.safetensors is not what the finished run wrote; --overwrite" in error) == (1, True)
    whole(train, "run", *SHORT, "--resume", "--overwrite")
    assert crash_runs.digests(tmp_path / "run") == wanted


def test_old_results_stay_until_the_new_run_has_a_best_adapter(train, stopped, tmp_path):
    whole(train, "run", "--save-every", "2")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run/adapters").iterdir()}
    other = ("--overwrite", "--seed", "1", "--save-every", "0")
    # 1: evaluation at 0, 2 and 3: update 1, 6: update 3, before its evaluation
    for look in (1, 2, 3, 6):
        assert stopped("run", look, *other) == crash_runs.RESUMABLE
        now = {path.name: path.read_bytes() for path in (tmp_path / "run/adapters").iterdir() if path.is_file()}
        assert now == before
    assert stopped("run", 9, *other) == crash_runs.RESUMABLE
    assert not (tmp_path / "run/adapters/summary.json").exists()
    assert (tmp_path / "run/adapters/adapters.safetensors").read_bytes() != before["adapters.safetensors"]
    assert not list((tmp_path / "run/adapters").glob("0*_adapters.safetensors"))


def test_a_second_trainer_in_the_folder_is_one_line(train, tmp_path):
    with runs.locked(tmp_path / "run/adapters"):
        code, _, error = train("run")
    assert code == 1
    assert "another trainer is at work there" in error and error.count("\n") == 1
    assert not (tmp_path / "run/adapters").exists()
    whole(train, "run")


def test_a_second_trainer_hears_of_the_first_not_of_what_it_has_left(train, stopped, tmp_path):
    assert stopped("run", 3) == crash_runs.RESUMABLE
    with runs.locked(tmp_path / "run/adapters"):
        _, _, error = train("run")
    assert "another trainer is at work there" in error and "--resume" not in error


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_fails_is_one_line_and_old_results_stay(train, stopped, tmp_path, monkeypatch, error):
    whole(train, "whole")
    whole(train, "run", "--seed", "1")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run/adapters").iterdir()}
    for at in (1, 2, 6, 12):
        with monkeypatch.context() as patch:
            FailingDisk(patch, at, error=error)
            code, _, said = train("run", "--overwrite")
        assert code == 1
        assert "cannot write" in said and os.strerror(error) in said and said.count("\n") == 1
        now = {path.name: path.read_bytes() for path in (tmp_path / "run/adapters").iterdir() if path.is_file()}
        assert now.items() >= before.items()
    whole(train, "run", "--overwrite", "--resume")
    assert crash_runs.digests(tmp_path / "run") == crash_runs.digests(tmp_path / "whole")


def test_a_real_limit_on_files_is_one_line(world, tmp_path):
    """The kernel refuses to let a file grow beyond 8 KiB: the checkpoint does not fit, the log does."""
    limit = (8 << 10, 8 << 10)
    done = subprocess.run(
        crash_runs.command(world),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert done.returncode == 1
    assert "checkpoints/0000000: cannot write (File too large)" in done.stderr and done.stderr.count("\n") == 1
    assert not list((tmp_path / "adapters/checkpoints").iterdir())


def test_a_run_that_diverges_keeps_what_is_finite_and_diverges_again(train, tmp_path):
    flags = ("--learning-rate", "1e30", "--max-grad-norm", "0")
    errors = []
    for more in ((), ("--resume",)):
        code, _, error = train("run", *flags, *more)
        assert code == 4
        errors.append(error)
        found = list(snapshots.Snapshots(tmp_path / "run/adapters/checkpoints").whole())
        assert found
        read_weights(tmp_path / "run/adapters/checkpoints" / checkpoints(tmp_path)[-1] / snapshots.TENSORS)
    assert errors[0] == errors[1]
    assert "learning rate 1e+30, rows " in errors[0]


def test_weights_that_overflow_never_reach_the_disk(train, tmp_path, monkeypatch):
    """An update whose gradient is finite can still overflow the weights."""
    flags = ("--learning-rate", "3e38", "--optimizer", "sgd", "--max-grad-norm", "0", "--save-every", "1")
    code, _, error = train("run", *flags)
    assert code == 4, error
    assert not list((tmp_path / "run/adapters").glob("0*_adapters.safetensors"))


def test_a_run_killed_after_its_last_checkpoint_only_writes_its_results(train, tmp_path, monkeypatch):
    whole(train, "whole")
    from lab import tuning

    def dies(*_):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "summarize", dies)
        with pytest.raises(Crash):
            train("run")
    code, out, error = train("run", "--resume")
    assert code == 0, error
    assert "goes on from the checkpoint at iteration 7" in out and "iteration 7: " not in out
    assert crash_runs.digests(tmp_path / "run") == crash_runs.digests(tmp_path / "whole")


def test_patience_and_best_go_on(train, stopped, tmp_path):
    """Nothing improves after a while: the best one of before the stop is what is left."""
    flags = ("--learning-rate", "0.5", "--iters", "40", "--patience", "4", "--steps-per-eval", "1")
    whole(train, "whole", *flags)
    summary = json.loads((tmp_path / "whole/adapters/summary.json").read_text(encoding="utf-8"))
    assert summary["stopped_by"] == "patience" and summary["best_iteration"] < summary["iterations"]
    for look in (3 * summary["best_iteration"] + 4, 3 * summary["iterations"] - 4):
        assert stopped(f"run{look}", look, *flags) == crash_runs.RESUMABLE
        whole(train, f"run{look}", *flags, "--resume")
        assert crash_runs.digests(tmp_path / f"run{look}") == crash_runs.digests(tmp_path / "whole")


def test_a_summary_of_an_earlier_version_is_another_run(train, tmp_path):
    whole(train, "run")
    summary = tmp_path / "run/adapters/summary.json"
    summary.write_text('{"flags": {"adapter_path": "adapters"}}', encoding="utf-8")
    code, _, error = train("run", "--resume")
    assert (code, "its summary does not say what decided it; name another" in error) == (1, True)
    whole(train, "run", "--resume", "--overwrite")
    assert "fingerprint" in json.loads(summary.read_text(encoding="utf-8"))


def test_it_says_so_where_the_labs_own_code_has_changed(train, stopped, monkeypatch):
    from lab import recorder

    stopped("run", 12)
    monkeypatch.setattr(recorder, "commit", lambda: "0123456789ab")
    code, out, error = train("run", "--resume")
    assert code == 0, error
    assert "and is 0123456789ab: other bytes are possible" in out
