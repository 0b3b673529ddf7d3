"""Stopped at any moment, a conversion goes on and ends with the bytes of one that was never stopped."""

import errno
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import convert_hyperclova
from lab import building, conversion, conversion_plan, places
from lab.cli import finish
from tests import crash_runs
from tests.crashes import crashing
from tests.small_checkpoints import write_checkpoint

ROOT = Path(__file__).resolve().parent.parent
SHARDS = 4


@pytest.fixture
def small_pieces(monkeypatch):
    """Shards and chunks so small that a tiny checkpoint has several of each."""
    monkeypatch.setattr(building, "SHARD_BYTES", 50_000)
    monkeypatch.setattr(conversion, "CHUNK_BYTES", 24_000)
    monkeypatch.setattr(conversion_plan, "CHUNK_BYTES", 24_000)


@pytest.fixture
def source(tmp_path, tokenizer_files):
    shutil.copytree(tokenizer_files, tmp_path / "source")
    return write_checkpoint(tmp_path / "source")


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def same(found, wanted):
    """Whether two {file: bytes} are equal; prints the files and lines that differ."""
    for name in found.keys() | wanted.keys():
        lines = [set(files.get(name, b"").splitlines()) for files in (found, wanted)]
        for which, only in (("found", lines[0] - lines[1]), ("wanted", lines[1] - lines[0])):
            print("".join(f"{name}: {which} {line[:200]}\n" for line in sorted(only)), end="")
    return found == wanted


def convert(source, target, *flags):
    return finish(convert_hyperclova.main, ["--hf-path", str(source), "--mlx-path", str(target), *flags])


def shards_kept(out):
    """How many shards a conversion found written, as it printed."""
    there = [line for line in out.splitlines() if line.startswith("going on with")]
    return int(there[0].split(": ")[1].split()[0]) if there else 0


# Each of the two does all that a plain run does, which `make crashtest` adds.
WAYS = [("--force",), ("--consume-source",), *([()] if os.environ.get("CRASH_EVERY") else [])]


@pytest.mark.parametrize("flags", WAYS)
def test_a_crash_at_every_step_ends_with_the_same_bytes(
    tmp_path, source, small_pieces, monkeypatch, capsys, flags
):
    target, pristine = tmp_path / "target", tmp_path / "pristine"
    shutil.copytree(source, pristine)
    with crashing(monkeypatch, None) as disk:
        assert convert(source, target, *flags) == 0
    wanted, steps = contents(target), disk.done
    assert sum(name.startswith("model-") for name in wanted) == SHARDS
    assert len(list(source.glob("*.safetensors"))) == (0 if flags == ("--consume-source",) else 2)
    for step in itertools.count(1):
        if flags != ("--force",):
            shutil.rmtree(target)
        shutil.rmtree(source)
        shutil.copytree(pristine, source, copy_function=shutil.copy2)
        with crashing(monkeypatch, step) as disk:
            code = convert(source, target, *flags)
        if disk.done < step:
            assert code == 0 and step > steps
            break
        if flags == ("--force",) and target.exists():
            assert wanted.items() <= contents(target).items()  # the old result, or the new one, whole
        partial = places.partial_of(target)
        begun = len(list(partial.glob("model-*.safetensors"))) if partial.is_dir() else 0
        capsys.readouterr()
        done, code = target.exists(), convert(source, target, *flags)
        out, error = capsys.readouterr()
        assert begun - shards_kept(out) <= 1, step  # at most one shard is written twice
        assert code == 0 or (done and "--force overwrites it" in error), (step, error)
        assert same(contents(target), wanted), step
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("target")] == ["target"], step
    print(f"crashed at each of {step - 1} steps")


