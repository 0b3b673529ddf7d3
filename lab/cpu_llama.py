"""The stock llama's forward pass on the CPU, by way of lab.cpu_ops: the same numbers up to rounding, sooner.

Nothing of the model is changed or patched; what this file does not know (another architecture, sliding windows,
gradient checkpointing) takes the stock path, and so does a projection that is no plain LoRA (DoRA, full, dropout).

Letters: B batch, T tokens, N positions (B x T), H hidden size.
"""

from lab.device import computes_in_float32, mx  # isort: skip  (first: it puts the fast BLAS in front)
import mlx.nn as nn
from mlx_lm.models import llama
from mlx_lm.tuner.lora import LoRALinear

from lab.cpu_ops import attention, attention_after, lora
from lab.cpu_pointwise import swiglu

STOCK_LAYER = llama.TransformerBlock.__call__  # mlx-lm's gradient checkpointing replaces it


def knows(model):
    """Whether `hidden` stands for `model.model` here."""
    if type(model) is not llama.Model or not computes_in_float32():
        return False
    stock = llama.TransformerBlock.__call__ is STOCK_LAYER
    return stock and not any(layer.use_sliding for layer in model.layers)


def hidden(model, inputs, caches=None):
    """What `model.model(inputs)` gives, as (N, H); inputs (B, T).

    `caches` are a lab.choices.Shared for each layer: what the inputs follow, where they may leave their keys and values.
    """
    state = model.model.embed_tokens(inputs.reshape(-1))
    for layer, cache in zip(model.layers, caches or [None] * len(model.layers), strict=True):
        state = state + attend(layer.self_attn, layer.input_layernorm(state), inputs.shape, cache)
        state = state + _mlp(layer.mlp, layer.post_attention_layernorm(state))
    return model.model.norm(state)


def attend(part, inputs, shape, cache=None, cap=None):
    """What an attention module `part` of llama, or of Gemma-2 with its `cap`, gives for inputs (N, H) of shape (B, T)."""
    batch, tokens = shape
    heads, groups = part.n_heads, part.n_kv_heads
    projected = project(inputs, part.q_proj, part.k_proj, part.v_proj)
    queries, keys, values = (
        array.reshape(batch, tokens, number, part.head_dim).transpose(0, 2, 1, 3)
        for array, number in zip(projected, (heads, groups, groups), strict=True)
    )
    offset = cache.offset if cache else 0
    queries = part.rope(queries, offset=offset).reshape(batch, groups, heads // groups, tokens, part.head_dim)
    keys = part.rope(keys, offset=offset)
    if cache:
        cache.fresh = keys, values
    if offset:
        outputs = attention_after(queries, keys, values, part.scale, (cache.keys, cache.values), cap)
    else:
        outputs = attention(queries, keys, values, part.scale, cap)
    outputs = outputs.reshape(batch, heads, tokens, part.head_dim).transpose(0, 2, 1, 3)
    return project(outputs.reshape(batch * tokens, -1), part.o_proj)[0]


def _mlp(part, inputs):
    return project(swiglu(*project(inputs, part.gate_proj, part.up_proj)), part.down_proj)[0]


def project(inputs, *modules):
    """The outputs of `modules` for the same inputs (N, I)."""
    if not all(_is_plain_lora(module) for module in modules) or len({module.scale for module in modules}) > 1:
        return [module(inputs) for module in modules]
    weights = [module.linear.weight for module in modules]
    return lora(inputs, weights, [(module.lora_a, module.lora_b) for module in modules], modules[0].scale)


def _is_plain_lora(module):
    """A LoRA on a float32 linear layer without bias, its weight frozen, and no dropout at work."""
    if type(module) is not LoRALinear or type(module.linear) is not nn.Linear or "bias" in module.linear:
        return False
    kept_whole = not module.training or module.dropout._p_1 == 1
    return kept_whole and module.linear.weight.dtype == mx.float32 and not module.linear.trainable_parameters()
