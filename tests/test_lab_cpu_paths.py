"""The CPU's own forward pass beside mlx-lm's: the same loss and gradients on the embedded models."""

import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.trainer import grad_checkpoint

from lab import adapters, cpu_gemma, cpu_llama, models, training
from lab.batches import in_order
from lab.chat import Sequence
from lab.device import computes_in_float32, mx
from lab.hub import GEMMA_TINY

pytestmark = pytest.mark.skipif(not computes_in_float32(), reason="this path is for the CPU")


@pytest.fixture(params=["llama", "gemma2"])
def model(request):
    gemma = request.param == "gemma2"
    return models.load(GEMMA_TINY if gemma else request.getfixturevalue("model_8bit"))[0]


def path_of(model):
    return cpu_gemma if model.model_type == "gemma2" else cpu_llama


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    rows = [random.integers(1, 2000, length).astype(np.int32) for length in (9, 140, 5)]
    return in_order([Sequence(tokens, random.random(len(tokens)) < 0.7) for tokens in rows], 3)[0]


def adapted(model, kind="lora", dropout=0.0, layers=-1):
    """`model` with trainable parts that do something."""
    lora = {"rank": 4, "scale": 20.0, "dropout": dropout}
    adapters.add_layers(model, {"fine_tune_type": kind, "num_layers": layers, "lora_parameters": lora})
    for _, module in model.named_modules():
        if "lora_b" in module:
            module.lora_b = mx.random.normal(module.lora_b.shape, key=mx.random.key(3)) * 0.01
    return model


def loss_and_gradient(model, batch):
    loss, gradient = nn.value_and_grad(model, training.summed_loss)(model, *training.arrays(batch))
    return loss.item(), {name: np.array(value) for name, value in tree_flatten(gradient)}


def stock_loss_and_gradient(model, batch, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training, "CPU_PATHS", ())
        patch.setattr(training, "HEAD_APART", ())
        patch.setattr(training.cpu_pointwise, "cross_entropy", nn.losses.cross_entropy)
        return loss_and_gradient(model, batch)


@pytest.mark.parametrize(("kind", "layers"), [("lora", -1), ("lora", 2), ("dora", -1), ("full", 1)])
def test_loss_and_gradients_are_the_stock_models(model, batch, kind, layers, monkeypatch):
    if kind == "full":
        adapters.note_quantization(model, {})
    model = adapted(model, kind, layers=layers)
    model.train()
    loss, gradient = loss_and_gradient(model, batch)
    stock_loss, stock_gradient = stock_loss_and_gradient(model, batch, monkeypatch)
    assert loss == pytest.approx(stock_loss, rel=1e-6)
    assert gradient.keys() == stock_gradient.keys()
    for name, value in stock_gradient.items():
        assert np.abs(gradient[name] - value).max() <= 2e-5 * np.abs(value).max(), name


def test_dropout_keeps_its_effect(model, batch, monkeypatch):
    model = adapted(model, dropout=0.5)
    model.train()
    losses = []
    for seed in (1, 2):
        mx.random.seed(seed)
        losses.append(loss_and_gradient(model, batch)[0])
        mx.random.seed(seed)
        assert losses[-1] == pytest.approx(stock_loss_and_gradient(model, batch, monkeypatch)[0], rel=1e-6)
    assert losses[0] != losses[1]


def test_the_path_is_taken(model):
    assert path_of(model).knows(adapted(model))
    assert (cpu_gemma, cpu_llama) == training.CPU_PATHS


def test_gradient_checkpointing_is_left_to_the_stock_model(model, batch, monkeypatch):
    whole = loss_and_gradient(adapted(model), batch)[0]
    path = path_of(model)
    monkeypatch.setattr(type(model.layers[0]), "__call__", path.STOCK_LAYER)  # put back afterwards
    grad_checkpoint(model.layers[0])
    assert not path.knows(model)
    assert loss_and_gradient(model, batch)[0] == pytest.approx(whole, rel=1e-6)
