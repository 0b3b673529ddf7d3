"""The loss, apart from the loop."""

import numpy as np
import pytest
from mlx_lm.models import glm4

from lab import models, training
from lab.batches import in_order
from lab.chat import Sequence
from lab.cli import Diverged
from lab.device import mx


@pytest.fixture(scope="module")
def model(model_8bit):
    return models.load(model_8bit)[0]


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    rows = [random.integers(1, 2000, length).astype(np.int32) for length in (9, 14, 5)]
    return in_order([Sequence(tokens, random.random(len(tokens)) < 0.4) for tokens in rows], 3)[0]


def plain_loss(model, batch):
    """The same loss the slow way, from full logits and a log-softmax in numpy."""
    logits = np.array(model(mx.array(batch.inputs)).astype(mx.float32)).astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    chances = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows, columns = np.indices(batch.targets.shape)
    return -(chances[rows, columns, batch.targets] * batch.weights).sum()


def test_the_loss_is_nats_over_the_trained_tokens_only(model, batch):
    assert training.summed_loss(model, *training.arrays(batch)).item() == pytest.approx(
        plain_loss(model, batch), rel=1e-4
    )


def test_a_model_that_keeps_its_head_to_itself_gives_the_same_loss(model, batch, monkeypatch):
    apart = training.summed_loss(model, *training.arrays(batch)).item()
    monkeypatch.setattr(training, "HEAD_APART", ())
    assert training.summed_loss(model, *training.arrays(batch)).item() == pytest.approx(apart, rel=1e-5)


def test_evaluation_weighs_by_tokens_whatever_the_batches(model):
    random = np.random.default_rng(1)
    rows = [random.integers(1, 2000, length).astype(np.int32) for length in (4, 30, 11, 7, 25)]
    data = [Sequence(tokens, np.ones(len(tokens), dtype=bool)) for tokens in rows]
    losses = [training.evaluate(model, in_order(data, size)) for size in (1, 2, 5)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_an_evaluation_that_is_not_finite_is_divergence(model, batch):
    norm = model.model.norm.weight
    model.model.norm.weight = norm * float("nan")
    try:
        with pytest.raises(Diverged):
            training.evaluate(model, [batch])
    finally:
        model.model.norm.weight = norm


def test_a_glm4_has_its_loss_too(batch):
    """Its settings have no word on tied embeddings: the head is there, always."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 48, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": 2048, "rms_norm_eps": 1e-5}
    arguments = {"model_type": "glm4", "attention_bias": False, "partial_rotary_factor": 1.0, "rope_theta": 1e4}
    model = glm4.Model(glm4.ModelArgs.from_dict({**sizes, **arguments, "rope_traditional": False}))
    model.set_dtype(mx.float32)
    wanted = model(mx.array(batch.inputs)).reshape(-1, 2048)[mx.array(batch.trained()[0])]
    found = training.logits_at(model, mx.array(batch.inputs), mx.array(batch.trained()[0]))
    assert mx.allclose(found, wanted, atol=1e-5).item()
