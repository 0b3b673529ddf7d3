"""Which model an adapter was trained on: shapes of another one may fit, and every command that uses it says so."""

import json
import shutil

import pytest

import evaluate_kmmlu_gemma
import prepare_kmmlu_sample
import train_with_early_stopping
import verify_general_performance
from lab import adapters, lineage, models
from lab.device import mx
from lab.fingerprint import of_the_model
from lab.hub import GEMMA_TINY


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """An adapter of Gemma's shapes whose config names another model."""
    from mlx.utils import tree_flatten

    model, _ = models.load(GEMMA_TINY)
    lora = {"rank": 2, "scale": 20.0, "dropout": 0.0}
    config = {"fine_tune_type": "lora", "num_layers": -1, "lora_parameters": lora, "model": "models/Another-8bit"}
    adapters.add_layers(model, config)
    trained = tree_flatten(model.trainable_parameters())
    folder = tmp_path_factory.mktemp("foreign") / "adapter"
    adapters.save(folder, {name: mx.zeros_like(value) for name, value in trained}, config)
    return folder


def test_weights_decide_where_the_summary_names_them(foreign, tmp_path):
    copy = shutil.copytree(foreign, tmp_path / "own")
    found = of_the_model(GEMMA_TINY)
    (copy / "summary.json").write_text(json.dumps({"fingerprint": found}), encoding="utf-8")
    assert lineage.other_model(copy, GEMMA_TINY) == ""  # a model that was moved is the same
    first = next(label for label in found if label.endswith("00001-of-00002.safetensors"))
    (copy / "summary.json").write_text(json.dumps({"fingerprint": {**found, first: "0"}}), encoding="utf-8")
    assert lineage.other_model(copy, GEMMA_TINY) == f"models/Another-8bit, which has another {first[6:]}"


@pytest.mark.parametrize("command", ["verify", "kmmlu", "resume"])
def test_every_command_says_so(run, foreign, tmp_path, command):
    if command == "verify":
        flags = ("--model", GEMMA_TINY, "--adapter-path", f"a={foreign}", "--limit", "1")
        code, _, error = run(verify_general_performance.main, *flags)
    elif command == "kmmlu":
        assert prepare_kmmlu_sample.main(["--output-dir", str(tmp_path / "sample")]) == 0
        flags = ("--adapter-path", f"a={foreign}", "--data-dir", tmp_path / "sample", "--limit", "1")
        code, _, error = run(evaluate_kmmlu_gemma.main, *flags)
    else:
        rows = "".join(json.dumps({"text": f"{n}번 창고"}, ensure_ascii=False) + "\n" for n in range(4))
        for part in ("train", "valid"):
            (tmp_path / f"{part}.jsonl").write_text(rows, encoding="utf-8")
        flags = ("--model", GEMMA_TINY, "--train", "--data", tmp_path, "--iters", "1", "--batch-size", "2")
        resumed = ("--resume-adapter-file", foreign / "adapters.safetensors", "--adapter-path", tmp_path / "new")
        code, _, error = run(train_with_early_stopping.main, *flags, *resumed)
    assert code == 0, error
    assert f"warning: {foreign} was trained on models/Another-8bit; this is {GEMMA_TINY}\n" in error
