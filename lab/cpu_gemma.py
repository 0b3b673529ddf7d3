"""The stock Gemma-2's forward pass on the CPU, by way of lab.cpu_ops: what lab.cpu_llama is for llama.

Letters: B batch, T tokens, N positions (B x T), H hidden size.
"""

from lab.device import computes_in_float32  # isort: skip  (first: it puts the fast BLAS in front)
from mlx_lm.models import gemma2

from lab.cpu_llama import attend, project
from lab.cpu_pointwise import geglu

STOCK_LAYER = gemma2.TransformerBlock.__call__  # mlx-lm's gradient checkpointing replaces it


def knows(model):
    """Whether `hidden` stands for `model.model` here."""
    stock = gemma2.TransformerBlock.__call__ is STOCK_LAYER
    return type(model) is gemma2.Model and computes_in_float32() and stock


def hidden(model, inputs, caches=None):
    """What `model.model(inputs)` gives, as (N, H); inputs (B, T). `caches` as in lab.cpu_llama."""
    state = model.model.embed_tokens(inputs.reshape(-1)) * model.args.hidden_size**0.5
    for layer, cache in zip(model.layers, caches or [None] * len(model.layers), strict=True):
        part = layer.self_attn
        added = attend(part, layer.input_layernorm(state), inputs.shape, cache, part.attn_logit_softcapping)
        state = state + layer.post_attention_layernorm(added)
        added = _mlp(layer.mlp, layer.pre_feedforward_layernorm(state))
        state = state + layer.post_feedforward_layernorm(added)
    return model.model.norm(state)


def _mlp(part, inputs):
    return project(geglu(*project(inputs, part.gate_proj, part.up_proj)), part.down_proj)[0]
