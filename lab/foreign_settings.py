"""Settings that some loader of these checkpoints computes with, and neither transformers, nor mlx-lm's llama or glm4.

Sources: vLLM (models/hyperclovax.py: logit_scale, dual_chunk_attention_config; sliding_window of every model) and
NAVER's hcx-vllm-plugin (interleaved_sliding_window). What no loader reads is harmless, and passed over as they do.
"""

from lab.headers import shown

KNOWN = ("logit_scale", "dual_chunk_attention_config", "interleaved_sliding_window")


def faults(text):
    """Faults: what of the text model's settings changes what is computed."""
    found = [
        f"{key} is {shown(repr(value))}, and mlx-lm's llama and glm4 have none"
        for key in KNOWN
        if (value := text.get(key)) not in (None, False, 1, [], {})
    ]
    window, context = text.get("sliding_window"), text.get("max_position_embeddings")
    used = window is not None and text.get("use_sliding_window") is not False
    if used and not (_is_number(window) and _is_number(context) and window >= context):
        found.append(f"sliding_window is {shown(repr(window))}, and mlx-lm's llama and glm4 have none")
    return found


def _is_number(value):
    return isinstance(value, int | float)
