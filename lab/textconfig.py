"""What the config.json of a HyperCLOVA X checkpoint says about its text model, every fault collected.

Where a setting is missing, the default is that of transformers 5.23 (models/hyperclovax, llama), or it is a fault.
"""

import json
import math
import re
import struct
from dataclasses import dataclass, field

from lab import foreign_settings
from lab.cli import LabError
from lab.headers import LARGEST, LIMIT, open_file, shown

NUMBERS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
MULTIPLIERS = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")
FULL = "full_attention"
# model_type of a vision-language model: Think-32B as on the hub and as transformers saves it again; Vision-Instruct-3B.
VISION_V2, VISION_V1 = ("vlm", "hyperclovax_vision_v2"), ("hyperclovax_vlm",)
TEXT = ("hyperclovax", "llama")
FLOAT32 = (1.2e-38, 3.4e38)  # between these a float32 has all its digits
ROPE_NUMBERS = {  # rope_type -> what mlx-lm's llama reads; the two compute as in transformers (measured)
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def read_config(path):
    """The content of a config.json, which may carry `#` comments. Raises LabError with file and line."""
    if not path.exists():
        raise LabError(f"{path}: no such file; give the folder of a checkpoint")
    with open_file(path) as file:
        raw = file.read(LIMIT + 1)
    try:
        if len(raw) > LIMIT:
            raise ValueError(f"more than {LIMIT} bytes")
        config = json.loads(without_comments(raw.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise LabError(f"{path}: not UTF-8 (byte {error.start}); download it again") from error
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)
        raise LabError(
            f"{path}:{getattr(error, 'lineno', 1)}: not valid JSON ({reason}); download it again"
        ) from error
    if not isinstance(config, dict):
        raise LabError(f"{path}:1: not a JSON object; download it again")
    return config


def without_comments(text):
    """JSON `text` without its `#` comments. Line numbers stay, and so does a `#` inside a string."""
    return re.sub(r'("(?:\\.|[^"\\\n])*")|#[^\n]*', lambda match: match[1] or "", text)


@dataclass
class Settings:
    """The text model of a config: `text` is its part of it, `top` the whole. `faults` collects what is wrong.

    `sizes` is None where one of them is no size. `factors` is {multiplier: factor of the weights that take it
    up}, without the neutral ones. Switches are None where nothing is said.
    """

    text: dict
    top: dict
    kind: str  # model_type of the text model
    container: str | None  # model_type of the vision-language model around it
    faults: list
    sizes: dict | None = None
    theta: float | None = None
    rope_scaling: dict | None = None
    eps: float | None = None
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    post_norms: bool | None = None
    tied: bool | None = None  # as the text model says
    tied_outside: bool | None = None  # as the model around it says
    factors: dict = field(default_factory=dict)

    @property
    def family(self):
        """What kind of checkpoint it is, for people."""
        return f"{self.kind} ({'vision-language, text part' if self.container else 'text only'})"

    def first(self, key):
        """The value of `key` in the text model's settings, else in those around it; None where in neither."""
        return next((part[key] for part in (self.text, self.top) if part.get(key) is not None), None)


def read_settings(config, path):
    """The Settings of a config.json's content. Raises LabError where no known text model is in it."""
    settings = _text_part(config, path)
    text, faults = settings.text, settings.faults
    settings.sizes = _sizes(text, faults)
    settings.theta, settings.rope_scaling = _rope(text, faults)
    settings.eps = text.get("rms_norm_eps")
    if not _is_number(settings.eps) or not 0 < settings.eps < 1:
        faults.append(f"{said('rms_norm_eps', settings.eps)}, not a number between 0 and 1")
    settings.attention_bias = _switch("attention_bias", text, faults)
    settings.mlp_bias = _switch("mlp_bias", text, faults)
    settings.post_norms = _switch("use_post_norm", text, faults)
    settings.tied = _switch("tie_word_embeddings", text, faults)
    if settings.container:
        settings.tied_outside = _switch("tie_word_embeddings", config, faults)
    if (length := text.get("max_position_embeddings")) is not None and not _is_size(length):
        faults.append(f"{said('max_position_embeddings', length)}, not a size")
    settings.factors = _factors(text, (settings.sizes or {}).get("head_dim"), faults)
    faults += _not_in_stock(settings)
    return settings


def _text_part(config, path):
    """Settings with nothing but the place of the text model."""
    container, key, text = config.get("model_type"), None, config
    if container in VISION_V2 + VISION_V1:
        # Vision-Instruct-3B: vLLM reads text_config, TensorRT-LLM language_config.
        older = container in VISION_V1 and config.get("text_config") is None
        key = "language_config" if older else "text_config"
        text = config.get(key)
    kind = text.get("model_type") if isinstance(text, dict) else None
    parts = [part for part in (config, text) if isinstance(part, dict)]
    quantized = any(part.get(name) for part in parts for name in ("quantization", "quantization_config"))
    if quantized:  # its tensors are others, so nothing else that could be said of it helps
        raise LabError(f"{path}: this checkpoint is quantized already; give the bfloat16 one")
    faults = []
    if kind not in TEXT:
        inside = f" with a {key} of {shown(repr(kind))}" if key else ""
        faults.append(f"model_type {shown(repr(config.get('model_type')))}{inside} is not converted")
        around = ", ".join(VISION_V2 + VISION_V1)
        remedy = f"give one of {', '.join(TEXT)}, alone or as the text_config of one of {around}"
        raise LabError(f"{path}: {'; '.join(faults)}; {remedy}")
    return Settings(text, config, kind, container if key else None, faults)


def _is_size(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST


def _is_number(value):
    # A comparison, as math.isfinite cannot take an integer of 400 digits; NaN fails it, too.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def said(key, value):
    """What a config says, for an error's one line."""
    return f"{key} is {shown(repr(value))}"


def _switch(key, part, faults):
    value = part.get(key)
    if value is not None and not isinstance(value, bool):
        faults.append(f"{said(key, value)}, not true or false")
        return None
    return value


def _sizes(text, faults):
    """{setting: size} with those that follow from others; None, and faults, where one is no size."""
    derived = [key for key in ("num_key_value_heads", "head_dim") if text.get(key) is not None]
    wrong = [key for key in (*NUMBERS, *derived) if not _is_size(text.get(key))]
    faults += [f"{said(key, text.get(key))}, not a size" for key in wrong]
    if wrong:
        return None
    sizes = {key: text[key] for key in NUMBERS}
    heads = sizes["num_attention_heads"]
    sizes["num_key_value_heads"] = text.get("num_key_value_heads") or heads
    sizes["head_dim"] = text.get("head_dim") or sizes["hidden_size"] // heads
    if heads % sizes["num_key_value_heads"]:
        faults.append(f"num_key_value_heads {sizes['num_key_value_heads']} does not divide {heads} heads")
    if sizes["head_dim"] < 2 or sizes["head_dim"] % 2:
        faults.append(f"head_dim is {sizes['head_dim']}, and rotary embeddings turn pairs")
    return sizes


def _rope(text, faults):
    """(theta, rope_scaling for mlx-lm or None). transformers 5 moved both into rope_parameters."""
    given = [text[key] for key in ("rope_parameters", "rope_scaling") if text.get(key)]
    if any(not isinstance(part, dict) or any(isinstance(v, dict) for v in part.values()) for part in given):
        faults.append(f"rope_parameters or rope_scaling is {shown(repr(given[0]))}, not one set for all layers")
        return None, None
    if len(given) == 2 and given[0] != given[1]:
        faults.append("rope_parameters and rope_scaling differ")
    rope = given[0] if given else {}
    for part in (rope, text):
        if part.get("partial_rotary_factor") not in (None, 1):
            faults.append(f"{said('partial_rotary_factor', part['partial_rotary_factor'])} (neutral: 1)")
    thetas = [part["rope_theta"] for part in (rope, text) if part.get("rope_theta") is not None]
    if wrong := [theta for theta in thetas if not _is_number(theta) or theta <= 0]:
        faults.append(f"{said('rope_theta', wrong[0])}, not a positive number")
    elif len(set(thetas)) != 1:
        faults.append(f"rope_theta is both {thetas[0]} and {thetas[1]}" if thetas else "rope_theta is missing")
    return (thetas[0] if thetas else None), _rope_scaling(rope, text, faults)


def _rope_scaling(rope, text, faults):
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if not isinstance(kind, str) or kind not in ROPE_NUMBERS:
        faults.append(f"{said('rope_type', kind)} (known: 'default', 'linear', 'llama3')")
        return None
    scaling = {key: rope.get(key) for key in ROPE_NUMBERS[kind]}
    found = [
        f"{key} of rope_type {shown(repr(kind))} is {shown(repr(v))}, not a positive number"
        for key, v in scaling.items()
        if not _is_number(v) or v <= 0
    ]
    length = "original_max_position_embeddings"
    if kind == "llama3" and not found:
        if scaling["high_freq_factor"] <= scaling["low_freq_factor"]:
            found.append("high_freq_factor is not above low_freq_factor")
        if text.get(length) not in (None, scaling[length]):  # transformers takes the outer one
            found.append(f"{length} is both {shown(repr(text[length]))} and {shown(repr(scaling[length]))}")
    faults += found
    return {"rope_type": kind, **scaling}


def _factors(text, head_dim, faults):
    """{multiplier: factor of the weights that take it up}, without the neutral ones."""
    factors = {}
    for key in MULTIPLIERS:
        value = text.get(key)
        if value is None:  # neutral in transformers, too
            continue
        if not _is_number(value) or not FLOAT32[0] < value < FLOAT32[1]:
            faults.append(f"{said(key, value)}, not a positive number that float32 holds")
        elif key != "attention_multiplier":
            factors |= {key: float(value)} if _float32(value) != 1 else {}
        elif head_dim and not math.isclose(value, head_dim**-0.5, rel_tol=1e-6):  # configs round the root
            factors[key] = value * math.sqrt(head_dim)
    return factors


def _float32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def _not_in_stock(settings):
    """Faults: what neither llama nor glm4 computes, and what the stock torch llama would not read."""
    text, faults = settings.text, foreign_settings.faults(settings.text)
    if text.get("hidden_act", "silu") not in ("silu", "swish"):  # one function, two names
        faults.append(f"{said('hidden_act', text['hidden_act'])} (neutral: 'silu')")
    layers = text.get("layer_types") or [FULL]
    other = {str(kind) for kind in (layers if isinstance(layers, list) else [layers])} - {FULL}
    if other:
        faults.append(f"layer_types holds {shown(', '.join(sorted(other)))} (neutral: {FULL} only)")
    if settings.kind == "llama":
        faults += [f"{said(key, text[key])}, and a llama has none" for key in settings.factors]
        faults += ["use_post_norm is true, and a llama has none"] if settings.post_norms else []
    return faults
