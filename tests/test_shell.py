"""The shell entry points and .ci/run: they parse, say in one line what is missing, and pass flags on."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SCRIPTS = ["train_solverx_cpt_hcx.sh", "train_solverx_sft_hcx.sh", "train_gemma_lora.sh"]


@pytest.fixture
def tree(tmp_path):
    """The scripts alone, with `echo` in the place of Python: what a script runs is what it prints."""
    for name in SCRIPTS:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def put(tree, *names):
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()


def run(tree, script, *flags, **environment):
    kept = {key: value for key, value in os.environ.items() if key != "MODEL"}
    command = ["bash", str(tree / script), *flags]
    environment = {**kept, "PYTHON": "echo", **environment}
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", [*SCRIPTS, ".ci/run"])
def test_bash_can_read_it_and_it_stops_at_the_first_fault(name):
    assert subprocess.run(["bash", "-n", str(ROOT / name)]).returncode == 0
    assert os.access(ROOT / name, os.X_OK)
    assert "set -euo pipefail" in (ROOT / name).read_text()


@pytest.mark.parametrize(
    "script, present, words",
    [
        (SCRIPTS[0], [], "data_solverx_cpt/train.jsonl: no such file; `make data PROFILE=hcx` writes it"),
        (SCRIPTS[1], [], "data_solverx_sft/train.jsonl: no such file; `make data PROFILE=hcx` writes it"),
        (
            SCRIPTS[1],
            ["data_solverx_sft/train.jsonl"],
            "adapters_solverx_cpt_hcx/adapters.safetensors: no such file",
        ),
        (SCRIPTS[2], [], "data_mlx/train.jsonl: no such file; `python prepare_mlx_data.py` writes it"),
    ],
)
def test_what_is_missing_is_one_line_with_the_remedy(tree, script, present, words):
    put(tree, *present)
    done = run(tree, script)
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ") and words in done.stderr


@pytest.mark.parametrize("stage", ["cpt", "sft"])
def test_a_script_runs_the_command_that_make_runs(tree, stage):
    """But for `-c`'s place the two must not drift apart, and the caller's flags come last, where they win."""
    put(tree, f"data_solverx_{stage}/train.jsonl", "adapters_solverx_cpt_hcx/adapters.safetensors")
    done = run(tree, f"train_solverx_{stage}_hcx.sh", "--iters", "7")
    make = ["make", "-n", "-B", "PYTHON=echo", "PROFILE=hcx", f"adapters_solverx_{stage}_hcx/summary.json"]
    printed = subprocess.run(
        make, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    ).stdout
    wanted = printed.replace("\\\n", "").splitlines()[-1].split()[1:]
    wanted.remove("--overwrite")  # a person decides about that
    assert sorted(done.stdout.split()) == sorted([*wanted, "--iters", "7"])
    assert done.stdout.split()[-2:] == ["--iters", "7"]


def test_the_gemma_script_runs_the_command_that_make_runs(tree):
    put(tree, "data_mlx/train.jsonl")
    done = run(tree, SCRIPTS[2], "--iters", "7")
    make = ["make", "-n", "-B", "PYTHON=echo", "PROFILE=gemma9b", "adapters/summary.json"]
    printed = subprocess.run(
        make, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    ).stdout
    wanted = printed.replace("\\\n", "").splitlines()[-1].split()[1:]
    wanted.remove("--overwrite")
    assert sorted(done.stdout.split()) == sorted([*wanted, "--iters", "7"])


def test_what_the_caller_names_himself_is_not_asked_for(tree):
    done = run(tree, SCRIPTS[1], "--data", "mine", "--resume-adapter-file=other/adapters.safetensors", MODEL="m")
    assert done.returncode == 0 and "--model m " in done.stdout and "--data mine" in done.stdout
    assert run(tree, SCRIPTS[1], "--help").returncode == 0


def test_without_python_named_a_venv_is_used_where_there_is_one(tree):
    put(tree, "data_solverx_cpt/train.jsonl", ".venv/bin/python")
    (tree / ".venv/bin/python").write_text("#!/bin/sh\necho venv\n")
    (tree / ".venv/bin/python").chmod(0o755)
    assert run(tree, SCRIPTS[0], PYTHON="").stdout == "venv\n"


@pytest.mark.parametrize(
    "environment, start",
    [
        ({"RANKS": "2"}, "-m lab.launch --ranks 2 -- echo train_with_early_stopping.py -c configs/"),
        (
            {"HOSTFILE": "h.json", "RANKS": "2"},
            "-m lab.launch --hostfile h.json -- echo train_with_early_stopping.py",
        ),
        ({"RANKS": "1"}, "train_with_early_stopping.py -c configs/"),
    ],
)
def test_ranks_and_hostfile_launch_several_processes(tree, environment, start):
    put(tree, "data_solverx_cpt/train.jsonl", "data_solverx_sft/train.jsonl")
    put(tree, "adapters_solverx_cpt_hcx/adapters.safetensors", "data_mlx/train.jsonl")
    for script in SCRIPTS:
        assert run(tree, script, **environment).stdout.startswith(start)
