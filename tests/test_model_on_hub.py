"""A model named by its id on the hub, by a stand-in for it: fetched once, loaded from the cache, explained where it is gated."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import Hub

ROOT = Path(__file__).resolve().parent.parent
GEMMA = ROOT / "models" / "Gemma-2-Tiny"


@pytest.fixture
def ask(tmp_path):
    """(a stand-in for the hub with an open and a gated model, a function that asks a command's question of one)."""
    files = {path.name: path.read_bytes() for path in GEMMA.iterdir()} | {"modeling.py": b"print('remote')"}
    with Hub() as hub:
        hub.add("lab/gemma", files)
        hub.add("lab/gated", files, gated=True)

        def run(model, *flags, **environment):
            command = [sys.executable, "verify_general_performance.py", "--limit", "1", "--model", model, *flags]
            environment = hub.environment(tmp_path / "home", **environment)
            return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

        yield hub, run


def test_an_id_is_downloaded_once_and_stands_in_the_summary_as_it_was_typed(ask, tmp_path):
    hub, run = ask
    done = run("lab/gemma", "--output", str(tmp_path / "first.json"))
    assert done.returncode == 0, done.stderr
    sent = hub.sent("model-00001-of-00002.safetensors")
    assert sent and not hub.asked("modeling.py")
    again = run("lab/gemma", "--output", str(tmp_path / "second.json"), HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert hub.sent("model-00001-of-00002.safetensors") == sent
    first, second = (json.loads((tmp_path / name).read_text("utf-8")) for name in ("first.json", "second.json"))
    assert first["flags"]["model"] == "lab/gemma" and first["stages"] == second["stages"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {},
            "gated, and there is no token; accept its licence at https://huggingface.co/lab/gated, then run `hf auth",
        ),
        (
            {"HF_TOKEN": "hf_x"},
            "gated, and the token's account has not accepted its licence; accept it at https://hugg",
        ),
    ],
)
def test_a_gated_model_is_one_line_with_what_to_do(ask, environment, words):
    done = ask[1]("lab/gated", **environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: lab/gated: {words}"), done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr


def test_no_such_model_is_one_line(ask):
    done = ask[1]("lab/nothing")
    assert done.returncode == 1 and "lab/nothing: no such folder, and no such model on the hub" in done.stderr
