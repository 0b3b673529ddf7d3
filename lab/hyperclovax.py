"""HyperCLOVA X SEED checkpoints as mlx-lm's stock `llama`: which setting becomes which, and which tensor.

With neutral multipliers and no post norms the text part of HyperCLOVA X SEED Think 32B is term for term a
llama (source: transformers 5.23, models/hyperclovax). What is not neutral is refused by name, never guessed.
Plain Python: no tensor is touched.
"""

import json
import math
import re
from collections import Counter

from lab.cli import LabError

LEFT = {  # prefixes of what is no part of the text model
    "model.vision_model.": "vision tower",
    "model.vision_tower.": "vision tower",
    "model.mm_projector.": "projector",
    "model.vision_projector.": "projector",
    "model.projector.": "projector",  # how transformers 5.23 saves a loaded mm_projector again
}
PREFIXES = (  # (prefix in a checkpoint, prefix in llama), the most particular first
    ("model.language_model.model.", "model."),  # as on the hub
    ("model.language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),  # as transformers saves it again
    ("model.", "model."),  # a text model alone
    ("lm_head.", "lm_head."),
)
NEUTRAL = {"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0}
NUMBERS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
FLOATS = ("BF16", "F16", "F32")
FULL = "full_attention"
VISION, TEXT = ("vlm", "hyperclovax_vision_v2"), ("hyperclovax", "llama")


def read_config(path):
    """The content of a config.json, which may carry `#` comments. Raises LabError with file and line."""
    try:
        config = json.loads(without_comments(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise LabError(f"{path}: no such file; give the folder of a checkpoint") from error
    except UnicodeDecodeError as error:
        raise LabError(f"{path}: not UTF-8 (byte {error.start}); download it again") from error
    except json.JSONDecodeError as error:
        raise LabError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); download it again") from error
    if not isinstance(config, dict):
        raise LabError(f"{path}:1: not a JSON object; download it again")
    return config


def without_comments(text):
    """JSON `text` without its `#` comments. Line numbers stay, and so does a `#` inside a string."""
    return re.sub(r'("(?:\\.|[^"\\\n])*")|#[^\n]*', lambda match: match[1] or "", text)


def llama_config(config, names, path):
    """The config.json of the same text model as an mlx-lm `llama`.

    `config` is the checkpoint's, `names` its tensors' (for the post norms), `path` the file for messages.
    Raises LabError that lists every setting that is missing or that `llama` cannot express.
    """
    text = _text_part(config, path)
    faults = [f"{key} is {text.get(key)!r}, not a size" for key in NUMBERS if not _is_size(text.get(key))]
    if faults:
        raise LabError(f"{path}: {'; '.join(faults)}; mend the file or download it again")
    heads = text["num_attention_heads"]
    sizes = {
        "num_key_value_heads": text.get("num_key_value_heads") or heads,
        "head_dim": text.get("head_dim") or text["hidden_size"] // heads,
    }
    faults = [f"{key} is {value!r}, not a size" for key, value in sizes.items() if not _is_size(value)]
    if not faults and heads % sizes["num_key_value_heads"]:
        faults = [f"num_key_value_heads {sizes['num_key_value_heads']} does not divide {heads} heads"]
    if faults:
        raise LabError(f"{path}: {'; '.join(faults)}; mend the file or download it again")
    theta, faults = _rope_theta(text)
    faults += _not_neutral(text, sizes["head_dim"]) + _post_norm_faults(text, names)
    if not isinstance(text.get("rms_norm_eps"), float):
        faults.append(f"rms_norm_eps is {text.get('rms_norm_eps')!r}, not a number")
    if faults:
        what = "only what stock llama computes is converted for now"
        raise LabError(f"{path}: {'; '.join(faults)}; {what}: mend the file or use another checkpoint")
    optional = {"max_position_embeddings": text.get("max_position_embeddings")}
    optional |= {key: _first(key, text, config) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{key: text[key] for key in NUMBERS},
        **sizes,
        "hidden_act": "silu",
        "rms_norm_eps": text["rms_norm_eps"],
        "rope_theta": theta,
        "attention_bias": bool(text.get("attention_bias")),
        "mlp_bias": bool(text.get("mlp_bias")),
        # Written out: mlx-lm takes true where it is missing, and then drops lm_head in silence.
        "tie_word_embeddings": bool(_first("tie_word_embeddings", text, config)),
        **{key: value for key, value in optional.items() if value is not None},
    }


def _text_part(config, path):
    kind = config.get("model_type")
    text = config.get("text_config") if kind in VISION else config
    inner = text.get("model_type") if isinstance(text, dict) else None
    if inner not in TEXT:
        what = f"model_type {kind!r}" + (f" with a text_config of {inner!r}" if text is not config else "")
        remedy = f"give one of {', '.join(TEXT)}, alone or as the text_config of {' or '.join(VISION)}"
        raise LabError(f"{path}: {what} is not converted; {remedy}")
    if any(part.get(key) for part in (text, config) for key in ("quantization", "quantization_config")):
        raise LabError(f"{path}: this checkpoint is quantized already; give the bfloat16 one")
    return text


def _is_size(value):
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _first(key, *parts):
    return next((part[key] for part in parts if part.get(key) is not None), None)


def _rope_theta(text):
    """(theta, faults). transformers 5 moved rope_theta into rope_parameters."""
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        return None, [f"rope_parameters or rope_scaling is {rope!r}, not an object"]
    kind = _first("rope_type", rope) or _first("type", rope) or "default"
    faults = [] if kind == "default" else [f"rope_type is {kind!r} (neutral: 'default')"]
    if (partial := _first("partial_rotary_factor", rope, text)) not in (None, 1):
        faults.append(f"partial_rotary_factor is {partial!r} (neutral: 1)")
    found = [part["rope_theta"] for part in (rope, text) if part.get("rope_theta") is not None]
    if len(set(found)) != 1:
        faults.append(f"rope_theta is both {found[0]} and {found[1]}" if found else "rope_theta is missing")
    return found[0] if found else None, faults


def _not_neutral(text, head_dim):
    faults = []
    for key, neutral in {**NEUTRAL, "attention_multiplier": head_dim**-0.5}.items():
        value = text.get(key, neutral)
        if value is None:  # "neutral" in transformers, too
            continue
        if not isinstance(value, int | float) or not math.isclose(value, neutral, rel_tol=1e-6):
            faults.append(f"{key} is {value!r} (neutral: {neutral!r})")
    if text.get("hidden_act", "silu") != "silu":
        faults.append(f"hidden_act is {text['hidden_act']!r} (neutral: 'silu')")
    if other := set(text.get("layer_types") or [FULL]) - {FULL}:
        faults.append(f"layer_types holds {', '.join(sorted(other))} (neutral: {FULL} only)")
    return faults


def _post_norm_faults(text, names):
    """use_post_norm's default differs between versions, so the tensors must bear it out."""
    said = text.get("use_post_norm")
    if not any(re.search(r"\.post_norm[12]\.", name) for name in names):
        return ["use_post_norm is true, but there is no post_norm1 or post_norm2 tensor"] if said else []
    if said is False:
        return ["use_post_norm is false, but there are post_norm1 or post_norm2 tensors"]
    return [f"use_post_norm is {said!r} and there are post norms (neutral: false and none)"]


def llama_shapes(config):
    """The tensors of a llama with this config, {name: shape}: weights (outputs, inputs), norms (hidden,)."""
    hidden, inner, width = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    attention = {"q": (queries, hidden), "k": (keys, hidden), "v": (keys, hidden), "o": (hidden, queries)}
    mlp = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
    layer = {f"{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
    for part, linears, bias in (("self_attn", attention, "attention_bias"), ("mlp", mlp, "mlp_bias")):
        layer |= {f"{part}.{name}_proj.weight": shape for name, shape in linears.items()}
        if config[bias]:
            layer |= {f"{part}.{name}_proj.bias": shape[:1] for name, shape in linears.items()}
    vocabulary = (config["vocab_size"], hidden)
    shapes = {"model.embed_tokens.weight": vocabulary, "model.norm.weight": (hidden,)}
    for number in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = vocabulary
    return shapes


def llama_name(name):
    """What llama calls the text tensor `name` of any of the layouts; `name` itself where none has it."""
    for there, here in PREFIXES:
        if name.startswith(there):
            return here + name.removeprefix(there)
    return name


def match_tensors(tensors, config, folder):
    """(taken, left): {llama name: Tensor} in the order of `tensors`, and {what it is: how many} left out.

    `tensors` is {name: lab.checkpoints.Tensor}, `config` that of llama_config. Raises LabError that lists
    every tensor that is missing, unexpected, there twice, of another shape, or no floating-point number.
    """
    shapes = llama_shapes(config)
    taken, left, faults = {}, Counter(), []
    for name, tensor in tensors.items():
        part = next((label for prefix, label in LEFT.items() if name.startswith(prefix)), None)
        if part or name.endswith(".rotary_emb.inv_freq"):
            left[part or "rotary buffers"] += 1
            continue
        here = llama_name(name)
        if here not in shapes:
            faults.append(f"unexpected {name}")
            continue
        if here in taken:
            faults.append(f"{name} is there twice, also as {taken[here].name}")
        if tuple(tensor.shape) != shapes[here]:
            faults.append(f"{name} has shape {tensor.shape}, wanted is {shapes[here]}")
        if tensor.dtype not in FLOATS:
            faults.append(f"{name} holds {tensor.dtype}, wanted is {', '.join(FLOATS)}")
        taken[here] = tensor
    faults += [f"missing {name}" for name in shapes if name not in taken]
    if faults:
        listed = "; ".join(faults)
        raise LabError(f"{folder}: tensors do not fit config.json: {listed}; download it again, or mend that")
    return taken, dict(sorted(left.items()))
