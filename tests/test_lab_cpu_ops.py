"""Each operation beside the stock one it stands for: the same values, the same gradients."""

import mlx.nn as nn
import numpy as np
import pytest

from lab import cpu_ops, cpu_pointwise
from lab.device import mx


def close(found, wanted, tolerance=2e-6):
    """Equal up to float32's rounding, measured against the largest number."""
    for mine, theirs in zip(found, wanted, strict=True):
        mine, theirs = np.array(mine, dtype=np.float64), np.array(theirs, dtype=np.float64)
        assert np.abs(mine - theirs).max() <= tolerance * max(1.0, np.abs(theirs).max())


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def value_and_gradients(function, inputs, seed=9):
    """The output of `function`, and its inputs' gradients for a random cotangent."""
    outputs, gradients = mx.vjp(function, list(inputs), [normal(*function(*inputs).shape, seed=seed)])
    return [*outputs, *gradients]


def test_powers_of_two_over_the_whole_range():
    x = np.concatenate([np.linspace(-126, 126, 20001), np.linspace(-1, 1, 20001)]).astype(np.float32)
    found = np.array(cpu_pointwise.power_of_2(mx.array(x))).astype(np.float64)
    assert np.abs(found / np.exp2(x.astype(np.float64)) - 1).max() < 3e-7


def test_powers_of_two_far_below_are_zero():
    assert np.array(cpu_pointwise.power_of_2(mx.array([-128.0, -1e9, -np.inf]))).tolist() == [0, 0, 0]


def test_not_a_number_stays_one():
    assert np.isnan(cpu_pointwise.power_of_2(mx.array([np.nan])).item())


def test_swiglu():
    gate, up = normal(50, 33) * 20, normal(50, 33, seed=1)
    gate[0, :4] = mx.array([-500.0, 500.0, -88.0, 88.0])
    stock = value_and_gradients(lambda gate, up: nn.silu(gate) * up, (gate, up))
    close(value_and_gradients(cpu_pointwise.swiglu, (gate, up)), stock, 5e-6)


def test_geglu():
    gate, up = normal(50, 33) * 20, normal(50, 33, seed=1)
    gate[0, :4] = mx.array([-500.0, 500.0, -4.0, 4.0])
    stock = value_and_gradients(lambda gate, up: nn.gelu_approx(gate) * up, (gate, up))
    close(value_and_gradients(cpu_pointwise.geglu, (gate, up)), stock, 5e-6)


def test_softcap():
    logits = normal(40, 300) * 60
    logits[0, :4] = mx.array([-5000.0, 5000.0, 0.0, 1e-6])
    stock = value_and_gradients(lambda logits: mx.tanh(logits / 30.0) * 30.0, (logits,))
    close(value_and_gradients(lambda logits: cpu_pointwise.softcap(logits, 30.0), (logits,)), stock, 5e-6)


def test_cross_entropy():
    logits, targets = normal(40, 300) * 10, mx.random.randint(0, 300, (40,), key=mx.random.key(2))
    stock = value_and_gradients(lambda logits: nn.losses.cross_entropy(logits, targets), (logits,))
    close(value_and_gradients(lambda logits: cpu_pointwise.cross_entropy(logits, targets), (logits,)), stock, 5e-6)


@pytest.mark.parametrize("tokens", [1, 2, 24, cpu_ops.QUERIES, cpu_ops.QUERIES + 1, 3 * cpu_ops.QUERIES - 7])
@pytest.mark.parametrize("repeats", [1, 3])
def test_attention(tokens, repeats):
    queries, keys, values = (normal(2, heads, tokens, 8, seed=heads) for heads in (2 * repeats, 2, 2))

    def stock(queries, keys, values):
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.3, mask="causal")

    def ours(queries, keys, values):
        grouped = queries.reshape(2, 2, repeats, tokens, 8)
        return cpu_ops.attention(grouped, keys, values, 0.3).reshape(queries.shape)

    inputs = (queries * 3, keys, values)
    close(value_and_gradients(ours, inputs), value_and_gradients(stock, inputs), 5e-6)


