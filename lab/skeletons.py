"""A model's shape without its weights: every layer in place, nothing computed, a second for 32B and a few kilobytes.

MLX makes arrays when they are needed. So what is wrong with a run's settings for this model, and what it will weigh, are
known before gigabytes are read.
"""

import re

from lab.device import computes_in_float32  # isort: skip  (first: it puts the fast BLAS in front)
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm import utils as mlx_lm_utils
from mlx_lm.models.switch_layers import SwitchLinear

from lab import adapters
from lab.cli import LabError
from lab.hub import model_folder

LINEAR = (nn.Linear, SwitchLinear)
ADAPTER = re.compile(r"\.(lora_a|lora_b|m)$")


def skeleton(model_path):
    """The model of a folder or an id on the hub with no weights, unquantized; `args` are its dimensions. Raises LabError as loading does."""
    folder = model_folder(model_path)
    try:
        config = mlx_lm_utils.load_config(folder)
        model_class, args_class = mlx_lm_utils._get_classes(config)
        model = model_class(args_class.from_dict(config))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise LabError(f"{model_path}: cannot load ({reason}); convert it again") from error
    adapters.note_quantization(model, config)
    return model


def name_modules(model, keys):
    """The full names, as mlx-lm wants them, of the layers that `keys` name in full or by their ends: q_proj, say.

    Raises LabError, with the names there are, for one that no layer has.
    """
    known = {name for layer in model.layers for name, part in layer.named_modules() if isinstance(part, LINEAR)}
    whole = {name for name, part in model.named_modules() if isinstance(part, (*LINEAR, nn.Embedding))}
    found = []
    for key in keys:
        matches = sorted(name for name in known if f".{name}".endswith(f".{key}")) or sorted({key} & whole)
        if not matches:
            raise LabError(
                f"target module {key}: no layer has such a name; use some of {', '.join(sorted(known))}"
            )
        found += [name for name in matches if name not in found]
    return found


def linear_outputs(layer, experts=1):
    """How many outputs each linear part of a transformer layer has; `experts` of a mixture are computed."""
    parts = [part for _, part in layer.named_modules() if isinstance(part, LINEAR)]
    return [part.weight.shape[-2] * (experts if isinstance(part, SwitchLinear) else 1) for part in parts]


def size_of(tree):
    """How many numbers a tree of arrays holds."""
    return sum(value.size for _, value in tree_flatten(tree))


def weight_bytes(model, model_path):
    """Bytes of the base model on this device: as the folder stores them, or in float32 (see lab.models.load)."""
    if not computes_in_float32():
        return sum(path.stat().st_size for path in model_folder(model_path).glob("model*.safetensors"))
    return 4 * size_of(
        {name: value for name, value in tree_flatten(model.parameters()) if not ADAPTER.search(name)}
    )
