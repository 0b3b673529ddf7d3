"""An adapter is loaded whole or not at all, and is never half on disk."""

import json
import os

import pytest
from mlx.utils import tree_flatten

from lab import adapters, models
from lab.cli import LabError
from lab.device import mx

CONFIG = {
    "fine_tune_type": "lora",
    "num_layers": -1,
    "lora_parameters": {"rank": 4, "scale": 20.0, "dropout": 0.0},
}
QUESTION = [[5, 6, 7, 8]]


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
    with pytest.raises(LabError, match="this model and rank need"):
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
    with pytest.raises(LabError, match="qq_proj"):
        adapters.add_layers(model, {**CONFIG, "lora_parameters": keys})


def test_a_failed_save_leaves_the_old_adapter_loadable(model, tmp_path, monkeypatch):
    tensors = random_adapter(model, tmp_path)

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(LabError, match="No space left"):
        adapters.save(tmp_path, {name: value * 2 for name, value in tensors.items()}, CONFIG)
    monkeypatch.undo()
    kept = adapters.read_weights(tmp_path / "adapters.safetensors")
    assert all(mx.array_equal(kept[name], value) for name, value in tensors.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapters.safetensors"]