def stock_capped(queries, keys, values, scale, cap):
    """Attention (B, K, R, T, D) of the last T of the keys' tokens, every step written out."""
    scores = mx.tanh(queries @ keys[:, :, None].swapaxes(-1, -2) * (scale / cap)) * cap
    tokens, known = queries.shape[3], keys.shape[2]
    mask = mx.arange(known - tokens, known)[:, None] >= mx.arange(known)
    return mx.softmax(mx.where(mask, scores, -mx.inf), axis=-1) @ values[:, :, None]


@pytest.mark.parametrize("tokens", [1, 24, 2 * cpu_ops.QUERIES + 5])
def test_attention_with_capped_scores(tokens):
    queries = normal(2, 2, 3, tokens, 8) * 30
    keys, values = (normal(2, 2, tokens, 8, seed=seed) for seed in (1, 2))

    def stock(queries, keys, values):
        return stock_capped(queries, keys, values, 0.3, 5.0)

    def ours(queries, keys, values):
        return cpu_ops.attention(queries, keys, values, 0.3, 5.0)

    inputs = (queries, keys, values)
    close(value_and_gradients(ours, inputs), value_and_gradients(stock, inputs), 1e-5)


def test_capped_attention_after_a_shared_beginning():
    queries, keys, values = normal(3, 2, 3, 5, 8) * 30, normal(3, 2, 5, 8, seed=1), normal(3, 2, 5, 8, seed=2)
    old = [normal(1, 2, 70, 8, seed=seed) for seed in (3, 4)]
    wide = [
        mx.concatenate([mx.broadcast_to(each, (3, 2, 70, 8)), own], axis=2)
        for each, own in zip(old, (keys, values), strict=True)
    ]
    found = cpu_ops.attention_after(queries, keys, values, 0.3, old, 5.0)
    close([found], [stock_capped(queries, *wide, 0.3, 5.0)], 1e-5)


@pytest.mark.parametrize("ranks", [(4,), (4, 4, 4), (2, 5)])
def test_lora(ranks):
    inputs, outs = normal(30, 16), [24, 8, 40][: len(ranks)]
    weights = [normal(out, 16, seed=place) for place, out in enumerate(outs)]
    factors = [normal(16, rank, seed=5 + rank) for rank in ranks]
    factors += [normal(rank, out, seed=7 + out) for rank, out in zip(ranks, outs, strict=True)]

    def stock(inputs, *factors):
        a, b = factors[: len(ranks)], factors[len(ranks) :]
        return mx.concatenate(
            [inputs @ w.T + 20.0 * ((inputs @ a) @ b) for w, a, b in zip(weights, a, b, strict=True)], 1
        )

    def ours(inputs, *factors):
        pairs = list(zip(factors[: len(ranks)], factors[len(ranks) :], strict=True))
        return mx.concatenate(cpu_ops.lora(inputs, weights, pairs, 20.0), 1)

    close(value_and_gradients(ours, (inputs, *factors)), value_and_gradients(stock, (inputs, *factors)), 5e-6)


@pytest.mark.parametrize("before, tokens", [(1, 1), (70, 5), (3, 130)])
def test_attention_after_a_shared_beginning(before, tokens):
    """Beside the stock attention over the beginning and the tokens, with a causal mask from the lower right."""
    queries, keys, values = (
        normal(3, 6, tokens, 8),
        normal(3, 2, tokens, 8, seed=1),
        normal(3, 2, tokens, 8, seed=2),
    )
    old = [normal(1, 2, before, 8, seed=seed) for seed in (3, 4)]
    wide = [
        mx.concatenate([mx.broadcast_to(each, (3, 2, before, 8)), own], axis=2)
        for each, own in zip(old, (keys, values), strict=True)
    ]
    wanted = mx.fast.scaled_dot_product_attention(queries, *wide, scale=0.3, mask="causal")
    found = cpu_ops.attention_after(queries.reshape(3, 2, 3, tokens, 8), keys, values, 0.3, old)
    close([found.reshape(3, 6, tokens, 8)], [wanted])
