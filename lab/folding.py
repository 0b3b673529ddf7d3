"""From the tensors of a HyperCLOVA X text model to those of mlx-lm's llama or glm4, multipliers folded in.

The stock models know no multipliers, but each acts on the output of a linear layer, norm or embedding, so that
the weights (and biases) can take it up. Plain Python: what is to be done, and in words; no value is touched.
"""

from dataclasses import dataclass

from lab.checkpoints import Tensor
from lab.keymaps import EMBEDDING, HEAD

FOLDED = {  # multiplier -> the modules that take it up
    "embedding_multiplier": ("model.embed_tokens",),
    "attention_multiplier": ("self_attn.q_proj",),  # times the root of head_dim, by which mlx-lm divides
    "logits_scaling": ("lm_head",),
}
RESIDUAL = {False: ("self_attn.o_proj", "mlp.down_proj"), True: ("post_norm1", "post_norm2")}  # with post norms?
GLM4_NAMES = {"post_norm1": "post_self_attn_layernorm", "post_norm2": "post_mlp_layernorm"}
GATE, UP, BOTH = "mlp.gate_proj", "mlp.up_proj", "mlp.gate_up_proj"


@dataclass(frozen=True)
class Piece:
    """Rows taken from one source tensor, multiplied by `factor` in float32; 1.0: not touched, to the bit."""

    tensor: Tensor
    factor: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """An output tensor before quantization, by mlx-lm's name: the rows of the pieces one below another."""

    name: str
    shape: tuple
    pieces: tuple


def make_recipes(text, factors, post_norms, untie):
    """The recipes for {plain name: Tensor} `text`, in its order, as llama or, with post norms, as glm4.

    `factors` is {multiplier: factor}; `untie`: make an lm_head of the embeddings.
    """
    recipes = []
    for name, tensor in text.items():
        pieces = [Piece(tensor, factor_of(name, factors, post_norms))]
        if post_norms and UP in name:
            continue  # goes with its gate
        if post_norms and GATE in name:
            pieces.append(Piece(text[name.replace(GATE, UP)]))
        rows = sum(piece.tensor.shape[0] for piece in pieces)
        here = mlx_name(name, post_norms).replace(GATE, BOTH) if post_norms else name
        recipes.append(Recipe(here, (rows, *tensor.shape[1:]), tuple(pieces)))
        if untie and name == EMBEDDING:
            recipes.append(
                Recipe(HEAD, tuple(tensor.shape), (Piece(tensor, factor_of(HEAD, factors, post_norms)),))
            )
    return recipes


def mlx_name(name, post_norms):
    """What mlx-lm calls the tensor or module with that plain name."""
    for there, here in GLM4_NAMES.items() if post_norms else ():
        name = name.replace(there, here)
    return name


def modules_of(multiplier, post_norms):
    """The modules that take up a multiplier, by parts of their plain names."""
    return RESIDUAL[post_norms] if multiplier == "residual_multiplier" else FOLDED[multiplier]


def factor_of(name, factors, post_norms):
    """The factor of the tensor with that plain name; no tensor takes up two."""
    module = "." + name.rpartition(".")[0]
    found = (
        value
        for key, value in factors.items()
        for part in modules_of(key, post_norms)
        if module.endswith(f".{part}")
    )
    return next(found, 1.0)


def describe(text, factors, post_norms, untie):
    """What was folded into which weights, as sentences; `text` is the config of the text model."""
    said = []
    for key, factor in factors.items():
        modules = " and ".join(mlx_name(part, post_norms) for part in modules_of(key, post_norms))
        where = modules if key in ("embedding_multiplier", "logits_scaling") else f"{modules} of every layer"
        times = (
            f" (as {factor!r}: mlx-lm divides by the root of head_dim)" if key == "attention_multiplier" else ""
        )
        said.append(f"{key} {text[key]!r} into {where}{times}")
    if untie:
        reason = "glm4 has no tied embeddings" if post_norms else "the two take up different multipliers"
        said.append(f"lm_head made of the tied model.embed_tokens: {reason}")
    return said
