"""An adapter is loaded whole or not at all, and is never half on disk."""

import json
import os

import pytest
from mlx.utils import tree_flatten

import convert_hyperclova
from lab import adapters, models
from lab.cli import LabError
from lab.device import mx

CONFIG = {
    "fine_tune_type": "lora",
    "num_layers": -1,
    "lora_parameters": {"rank": 4, "scale": 20.0, "dropout": 0.0},
}
QUESTION = [[5, 6, 7, 8]]
EMBEDDED = "models/HyperCLOVAX-SEED-Think-Tiny"


@pytest.fixture(scope="module")
def base(model_8bit):
    return models.load(model_8bit)[0]


@pytest.fixture
def model(base):
    adapters.remove(base)
    yield base
    adapters.remove(base)


def logits(model):
    return model(mx.array(QUESTION))


def random_adapter(model, folder, config=CONFIG, seed=0):
    """An adapter that changes something: lora_b starts at zero, so fill it."""
    adapters.add_layers(model, config)
    mx.random.seed(seed)
    weights = dict(tree_flatten(model.trainable_parameters()))
    tensors = {name: mx.random.normal(value.shape) * 0.02 for name, value in weights.items()}
    folder.mkdir(exist_ok=True)
    adapters.save(folder, tensors, config)
    adapters.remove(model)
    return tensors


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_put_on_and_taken_off_again(model, tmp_path, kind):
    bare = logits(model)
    random_adapter(model, tmp_path, {**CONFIG, "fine_tune_type": kind})
    adapters.apply(model, tmp_path)
    assert mx.abs(logits(model) - bare).max().item() > 1e-3
    adapters.remove(model)
    assert mx.array_equal(logits(model), bare)


FULL = {"fine_tune_type": "full", "num_layers": 2, "lora_parameters": {}}


@pytest.fixture(scope="module")
def unquantized(tmp_path_factory):
    """The embedded model, converted but not quantized."""
    path = tmp_path_factory.mktemp("models") / "whole"
    assert convert_hyperclova.main(["--hf-path", str(EMBEDDED), "--mlx-path", str(path), "--no-quantize"]) == 0
    return models.load(path)[0]


def test_a_full_adapter_is_taken_off_again(unquantized, tmp_path):
    bare = logits(unquantized)
    random_adapter(unquantized, tmp_path / "full", FULL)
    random_adapter(unquantized, tmp_path / "lora", CONFIG)
    models.switch_adapter(unquantized, tmp_path / "lora")
    alone = logits(unquantized)
    models.switch_adapter(unquantized, tmp_path / "full")
    assert mx.abs(logits(unquantized) - bare).max().item() > 1e-3
    models.switch_adapter(unquantized, tmp_path / "lora")
    assert mx.array_equal(logits(unquantized), alone)
    models.switch_adapter(unquantized, None)
    assert mx.array_equal(logits(unquantized), bare)


def test_a_full_adapter_on_a_quantized_model_is_refused_on_every_device(model, tmp_path):
    with pytest.raises(LabError, match="the model is quantized; convert it with --no-quantize"):
        adapters.add_layers(model, FULL)


def test_mlx_lm_itself_loads_it_and_computes_the_same(model, model_8bit, tmp_path):
    from mlx_lm import load

    random_adapter(model, tmp_path)
    adapters.apply(model, tmp_path)
    theirs, _ = load(str(model_8bit), adapter_path=str(tmp_path))
    theirs.set_dtype(mx.float32)
    ours, theirs = logits(model), logits(theirs)
    assert mx.abs(ours - theirs).max().item() < 1e-3 * mx.abs(ours).max().item()


def test_every_tensor_that_does_not_fit_is_listed(model, tmp_path):
    tensors = random_adapter(model, tmp_path)
    names = sorted(tensors)
    broken = dict(tensors)
    del broken[names[0]]
    broken["model.layers.9.self_attn.q_proj.lora_a"] = mx.zeros((2, 2))
    broken[names[1]] = mx.zeros((1, 1))
    adapters.save(tmp_path, broken, CONFIG)
    with pytest.raises(LabError) as error:
        adapters.apply(model, tmp_path)
    text = str(error.value)
    assert "does not fit (3 tensors)" in text
    for part in (
        f"{names[0]}: missing",
        "layers.9.self_attn.q_proj.lora_a: not a part",
        f"{names[1]}: shape (1, 1)",
    ):
        assert part in text
    assert "\n" not in text


def test_an_adapter_of_another_rank_is_refused(model, tmp_path):
    random_adapter(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    config["lora_parameters"]["rank"] = 8
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(LabError, match="written for .*rank.: 4.*says .*rank.: 8"):
        adapters.apply(model, tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not a whole safetensors file"),
        (lambda path: path.write_bytes(b"junk"), "not a whole safetensors file"),
        (lambda path: path.unlink(), "no such file"),
    ],
)
def test_a_damaged_file_is_named(model, tmp_path, damage, message):
    random_adapter(model, tmp_path)
    damage(tmp_path / "adapters.safetensors")
    with pytest.raises(LabError, match=message):
        adapters.apply(model, tmp_path)


def test_values_that_are_not_finite_are_refused(model, tmp_path):
    tensors = random_adapter(model, tmp_path)
    name = next(iter(tensors))
    adapters.save(tmp_path, {**tensors, name: tensors[name] * float("nan")}, CONFIG)
    with pytest.raises(LabError, match=f"not finite: {name}"):
        adapters.apply(model, tmp_path)


def test_a_config_without_rank_is_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text(
        '{"num_layers": 4, "lora_parameters": {"scale": 1}}', encoding="utf-8"
    )
    with pytest.raises(LabError, match="no lora_parameters.rank"):
        adapters.read_config(tmp_path)


def test_layers_that_are_not_there_are_refused(model):
    with pytest.raises(LabError, match="num_layers 99"):
        adapters.add_layers(model, {**CONFIG, "num_layers": 99})
    keys = {**CONFIG["lora_parameters"], "keys": ["self_attn.qq_proj"]}
    with pytest.raises(LabError, match="qq_proj.*use some of mlp.down_proj, .*self_attn.v_proj$"):
        adapters.add_layers(model, {**CONFIG, "lora_parameters": keys})


@pytest.mark.parametrize("write", [1, 2])
def test_a_save_that_fails_at_any_write_is_harmless(model, tmp_path, monkeypatch, write):
    """Old pair, or a pair that is refused because its halves do not belong together."""
    tensors = random_adapter(model, tmp_path)
    real, calls = os.fsync, []

    def full_disk(descriptor):
        calls.append(descriptor)
        if len(calls) == write:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_disk)
    other = {**CONFIG, "lora_parameters": {**CONFIG["lora_parameters"], "scale": 5.0}}
    with pytest.raises(LabError, match="No space left"):
        adapters.save(tmp_path, {name: value * 2 for name, value in tensors.items()}, other)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapters.safetensors"]
    if write == 1:
        kept = adapters.read_weights(tmp_path / "adapters.safetensors")
        assert all(mx.array_equal(kept[name], value) for name, value in tensors.items())
        adapters.apply(model, tmp_path)
    else:
        with pytest.raises(LabError, match="written for"):
            adapters.apply(model, tmp_path)
