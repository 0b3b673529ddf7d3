"""Stopped at any moment, a conversion goes on and ends with the bytes of one that was never stopped."""

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


def test_random_kills(tmp_path, source):
    """kill -9 of real processes at random moments, until KILLS (5) conversions were hit in the middle of their work."""
    target, draw, kills, whole_runs = tmp_path / "target", random.Random(0), 0, 0
    code = (
        "import sys\nfrom lab import building, conversion, conversion_plan\nimport convert_hyperclova\n"
        "building.SHARD_BYTES = 50_000\nconversion.CHUNK_BYTES = conversion_plan.CHUNK_BYTES = 24_000\n"
        "sys.exit(convert_hyperclova.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "--hf-path", str(source), "--mlx-path", str(target)]
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
