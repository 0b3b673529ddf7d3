"""Adapters in mlx-lm's own form: save whole, check before use, load all or nothing.

A folder holds adapter_config.json and adapters.safetensors. mlx-lm accepts a file that lacks half of the tensors, or has
another rank, in silence; nothing here does.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.dora import DoRAEmbedding, DoRALinear
from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers
from safetensors import SafetensorError, safe_open

from lab import storage
from lab.cli import LabError, read_json

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
WRAPPERS = {LoRALinear: "linear", DoRALinear: "linear", LoRAEmbedding: "embedding", DoRAEmbedding: "embedding"}
SHAPING = (
    "fine_tune_type",
    "num_layers",
    "lora_parameters",
)  # what decides an adapter's tensors and their meaning


def read_config(folder):
    """The adapter_config.json of `folder`, with mlx-lm's defaults filled in. Raises LabError when it is unusable."""
    path = Path(folder) / CONFIG
    config = read_json(path, "name the folder that a training run wrote")
    config.setdefault("fine_tune_type", "lora")
    if config["fine_tune_type"] != "full":
        problems = [key for key in SHAPING if key not in config]
        wanted = ("rank", "scale")
        problems += [
            f"lora_parameters.{key}" for key in wanted if key not in (config.get("lora_parameters") or {})
        ]
        if problems:
            raise LabError(f"{path}: no {', '.join(problems)}; train the adapter again or copy its own config")
        config["lora_parameters"].setdefault("dropout", 0.0)
    return config


def read_weights(file):
    """The tensors of an adapter file as {name: array}, every value finite. Raises LabError when it is unusable."""
    file = Path(file)
    if not file.is_file():
        raise LabError(f"{file}: no such file; train the adapter first (make cpt, make sft) or mend the path")
    try:
        tensors = mx.load(str(file))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(f"{file}: not a whole safetensors file ({reason}); train the adapter again") from error
    if bad := [name for name, value in tensors.items() if not mx.all(mx.isfinite(value)).item()]:
        raise LabError(f"{file}: not finite: {'; '.join(sorted(bad))}; the run that wrote it had diverged")
    return tensors


@dataclass(frozen=True)
class Origin:
    """What a model object cannot say of itself: whether its folder holds quantized weights, what a full adapter took off.

    No array, list or dict, so that MLX does not take it for parameters.
    """

    quantized: bool = False
    replaced: tuple = ()


def note_quantization(model, config):
    """Keep with `model` what its config.json says: on the CPU its layers are dequantized and do not show it."""
    model.origin = Origin(quantized=any(config.get(key) for key in ("quantization", "quantization_config")))


def _origin(model):
    return getattr(model, "origin", Origin())


def add_layers(model, config):
    """Freeze `model` and give it the trainable parts that an adapter config describes.

    Raises LabError for layers that the model does not have, and for a full adapter on a quantized model.
    """
    model.freeze()
    if config["num_layers"] > len(model.layers):
        raise LabError(
            f"num_layers {config['num_layers']}: the model has {len(model.layers)}; use at most that, or -1"
        )
    if config["fine_tune_type"] == "full":
        if _origin(model).quantized:
            raise LabError("fine_tune_type full: the model is quantized; convert it with --no-quantize first")
        for layer in model.layers[-max(config["num_layers"], 0) :]:
            layer.unfreeze()
        return
    use_dora = config["fine_tune_type"] == "dora"
    linear_to_lora_layers(model, config["num_layers"], config["lora_parameters"], use_dora=use_dora)
    if not tree_flatten(model.trainable_parameters()):
        keys = config["lora_parameters"].get("keys")
        raise LabError(f"lora_parameters.keys {keys}: no layer has such a name; use some of {_layer_names(model)}")


def _layer_names(model):
    """The names that lora_parameters.keys may hold, in words."""
    kinds = (nn.Linear, nn.QuantizedLinear)
    return ", ".join(sorted(name for name, part in model.layers[0].named_modules() if isinstance(part, kinds)))


