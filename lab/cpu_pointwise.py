"""Functions of single numbers, and of rows, in fewer and cheaper passes over memory when MLX computes on the CPU.

MLX 0.32's `exp` on x86 costs 12 ns an element (each fused multiply-add is a call into libm), its tanh 17, a product or a sum
0.2 ns, so softmax, SiLU, GELU and cross-entropy took more time than their matrix products. Here: powers of two from
products and sums, each exponential taken once and kept for the backward pass. Same mathematics as the stock modules, float32
throughout; tests hold both together.

Letters: N positions, V vocabulary.
"""

import math

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)

LOG2_E = math.log2(math.e)
# 2**u for u in [-0.5, 0.5], lowest power first; together with the exponent's part below within 3e-7 of the truth.
# Source: weighted Chebyshev fit of degree 5, numpy.polynomial.chebyshev.chebfit(2 * u, 2**u, 5, w=2**-u), 400 nodes.
POWER_OF_2 = (
    1.0000001192092896,
    0.6931469440460205,
    0.24022121727466583,
    0.05550742521882057,
    0.009675459936261177,
    0.0013266970636323094,
)
ROUNDER = 1.5 * 2**23  # added to a float32, it leaves the nearest whole number in the last bits
ZERO_BELOW = -127.0  # 2**x is 0 there, as nearly as float32 can say
GELU_CUBE = (
    0.044715  # Source: Hendrycks and Gimpel, arXiv 1606.08415: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
)
GELU_BITS = 2 * math.sqrt(2 / math.pi) * LOG2_E


def power_of_2(x):
    """2**x of a float32 array, for x up to 127: some 4 times faster than mx.exp on the CPU."""
    x = mx.maximum(x, ZERO_BELOW)
    rounded = x + ROUNDER
    rest = x - (rounded - ROUNDER)
    value = POWER_OF_2[-1] * rest + POWER_OF_2[-2]
    for coefficient in POWER_OF_2[-3::-1]:
        value = value * rest + coefficient
    exponent = (rounded.view(mx.int32) << 23) + 0x3F800000  # the bits of the float 2**round(x)
    return value * exponent.view(mx.float32)


def swiglu(gate, up):
    """silu(gate) * up."""
    return _swiglu(gate, up)[0]


@mx.custom_function
def _swiglu(gate, up):
    sigmoid = 1 / (1 + power_of_2(mx.minimum(gate * -LOG2_E, 126.0)))
    return gate * sigmoid * up, sigmoid


@_swiglu.vjp
def _swiglu_gradient(inputs, cotangents, outputs):
    (gate, up), (cotangent, _), (_, sigmoid) = inputs, cotangents, outputs
    silu = gate * sigmoid
    return cotangent * up * (sigmoid + silu * (1 - sigmoid)), cotangent * silu


def tanh(doubled_bits):
    """tanh(x) of `doubled_bits`, which is x times 2 log2(e): within 4e-7 of the truth."""
    return 1 - 2 / (1 + power_of_2(mx.minimum(doubled_bits, 126.0)))


def geglu(gate, up):
    """gelu(gate) * up, the gelu approximated by tanh, as in Gemma-2."""
    return _geglu(gate, up)[0]


@mx.custom_function
def _geglu(gate, up):
    # (1 + tanh(x)) / 2 is the logistic function of 2 x
    sigmoid = 1 / (1 + power_of_2(mx.minimum((gate + GELU_CUBE * gate * gate * gate) * -GELU_BITS, 126.0)))
    return gate * sigmoid * up, sigmoid


@_geglu.vjp
def _geglu_gradient(inputs, cotangents, outputs):
    (gate, up), (cotangent, _), (_, sigmoid) = inputs, cotangents, outputs
    steepness = (GELU_BITS / LOG2_E) * (1 + 3 * GELU_CUBE * gate * gate)
    slope = sigmoid + gate * sigmoid * (1 - sigmoid) * steepness
    return cotangent * up * slope, cotangent * gate * sigmoid


def softcap(logits, cap):
    """cap tanh(logits / cap), Gemma-2's bound on its logits."""

    @mx.custom_function
    def capped(logits):
        share = tanh(logits * (2 * LOG2_E / cap))
        return share * cap, share

    @capped.vjp
    def gradient(inputs, cotangents, outputs):
        return cotangents[0] * (1 - outputs[1] * outputs[1])

    return capped(logits)[0]


def cross_entropy(logits, targets):
    """-log p(target) in nats, (N,), of logits (N, V) float32 and targets (N,)."""
    return _cross_entropy(logits, targets)[0]


@mx.custom_function
def _cross_entropy(logits, targets):
    bits = logits * LOG2_E
    bits = bits - bits.max(axis=-1, keepdims=True)
    score = mx.take_along_axis(bits, targets[:, None], axis=-1).squeeze(-1)
    powers = power_of_2(bits)
    total = powers.sum(axis=-1)
    return mx.log(total) - score / LOG2_E, powers, total


@_cross_entropy.vjp
def _cross_entropy_gradient(inputs, cotangents, outputs):
    (_, targets), cotangent, (_, powers, total) = inputs, cotangents[0], outputs
    gradient = powers * (cotangent / total)[:, None]
    return gradient.at[mx.arange(len(targets)), targets].add(-cotangent), mx.zeros_like(targets)
