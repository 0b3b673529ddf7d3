"""The plan of a conversion: configs, names, shapes and factors, without a value read."""

import math
import random
from pathlib import Path

import pytest

import lab.device  # noqa: F401 isort: skip  (first of MLX: it puts the fast BLAS in front)
from mlx.utils import tree_flatten
from mlx_lm.models import glm4, llama

from lab import keymaps, textconfig
from lab.checkpoints import Tensor
from lab.cli import LabError
from lab.hyperclovax import read_config, text_model

PATH = Path("source") / "config.json"
TEXT = {
    "model_type": "hyperclovax",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "intermediate_size": 40,
    "vocab_size": 320,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e7,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": [3, 5],
    "pad_token_id": 0,
}
MUP = {
    "embedding_multiplier": 10.0,
    "attention_multiplier": 0.05,
    "residual_multiplier": 0.25,
    "logits_scaling": 0.125,
}
LAYER = {
    "input_layernorm.weight": (64,),
    "self_attn.q_proj.weight": (96, 64),
    "self_attn.k_proj.weight": (48, 64),
    "self_attn.v_proj.weight": (48, 64),
    "self_attn.o_proj.weight": (64, 96),
    "post_attention_layernorm.weight": (64,),
    "mlp.gate_proj.weight": (40, 64),
    "mlp.up_proj.weight": (40, 64),
    "mlp.down_proj.weight": (64, 40),
}
POST_NORMS = {"post_norm1.weight": (64,), "post_norm2.weight": (64,)}
BIASES = {f"self_attn.{name}_proj.bias": (size,) for name, size in zip("qkvo", (96, 48, 48, 64), strict=True)}
BIASES |= {f"mlp.{name}_proj.bias": (size,) for name, size in (("gate", 40), ("up", 40), ("down", 64))}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
LLAMA3 = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 1e4}
LLAMA3 |= {"original_max_position_embeddings": 64}


def shapes_of(*more, head=True, layers=2):
    """{plain name: shape} of a text model, with `more` {name: shape} in every layer."""
    layer = {name: shape for part in (LAYER, *more) for name, shape in part.items()}
    shapes = {f"model.layers.{n}.{name}": shape for n in range(layers) for name, shape in layer.items()}
    shapes |= {"model.embed_tokens.weight": (320, 64), "model.norm.weight": (64,)}
    return shapes | ({"lm_head.weight": (320, 64)} if head else {})


def named(shapes, *prefixes):
    """{name: Tensor} under a layout's names; `prefixes` are (in the plain name, in the checkpoint)."""
    tensors = {}
    for name, shape in shapes.items():
        plain, there = next((pair for pair in prefixes if name.startswith(pair[0])), ("", ""))
        name = there + name.removeprefix(plain)
        tensors[name] = Tensor(name, "BF16", shape, Path("source") / "model.safetensors")
    return tensors


HUB = (("model.", "model.language_model.model."), ("lm_head", "model.language_model.lm_head"))
SAVED = (("model.", "model.language_model."), ("lm_head", "model.language_model.lm_head"))
LOADED = (("model.", "model.language_model."),)  # as a loaded model's state_dict has it
MIXED = (("model.layers.1", "model.language_model.layers.1"), ("model.", "model.language_model.model."))
VISION_3B = (("model.", "language_model.model."), ("lm_head", "language_model.lm_head"))


def plan(*more, head=True, tensors=None, **settings):
    """The TextModel of a text-only checkpoint."""
    tensors = named(shapes_of(*more, head=head)) if tensors is None else tensors
    return text_model({**TEXT, **settings}, tensors, PATH)


def refusal(config, tensors):
    """The error for a checkpoint, of which each part is one line."""
    with pytest.raises(LabError) as caught:
        text_model(config, tensors, PATH)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def factors(model):
    """{output tensor: its factor} where it is not exactly 1."""
    return {r.name: piece.factor for r in model.recipes for piece in r.pieces if piece.factor != 1.0}


