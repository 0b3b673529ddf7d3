"""The KMMLU command for Gemma: its own default model, base and an adapter in one load, the chat form."""

import json

import pytest

import evaluate_kmmlu_gemma as command
import prepare_kmmlu_sample
from lab import adapters, models
from lab.device import mx
from lab.hub import GEMMA_TINY


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kmmlu") / "sample"
    assert prepare_kmmlu_sample.main(["--output-dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A random adapter of the embedded Gemma."""
    from mlx.utils import tree_flatten

    model, _ = models.load(GEMMA_TINY)
    lora = {"rank": 2, "scale": 20.0, "dropout": 0.0}
    config = {"fine_tune_type": "lora", "num_layers": -1, "lora_parameters": lora}
    adapters.add_layers(model, config)
    trained = tree_flatten(model.trainable_parameters())
    tensors = {name: mx.random.normal(value.shape, key=mx.random.key(3)) * 0.05 for name, value in trained}
    folder = tmp_path_factory.mktemp("adapter") / "noise"
    adapters.save(folder, tensors, config)
    return folder


def test_the_embedded_gemma_is_the_default():
    assert command.parse_args([]).model == GEMMA_TINY


@pytest.mark.parametrize("flags", [(), ("--chat", "--shots", "2")])
def test_base_and_adapter_are_scored(run, sample, adapter, tmp_path, flags):
    output = tmp_path / "kmmlu.json"
    stages = ("--adapter-path", "base", f"tuned={adapter}", "--limit", "4", "--output", output)
    code, _, error = run(command.main, "--data-dir", sample, *stages, *flags)
    assert code == 0, error
    report = json.loads(output.read_text(encoding="utf-8"))
    assert report["sample"] and report["flags"]["model"] == str(GEMMA_TINY)
    assert list(report["stages"]) == ["base", "tuned"]
    items = {stage: output.with_name(f"kmmlu_{stage}.jsonl").read_text("utf-8") for stage in ("base", "tuned")}
    assert items["base"] != items["tuned"] and len(items["base"].splitlines()) > 8
