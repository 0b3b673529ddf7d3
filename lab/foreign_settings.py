"""Settings that some loader of these checkpoints computes with, and neither transformers, nor mlx-lm's llama or glm4.

Sources: vLLM 0.11 (models/hyperclovax.py: logit_scale, dual_chunk_attention_config; sliding_window for every model),
NAVER's hcx-vllm-plugin (interleaved_sliding_window). A multiplier or cap of another name is one more that nobody folds.
"""

import re

from lab.headers import shown

KNOWN = re.compile(
    r"logit_scale|dual_chunk_attention_config|interleaved_sliding_window|\w+_multiplier|\w*soft_?cap(ping)?"
)


def faults(text, read):
    """Faults: what of the text model's settings changes what is computed, apart from those that are `read`."""
    found = [
        f"{key} is {shown(repr(value))}, and mlx-lm's llama and glm4 have none"
        for key, value in text.items()
        if KNOWN.fullmatch(key) and key not in read and value not in (None, False, 1, [], {})
    ]
    window, context = text.get("sliding_window"), text.get("max_position_embeddings")
    used = window is not None and text.get("use_sliding_window") is not False
    if used and not (_is_number(window) and _is_number(context) and window >= context):
        found.append(f"sliding_window is {shown(repr(window))}, and mlx-lm's llama and glm4 have none")
    return found


def _is_number(value):
    return isinstance(value, int | float)
