"""doctor.py in a copy of the repository: every line ok, then one lack at a time with its remedy."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

TINY, LARGE = "models/HyperCLOVAX-SEED-Think-Tiny", "models/HyperCLOVAX-SEED-Think-32B"
INDEX = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}


@pytest.fixture
def tree(tmp_path):
    """A copy of what doctor.py reads, with a checkpoint of two (empty) shards."""
    for name in ("doctor.py", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("configs", "lab"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    put_checkpoint(tmp_path / TINY)
    return tmp_path


def put_checkpoint(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text(json.dumps(INDEX))
    for name in INDEX["weight_map"].values():
        (folder / name).touch()


def doctor(tree, profile="tiny", **environment):
    """The exit code, the lines that are not ok, and all that was printed."""
    environment = {**os.environ, "HF_HOME": str(tree / "hub"), "HF_TOKEN": "", **environment}
    command = [sys.executable, "doctor.py", "--profile", profile]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, [line for line in done.stdout.splitlines() if not line.startswith("ok  ")], done


def test_a_machine_with_all_that_is_needed_is_ok(tree):
    code, lacking, done = doctor(tree, LAB_BLAS="")
    assert code == 0, done.stdout
    for word in ("Python", "packages", "MLX", "memory", "model", "disk"):
        assert f"ok  {word}" in done.stdout
    assert "token" not in done.stdout and all("BLAS" in line or "compiler" in line for line in lacking)


def test_a_missing_checkpoint_names_the_command_that_brings_it_back(tree):
    shutil.rmtree(tree / TINY)
    code, lacking, done = doctor(tree)
    assert code == 3 and any("make tiny-model" in line and "remedy:" in line for line in lacking)
    assert done.stderr.startswith("error: profile tiny: 1 needed")


def test_a_half_downloaded_checkpoint_names_the_shard(tree):
    put_checkpoint(tree / LARGE)
    (tree / LARGE / "model-00002-of-00002.safetensors").unlink()
    code, lacking, _ = doctor(tree, "hcx")
    line = next(line for line in lacking if "model:" in line)
    assert code == 3 and "lacks model-00002-of-00002.safetensors" in line and "66 GB" in line
    assert f"hf download naver-hyperclovax/HyperCLOVAX-SEED-Think-32B --local-dir {LARGE}" in line


def test_a_converted_model_needs_no_published_one(tree):
    (tree / f"{LARGE}-Text-8bit").mkdir()
    (tree / f"{LARGE}-Text-8bit/summary.json").write_text("{}")
    _, lacking, done = doctor(tree, "hcx")
    assert f"ok  model: {LARGE}-Text-8bit" in done.stdout and not any("disk" in line for line in lacking)


def test_another_version_is_named_with_the_wanted_one(tree):
    text = (tree / "requirements.txt").read_text()
    (tree / "requirements.txt").write_text(text.replace("numpy==", "numpy==9") + "no-such-package==1.0\n")
    code, lacking, _ = doctor(tree)
    line = next(line for line in lacking if "packages" in line)
    assert code == 3 and "numpy" in line and "(wanted 9" in line and "no-such-package none (wanted 1.0)" in line


def test_memory_that_a_profile_needs_and_no_machine_has(tree):
    path = tree / "configs/tiny/profile.mk"
    path.write_text(path.read_text().replace("MEMORY_GB := 2", "MEMORY_GB := 90000"))
    code, lacking, _ = doctor(tree)
    assert code == 3 and any("memory" in line and "90000 GB needed" in line for line in lacking)


def test_a_token_is_asked_for_only_where_a_gated_model_is_missing(tree):
    path = tree / "configs/hcx/profile.mk"
    path.write_text(path.read_text().replace("GATED :=", "GATED := yes"))
    _, lacking, _ = doctor(tree, "hcx")
    assert any("Hugging Face token" in line and "hf auth login" in line for line in lacking)
    _, _, done = doctor(tree, "hcx", HF_TOKEN="hf_made_up_for_this_test")
    assert "ok  Hugging Face token" in done.stdout and "made_up" not in done.stdout
    put_checkpoint(tree / LARGE)
    _, _, done = doctor(tree, "hcx")
    assert "token" not in done.stdout


def test_a_gated_model_of_the_hub_is_fetched_later_but_the_token_is_needed_now(tree, tmp_path):
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    code, lacking, done = doctor(tree, "gemma9b", **home)
    assert code == 3 and any(
        "Hugging Face token" in line and "google/gemma-2-9b-it's terms" in line for line in lacking
    )
    if memory := [line for line in lacking if "memory:" in line]:  # a machine of 48 GB has it
        assert memory[0].endswith("more, or PROFILE=gemma")
    model = next(line for line in lacking if "model:" in line)
    assert "lacks config.json" in model and "the first command fetches it (19 GB)" in model
    snapshot = tmp_path / "home/hub/models--google--gemma-2-9b-it/snapshots" / ("0" * 40)
    put_checkpoint(snapshot)
    (tmp_path / "home/hub/models--google--gemma-2-9b-it/refs").mkdir()
    (tmp_path / "home/hub/models--google--gemma-2-9b-it/refs/main").write_text("0" * 40)
    _, _, done = doctor(tree, "gemma9b", **home)
    assert f"ok  model: {snapshot}" in done.stdout and "token" not in done.stdout


def test_a_slow_blas_is_a_warning_with_a_remedy(tree):
    code, lacking, done = doctor(tree, LAB_BLAS="reference")
    if " on cpu" not in done.stdout or sys.platform != "linux":
        pytest.skip("MLX computes on a GPU here: no BLAS to choose")
    assert code == 0 and any("BLAS" in line and "libopenblas0" in line for line in lacking)


def test_an_unknown_profile_is_one_line(tree):
    code, _, done = doctor(tree, "big")
    assert code == 1 and done.stdout == ""
    assert done.stderr == "error: --profile big: no such profile; there are: gemma, gemma9b, hcx, tiny\n"