def test_a_neutral_model_is_a_llama_and_no_tensor_is_touched():
    model = plan(**{**dict.fromkeys(MUP, 1), "attention_multiplier": 0.204124145})
    assert model.config == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "vocab_size": 320,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 5e7,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "max_position_embeddings": 128,
        "eos_token_id": [3, 5],
        "pad_token_id": 0,
    }
    assert (factors(model), model.folded, model.left) == ({}, [], {})
    assert model.family == "hyperclovax (text only)"
    assert all(len(recipe.pieces) == 1 for recipe in model.recipes)
    assert [recipe.pieces[0].tensor.name for recipe in model.recipes] == [recipe.name for recipe in model.recipes]


def test_post_norms_make_a_glm4():
    model = plan(POST_NORMS, use_post_norm=True)
    changed = {"architectures": ["Glm4ForCausalLM"], "model_type": "glm4"}
    assert model.config == {**plan().config, **changed, "partial_rotary_factor": 1.0, "rope_traditional": False}
    sources = {recipe.name: [piece.tensor.name for piece in recipe.pieces] for recipe in model.recipes}
    layer = "model.layers.1."
    assert sources[f"{layer}post_self_attn_layernorm.weight"] == [f"{layer}post_norm1.weight"]
    assert sources[f"{layer}post_mlp_layernorm.weight"] == [f"{layer}post_norm2.weight"]
    assert sources[f"{layer}post_attention_layernorm.weight"] == [f"{layer}post_attention_layernorm.weight"]
    both = [f"{layer}mlp.gate_proj.weight", f"{layer}mlp.up_proj.weight"]
    assert sources[f"{layer}mlp.gate_up_proj.weight"] == both and f"{layer}mlp.up_proj.weight" not in sources
    assert (factors(model), model.folded) == ({}, [])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("multipliers", [{}, MUP])
@pytest.mark.parametrize("more", [(), (BIASES,), (POST_NORMS,)], ids=["plain", "biases", "post norms"])
def test_names_and_shapes_are_those_of_the_model_that_mlx_lm_builds(more, multipliers, tied):
    biases = dict.fromkeys(("attention_bias", "mlp_bias"), BIASES in more)
    model = plan(*more, head=not tied, tie_word_embeddings=tied, **biases, **multipliers)
    family = {"llama": llama, "glm4": glm4}[model.config["model_type"]]
    built = family.Model(family.ModelArgs.from_dict(model.config)).parameters()
    assert {recipe.name: recipe.shape for recipe in model.recipes} == {
        name: array.shape for name, array in tree_flatten(built)
    }
    assert model.config["tie_word_embeddings"] is (tied and not multipliers and POST_NORMS not in more)


def every(*modules, kinds=("weight",)):
    return {f"model.layers.{n}.{module}.{kind}" for n in range(2) for module in modules for kind in kinds}


QUERIES = 0.05 * math.sqrt(24)
RESIDUAL = dict.fromkeys(every("self_attn.o_proj", "mlp.down_proj"), 0.25)
FOLDS = [
    ((), "embedding_multiplier", {"model.embed_tokens.weight": 10.0}),
    ((), "attention_multiplier", dict.fromkeys(every("self_attn.q_proj"), QUERIES)),
    ((), "residual_multiplier", RESIDUAL),
    ((), "logits_scaling", {"lm_head.weight": 0.125}),
    (
        (POST_NORMS,),
        "residual_multiplier",
        dict.fromkeys(every("post_self_attn_layernorm", "post_mlp_layernorm"), 0.25),
    ),
    (
        (BIASES,),
        "attention_multiplier",
        dict.fromkeys(every("self_attn.q_proj", kinds=("weight", "bias")), QUERIES),
    ),
    (
        (BIASES,),
        "residual_multiplier",
        dict.fromkeys(every("self_attn.o_proj", "mlp.down_proj", kinds=("weight", "bias")), 0.25),
    ),
]


@pytest.mark.parametrize(("more", "key", "wanted"), FOLDS)
def test_a_multiplier_goes_into_the_weights_that_take_it_up(more, key, wanted):
    biases = dict.fromkeys(("attention_bias", "mlp_bias"), BIASES in more)
    model = plan(*more, **biases, **{key: MUP[key]})
    assert factors(model) == pytest.approx(wanted, rel=1e-12)
    assert len(model.folded) == 1 and model.folded[0].startswith(f"{key} {MUP[key]} into ")


