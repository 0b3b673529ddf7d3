"""The converter on models of the hub, by a stand-in for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import Hub
from tests.small_checkpoints import flip, load_all, same

ROOT = Path(__file__).resolve().parent.parent
SHARD_FILES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def on_hub(make_checkpoint, tmp_path):
    """(stand-in for the hub that holds a checkpoint as lab/whole, a function that runs the command on it)."""
    files = {path.name: path.read_bytes() for path in make_checkpoint().iterdir()}
    files |= {"modeling.py": b"print('remote code')", "pytorch_model.bin": b"pickle"}
    with Hub() as hub:
        hub.add("lab/whole", files)

        def run(*flags):
            flags = ["--hf-path", "lab/whole", "--mlx-path", str(tmp_path / "out"), *flags]
            command = [sys.executable, str(ROOT / "convert_hyperclova.py"), *flags]
            environment = hub.environment(tmp_path / "home")
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

        yield hub, run


def test_a_model_on_the_hub_is_converted_without_what_is_not_needed(on_hub, by_mlx_lm, tmp_path):
    hub, run = on_hub
    done = run()
    assert done.returncode == 0, done.stderr
    assert same(load_all(tmp_path / "out"), load_all(by_mlx_lm))
    assert not hub.asked("modeling.py") and not hub.asked("pytorch_model.bin")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    commit = next(iter(hub.repositories["lab/whole"].commits))
    assert (summary["source"]["repository"], summary["source"]["revision"]) == ("lab/whole", commit)
    assert f"| Revision | {commit} |" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_plan_of_a_model_on_the_hub_needs_its_headers_only(on_hub, tmp_path):
    hub, run = on_hub
    done = run("--dry-run")
    assert done.returncode == 0 and "21 tensors taken" in done.stdout, done.stderr
    assert not (tmp_path / "out").exists() and not list((tmp_path / "home").rglob("*.safetensors"))


def test_consumed_shards_of_the_hub_come_one_by_one_and_go(on_hub, by_mlx_lm, tmp_path):
    hub, run = on_hub
    done = run("--consume-source")
    assert done.returncode == 0, done.stderr
    assert same(load_all(tmp_path / "out"), load_all(by_mlx_lm))
    blobs = [path for path in (tmp_path / "home").rglob("blobs/*") if path.stat().st_size > 20_000]
    assert not list((tmp_path / "home").rglob("*.safetensors")) and not blobs


def test_wrong_bytes_of_the_hub_are_found_before_anything_is_made_of_them(on_hub, tmp_path):
    hub, run = on_hub
    hub.order("bytes", SHARD_FILES[1], at=60_000, times=2)  # its header is asked for first
    done = run()
    assert done.returncode == 1 and "wrong bytes" in done.stderr and done.stderr.count("error: ") == 1, done.stderr
    assert not (tmp_path / "out").exists()
    assert run().returncode == 0


def test_wrong_bytes_in_the_cache_never_become_a_model(on_hub, by_mlx_lm, monkeypatch, tmp_path):
    """A cached shard of the right size whose bytes have rotted, in the first of several output shards."""
    hub, run = on_hub
    assert run("--consume-source").returncode == 0
    assert run("--force").returncode == 0
    for shard in SHARD_FILES:
        path = next((tmp_path / "home").rglob(shard))
        flip(path.resolve(), 60_000)
    done = run("--force", "--q-bits", "4")
    assert done.returncode == 1 and "wrong bytes" in done.stderr, done.stderr
    done = run("--force")
    while done.returncode:
        assert "wrong bytes" in done.stderr
        done = run("--force")
    assert same(load_all(tmp_path / "out"), load_all(by_mlx_lm))
