"""HyperCLOVA X SEED checkpoints as mlx-lm's stock `llama` or `glm4`: what each output tensor is made of.

The text model is term for term a llama or, with post norms (Peri-LN), a glm4; multipliers (MuP) are folded into
the weights (source: transformers 5.23, models/hyperclovax). What cannot be expressed is refused by name, never
guessed. Plain Python on config and headers: no value is touched.
"""

from collections import Counter
from dataclasses import dataclass

from lab import folding, keymaps
from lab.cli import LabError
from lab.folding import Piece, Recipe
from lab.headers import shown
from lab.textconfig import VISION_V2, read_config, read_settings

__all__ = ["Piece", "Recipe", "TextModel", "read_config", "text_model"]
OPTIONAL = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class TextModel:
    """How to make the text model of a checkpoint.

    `config` is mlx-lm's config.json without quantization and dtype; `recipes` are in the order in which the
    source is read, that of their first pieces; `left` is {what: how many tensors left out}; `folded` holds
    sentences for the model card; `family` says what kind of checkpoint it is, for people. `ends` is a turn_ends.Ends,
    once the files beside the weights are known.
    """

    config: dict
    recipes: list
    left: dict
    folded: list
    family: str
    ends: object = None

    @property
    def dtype(self):
        """The number format, as safetensors names it, of most numbers that are read: norms may be kept in another one."""
        numbers = Counter()
        for piece in (piece for recipe in self.recipes for piece in recipe.pieces):
            numbers[piece.tensor.dtype] += piece.tensor.size
        return max(numbers, key=numbers.get)


def text_model(config, tensors, path):
    """The TextModel of a checkpoint: `config` is its config.json's content, `tensors` {name: Tensor}.

    `path` is that config.json, for messages. Raises LabError that lists every fault of config and tensors.
    """
    settings = read_settings(config, path)
    text, left, misfits = keymaps.sort_tensors(tensors, keymaps.VISION if settings.container else keymaps.TEXT)
    post_norms, tied = _has_post_norms(settings, text), _is_tied(settings, text)
    if post_norms:
        settings.faults += _not_in_glm4(settings)
        misfits += _unlike_pairs(text)
    if settings.sizes:
        _take_padding(settings, text)
        layer = keymaps.layer_shapes(settings.sizes, post_norms, settings.attention_bias, settings.mlp_bias)
        misfits += keymaps.misfits(text, settings.sizes, layer, head=not tied)
    _refuse(settings.faults, misfits, path)
    untie = tied and (
        post_norms or not settings.factors.keys().isdisjoint(("embedding_multiplier", "logits_scaling"))
    )
    return TextModel(
        mlx_config(settings, post_norms, tied and not untie),
        folding.make_recipes(text, settings.factors, post_norms, untie),
        dict(sorted(left.items())),
        folding.describe(settings.text, settings.factors, post_norms, untie) + _kept_head(settings, tied),
        settings.family,
    )


def _has_post_norms(settings, text):
    """use_post_norm's default differs between versions, so the tensors must bear it out."""
    found = keymaps.has_post_norms(text)
    if settings.post_norms and not found:
        settings.faults.append("use_post_norm is true, but there is no post_norm1 or post_norm2 tensor")
    if settings.post_norms is False and found:
        settings.faults.append("use_post_norm is false, but there are post_norm1 or post_norm2 tensors")
    return found and settings.kind != "llama"


def _take_padding(settings, text):
    """NAVER's own code and vLLM build the embeddings with padded_vocab_size rows where it is given, transformers does not."""
    padded, table = settings.text.get("padded_vocab_size"), text.get(keymaps.EMBEDDING)
    if table is not None and table.shape[:1] == (padded,):
        settings.sizes["vocab_size"] = padded


def _is_tied(settings, text):
    """Whether the embeddings serve as lm_head, too: so it is said, and the file has no lm_head.

    An lm_head in the file is used whatever is said, as in transformers 5.23, so that a copy costs memory and another
    one counts. Around a Think-32B transformers goes by the outer setting, and saves true there by default.
    """
    outer = settings.tied_outside if settings.container in VISION_V2 else None
    return keymaps.HEAD not in text and bool(settings.tied if outer is None else outer)


def _kept_head(settings, tied):
    if tied or not settings.tied or settings.tied_outside is False:
        return []
    return ["lm_head is that of the file, although config.json says that it is tied"]


def _not_in_glm4(settings):
    said = {
        "attention_bias is true, and glm4 has no bias in o_proj": settings.attention_bias,
        "mlp_bias is true, and glm4 has no bias there": settings.mlp_bias,
        f"rope_type is {(settings.rope_scaling or {}).get('rope_type')!r}, and glm4 knows none": settings.rope_scaling,
    }
    return [f"{what} (mlx-lm's model with post norms)" for what, found in said.items() if found]


def _unlike_pairs(text):
    """Faults: gate and up, which glm4 holds in one tensor, of different number formats."""
    pairs = [(gate, text.get(name.replace(folding.GATE, folding.UP), gate)) for name, gate in text.items()]
    unlike = [(gate, up) for gate, up in pairs if gate.dtype != up.dtype]
    words = [f" holds {gate.dtype} and {shown(up.name)} {up.dtype}, and glm4 joins the two" for gate, up in unlike]
    return keymaps.told([("", gate.name, after) for (gate, _), after in zip(unlike, words, strict=True)])


def _refuse(faults, misfits, path):
    """Raise LabError with every fault of the config and every misfit of the tensors, where there is one."""
    said = []
    if faults:
        what = "only what mlx-lm's stock llama or glm4 computes is converted"
        said.append(f"{path}: {'; '.join(faults)}; {what}: mend the file or use another checkpoint")
    if misfits:
        listed = "; ".join(misfits)
        said.append(f"{path.parent}: tensors do not fit config.json: {listed}; download it again, or mend that")
    if said:
        raise LabError("; ".join(said))


def mlx_config(settings, post_norms, tied):
    """mlx-lm's config.json of the text model, without quantization and dtype."""
    optional = {
        "rope_scaling": settings.rope_scaling,
        "max_position_embeddings": settings.text.get("max_position_embeddings"),
        **{key: settings.first(key) for key in OPTIONAL},
    }
    return {
        "architectures": ["Glm4ForCausalLM" if post_norms else "LlamaForCausalLM"],
        "model_type": "glm4" if post_norms else "llama",
        **settings.sizes,
        "hidden_act": "silu",
        "rms_norm_eps": settings.eps,
        "rope_theta": settings.theta,
        **({"partial_rotary_factor": 1.0, "rope_traditional": False} if post_norms else {}),
        "attention_bias": bool(settings.attention_bias),
        "mlp_bias": bool(settings.mlp_bias),
        # Written out: mlx-lm's llama takes true where it is missing, and then drops lm_head in silence.
        "tie_word_embeddings": tied,
        **{key: value for key, value in optional.items() if value is not None},
    }