@pytest.mark.parametrize(("off", "folded"), [(0.9e-6, False), (1.1e-6, True)])
def test_attention_is_neutral_within_the_rounding_of_a_config(off, folded):
    model = plan(attention_multiplier=24**-0.5 * (1 + off))
    assert set(factors(model)) == (every("self_attn.q_proj") if folded else set())


def test_what_was_folded_is_said_in_the_names_of_the_output():
    assert plan(POST_NORMS, head=False, tie_word_embeddings=True, **MUP).folded == [
        "embedding_multiplier 10.0 into model.embed_tokens",
        "attention_multiplier 0.05 into self_attn.q_proj of every layer"
        f" (as {QUERIES!r}: mlx-lm divides by the root of head_dim)",
        "residual_multiplier 0.25 into post_self_attn_layernorm and post_mlp_layernorm of every layer",
        "logits_scaling 0.125 into lm_head",
        "lm_head made of the tied model.embed_tokens: glm4 has no tied embeddings",
    ]
    assert "self_attn.o_proj and mlp.down_proj of every layer" in plan(residual_multiplier=0.5).folded[0]


@pytest.mark.parametrize("key", ["embedding_multiplier", "logits_scaling"])
def test_tied_embeddings_are_untied_where_the_two_differ(key):
    model = plan(head=False, tie_word_embeddings=True, **{key: 3.0})
    made = {recipe.name: recipe.pieces for recipe in model.recipes}
    table, head = made["model.embed_tokens.weight"], made["lm_head.weight"]
    assert table[0].tensor == head[0].tensor  # the head of the table as it was before the fold
    assert (table[0].factor, head[0].factor) == ((3.0, 1.0) if key == "embedding_multiplier" else (1.0, 3.0))
    assert model.config["tie_word_embeddings"] is False and len(model.folded) == 2
    assert (
        plan(head=False, tie_word_embeddings=True, residual_multiplier=3.0).config["tie_word_embeddings"] is True
    )


def test_the_recipes_follow_the_bytes_of_the_source():
    names = list(shapes_of(POST_NORMS, head=False).items())
    random.Random(3).shuffle(names)
    model = plan(tensors=named(dict(names)), tie_word_embeddings=True)
    order = [name for name, _ in names]
    places = [order.index(recipe.pieces[0].tensor.name) for recipe in model.recipes]
    assert places == sorted(places) and len(set(places)) == len(places) - 1  # lm_head beside the embeddings


VISION = ("model.vision_model.a", "model.mm_projector.b", "model.mm_projector.c", "model.image_newline")
LEFT = {"image newline": 1, "projector": 2, "vision tower": 1}
LAYOUTS = [
    ("vlm", "text_config", "hyperclovax", HUB, VISION),
    ("hyperclovax_vision_v2", "text_config", "hyperclovax", HUB, VISION),
    ("hyperclovax_vision_v2", "text_config", "hyperclovax", SAVED, (*VISION[1:], "model.vision_tower.a")),
    (
        "hyperclovax_vision_v2",
        "text_config",
        "hyperclovax",
        LOADED,
        (*VISION[:1], "model.projector.b", *VISION[2:]),
    ),
    ("hyperclovax_vision_v2", "text_config", "hyperclovax", MIXED, VISION),
    ("hyperclovax_vlm", "text_config", "llama", VISION_3B, [name.removeprefix("model.") for name in VISION]),
    ("hyperclovax_vlm", "language_config", "llama", VISION_3B, [name.removeprefix("model.") for name in VISION]),
]


@pytest.mark.parametrize(("outer", "key", "inner", "layout", "vision"), LAYOUTS)
def test_every_layout_gives_the_same_text_model(outer, key, inner, layout, vision):
    text = {**TEXT, "model_type": inner}
    tensors = named(shapes_of(), *layout) | {name: Tensor(name, "BF16", (8,)) for name in vision}
    model = text_model({"model_type": outer, key: text, "vision_config": {}}, tensors, PATH)
    alone = text_model(text, named(shapes_of()), PATH)
    assert model.config == alone.config and model.left == LEFT
    assert {recipe.name: recipe.shape for recipe in model.recipes} == {r.name: r.shape for r in alone.recipes}
    assert model.family == f"{inner} (vision-language, text part)"


