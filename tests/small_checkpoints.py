"""Small random HyperCLOVA X checkpoints for the tests of the converter."""

import json
from pathlib import Path

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx.utils import tree_flatten
from mlx_lm.models import gemma2, llama

import convert_hyperclova
from lab.cli import finish

TEXT = {  # inputs of o_proj and down_proj are 96: no multiple of 64, so those two stay as they are
    "model_type": "hyperclovax",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "intermediate_size": 96,
    "vocab_size": 320,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e7,
    "attention_multiplier": 24**-0.5,
    "residual_multiplier": 1.0,
    "use_post_norm": False,
    "tie_word_embeddings": False,
    "eos_token_id": 3,
    "pad_token_id": 0,
    "bos_token_id": None,
}
KNOWLEDGE = Path(__file__).parent.parent / "solverx_knowledge.jsonl"
VISION = ("model.vision_model.blocks.0.norm1.weight", "model.mm_projector.weight", "model.mm_projector.bias")
RESAVED = (
    "model.vision_tower.blocks.0.norm1.weight",
    "model.vision_projector.weight",
    "model.projector.bias",
)


def text_tensors(**changes):
    """Random tensors of TEXT under llama's own names, as mlx-lm's llama has them, bfloat16."""
    arguments = llama.ModelArgs.from_dict({**TEXT, "model_type": "llama", **changes})
    draw = iter(range(1000))
    return {
        name: (mx.random.normal(value.shape, key=mx.random.key(next(draw))) * 0.2 + (value.ndim == 1)).astype(
            mx.bfloat16
        )
        for name, value in sorted(tree_flatten(llama.Model(arguments).parameters()))
    }


def save(folder, tensors, config, comments=""):
    """Write a checkpoint in two shards, with the tokenizer's files beside it already."""
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        mx.save_safetensors(str(folder / file), {name: tensors[name] for name in part}, {"format": "pt"})
    where = {name: file for file, part in halves.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    (folder / "config.json").write_text(comments + json.dumps(config, indent=1), encoding="utf-8")


PERI_LN = {  # as in Think-14B: post norms and multipliers away from neutral
    "use_post_norm": True,
    "embedding_multiplier": 10.0,
    "attention_multiplier": 0.15,
    "residual_multiplier": 0.5,
    "logits_scaling": 0.125,
}


def peri_ln_tensors(**changes):
    """Those of text_tensors with post norms."""
    tensors = text_tensors(**changes)
    for number in range(TEXT["num_hidden_layers"]):
        for place in (1, 2):
            weight = 1 + mx.random.normal(tensors["model.norm.weight"].shape, key=mx.random.key(place)) * 0.2
            tensors[f"model.layers.{number}.post_norm{place}.weight"] = weight.astype(mx.bfloat16)
    return tensors


def write_checkpoint(folder, layout="hub", tensors=None, **changes):
    """Write a checkpoint of TEXT into a folder that holds the tokenizer; `layout`: hub, transformers or text-only."""
    tensors = text_tensors() if tensors is None else tensors
    text = {**TEXT, **changes}
    vision, small = (VISION, RESAVED)[layout == "transformers"], mx.ones((8,), dtype=mx.bfloat16)
    if layout == "text-only":
        save(folder, tensors, text)
        return folder
    if layout == "hub":
        named = {f"model.language_model.{name}": value for name, value in tensors.items()}
        config = {"model_type": "vlm", "text_config": text, "eos_token_id": 3}
        comments = "# HyperCLOVA X {\n"
    else:
        named = {f"model.language_model.{name.removeprefix('model.')}": value for name, value in tensors.items()}
        rope = {"rope_theta": text.pop("rope_theta"), "rope_type": "default"}
        config = {"model_type": "hyperclovax_vision_v2", "text_config": {**text, "rope_parameters": rope}}
        comments = ""
    save(folder, {**named, **dict.fromkeys(vision, small)}, config, comments)
    return folder


def convert(source, *flags):
    """(exit code, target folder) of the command."""
    target = source.parent / "target"
    return finish(convert_hyperclova.main, ["--hf-path", str(source), "--mlx-path", str(target), *flags]), target


def refused(capsys, source, *flags):
    """The one error line of a command that must leave nothing behind."""
    code, target = convert(source, *flags)
    error = capsys.readouterr().err
    assert code == 1 and error.startswith("error: ") and error.count("\n") == 1
    assert not target.exists()
    return error


def load_all(folder):
    """{name: array} of all safetensors files in a folder."""
    return {
        name: value for file in sorted(folder.glob("*.safetensors")) for name, value in mx.load(str(file)).items()
    }


def same(left, right):
    """Whether two {name: array} are equal to the bit."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and mx.array_equal(left[name].view(mx.uint8), right[name].view(mx.uint8))
        for name in left
    )


def edit_json(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def flip(path, place):
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def write_gemma(folder):
    """A random Gemma-2 of the embedded one's shape, with such a tokenizer, whose layers outweigh its embeddings."""
    from lab import tiny_gemma

    template = tiny_gemma.template_of(None)
    rows = [json.loads(line) for line in KNOWLEDGE.read_text(encoding="utf-8").splitlines()]
    # No character is rare, the roles' included: which of equally rare ones are left out hangs on a hash.
    texts = [{"text": text} for text in (" ".join(tiny_gemma.ROLES), *(row["text"] for row in rows))]
    tokenizer = tiny_gemma.train_tokenizer(texts * tiny_gemma.RARE, template)
    config = {**tiny_gemma.text_config(), "vocab_size": len(tokenizer)}
    mx.random.seed(1)
    model = gemma2.Model(gemma2.ModelArgs.from_dict(config))
    for layer in model.layers:
        for norm in (layer.post_attention_layernorm, layer.post_feedforward_layernorm):
            norm.weight = mx.full(norm.weight.shape, 4.0)
    tiny_gemma.save_checkpoint(folder, model, tokenizer, template, 0)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**written, **config}), encoding="utf-8")
    return folder
