"""The tensors of HyperCLOVA X checkpoints: what each layout calls them, and which there have to be.

A text tensor has one plain name, that of a text model alone ("model.layers.0.self_attn.q_proj.weight").
Plain Python on headers: no value is touched.
"""

import re
from collections import Counter, defaultdict

from lab.headers import shown

FLOATS = ("BF16", "F16", "F32")
POST_NORMS = ("post_norm1", "post_norm2")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LAYER = re.compile(r"(.*?\blayers\.)(0|[1-9]\d{0,8})\.(.+)")
# (prefix in a checkpoint, prefix of the plain name), the most particular first.
TEXT = (("model.", "model."), ("lm_head.", "lm_head."))
VISION = (  # Think-32B, Vision-Instruct-3B, Omni-8B
    ("model.language_model.model.", "model."),  # Think-32B on the hub
    ("model.language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),  # as transformers saves it again
    ("language_model.model.", "model."),  # Vision-Instruct-3B; vLLM takes Think-32B so, too
    ("language_model.lm_head.", "lm_head."),
    ("lm_head.", "lm_head."),
)
PARTS = {  # what is no part of the text model; with or without "model." before it
    "vision_model.": "vision tower",
    "vision_tower.": "vision tower",
    "mm_projector.": "projector",
    "vision_projector.": "projector",
    "projector.": "projector",  # how transformers 5.23 saves a loaded mm_projector again
    "image_newline": "image newline",
    "discrete_vision_model.": "discrete vision model",  # these of Omni-8B (source: OmniServe's model_converter)
    "audio_model.": "audio tower",
    "audio_projector.": "projector",
    "discrete_audio_model.": "discrete audio model",
    "video_audio_compressor.": "compressor",
}


def plain_name(name, prefixes):
    """The plain name of the text tensor `name`; None where no prefix of the layout fits."""
    return next((here + name.removeprefix(there) for there, here in prefixes if name.startswith(there)), None)


def sort_tensors(tensors, prefixes):
    """(text, left, faults): {plain name: Tensor} in the order of `tensors`, Counter of what is left out, faults.

    `tensors` is {name: Tensor}. A fault is a tensor that no layout has, or one that is there under two names.
    """
    text, left, faults = {}, Counter(), []
    outside = PARTS if prefixes is not TEXT else {}
    for name, tensor in tensors.items():
        bare = name.removeprefix("model.")
        part = next((label for prefix, label in outside.items() if bare.startswith(prefix)), None)
        if part or name.endswith(".rotary_emb.inv_freq"):
            left[part or "rotary buffers"] += 1
            continue
        here = plain_name(name, prefixes)
        if here is None:
            faults.append(("unexpected ", name, ""))
        elif here in text:
            faults.append(("", name, f" is there twice, also as {shown(text[here].name)}"))
        else:
            text[here] = tensor
    return text, left, told(faults)


def has_post_norms(text):
    """Whether a post norm is among the plain names `text`."""
    return any(re.search(r"\.post_norm[12]\.", name) for name in text)


def layer_shapes(sizes, post_norms, attention_bias, mlp_bias):
    """The tensors of a layer, {name: shape}: weights (outputs, inputs), norms and biases (outputs,)."""
    hidden, inner, width = sizes["hidden_size"], sizes["intermediate_size"], sizes["head_dim"]
    queries, keys = sizes["num_attention_heads"] * width, sizes["num_key_value_heads"] * width
    attention = {"q": (queries, hidden), "k": (keys, hidden), "v": (keys, hidden), "o": (hidden, queries)}
    mlp = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
    norms = ("input_layernorm", "post_attention_layernorm", *(POST_NORMS if post_norms else ()))
    shapes = {f"{name}.weight": (hidden,) for name in norms}
    for part, linears, bias in (("self_attn", attention, attention_bias), ("mlp", mlp, mlp_bias)):
        shapes |= {f"{part}.{name}_proj.weight": shape for name, shape in linears.items()}
        if bias:
            shapes |= {f"{part}.{name}_proj.bias": shape[:1] for name, shape in linears.items()}
    return shapes


def misfits(text, sizes, layer, head):
    """What is missing, unexpected, mis-shaped or no floating-point number in {plain name: Tensor} `text`.

    `sizes` is {setting of the config: number}, `layer` that of layer_shapes; `head`: there has to be an lm_head.
    """
    vocabulary = (sizes["vocab_size"], sizes["hidden_size"])
    shapes = {EMBEDDING: vocabulary, "model.norm.weight": (sizes["hidden_size"],)}
    shapes |= {HEAD: vocabulary} if head else {}
    numbers = {int(match[1]) for name in text if (match := re.match(r"model\.layers\.(\d{1,9})\.", name))}
    there = sorted(number for number in numbers if number < sizes["num_hidden_layers"])
    for number in there:
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    faults = []
    for name, tensor in text.items():
        if name not in shapes:
            faults.append(("unexpected ", tensor.name, ""))
            continue
        if tuple(tensor.shape) != shapes[name]:
            faults.append(("", tensor.name, f" has shape {tensor.shape}, wanted is {shapes[name]}"))
        if tensor.dtype not in FLOATS:
            faults.append(("", tensor.name, f" holds {tensor.dtype}, wanted is {', '.join(FLOATS)}"))
    faults += [("missing ", name, "") for name in shapes if name not in text]
    absent = [span("model.layers.", *run) for run in gaps(there, sizes["num_hidden_layers"])]
    return told(faults) + [f"missing every tensor of {layers}" for layers in absent]


def told(faults):
    """Faults (words before the name, a tensor's name, words after it) as text: of layers that differ in nothing else, one."""
    layers, first = defaultdict(set), {}
    for before, name, after in faults:
        match = LAYER.fullmatch(name) if shown(name) == name else None
        alike = LAYER.sub(r"\1*.\3", after)
        key = (before, match[1], match[3], alike) if match else (before, name, after)
        layers[key] |= {int(match[2])} if match else set()
        first.setdefault(key, f"{before}{shown(name)}{after}")
    return [
        text if len(layers[key]) < 2 else f"{spans(key[1], layers[key])}: {key[0]}{key[2]}{key[3]}"
        for key, text in first.items()
    ]


def spans(prefix, numbers):
    """Layers in words: "model.layers.0 to model.layers.3, model.layers.7"."""
    inside = sorted(numbers)
    starts = [number for number in inside if number - 1 not in numbers]
    ends = [number for number in inside if number + 1 not in numbers]
    return ", ".join(span(prefix, *run) for run in zip(starts, ends, strict=True))


def span(prefix, first, last):
    """A run of layers in words."""
    return f"{prefix}{first}" + (f" to {prefix}{last}" if last > first else "")


def gaps(numbers, count):
    """The runs (first, last) of the numbers below `count` that are not in the sorted list `numbers`."""
    edges = [-1, *numbers, count]
    return [(low + 1, high - 1) for low, high in zip(edges, edges[1:], strict=False) if high - low > 1]