def test_rotary_buffers_are_left_out():
    tensors = named({**shapes_of(), "model.layers.0.self_attn.rotary_emb.inv_freq": (12,)})
    assert plan(tensors=tensors).left == {"rotary buffers": 1}


@pytest.mark.parametrize(
    ("inner", "outer", "head", "tied"),
    [
        (False, True, True, False),  # how transformers 5.23 saves an untied one by default
        (False, True, False, True),  # and a tied one
        (True, False, True, False),
        (True, None, False, True),
        (None, None, True, False),
        (None, True, False, True),
        (False, None, False, None),
        (True, False, False, None),
        (None, None, False, None),
    ],
)
def test_around_a_think_32b_the_outer_setting_and_the_file_say_what_is_tied(inner, outer, head, tied):
    text = {**TEXT, "tie_word_embeddings": inner}
    config, tensors = {"model_type": "vlm", "text_config": text}, named(shapes_of(head=head), *HUB)
    config |= {} if outer is None else {"tie_word_embeddings": outer}
    if tied is None:
        assert "missing lm_head.weight" in refusal(config, tensors)
    else:
        assert text_model(config, tensors, PATH).config["tie_word_embeddings"] is tied


def test_around_a_vision_3b_only_the_text_model_says_what_is_tied():
    config = {"model_type": "hyperclovax_vlm", "tie_word_embeddings": True}
    config["text_config"] = {**TEXT, "model_type": "llama"}
    assert "missing lm_head.weight" in refusal(config, named(shapes_of(head=False), *VISION_3B))


def test_an_lm_head_in_the_file_of_a_tied_model_is_kept_and_said():
    model = plan(tie_word_embeddings=True)
    assert model.config["tie_word_embeddings"] is False
    assert "lm_head.weight" in [recipe.name for recipe in model.recipes]
    assert model.folded == ["lm_head is that of the file, although config.json says that it is tied"]


@pytest.mark.parametrize("rope", [LINEAR, LLAMA3])
@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_rope_scaling_that_mlx_lm_computes_alike_is_handed_on(rope, key):
    """The reference tests compare the logits."""
    given = dict(rope)
    if key == "rope_scaling":  # the older spelling
        given["type"] = given.pop("rope_type")
        given.pop("rope_theta")
    made = plan(**{"rope_theta": 1e4, key: given}).config
    assert made["rope_theta"] == 1e4
    assert made["rope_scaling"] == {name: value for name, value in rope.items() if name != "rope_theta"}


def test_ids_stand_in_the_text_model_or_around_it():
    text = {**TEXT, "eos_token_id": None}
    config = {"model_type": "vlm", "text_config": text, "eos_token_id": 9, "pad_token_id": 8, "bos_token_id": 7}
    made = text_model(config, named(shapes_of(), *HUB), PATH).config
    assert (made["eos_token_id"], made["pad_token_id"], made["bos_token_id"]) == (9, 0, 7)


def test_sizes_that_follow_from_others_are_written_out():
    tensors = named(shapes_of())
    wide = {name: shape for name, shape in shapes_of().items() if "_proj" not in name}
    hidden = {"q": (64, 64), "k": (64, 64), "v": (64, 64), "o": (64, 64)}
    for number in range(2):
        layer = f"model.layers.{number}."
        wide |= {f"{layer}self_attn.{name}_proj.weight": shape for name, shape in hidden.items()}
        wide |= {name: tensor.shape for name, tensor in tensors.items() if name.startswith(f"{layer}mlp")}
    made = plan(tensors=named(wide), head_dim=None, num_key_value_heads=None).config
    assert (made["head_dim"], made["num_key_value_heads"]) == (16, 4)