def load_weights(model, file):
    """Put the tensors of an adapter file into the trainable parameters of `model`: all of them, or none and a LabError.

    Every missing, unexpected or mis-shaped tensor is listed.
    """
    tensors, expected = read_weights(file), dict(tree_flatten(model.trainable_parameters()))
    problems = [f"{name}: missing" for name in sorted(expected.keys() - tensors.keys())]
    problems += [
        f"{name}: not a part of this model's adapter" for name in sorted(tensors.keys() - expected.keys())
    ]
    for name in sorted(tensors.keys() & expected.keys()):
        found, wanted = tuple(tensors[name].shape), tuple(expected[name].shape)
        if found != wanted:
            problems.append(f"{name}: shape {found}, this model and rank need {wanted}")
    if problems:
        raise LabError(
            f"{file}: does not fit ({len(problems)} tensors), train it again for this model: {'; '.join(problems)}"
        )
    model.load_weights(list(tensors.items()), strict=False)


def apply(model, folder):
    """Put the adapter of `folder` on a bare model, checked."""
    config, file = read_config(folder), Path(folder) / WEIGHTS
    if (written := shape_written(file)) not in (None, shape_of(config)):
        raise LabError(
            f"{file}: written for {written}, {CONFIG} beside it says {shape_of(config)}; train it again"
        )
    add_layers(model, config)
    bare = tuple(tree_flatten(model.trainable_parameters())) if config["fine_tune_type"] == "full" else ()
    load_weights(model, file)
    model.origin = replace(_origin(model), replaced=bare)
    model.eval()


def remove(model):
    """Take what `apply` put on off `model`, so that it is the base again."""
    bare = []
    for name, module in model.named_modules():
        if inner := WRAPPERS.get(type(module)):
            bare.append((name, module[inner]))
    if bare:
        model.update_modules(tree_unflatten(bare))
    origin = _origin(model)
    if origin.replaced:  # a full adapter: the base's own weights, kept by `apply`
        model.load_weights(list(origin.replaced), strict=False)
        model.origin = replace(origin, replaced=())
    model.freeze()


def set_aside(model):
    """Bytes of the base's own weights that a full adapter took the place of, kept for `remove`."""
    return sum(value.nbytes for _, value in _origin(model).replaced)


def save(folder, tensors, config):
    """Write an adapter so that a crash at any moment leaves the old one, the new one, or a pair that `apply` refuses.

    `tensors` is {name: array}; `config` goes to adapter_config.json. The file of tensors says for which config it was
    written, so that new tensors beside an old config (another scale, say) are never used in silence.
    """
    folder = Path(folder)
    save_tensors(folder / WEIGHTS, tensors, {"lab_shape": shape_of(config)})
    storage.replace_file(folder / CONFIG, [storage.as_json(config)])


def shape_of(config):
    """What decides the meaning of an adapter's tensors, as one line of JSON; dropout does not."""
    parameters = {key: value for key, value in (config.get("lora_parameters") or {}).items() if key != "dropout"}
    parameters = {key: value for key, value in parameters.items() if value is not None}
    content = {key: config.get(key) for key in SHAPING} | {"lora_parameters": parameters}
    return json.dumps(content, sort_keys=True)


def shape_written(file):
    """The shape that an adapter file says it was written for, or None for one that says nothing (mlx-lm's own)."""
    try:
        with safe_open(str(file), "numpy") as tensors:
            return (tensors.metadata() or {}).get("lab_shape")
    except (OSError, SafetensorError):
        return None  # read_weights says what is wrong with it


def save_tensors(path, tensors, metadata=None):
    """Write {name: array} as one safetensors file, atomically."""
    storage.replace_file(path, storage.as_safetensors(tensors, metadata))


def describe(config):
    """One line for people: "lora, rank 4, scale 20, all layers"."""
    layers = "all layers" if config["num_layers"] < 0 else f"last {config['num_layers']} layers"
    if config["fine_tune_type"] == "full":
        return f"full, {layers}"
    parameters = config["lora_parameters"]
    keys = parameters.get("keys")
    where = f" of {json.dumps(keys)}" if keys else ""
    kind, rank, scale = config["fine_tune_type"], parameters["rank"], parameters["scale"]
    return f"{kind}, rank {rank}, scale {scale:g}, dropout {parameters.get('dropout', 0):g}, {layers}{where}"
