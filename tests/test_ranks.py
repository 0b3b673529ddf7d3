"""Real trainers on two ranks: they equal one process, end together, and go on from what they saved."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.launch import _free_ports
from tests import crash_runs

BESIDE = Path(sys.executable)
LAB = [sys.executable, "-m", "lab.launch", "--ranks", "2", "--"]
NOTED = ["bash", "-c", 'echo $$ > "pid.$MLX_RANK"; exec "$@"', "-"]  # each rank's process id, for kills
SETTINGS = """\
lora_parameters: {rank: 4, scale: 20.0, dropout: 0.0}
learning_rate: 1e-3
batch_size: 5
grad_accumulation_steps: 2
iters: 400
steps_per_report: 2
steps_per_eval: 4
patience: 2
min_delta: 0.15
max_seq_length: 64
"""
ENDLESS = ("--iters", "100000", "--patience", "0", "--save-every", "3")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """21 rows in batches of 5: the last batch leaves the second rank nothing to do."""
    folder = crash_runs.make_world(tmp_path_factory.mktemp("world"))
    (folder / "settings.yaml").write_text(SETTINGS, encoding="utf-8")
    rows = (folder / "data/train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "data/train.jsonl").write_text("".join(rows[:21]), encoding="utf-8")
    crash_runs.write_rows(folder / "general.jsonl", [f"{number}월에는 비가 온다." for number in range(1, 4)])
    return folder


def mlx_launch():
    """`mlx.launch` as people type it, on a port of its own: other tests may run at the same time."""
    ports = ["--starting-port", str(min(_free_ports(4)))]
    return [str(BESIDE.with_name("mlx.launch")), "-n", "2", *ports, "--backend", "ring", "--"]


def environment():
    return {**os.environ, "PYTHONPATH": str(crash_runs.ROOT), "OPENBLAS_NUM_THREADS": "1"}


def start(world, folder, *flags, launcher=LAB):
    folder.mkdir(exist_ok=True)
    with open(folder / "log.txt", "wb") as log:
        return subprocess.Popen(
            [*launcher, *NOTED, *crash_runs.command(world, *flags)],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def said(folder):
    return (folder / "log.txt").read_text(encoding="utf-8")


def finish(world, folder, *flags, launcher=LAB):
    assert start(world, folder, *flags, launcher=launcher).wait(crash_runs.PATIENCE) == 0, said(folder)


def pid(folder, rank):
    return int((folder / f"pid.{rank}").read_text())


def gone(folder, rank, seconds=10):
    """Whether a rank's process ends within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid(folder, rank), 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def curve(folder):
    lines = (folder / "adapters/curve.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_two_ranks_equal_one_process_and_stop_at_the_same_evaluation(world, tmp_path):
    """Few updates: in a long steep run a row order of its own, in one process, sets curves apart by 1e-5 as well."""
    flags = ("--guard-data", str(world / "general.jsonl"))
    finish(world, tmp_path / "one", *flags, launcher=[])
    finish(world, tmp_path / "two", *flags, launcher=mlx_launch())
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert [row.keys() for row in one] == [row.keys() for row in two]
    apart = {key: 0.0 for key in ("train_loss", "valid_loss", "guard_loss")}
    for first, second in zip(one, two, strict=True):
        assert first["trained_tokens"] == second["trained_tokens"]
        for key in apart.keys() & first.keys():
            apart[key] = max(apart[key], abs(first[key] - second[key]))
    print(f"{one[-1]['iteration']} updates; the curves are apart by at most {apart} nats/token")
    assert max(apart.values()) < 1e-5
    summaries = [
        json.loads((tmp_path / name / "adapters/summary.json").read_text(encoding="utf-8"))
        for name in ("one", "two")
    ]
    assert summaries[0]["stopped_by"] == "patience" and summaries[0]["iterations"] < 400
    for key in ("iterations", "stopped_by", "best_iteration", "sequences"):
        assert summaries[0][key] == summaries[1][key]
    from lab.adapters import read_weights
    from lab.device import mx

    adapters = [read_weights(tmp_path / name / "adapters/adapters.safetensors") for name in ("one", "two")]
    for name, value in adapters[0].items():
        assert mx.abs(value - adapters[1][name]).max().item() < 1e-3, name
    assert said(tmp_path / "two").count("sequences: ") == 1, "one rank speaks"


def test_all_ranks_hold_the_same_bits_after_every_update(world, tmp_path):
    worker = [sys.executable, str(crash_runs.ROOT / "tests/rank_worker.py"), str(world), str(tmp_path)]
    done = subprocess.run([*LAB, *worker], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert len(set(first["steps"])) == 5 and first["steps"] == second["steps"]
    assert first["told"] == second["told"] == first["made"]
    assert first["refused"] == second["refused"] and first["refused"].startswith("rank 1 holds other weights")


def resume_line(folder):
    """The command that the log says goes on, without this test's way to note process ids."""
    return next(line for line in reversed(said(folder).splitlines()) if line.endswith("--resume")).strip()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_other_with_a_message_and_the_run_goes_on_to_the_same_bytes(
    world, tmp_path, victim
):
    flags = ("--iters", "24", "--patience", "0", "--save-every", "3", "-c", str(dropping(world, tmp_path)))
    finish(world, tmp_path / "whole", *flags)
    process = start(world, tmp_path / "run", *flags)
    crash_runs.wait_until(process, lambda: "iteration 10: train" in said(tmp_path / "run"))
    os.kill(pid(tmp_path / "run", victim), signal.SIGKILL)
    started = time.monotonic()
    assert gone(tmp_path / "run", 1 - victim)
    print(f"rank {victim} killed: the other one ended after {time.monotonic() - started:.2f} s")
    assert process.wait(20) == crash_runs.RESUMABLE
    words = f"rank {victim} died; adapters stopped there, its last checkpoint is whole; go on with:"
    assert said(tmp_path / "run").count(words) == 1
    resume = resume_line(tmp_path / "run")
    assert start(world, tmp_path / "run", *flags, "--resume", launcher=[]).wait(60) == 1
    assert re.search(r"ranks: 2 -> 1\b", said(tmp_path / "run"))
    done = subprocess.run(
        shlex.split(resume), cwd=tmp_path / "run", env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "goes on from the checkpoint at iteration" in done.stdout
    assert crash_runs.digests(tmp_path / "run") == crash_runs.digests(tmp_path / "whole")


def dropping(world, tmp_path):
    """Settings with dropout, whose randomness is each rank's own."""
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS.replace("dropout: 0.0", "dropout: 0.1"), encoding="utf-8")
    return path


def test_a_signal_to_any_rank_or_launcher_saves_and_ends_all(world, tmp_path):
    launched = start(world, tmp_path, *ENDLESS, launcher=mlx_launch())
    crash_runs.wait_until(launched, lambda: "iteration 4: train" in said(tmp_path))
    os.kill(pid(tmp_path, 1), signal.SIGTERM)
    launched.wait(20)
    log = said(tmp_path)
    assert log.count("checkpoint saved; go on with:") == 1 and "Traceback" not in log
    assert all(f"rank {rank} exited with code 75" in log for rank in (0, 1)), log
    for launcher, number in ((mlx_launch(), signal.SIGTERM), (LAB, signal.SIGINT)):
        newest = max((tmp_path / "adapters/checkpoints").iterdir()).name
        launched = start(world, tmp_path, *ENDLESS, "--resume", launcher=launcher)
        crash_runs.wait_until(launched, lambda: said(tmp_path).count(": train loss") > 2)
        launched.send_signal(number)
        code = launched.wait(20)
        assert gone(tmp_path, 0) and gone(tmp_path, 1), said(tmp_path)
        assert max((tmp_path / "adapters/checkpoints").iterdir()).name > newest
        assert not (tmp_path / "adapters/.lock").exists(), "the ranks left by themselves"
    assert code == crash_runs.RESUMABLE
    assert said(tmp_path).count("checkpoint saved; go on with:") == 1


def test_an_error_of_all_is_said_once_and_all_end_with_it(world, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "바른식품"}\n{"text": 3}\n', encoding="utf-8")
    for launcher in (LAB, mlx_launch()):
        process = start(world, tmp_path, "--data", str(tmp_path), launcher=launcher)
        code = process.wait(30)
        assert said(tmp_path).count("error: ") == 1 and "train.jsonl:2" in said(tmp_path)
    assert all(f"rank {rank} exited with code 1" in said(tmp_path) for rank in (0, 1))
    assert start(world, tmp_path, "--data", str(tmp_path)).wait(30) == 1
    assert code == 0, "mlx.launch's own; where this fails, lab.launch may be simpler"


def test_what_only_one_rank_finds_is_said_by_the_first(world, tmp_path):
    other = tmp_path / "data"
    other.mkdir()
    for name in ("train", "valid"):
        text = (world / f"data/{name}.jsonl").read_text(encoding="utf-8")
        (other / f"{name}.jsonl").write_text(text.replace("부산", "대전"), encoding="utf-8")
    script = f'if [ "$MLX_RANK" = 1 ]; then exec "$@" --data {shlex.quote(str(other))}; else exec "$@"; fi'
    assert start(world, tmp_path, launcher=[*LAB, "bash", "-c", script, "-"]).wait(30) == 1
    assert said(tmp_path).count("error: ") == 1
    assert "error: rank 1: not what rank 0 has: file train: " in said(tmp_path)


def test_a_hostfile_goes_through_mlx_launch_and_its_exit_code_is_the_ranks(world, tmp_path):
    here = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}
    (tmp_path / "hosts.json").write_text(json.dumps([here, here]))
    launcher = [sys.executable, "-m", "lab.launch", "--hostfile", str(tmp_path / "hosts.json"), "--"]
    process = start(world, tmp_path, *ENDLESS, launcher=launcher)
    crash_runs.wait_until(process, lambda: "iteration 4: train" in said(tmp_path))
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == crash_runs.RESUMABLE, said(tmp_path)
    assert shlex.join(launcher) in resume_line(tmp_path)