@pytest.mark.parametrize("flags", WAYS)
def test_a_disk_error_at_any_step_is_one_line_and_the_next_run_ends_with_the_same_bytes(
    tmp_path, source, small_pieces, monkeypatch, capsys, flags
):
    """From that step on there is no room; the process lives, and says so. Every CRASH_EVERY (13) steps."""
    target, pristine, every = tmp_path / "target", tmp_path / "pristine", int(os.environ.get("CRASH_EVERY", 13))
    shutil.copytree(source, pristine)
    assert convert(source, target, *flags) == 0
    wanted = contents(target)
    for step in itertools.count(1, every):
        if flags != ("--force",):
            shutil.rmtree(target)
        shutil.rmtree(source)
        shutil.copytree(pristine, source, copy_function=shutil.copy2)
        capsys.readouterr()
        with crashing(monkeypatch, step, error=errno.ENOSPC) as disk:
            code = convert(source, target, *flags)
        error = capsys.readouterr().err
        if disk.done < step:
            break
        told = error.startswith("error: ") and error.count("\n") == 1 and "No space left on device" in error
        done = target.exists() and flags != ("--force",)  # it failed in clearing up
        assert code == 1 and told, (step, code, error)
        code = convert(source, target, *flags)
        assert code == 0 or (done and "--force overwrites it" in capsys.readouterr().err), step
        assert same(contents(target), wanted), step
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("target")] == ["target"], step
    print(f"an error at {len(range(1, step, every))} of {step - 1} steps")


def in_small_pieces(source, target):
    """The command line of a conversion in a process of its own, as small_pieces has it."""
    code = (
        "import runpy, sys\nfrom lab import building, conversion, conversion_plan\n"
        "building.SHARD_BYTES = 50_000\nconversion.CHUNK_BYTES = conversion_plan.CHUNK_BYTES = 24_000\n"
        "sys.argv[0] = 'convert_hyperclova.py'\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    return [sys.executable, "-c", code, "--hf-path", str(source), "--mlx-path", str(target)]


def test_random_kills(tmp_path, source):
    """kill -9 of real processes at random moments, until KILLS (5) conversions were hit in the middle of their work."""
    target, draw, kills, whole_runs = tmp_path / "target", random.Random(0), 0, 0
    command = in_small_pieces(source, target)
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = time.monotonic()
    subprocess.run(command, check=True, **quiet)
    whole, wanted = time.monotonic() - started, contents(target)
    while kills < int(os.environ.get("KILLS", 5)):
        shutil.rmtree(target)
        before = kills
        while not target.exists():
            process = subprocess.Popen(command, **quiet)
            try:
                process.wait(timeout=draw.uniform(whole * 0.5, whole * 1.05))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
        whole_runs += 1
        whole *= 1 if kills > before else 0.9  # too late: the first run took longer than this one
        assert contents(target) == wanted, kills
    print(f"{kills} kills, {whole_runs} conversions that end with the same bytes")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells which signals are caught")
def test_ctrl_c_at_random_moments_says_that_it_stopped(tmp_path, source):
    """Ctrl-C in real processes, until STOPS (3) conversions were stopped by it."""
    target, draw, stops, slowest = tmp_path / "target", random.Random(0), 0, 0.5
    command = in_small_pieces(source, target)
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    wanted = contents(target)
    while stops < int(os.environ.get("STOPS", 3)):
        shutil.rmtree(target, ignore_errors=True)
        if draw.random() < 0.5:  # the others go on where the one before was stopped
            shutil.rmtree(places.partial_of(target), ignore_errors=True)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        crash_runs.wait_until(process, lambda process=process: crash_runs.catches(process, signal.SIGTERM))
        started = time.monotonic()
        crash_runs.wait_until(process, lambda: False, draw.uniform(0, slowest))
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=crash_runs.PATIENCE)
        if process.returncode == 0:
            assert not error and same(contents(target), wanted)
            slowest = 0.9 * slowest
            continue
        slowest, stops = max(slowest, 2 * (time.monotonic() - started)), stops + 1
        assert process.returncode == 75 and error.splitlines()[-1].startswith("error: stopped; "), error
        assert "Traceback" not in error
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    assert same(contents(target), wanted)
    print(f"{stops} conversions stopped by Ctrl-C")
