"""Real signals to real trainer processes, in every phase of a run."""

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import crash_runs

LONG_VALIDATION = """\
lora_parameters: {rank: 4, scale: 20.0, dropout: 0.1}
learning_rate: 1e-2
iters: 30
steps_per_report: 1
steps_per_eval: 15
max_seq_length: 64
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A world whose evaluations take a while, and what its run leaves when nothing stops it."""
    folder = crash_runs.make_world(tmp_path_factory.mktemp("world"))
    (folder / "settings.yaml").write_text(LONG_VALIDATION, encoding="utf-8")
    crash_runs.write_rows(
        folder / "data/valid.jsonl", [f"부산 창고 {number}번에 쌀이 있다." for number in range(500)]
    )
    crash_runs.finish(folder, folder / "whole")
    return folder


def said(folder):
    return (folder / "log.txt").read_text(encoding="utf-8")


class Computing:
    """Calling it tells whether the process has computed for a while since the first call, by the clock of its main thread.

    What it says it writes before it looks whether a signal has come: what the log shows is not yet what it is at.
    """

    def __init__(self, process, seconds=0.1):
        self.path, self.seconds = Path(f"/proc/{process.pid}/task/{process.pid}/stat"), seconds
        self.first = None

    def __call__(self):
        if not self.path.parent.parent.exists():  # no Linux: a guess
            return time.sleep(3 * self.seconds) is None
        ticks = sum(map(int, self.path.read_text().rpartition(")")[2].split()[11:13]))  # user and system
        self.first = ticks if self.first is None else self.first
        return ticks - self.first > self.seconds * os.sysconf("SC_CLK_TCK")


PHASES = {  # what is seen of a process that is in that phase
    "import": lambda process, folder: crash_runs.catches(process, signal.SIGTERM),
    "load": lambda process, folder: "device: " in said(folder),
    "evaluation": lambda process, folder: "sequences: " in said(folder),
    "first step": lambda process, folder: "iteration 0: validation" in said(folder),
    "step": lambda process, folder: "iteration 7: train" in said(folder),
    "save": lambda process, folder: bool(crash_runs.unfinished(folder)),
}


def test_a_signal_in_any_phase_saves_says_how_to_go_on_and_changes_no_byte(world):
    folder, ends = world / "stopped", {}
    for number, (phase, reached) in enumerate(PHASES.items()):
        process = crash_runs.start(world, folder, *(["--resume"] if number else []))
        crash_runs.wait_until(process, lambda reached=reached, process=process: reached(process, folder))
        assert process.poll() is None, f"{phase}: over before it could be stopped: {said(folder)}"
        process.send_signal(signal.SIGINT if number % 2 else signal.SIGTERM)
        assert process.wait(20) == crash_runs.RESUMABLE, f"{phase}: {said(folder)}"
        *_, words, resume = said(folder).splitlines()
        ends[phase] = words
        assert words.endswith("; go on with:")
        if stopped := re.search(r"stopped at iteration (\d+)", words):
            reported = re.findall(r"iteration (\d+): train", said(folder))
            assert stopped[1] == (reported or ["0"])[-1], (
                f"{phase}: the update at work is finished, no other begun"
            )
        assert resume.split()[-1] == "--resume" and resume.count("--resume") == 1
        assert "Traceback" not in said(folder)
    assert "before training began" in ends["import"] and "before training began" in ends["load"]
    assert ends["evaluation"].startswith("stopped at iteration 0, checkpoint saved")
    assert ["checkpoint saved" in ends[phase] for phase in ("first step", "step", "save")] == [True] * 3
    done = subprocess.run(
        shlex.split(resume), cwd=folder, capture_output=True, text=True, timeout=crash_runs.PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert crash_runs.digests(folder) == crash_runs.digests(world / "whole")


def test_a_second_signal_leaves_at_once_and_loses_nothing(world):
    """An update of thousands of micro-batches is far from over when the second signal comes."""
    (world / "many").mkdir()
    rows = [f"창고 {number}번에 쌀이 있다." for number in range(8000)]
    crash_runs.write_rows(world / "many/train.jsonl", rows)
    crash_runs.write_rows(world / "many/valid.jsonl", rows[:2])
    flags = "--batch-size 1 --grad-accumulation-steps 8000 --iters 1".split()
    folder, slow = world / "slow", ("--data", str(world / "many"), *flags)
    process = crash_runs.start(world, folder, *slow)
    crash_runs.wait_until(process, lambda: "iteration 0: validation" in said(folder))
    crash_runs.wait_until(process, Computing(process))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None, "the first signal waits for the update"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == crash_runs.RESUMABLE
    assert "left at once; the last checkpoint is whole; go on with:" in said(folder)
    resumed = crash_runs.start(world, folder, *slow, "--resume")
    crash_runs.wait_until(resumed, lambda: "goes on from the checkpoint at iteration 0" in said(folder))
    resumed.kill()
    resumed.wait()
    assert "goes on from the checkpoint at iteration 0" in said(folder)


def test_a_signal_while_python_ends_does_not_change_the_exit_code(world):
    """Python puts the system's own handlers back before it is gone; a request sent then would look like a crash."""
    folder = world / "ending"
    process = crash_runs.start(world, folder)
    crash_runs.wait_until(process, lambda: "iteration 7: train" in said(folder))
    process.send_signal(signal.SIGTERM)
    crash_runs.wait_until(process, lambda: "go on with:" in said(folder))
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    assert process.returncode == crash_runs.RESUMABLE


def test_one_request_that_is_sent_twice_is_one(world):
    """make and timeout send SIGTERM to the process and to its group."""
    folder = world / "twice"
    process = crash_runs.start(world, folder)
    crash_runs.wait_until(process, lambda: "iteration 7: train" in said(folder))
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == crash_runs.RESUMABLE
    assert "checkpoint saved; go on with:" in said(folder)