REFUSED = [
    ({"embedding_multiplier": 0}, "embedding_multiplier is 0, not a positive number that float32 holds"),
    ({"residual_multiplier": -0.5}, "residual_multiplier is -0.5, not a positive"),
    ({"logits_scaling": float("nan")}, "logits_scaling is nan, not a positive"),
    ({"logits_scaling": float("inf")}, "logits_scaling is inf, not a positive"),
    ({"logits_scaling": "1"}, "logits_scaling is '1', not a positive"),
    ({"logits_scaling": True}, "logits_scaling is True, not a positive"),
    ({"logits_scaling": 10**400}, "logits_scaling is 1000"),
    ({"attention_multiplier": 1e-40}, "attention_multiplier is 1e-40, not a positive"),
    ({"attention_multiplier": -0.2}, "attention_multiplier is -0.2, not a positive"),
    ({"use_post_norm": True}, "use_post_norm is true, but there is no post_norm1 or post_norm2 tensor"),
    ({"use_post_norm": "yes"}, "use_post_norm is 'yes', not true or false"),
    ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1, not true or false"),
    ({"attention_bias": "no"}, "attention_bias is 'no', not true or false"),
    ({"mlp_bias": 0}, "mlp_bias is 0, not true or false"),
    (
        {"rope_scaling": {"type": "yarn", "factor": 4}},
        "rope_type is 'yarn' (known: 'default', 'linear', 'llama3')",
    ),
    ({"rope_scaling": {"rope_type": ["linear"]}}, "rope_type is ['linear'] (known"),
    ({"rope_scaling": "linear"}, "rope_scaling is 'linear', not one set for all layers"),
    ({"rope_parameters": {"full_attention": {"rope_theta": 1}}}, "not one set for all layers"),
    ({"rope_parameters": LINEAR, "rope_scaling": LLAMA3}, "rope_parameters and rope_scaling differ"),
    ({"rope_scaling": {"type": "linear"}}, "factor of rope_type 'linear' is None, not a positive number"),
    ({"rope_scaling": {**LLAMA3, "factor": -1}}, "factor of rope_type 'llama3' is -1, not a positive number"),
    ({"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}}, "high_freq_factor is not above low_freq_factor"),
    (
        {"rope_scaling": LLAMA3, "original_max_position_embeddings": 32},
        "original_max_position_embeddings is both 32 and 64",
    ),
    ({"rope_parameters": {"rope_theta": 1e4}}, "rope_theta is both 10000.0 and 50000000.0"),
    ({"rope_theta": None}, "rope_theta is missing"),
    ({"rope_theta": -1.0}, "rope_theta is -1.0, not a positive number"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5 (neutral: 1)"),
    ({"rope_parameters": {"rope_theta": 5e7, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types holds sliding_attention"),
    ({"layer_types": "sliding_attention"}, "layer_types holds sliding_attention"),
    ({"rms_norm_eps": None}, "rms_norm_eps is None, not a number between 0 and 1"),
    ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is '1e-5'"),
    ({"hidden_size": "64"}, "hidden_size is '64', not a size"),
    ({"num_hidden_layers": 0}, "num_hidden_layers is 0, not a size"),
    ({"num_hidden_layers": True}, "num_hidden_layers is True, not a size"),
    ({"head_dim": -24}, "head_dim is -24, not a size"),
    ({"head_dim": 23}, "head_dim is 23, and rotary embeddings turn pairs"),
    ({"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide 4 heads"),
    ({"max_position_embeddings": "32k"}, "max_position_embeddings is '32k', not a size"),
    ({"model_type": "qwen3"}, "model_type 'qwen3' is not converted; give one of hyperclovax, llama"),
    ({"model_type": "vlm"}, "model_type 'vlm' with a text_config of None is not converted"),
    ({"model_type": "hyperclovax_vlm"}, "model_type 'hyperclovax_vlm' with a language_config of None"),
    ({"quantization_config": {"bits": 4}}, "quantized already"),
    ({"model_type": "llama", "logits_scaling": 2.0}, "logits_scaling is 2.0, and a llama has none"),
    ({"model_type": "llama", "use_post_norm": True}, "use_post_norm is true, and a llama has none"),
    ({"logit_scale": 0.5}, "logit_scale is 0.5, and mlx-lm's llama and glm4 have none"),
    ({"dual_chunk_attention_config": {"chunk_size": 8}}, "dual_chunk_attention_config is {'chunk_size': 8}, and"),
    ({"interleaved_sliding_window": [64, None]}, "interleaved_sliding_window is [64, None], and mlx-lm's"),
    ({"sliding_window": 64}, "sliding_window is 64, and mlx-lm's llama and glm4 have none"),
    ({"sliding_window": "x", "use_sliding_window": True}, "sliding_window is 'x', and"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_be_expressed_is_refused_by_name(changes, message):
    error = refusal({**TEXT, **changes}, named(shapes_of()))
    assert error.startswith(f"{PATH}: ") and message in error


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "swish"},  # the same function
        {"sliding_window": 128},  # no token is further away
        {"sliding_window": 64, "use_sliding_window": False},
        {"logit_scale": 1.0, "interleaved_sliding_window": None, "dual_chunk_attention_config": {}},
        {"lr_multiplier": 2.0, "text_model_name_or_path": "x"},  # no loader reads them
        {"embedding_multiplier": 1 + 1e-9, "logits_scaling": 1 - 1e-9},  # 1 in float32, in which it is folded
        {"padded_vocab_size": 512, "vocab_size": 320},  # but the tensors are not padded
        {"attention_dropout": 0.1, "initializer_range": 0.02, "pretraining_tp": 1, "use_cache": True},
    ],
)
def test_what_changes_nothing_is_taken(changes):
    model = plan(**changes)
    assert model.config == plan().config and factors(model) == {} and model.folded == []


def test_padded_embeddings_are_taken_as_they_are():
    """NAVER's own code builds padded_vocab_size rows, whatever vocab_size says."""
    shapes = {name: (384, 64) if shape == (320, 64) else shape for name, shape in shapes_of().items()}
    assert plan(tensors=named(shapes), padded_vocab_size=384).config["vocab_size"] == 384
    assert "wanted is (320, 64)" in refusal({**TEXT, "padded_vocab_size": 512}, named(shapes))


@pytest.mark.parametrize("outer", ["vlm", "hyperclovax_vlm"])
@pytest.mark.parametrize("there", ["model.", ""])
def test_an_omni_model_is_its_text_part_with_or_without_the_outer_prefix(outer, there):
    """Source of the names: the converter of NAVER's OmniServe; vLLM strips the prefix where it is."""
    layout = ((part, f"{there}language_model.{part}") for part in ("model.", "lm_head."))
    parts = ("audio_model", "audio_projector", "discrete_audio_model", "discrete_vision_model", "mm_projector")
    parts = (*parts, "vision_model", "video_audio_compressor")
    tensors = named(shapes_of(), *layout) | {
        f"{there}{name}.a": Tensor(f"{there}{name}.a", "I64", ()) for name in parts
    }
    model = text_model({"model_type": outer, "text_config": TEXT}, tensors, PATH)
    assert model.config == plan().config and sum(model.left.values()) == 7 and model.left["projector"] == 2


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({"use_post_norm": False}, (), "use_post_norm is false, but there are post_norm1 or post_norm2 tensors"),
        ({"attention_bias": True}, ("self_attn",), "attention_bias is true, and glm4 has no bias in o_proj"),
        ({"mlp_bias": True}, ("mlp",), "mlp_bias is true, and glm4 has no bias there"),
        ({"rope_scaling": LINEAR, "rope_theta": 1e4}, (), "rope_type is 'linear', and glm4 knows none"),
    ],
)
def test_what_glm4_lacks_is_refused_by_name(changes, more, message):
    biases = {name: shape for name, shape in BIASES.items() if name.startswith(more)} if more else {}
    error = refusal({**TEXT, **changes}, named(shapes_of(POST_NORMS, biases)))
    assert message in error and "do not fit" not in error
    plan(biases, **{key: value for key, value in changes.items() if key != "use_post_norm"})  # as a llama


def test_post_norms_of_some_layers_only_are_missing_in_the_others():
    shapes = shapes_of(POST_NORMS)
    del shapes["model.layers.1.post_norm1.weight"], shapes["model.layers.1.post_norm2.weight"]
    error = refusal(TEXT, named(shapes))
    assert "missing model.layers.1.post_norm1.weight; missing model.layers.1.post_norm2.weight" in error
    del shapes["model.layers.0.post_norm2.weight"]
    error = refusal({**TEXT, "use_post_norm": True}, named(shapes))
    assert (
        "model.layers.0 to model.layers.1: missing post_norm2.weight; missing model.layers.1.post_norm1" in error
    )


def test_a_llama_has_no_post_norms():
    error = refusal({**TEXT, "model_type": "llama"}, named(shapes_of(POST_NORMS)))
    assert error.count("model.layers.0 to model.layers.1: unexpected post_norm") == 2


def test_gate_and_up_of_two_number_formats_cannot_be_joined():
    tensors = named(shapes_of(POST_NORMS))
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = Tensor(name, "F32", tensors[name].shape)
    gate = "model.layers.1.mlp.gate_proj.weight"
    assert f"{gate} holds BF16 and {name} F32, and glm4 joins the two" in refusal(TEXT, tensors)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = Tensor(name, "F32", tensors[name].shape)
    both = "model.layers.0 to model.layers.1: mlp.gate_proj.weight holds BF16 and model.layers.*.mlp.up_proj.weight F32"
    error = refusal(TEXT, tensors)
    assert both in error and error.count("glm4 joins the two") == 1


def test_every_fault_of_config_and_tensors_is_in_the_one_line():
    tensors = named(shapes_of(head=False))
    del tensors["model.layers.1.mlp.up_proj.weight"]
    for name, dtype, shape in (
        ("model.norm.weight", "BF16", (65,)),
        ("model.layers.0.input_layernorm.weight", "I32", (64,)),
        ("model.layers.2.input_layernorm.weight", "BF16", (64,)),
        ("vision_model.a", "BF16", (8,)),
    ):
        tensors[name] = Tensor(name, dtype, shape)
    error = refusal({**TEXT, "hidden_act": "relu", "residual_multiplier": 0, "rope_theta": None}, tensors)
    for part in (
        f"{PATH}: rope_theta is missing; residual_multiplier is 0, ",
        "hidden_act is 'relu'",
        f"{PATH.parent}: tensors do not fit config.json: ",
        "model.norm.weight has shape (65,), wanted is (64,)",
        "model.layers.0.input_layernorm.weight holds I32, wanted is BF16, F16, F32",
        "unexpected model.layers.2.input_layernorm.weight",
        "unexpected vision_model.a",
        "missing lm_head.weight",
        "missing model.layers.1.mlp.up_proj.weight",
    ):
        assert part in error
    assert error.count("; ") == 2 + 2 + 5 + 1  # faults of each file, remedies of both, and nothing else


def test_a_config_without_sizes_and_unknown_tensors_are_told_together():
    tensors = {**named(shapes_of()), "audio.weight": Tensor("audio.weight", "BF16", (8,))}
    error = refusal({**TEXT, "vocab_size": None}, tensors)
    assert "vocab_size is None, not a size" in error and "unexpected audio.weight" in error


def test_a_quantized_checkpoint_is_told_that_and_nothing_else():
    """Its tensors have other shapes: thousands of lines that would hide the one that helps."""
    error = refusal({"model_type": "qwen3", "quantization": {"bits": 8}}, {})
    assert error.endswith("this checkpoint is quantized already; give the bfloat16 one")


def test_layers_that_are_not_there_are_told_in_runs():
    error = refusal({**TEXT, "num_hidden_layers": 10**18}, named(shapes_of()))
    assert f"missing every tensor of model.layers.2 to model.layers.{10**18 - 1};" in error
    shapes = {name: shape for name, shape in shapes_of(layers=4).items() if ".layers.2." not in name}
    error = refusal({**TEXT, "num_hidden_layers": 4}, named(shapes))
    assert "tensors do not fit config.json: missing every tensor of model.layers.2;" in error


@pytest.mark.parametrize(
    ("settings", "parts", "most"),
    [
        ({"head_dim": 12}, ["model.layers.0 to model.layers.71: self_attn.q_proj.weight has shape "], 1000),
        ({"num_hidden_layers": 36}, ["model.layers.36 to model.layers.71: unexpected mlp.up_proj.weight;"], 1100),
        ({"attention_bias": True}, ["model.layers.0 to model.layers.71: missing self_attn.o_proj.bias;"], 700),
        ({"model_type": "hyperclovax_vlm"}, ["model.layers.0 to model.layers.71: unexpected mlp.up_proj.weight;"], 1100),
    ],
)  # fmt: skip
def test_a_setting_that_no_layer_fits_is_told_once_for_all_layers(settings, parts, most):
    """Else one wrong number makes a line of 23 kB."""
    config = {**TEXT, "num_hidden_layers": 72, **settings}
    config = config if "model_type" not in settings else {"model_type": "vlm", "text_config": TEXT}
    error = refusal(config, named(shapes_of(layers=72)))
    assert not [part for part in parts if part not in error] and len(error) < most, (len(error), error)


def test_layers_of_one_fault_are_listed_whole_and_in_runs():
    tensors = named(shapes_of(layers=8), *HUB)
    for number in (0, 1, 2, 5, 7):
        name = f"model.language_model.model.layers.{number}.mlp.up_proj.weight"
        tensors[name] = Tensor(name, "BF16", (4, 64))
    tensors |= named({f"model.layers.{number}.mlp.gate_proj.weight": (40, 64) for number in (3, 4)}, *SAVED)
    error = refusal({"model_type": "vlm", "text_config": {**TEXT, "num_hidden_layers": 8}}, tensors)
    place, saved = "model.language_model.model.layers.", "model.language_model.layers."
    assert f"{place}0 to {place}2, {place}5, {place}7: mlp.up_proj.weight has shape (4, 64), wanted is " in error
    twice = f"{saved}3 to {saved}4: mlp.gate_proj.weight is there twice, also as {place}*.mlp.gate_proj.weight"
    assert twice in error and error.count("; ") == 2


def test_a_tensor_under_two_names_is_refused():
    tensors = named(shapes_of(), *HUB) | named({"model.norm.weight": (64,)}, *SAVED)
    error = refusal({"model_type": "vlm", "text_config": TEXT}, tensors)
    assert (
        "model.language_model.norm.weight is there twice, also as model.language_model.model.norm.weight" in error
    )


def test_a_name_with_line_breaks_stays_in_the_line():
    assert "unexpected 'a\\nb'" in refusal(TEXT, {**named(shapes_of()), "a\nb": Tensor("a\nb", "BF16", (8,))})


def test_gaps_are_runs_of_missing_numbers():
    assert keymaps.gaps([], 3) == [(0, 2)] and keymaps.gaps([0, 1, 2], 3) == []
    assert keymaps.gaps([1, 4, 5], 9) == [(0, 0), (2, 3), (6, 8)]


def test_comments_go_and_strings_stay(tmp_path):
    path = tmp_path / "config.json"
    text = '{ # one\n "a#b": "# \\" # no comment", # "two"\n# three\n "c": 1}# four'
    path.write_text(text, encoding="utf-8")
    assert read_config(path) == {"a#b": '# " # no comment', "c": 1}
    assert textconfig.without_comments(text).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{\n# comment\n"a": }', ":3: not valid JSON (Expecting value); download it again"),
        (b"[1]", ":1: not a JSON object"),
        (b'{"a": "\xff"}', ": not UTF-8 (byte 7)"),
        (b'{"a": ' + b"9" * 5000 + b"}", ":1: not valid JSON (Exceeds the limit"),
        (b"[" * 100_000, ":1: not valid JSON (maximum recursion depth exceeded"),
        (b"version https://git-lfs.github.com/spec/v1\n", ": a git-lfs pointer"),
    ],
)
def test_what_is_no_config_is_refused_with_its_line(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(LabError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(LabError, match="config.json: no such file; give the folder of a checkpoint"):
        read_config(tmp_path / "config.json")
