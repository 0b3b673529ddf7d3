from types import SimpleNamespace

import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from lab.device import mx
from lab.joining import ELEMENTWISE, Joining
from lab.training import OPTIMIZERS


def settings(optimizer="adam", kind="lora"):
    return SimpleNamespace(optimizer=optimizer, fine_tune_type=kind)


@pytest.fixture
def tree():
    mx.random.seed(0)
    return {
        "layers": [{"a": mx.random.normal((3, 4)), "b": mx.random.normal((5,))}, {"a": mx.random.normal((2, 2))}]
    }


def test_there_and_back(tree):
    joining = Joining(tree, settings())
    joined = joining.join(tree)
    assert joined["vector"].shape == (21,)
    back = joining.part(joined)
    assert [name for name, _ in tree_flatten(back)] == [name for name, _ in tree_flatten(tree)]
    assert all(
        mx.array_equal(mine, theirs)
        for (_, mine), (_, theirs) in zip(*map(tree_flatten, (back, tree)), strict=True)
    )


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_update_as_one_is_the_update_of_each_to_the_bit(tree, name):
    def make():
        options = {"weight_decay": 0.1} if name == "adamw" else {}
        return OPTIMIZERS[name](learning_rate=lambda step: 0.1 / (step + 1), **options)

    joining, apart, together = Joining(tree, settings(name)), make(), make()
    one, other = tree, tree
    for step in range(3):
        gradient = tree_map(lambda value, step=step: mx.sin(value * (step + 1)), tree)
        one = apart.apply_gradients(gradient, one)
        other = joining.part(together.apply_gradients(joining.join(gradient), joining.join(other)))
    for (key, mine), (_, theirs) in zip(tree_flatten(other), tree_flatten(one), strict=True):
        assert np.array_equal(np.array(mine), np.array(theirs)), key


@pytest.mark.parametrize("found", [settings("muon"), settings("adafactor"), settings("adam", "full")])
def test_what_looks_at_shapes_or_is_large_stays_apart(tree, found):
    joining = Joining(tree, found)
    assert joining.join(tree) is tree and joining.part(tree) is tree


def test_tensors_of_several_types_stay_apart(tree):
    tree["layers"][0]["a"] = tree["layers"][0]["a"].astype(mx.bfloat16)
    assert Joining(tree, settings()).join(tree) is tree
